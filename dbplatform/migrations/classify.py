"""What a statement is to the engine: may it run in a transaction, does it destroy data, which index does it build.

Judged by its words alone, without the server. What is hidden in a function that a statement calls cannot be seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dbplatform.migrations.errors import DestructiveStatement, ScriptError
from dbplatform.migrations.statements import Script, Statement

RETYPE = "alter column type"
#: What a comment ``-- dbplatform:allow <kind>, <kind>`` may name.
DESTRUCTIVE = (
    "drop table",
    "drop column",
    "drop schema",
    "drop database",
    "drop owned",
    "drop sequence",
    "drop cascade",
    "truncate",
    RETYPE,
)
#: No column can depend on them, so that a CASCADE reaches no data.
_DROPS_NO_DATA = {"index", "view", "materialized", "trigger", "rule", "policy", "publication", "statistics", "event"}

_ALLOW = re.compile(r"\s*dbplatform:\s*allow\b(?P<kinds>.*)", re.IGNORECASE)
_HIDDEN = re.compile(r"\b(drop\s+(?:table|column|schema|database|owned|sequence)|truncate)\b", re.IGNORECASE)
_COMMITS = re.compile(r"\b(commit|rollback)\b", re.IGNORECASE)
_TRANSACTION = {"begin", "commit", "end", "abort", "rollback", "start", "prepare"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrentIndex:
    """A ``CREATE INDEX CONCURRENTLY``: names as the catalog has them; none: not written."""

    name: str | None
    table_schema: str | None
    table: str
    table_span: tuple[int, int]
    """Where the table's name stands in the statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retyped:
    """An ``ALTER COLUMN c TYPE t`` of an ALTER TABLE: the table, and where the action stands in the statement."""

    table: tuple[str, ...]
    span: tuple[int, int]


def refuse_transaction_control(script: Script, *, file: Path) -> None:
    """Raise ``ScriptError`` for BEGIN, COMMIT and their like: the engine makes the transaction."""
    for statement in script.statements:
        words = words_of(statement)
        if words[0] not in _TRANSACTION:
            continue
        if words[0] in ("start", "prepare") and words[1:2] != ["transaction"]:
            continue
        if words[0] == "rollback" and "to" in words:
            continue
        raise ScriptError(
            f"{statement.summary} in a migration: each file is already one transaction, together with its history row.",
            hint="Remove it.",
            file=file,
            line=statement.line,
        )


def refuse_destructive(script: Script, *, file: Path) -> None:
    """Raise ``DestructiveStatement`` for the first statement that destroys data and that no comment allows.

    Whether an ALTER COLUMN TYPE rewrites its table depends on the table: see ``rewrites``.
    """
    allowed = allowances(script, file=file)
    for statement in script.statements:
        for what in destructive(statement):
            if what not in allowed:
                raise refused(what, statement, file=file)


def refused(what: str, statement: Statement, *, file: Path) -> DestructiveStatement:
    """The error for a statement that destroys data."""
    return DestructiveStatement(
        what=what,
        statement=statement.summary,
        hint=f"If that is meant, write into the file: -- dbplatform:allow {what}",
        file=file,
        line=statement.line,
    )


def destructive(statement: Statement) -> list[str]:
    """Which of ``DESTRUCTIVE`` the statement does; the text of a DO block is searched too."""
    words = words_of(statement)
    pair = " ".join(words[:2])
    if words[0] == "truncate":
        return ["truncate"]
    if pair in DESTRUCTIVE:
        return [pair]
    if words[0] == "drop" and words[-1] == "cascade" and words[1] not in _DROPS_NO_DATA:
        return ["drop cascade"]
    if pair in ("alter table", "alter type") and _drops_column(statement):
        return ["drop column"]
    if words[0] == "do":
        return sorted({" ".join(found.lower().split()) for found in _HIDDEN.findall(_without_comments(statement.sql))})
    return []


