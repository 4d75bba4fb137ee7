"""What an audit tells: rules, what was found against them, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row

from dbplatform.monitoring.collect import REFUSALS
from dbplatform.monitoring.probes.collecting import statement
from dbplatform.postgres.connection import AutocommitConnection

Severity = Literal["critical", "warning", "notice"]
Verdict = Literal["passed", "failed", "errored"]
_ORDER: Mapping[str, int] = {"critical": 0, "warning": 1, "notice": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that is looked for.

    ``meaning`` says why it matters; ``document`` is the page that explains it. A notice is worth knowing and fails
    nothing. ``in_production`` is the severity there, where it is another.
    """

    name: str
    severity: Severity
    meaning: str
    document: str
    in_production: Severity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One object that breaks a rule: what was read, and the SQL (or line of ``pg_hba.conf``) that mends it."""

    rule: Rule
    severity: Severity
    object: str
    evidence: str
    mend: str | None = None
    accepted: str | None = None
    """Why it is meant, where somebody has said so."""

    @property
    def fails(self) -> bool:
        """Whether the audit fails by it."""
        return self.severity != "notice" and self.accepted is None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``findings``."""
        return {
            "rule": self.rule.name,
            "severity": self.severity,
            "object": self.object,
            "evidence": self.evidence,
            "meaning": self.rule.meaning,
            "mend": self.mend,
            "document": self.rule.document,
            "accepted": self.accepted,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One look at a database; ``inventory`` is what there is, whether it breaks a rule or not."""

    kind: Literal["structure", "security"]
    database: str
    at: datetime
    findings: tuple[Finding, ...]
    not_examined: Mapping[str, str]
    """By rule: why nothing is known."""
    examined: tuple[str, ...]
    """The rules that were looked at, whatever was found."""
    inventory: Mapping[str, Any]
    accepted: Mapping[str, str] = field(default_factory=dict)
    """By rule that could not be examined: why somebody does without."""

    @property
    def verdict(self) -> Verdict:
        """``passed`` when every rule was examined and nothing fails; a notice does not."""
        if self.failing:
            return "failed"
        return "errored" if self.not_examined.keys() - self.accepted.keys() else "passed"

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings that fail it."""
        return tuple(finding for finding in self.findings if finding.fails)

    def as_json(self) -> dict[str, Any]:
        """The document of ``health --structure --json`` and ``health --security --json``."""
        return {
            "database": self.database,
            "at": self.at,
            "audit": self.kind,
            "verdict": self.verdict,
            **self.inventory,
            "findings": [finding.as_json() for finding in self.findings],
            "examined": list(self.examined),
            "not_examined": dict(self.not_examined),
            "accepted": dict(self.accepted),
        }


Row = Mapping[str, Any]


@dataclass(slots=True)
class Auditing:
    """An audit while it is made."""

    connection: AutocommitConnection
    rules: Mapping[str, Rule]
    production: bool = False
    findings: list[Finding] = field(default_factory=list)
    not_examined: dict[str, str] = field(default_factory=dict)

    def found(self, rule: str, object: str, evidence: str, mend: str | None = None) -> None:
        """Keep a finding; its severity is the rule's where the database is."""
        of = self.rules[rule]
        severity = of.in_production if self.production and of.in_production else of.severity
        self.findings.append(Finding(rule=of, severity=severity, object=object, evidence=evidence, mend=mend))

    def unknown(self, reason: str, *rules: str) -> None:
        """Nothing is known of these rules."""
        self.not_examined.update(dict.fromkeys(rules, reason))

    def ask(self, rules: Sequence[str], question: Callable[[], Iterable[Row]], *, grant: str = "") -> None:
        """Ask for rows of ``rule``, ``object``, ``evidence`` and ``mend``; refused, the rules are not examined.

        ``grant`` is what would help where the right is missing.
        """
        try:
            for row in question():
                self.found(row["rule"], row["object"], row["evidence"], row["mend"])
        except psycopg.Error as error:
            if error.sqlstate not in REFUSALS:
                raise
            reason = (error.diag.message_primary or str(error)).strip()
            self.unknown(f"{reason}; {grant}" if grant and error.sqlstate == "42501" else reason, *rules)

    def rows(self, name: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of a statement of ``postgres/sql``."""
        return self.select(statement(name), values)

    def select(self, query: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of a query, by the names of their columns."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return list(cursor.execute(query.encode(), values).fetchall())

    def ended(
        self, kind: Literal["structure", "security"], *, database: str, now: datetime, inventory: Mapping[str, Any]
    ) -> Audit:
        """The audit, the worst findings first."""
        return Audit(
            kind=kind,
            database=database,
            at=now,
            findings=in_order(self.findings),
            not_examined=dict(self.not_examined),
            examined=tuple(name for name in self.rules if name not in self.not_examined),
            inventory=inventory,
        )


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first, then by rule and object."""
    return tuple(sorted(findings, key=lambda one: (_ORDER[one.severity], one.rule.name, one.object)))


def with_accepted(audit: Audit, reason: Callable[[str, str], str | None]) -> Audit:
    """The audit with ``reason`` (of rule and object) beside each finding, and each rule not examined, that has one."""
    return replace(
        audit,
        findings=tuple(replace(one, accepted=reason(one.rule.name, one.object)) for one in audit.findings),
        accepted={rule: why for rule in audit.not_examined if (why := reason(rule, "")) is not None},
    )
