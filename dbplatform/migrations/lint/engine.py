"""Lint: squawk's findings in migration files, each with its place, and those that somebody accepted with a reason.

A finding is accepted by a comment ``-- dbplatform:accept <rule>, <rule>: <reason>`` above a statement or on one of its
lines, by ``lint.accept`` in the declaration (for files that are applied: Flyway's checksum counts their comments), and
by the ``dbplatform:allow`` that a destructive statement needs anyway. What counts at all: ``rules``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dbplatform.migrations import classify
from dbplatform.migrations.errors import ScriptError, UnknownRule
from dbplatform.migrations.files import Migration
from dbplatform.migrations.lint.rules import (
    ALLOWED_BY,
    LEFT_OUT,
    MORE_EXACT,
    OF_EXISTING_ROWS,
    RULES,
    TASTE,
    UNUSED,
    takes_away,
)
from dbplatform.migrations.lint.squawk import Remark, remarks
from dbplatform.migrations.placeholders import Placeholders
from dbplatform.migrations.plan import runs_in_transaction
from dbplatform.migrations.policy import AcceptedFinding, MigrationPolicy
from dbplatform.migrations.statements import Comment, Script, Statement, split
from dbplatform.postgres.connection import AnyConnection

_ACCEPT = re.compile(r"\s*dbplatform:\s*accept\b(?P<rest>.*)", re.IGNORECASE)
_WRITTEN = re.compile(r"\s*(?P<rules>[a-z0-9-]+(?:\s*,\s*[a-z0-9-]+)*)\s*:\s*(?P<reason>\S.*?)\s*")
_GRAMMAR = "Write: -- dbplatform:accept <rule>: <reason>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding in one file, open or accepted."""

    file: str
    line: int
    column: int
    """From 1, in characters of the line after its placeholders are replaced."""
    rule: str
    level: str
    """``warning`` or ``error``."""
    message: str
    help: str | None
    script: str | None = None
    """The file as the history names it; none for what the declaration says."""
    reason: str | None = None
    """Why it is accepted; none: it is open."""

    @property
    def status(self) -> str:
        return "open" if self.reason is None else "accepted"

    def as_json(self) -> dict[str, Any]:
        """One of ``findings`` in ``migrate lint --json`` and ``migrate plan --json``."""
        names = ("file", "line", "column", "rule", "level", "message", "help", "status", "reason")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    """What was found in the files, in their order."""

    database: str
    server_major: int | None
    """The version for which the files were judged; none: no server was asked."""
    files: int
    findings: tuple[Finding, ...]

    @property
    def open(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.reason is None)

    @property
    def accepted(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.reason is not None)

    def of(self, script: str) -> tuple[Finding, ...]:
        """The findings of one file, by its name in the history."""
        return tuple(finding for finding in self.findings if finding.script == script)

    def as_json(self) -> dict[str, Any]:
        """The shape of ``migrate lint --json``."""
        return {
            "database": self.database,
            "server_major": self.server_major,
            "files": self.files,
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class _File:
    """A file in the form in which it runs."""

    migration: Migration
    text: str
    script: Script

    @classmethod
    def read(cls, migration: Migration, placeholders: Placeholders, *, backslashes: bool) -> _File:
        text = placeholders.replaced(migration)
        script = split(text, file=migration.path, backslashes=backslashes)
        classify.refuse_transaction_control(script, file=migration.path)
        return cls(migration, text, script)


@dataclass(slots=True)
class _Acceptance:
    """A rule that a comment accepts on some lines."""

    rule: str
    reason: str
    line: int
    """Of the comment."""
    lines: range
    """Of what it accepts."""
    used: bool = False


def lint_files(
    files: Sequence[Migration],
    policy: MigrationPolicy,
    connection: AnyConnection | None,
    *,
    shown: Callable[[Path], str] = str,
) -> tuple[list[Finding], list[AcceptedFinding]]:
    """The findings in the files, and what of ``lint.accept`` accepted none of them.

    Each file is judged as it runs: with its placeholders, in a transaction or not, by the version of the server; by the
    newest version without a connection. ``shown`` is how a finding names its file. Raises ``LintCouldNotRun``,
    ``UnknownRule``, and as ``plan.read_pending`` for what can never run; that something destroys is a finding.
    """
    major, backslashes = None, False
    if connection is not None:
        major = connection.info.server_version // 10000
        backslashes = connection.info.parameter_status("standard_conforming_strings") == "off"
    # On one line each, so that every line of a file keeps its number.
    values = {name: " ".join(value.splitlines()) for name, value in policy.placeholders.items()}
    placeholders = Placeholders(connection, values, policy.history_table)
    read = [_File.read(migration, placeholders, backslashes=backslashes) for migration in files]
    remarked = _remarks(read, major)
    judge = _Judge(policy, seen={remark.rule for found in remarked for remark in found}, shown=shown)
    findings = [finding for file, found in zip(read, remarked, strict=True) for finding in judge.findings(file, found)]
    return findings, judge.idle


def _remarks(files: Sequence[_File], major: int | None) -> list[list[Remark]]:
    """Squawk's remarks on each of the files, asked once for those in a transaction and once for the others."""
    found: list[list[Remark]] = [[] for _ in files]
    alone = [runs_in_transaction(file.migration, file.script.statements) for file in files]
    for in_transaction in (True, False):
        chosen = [number for number, kind in enumerate(alone) if kind is in_transaction]
        texts = [_without_data(files[number]) for number in chosen]
        for remark in remarks(texts, server_major=major, in_transaction=in_transaction):
            found[chosen[remark.script]].append(remark)
    return [
        _without_echoes(sorted(each, key=lambda remark: (remark.line, remark.column, remark.rule))) for each in found
    ]


def _without_echoes(remarks: Sequence[Remark]) -> list[Remark]:
    """Of the syntax errors in a line the first: the parser stumbles over each word that follows."""
    told: set[int] = set()
    kept = []
    for remark in remarks:
        if remark.rule != "syntax-error" or remark.line not in told:
            kept.append(remark)
        if remark.rule == "syntax-error":
            told.add(remark.line)
    return kept


def _without_data(file: _File) -> str:
    """The text with empty lines in place of the data of a COPY, which squawk takes for SQL."""
    text, at = file.text, 0
    for statement in file.script.statements:
        at = text.index(statement.sql, at) + len(statement.sql)
        if statement.copy_data is not None:
            begin = text.index(f"{statement.copy_data}\\.", at)
            at = begin + len(statement.copy_data) + 2
            empty = re.sub(r"[^\r\n]", " ", text[begin:at])
            text = text[:begin] + empty + text[at:]
    return text


class _Judge:
    """Turns remarks into findings by a policy, and knows which of its acceptances were of use."""

    def __init__(self, policy: MigrationPolicy, *, seen: set[str], shown: Callable[[Path], str]) -> None:
        self.policy, self.seen, self.shown = policy, seen, shown
        self.idle = list(policy.lint.accept)
        for accepted in policy.lint.accept:
            for rule in accepted.rules:
                _refuse_unknown(rule, seen)

    def findings(self, file: _File, found: list[Remark]) -> list[Finding]:
        """The remarks that count, each accepted or open, and the comments that accept nothing."""
        migration = file.migration
        accepting = _acceptances(file, self.seen)
        allowed = classify.allowances(file.script, file=migration.path)
        more_exact = {remark.line for remark in found if remark.rule in MORE_EXACT}
        findings = []
        for remark in found:
            reason = self._accepted(remark, migration, accepting) or self._allowed(remark, allowed)
            twice = remark.rule == "constraint-missing-not-valid" and remark.line in more_exact
            if not twice and self._counts(remark, file):
                findings.append(
                    Finding(
                        file=self.shown(migration.path),
                        line=remark.line,
                        column=remark.column,
                        rule=remark.rule,
                        level=remark.level,
                        message=remark.message,
                        help=remark.help,
                        script=migration.script,
                        reason=reason,
                    )
                )
        return findings + [self._unused(acceptance, migration) for acceptance in accepting if not acceptance.used]

    def _accepted(self, remark: Remark, migration: Migration, accepting: list[_Acceptance]) -> str | None:
        """Why the remark is accepted, by a comment or by the declaration; each that does so is of use."""
        reasons = []
        for acceptance in accepting:
            if acceptance.rule == remark.rule and remark.line in acceptance.lines:
                acceptance.used = True
                reasons.append(acceptance.reason)
        for accepted in self.policy.lint.accept:
            if remark.rule in accepted.rules and fnmatchcase(migration.script, accepted.script):
                self.idle = [entry for entry in self.idle if entry is not accepted]
                reasons.append(accepted.reason)
        return reasons[0] if reasons else None

    def _allowed(self, remark: Remark, allowed: set[str]) -> str | None:
        """Why what destroys data may, as ``plan`` asks it, too."""
        kind = ALLOWED_BY.get(remark.rule)
        if kind in allowed:
            return f"dbplatform:allow {kind}"
        return "allow_destructive is declared" if kind is not None and self.policy.allow_destructive else None

    def _counts(self, remark: Remark, file: _File) -> bool:
        if remark.rule in LEFT_OUT:
            return False
        if remark.rule in TASTE:
            return self.policy.lint.pedantic
        if file.migration.kind == "undo" and takes_away(remark.rule):
            return False
        return not (remark.rule in OF_EXISTING_ROWS and _on_new_table(remark, file.script.statements))

    def _unused(self, acceptance: _Acceptance, migration: Migration) -> Finding:
        return Finding(
            file=self.shown(migration.path),
            line=acceptance.line,
            column=1,
            rule=UNUSED,
            level="warning",
            message=f"The comment accepts nothing: {acceptance.rule} is not found in its statement.",
            help="Remove it, or write it above the statement that it means.",
            script=migration.script,
        )


def _on_new_table(remark: Remark, statements: Sequence[Statement]) -> bool:
    """Whether the statement is about a table that one before it has created."""
    created: list[tuple[str, ...]] = []
    for statement in statements:
        if remark.line <= _last_line(statement):
            table = classify.altered_table(statement) or classify.indexed_table(statement)
            return table is not None and any(_same(table, new) for new in created)
        new = classify.created_table(statement)
        if new is not None:
            created.append(new)
    return False


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two names can mean the same table: a schema counts where both have one."""
    return all(a == b for a, b in zip(reversed(one), reversed(other), strict=False))


def _acceptances(file: _File, seen: set[str]) -> list[_Acceptance]:
    """What the comments of a file accept, and where."""
    found = []
    for comment in file.script.comments:
        match = _ACCEPT.fullmatch(comment.text)
        if match is None:
            continue
        place: dict[str, Any] = {"file": file.migration.path, "line": comment.line}
        written = _WRITTEN.fullmatch(match["rest"])
        if written is None:
            raise ScriptError("dbplatform:accept wants a rule and, behind a colon, the reason.", hint=_GRAMMAR, **place)
        lines = _accepted_lines(comment, file.script.statements)
        for rule in re.split(r"\s*,\s*", written["rules"]):
            _refuse_unknown(rule, seen, **place)
            found.append(_Acceptance(rule=rule, reason=written["reason"], line=comment.line, lines=lines))
    return found


def _accepted_lines(comment: Comment, statements: Sequence[Statement]) -> range:
    """The lines of the statement on which the comment stands, else of the one after it; none at the end of a file."""
    for statement in statements:
        if comment.line <= _last_line(statement):
            return range(statement.line, _last_line(statement) + 1)
    return range(0)


def _last_line(statement: Statement) -> int:
    return statement.line_of(len(statement.sql))


def _refuse_unknown(rule: str, seen: set[str], **place: Any) -> None:
    if rule not in RULES and rule not in seen:
        raise UnknownRule(rule=rule, hint=f"There are {', '.join(sorted(RULES))}.", **place)