def needs_no_transaction(statement: Statement) -> str | None:
    """The words of a statement that PostgreSQL refuses inside a transaction; none for any other."""
    words = [word for word in words_of(statement) if word]
    first = words[0] if words else ""
    pair = " ".join(words[:2])
    if pair in _ALONE:
        return pair.upper()
    if first == "vacuum" or words == ["cluster"] or words == ["cluster", "verbose"]:
        return first.upper()
    if words[:3] in (["create", "index", "concurrently"], ["drop", "index", "concurrently"]):
        return " ".join(words[:3]).upper()
    if words[:4] == ["create", "unique", "index", "concurrently"]:
        return "CREATE UNIQUE INDEX CONCURRENTLY"
    if first == "reindex" and "concurrently" in words:
        return "REINDEX CONCURRENTLY"
    if first == "reindex" and _after_options(words)[:1] in (["schema"], ["database"], ["system"]):
        return f"REINDEX {_after_options(words)[0].upper()}"
    if pair == "alter table" and "detach" in words and words[-1] == "concurrently":
        return "DETACH PARTITION CONCURRENTLY"
    if pair == "alter database" and "tablespace" in words:
        return "ALTER DATABASE SET TABLESPACE"
    if pair == "alter subscription" and "publication" in words:
        return "ALTER SUBSCRIPTION"
    return None


def concerns_server(words: str) -> bool:
    """Whether a statement that ``needs_no_transaction`` reaches beyond the database."""
    return words.split()[-1] in ("DATABASE", "SYSTEM", "TABLESPACE", "SUBSCRIPTION") and not words.startswith("REINDEX")


_ALONE = {
    "create database",
    "drop database",
    "alter system",
    "create tablespace",
    "drop tablespace",
    "create subscription",
    "drop subscription",
    "discard all",
}


def concurrent_index(statement: Statement) -> ConcurrentIndex | None:
    """The index that a ``CREATE INDEX CONCURRENTLY`` builds; none for another statement."""
    tokens = list(statement.tokens)
    words = words_of(statement)
    at = 2 if words[1:2] == ["unique"] else 1
    if words[0] != "create" or words[at : at + 2] != ["index", "concurrently"]:
        return None
    at += 2
    if words[at : at + 3] == ["if", "not", "exists"]:
        at += 3
    name = None
    if words[at : at + 1] != ["on"] and at < len(tokens):
        name = tokens[at].value
        at += 1
    at += 2 if words[at + 1 : at + 2] == ["only"] else 1
    if at >= len(tokens):
        return None  # not SQL: the server will say so
    parts = [tokens[at]]
    while at + 2 < len(tokens) and tokens[at + 1].value == "." and tokens[at + 1].kind == "symbol":
        at += 2
        parts.append(tokens[at])
    return ConcurrentIndex(
        name=name,
        table_schema=parts[-2].value if len(parts) > 1 else None,
        table=parts[-1].value,
        table_span=(parts[0].start, parts[-1].end),
    )


def words_of(statement: Statement) -> list[str]:
    """The statement's tokens, names in quotes and strings as empty: they are never keywords."""
    return [token.value if token.kind in ("word", "symbol") else "" for token in statement.tokens]


def _after_options(words: list[str]) -> list[str]:
    """What follows ``REINDEX [(options)]``."""
    return words[words.index(")") + 1 :] if words[1:2] == ["("] and ")" in words else words[1:]


def session_only(statement: Statement) -> bool:
    """Whether it changes nothing but the session (SET, RESET): a later session has to run it again."""
    words = words_of(statement)
    return words[0] in ("set", "reset") and words[1:2] != ["constraints"]


def sets_lock_timeout(statements: tuple[Statement, ...]) -> bool:
    """Whether a file sets its own ``lock_timeout``, which then counts."""
    return any(session_only(s) and "lock_timeout" in words_of(s) for s in statements)


def may_commit(statement: Statement) -> bool:
    """Whether it may end transactions of its own: a CALL, or a DO block that says COMMIT."""
    first = words_of(statement)[0]
    return first == "call" or (first == "do" and _COMMITS.search(_without_comments(statement.sql)) is not None)


