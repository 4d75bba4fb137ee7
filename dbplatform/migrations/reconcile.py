"""Statements without a transaction that an earlier run may have been killed in: did they do their work?

Each kind is a ``Trace``: what the catalog says right before the statement is marked together with the intent to run it,
and after a kill it is compared with what the catalog says then. A kind that leaves no trace is in doubt, and a person
decides. ``CREATE INDEX CONCURRENTLY`` needs no mark, see ``concurrent``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import sql

from dbplatform.migrations import classify
from dbplatform.migrations.statements import Statement, Token
from dbplatform.postgres.connection import AutocommitConnection

Verdict = Literal["done", "again", "in doubt"]
Look = Callable[[AutocommitConnection], dict[str, Any]]

_INVALID = """
    select coalesce(array_agg(i.indexrelid::bigint order by i.indexrelid), '{}')
    from pg_index i join pg_class c on c.oid = i.indexrelid
    where not i.indisvalid and c.relname ~ '_cc(new|old)[0-9]*$'
      and not exists (select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid)
"""
_NAME = "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = %s"
_ATTACHED = """
    select count(*) > 0, coalesce(bool_or(inhdetachpending), false) from pg_inherits
    where inhparent = to_regclass(%s) and inhrelid = to_regclass(%s)
"""
_SHARED = {
    "database": "select exists (select from pg_database where datname = %s)",
    "tablespace": "select exists (select from pg_tablespace where spcname = %s)",
    "subscription": "select exists (select from pg_subscription where subname = %s and subdbid = "
    "(select oid from pg_database where datname = current_database()))",
}


@dataclass(frozen=True, slots=True)
class Trace:
    """How one kind of statement shows in the catalog."""

    look: Look
    """What is to be remembered before it runs."""
    judge: Callable[[AutocommitConnection, dict[str, Any]], Verdict]
    """What a killed run of it did, from what was remembered; it may clear away what is half done."""


def trace_of(statement: Statement) -> Trace | None:
    """The trace of a statement that runs without a transaction; None where it may simply run again."""
    words = classify.words_of(statement)
    if words[:3] == ["drop", "index", "concurrently"]:
        return _dropped_index(_name(statement, 3))
    if words[0] == "reindex" and "concurrently" in words:
        return Trace(_invalid_indexes, _clear_invalid)
    if words[:2] == ["alter", "table"]:
        return _detached(statement)
    if words[0] in ("create", "drop") and words[1] in _SHARED:
        return _shared(words[0], words[1], _name(statement, 2)[-1])
    if classify.may_commit(statement) or words[:2] == ["alter", "subscription"]:
        return Trace(lambda _: {}, lambda _, __: "in doubt")
    return None


def _dropped_index(name: tuple[str, ...]) -> Trace:
    def look(connection: AutocommitConnection) -> dict[str, Any]:
        return {"exists": _exists(connection, name)}

    def judge(connection: AutocommitConnection, before: dict[str, Any]) -> Verdict:
        # A drop that was killed leaves the index invalid; it is dropped like any other.
        return "done" if before["exists"] and not _exists(connection, name) else "again"

    return Trace(look, judge)


def _invalid_indexes(connection: AutocommitConnection) -> dict[str, Any]:
    row = connection.execute(_INVALID).fetchone()
    assert row is not None
    return {"invalid": row[0]}


def _clear_invalid(connection: AutocommitConnection, before: dict[str, Any]) -> Verdict:
    """Drop what a killed REINDEX left (manual, REINDEX, "Rebuilding Indexes Concurrently"); it may then run again."""
    for oid in set(_invalid_indexes(connection)["invalid"]) - set(before["invalid"]):
        name = connection.execute(_NAME, (oid,)).fetchone()
        assert name is not None
        connection.execute(sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(*name)))
    return "again"


def _detached(statement: Statement) -> Trace:
    words = classify.words_of(statement)
    parent = _name(statement, next(i for i in range(2, len(words)) if words[i] not in ("if", "exists", "only")))
    child = _name(statement, words.index("partition") + 1)
    names = tuple(sql.Identifier(*parts).as_string(None) for parts in (parent, child))

    def look(connection: AutocommitConnection) -> dict[str, Any]:
        row = connection.execute(_ATTACHED, names).fetchone()
        assert row is not None
        return {"attached": row[0]}

    def judge(connection: AutocommitConnection, before: dict[str, Any]) -> Verdict:
        row = connection.execute(_ATTACHED, names).fetchone()
        assert row is not None
        attached, pending = row
        if pending:
            finalize = sql.SQL("alter table {} detach partition {} finalize")
            connection.execute(finalize.format(sql.Identifier(*parent), sql.Identifier(*child)))
            return "done"
        return "done" if before["attached"] and not attached else "again"

    return Trace(look, judge)


def _shared(verb: str, kind: str, name: str) -> Trace:
    def look(connection: AutocommitConnection) -> dict[str, Any]:
        row = connection.execute(_SHARED[kind].encode(), (name,)).fetchone()
        assert row is not None
        return {"exists": row[0]}

    def judge(connection: AutocommitConnection, before: dict[str, Any]) -> Verdict:
        now = look(connection)["exists"]
        return "done" if before["exists"] != now and now == (verb == "create") else "again"

    return Trace(look, judge)


def _exists(connection: AutocommitConnection, name: tuple[str, ...]) -> bool:
    row = connection.execute("select to_regclass(%s)", (sql.Identifier(*name).as_string(None),)).fetchone()
    return row is not None and row[0] is not None


def _name(statement: Statement, at: int) -> tuple[str, ...]:
    """The name that begins at a token, behind ``IF [NOT] EXISTS``: ``s.t`` as its parts."""
    tokens: tuple[Token, ...] = statement.tokens
    while tokens[at].kind == "word" and tokens[at].value in ("if", "not", "exists"):
        at += 1
    parts = [tokens[at].value]
    while at + 2 < len(tokens) and tokens[at + 1].value == "." and tokens[at + 1].kind == "symbol":
        at += 2
        parts.append(tokens[at].value)
    return tuple(parts)