def retyped(statement: Statement) -> list[Retyped]:
    """The column types that an ALTER TABLE changes."""
    words = words_of(statement)
    table = altered_table(statement)
    if table is None:
        return []
    found = []
    for first, last in _actions(statement):
        action = words[first:last]
        after = action[3:] if action[1:2] == ["column"] else action[2:]
        if action[0] == "alter" and (after[:1] == ["type"] or after[:3] == ["set", "data", "type"]):
            span = (statement.tokens[first].start, statement.tokens[last - 1].end)
            found.append(Retyped(table=table, span=span))
    return found


def altered_table(statement: Statement) -> tuple[str, ...] | None:
    """The name in an ALTER TABLE, in its parts; none for another statement."""
    words = words_of(statement)
    if words[:2] != ["alter", "table"]:
        return None
    named = statement.tokens[2 : _first_action(words)]
    table = tuple(token.value for token in named if token.kind in ("word", "quoted"))
    for word in ("if", "exists", "only"):
        if table[:1] == (word,) and len(table) > 1:
            table = table[1:]
    return table


def created_table(statement: Statement) -> tuple[str, ...] | None:
    """The name in a CREATE TABLE that makes a new one, in its parts; none for another statement."""
    words = words_of(statement)
    at = next((n for n, word in enumerate(words[:4]) if word == "table"), None)
    if words[0] != "create" or at is None or words[at + 1 : at + 3] == ["if", "not"]:
        return None
    return _name_at(statement, at + 1)


def indexed_table(statement: Statement) -> tuple[str, ...] | None:
    """The table of a CREATE INDEX, in the parts of its name; none for another statement."""
    words = words_of(statement)
    if words[0] != "create" or "index" not in words[1:3] or "on" not in words:
        return None
    at = words.index("on") + 1
    return _name_at(statement, at + 1 if words[at : at + 1] == ["only"] else at)


def _name_at(statement: Statement, at: int) -> tuple[str, ...]:
    """The parts of the name whose first one is that token."""
    parts = [token.value for token in statement.tokens[at : at + 1]]
    words = words_of(statement)
    while words[at + 1 : at + 2] == ["."] and at + 2 < len(words):
        at += 2
        parts.append(statement.tokens[at].value)
    return tuple(parts)


def _drops_column(statement: Statement) -> bool:
    """Whether an action of ALTER TABLE drops a column, or one of ALTER TYPE an attribute."""
    words = words_of(statement)
    return any(
        words[first] == "drop" and words[first + 1 : first + 2] != ["constraint"] for first, _ in _actions(statement)
    )


def _actions(statement: Statement) -> list[tuple[int, int]]:
    """The actions of an ALTER TABLE or ALTER TYPE, between commas: first token, and the one behind the last."""
    words = words_of(statement)
    first = _first_action(words)
    depth, found = 0, []
    for at in range(first, len(words)):
        depth += (words[at] == "(") - (words[at] == ")")
        if depth == 0 and words[at] == ",":
            found.append((first, at))
            first = at + 1
    found.append((first, len(words)))
    return [(a, b) for a, b in found if a < b]


def _first_action(words: list[str]) -> int:
    """Where the first action of ``ALTER TABLE [IF EXISTS] [ONLY] name [*]`` stands."""
    at = 2
    if words[at : at + 2] == ["if", "exists"]:
        at += 2
    if words[at : at + 1] == ["only"]:
        at += 1
    at += 1
    while words[at : at + 1] == ["."]:
        at += 2
    return at + 1 if words[at : at + 1] == ["*"] else at


def allowances(script: Script, *, file: Path) -> set[str]:
    """What the comments ``-- dbplatform:allow`` of a file name; raises ``ScriptError`` for what none may."""
    allowed: set[str] = set()
    for comment in script.comments:
        match = _ALLOW.fullmatch(comment.text)
        if match is None:
            continue
        for kind in match["kinds"].split(","):
            name = " ".join(kind.lower().split())
            if name not in DESTRUCTIVE:
                raise ScriptError(
                    f"dbplatform:allow names {name!r}.",
                    hint=f"It may name {', '.join(DESTRUCTIVE)}.",
                    file=file,
                    line=comment.line,
                )
            allowed.add(name)
    return allowed


def _without_comments(text: str) -> str:
    return re.sub(r"--[^\n\r]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
