"""How much of a database goes into a backup: everything, its schema, its rows, or some tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256

from dbplatform.backups.contents import everything, list_tables
from dbplatform.backups.manifest import Scope, TableContent
from dbplatform.errors import UsageError
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation

#: What ``count_and_hash`` says of a table without rows.
EMPTY_HASH = sha256(repr((0, Decimal(0), Decimal(0))).encode()).hexdigest()[:32]

_TREE = """
    select n.nspname, c.relname
    from (select to_regclass(%s) as root) r
    cross join lateral (select r.root as oid union select relid from pg_partition_tree(r.root)) t
    join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') order by 1, 2
"""


class ScopeUnclear(UsageError):
    """A backup of {words} only cannot be made: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InScope:
    """What a scope means in one database."""

    locked: tuple[Relation, ...]
    counted: tuple[Relation, ...]
    empty: tuple[TableContent, ...]
    """Tables that are in it without their rows."""
    options: tuple[str, ...]
    """Of pg_dump."""


def scope_of(only: Sequence[str]) -> Scope:
    """The scope by the words of ``--only``: ``schema``, ``data``, or tables; none is everything.

    Raises ``ScopeUnclear``. A table of the name ``schema`` or ``data`` is written with its schema.
    """
    if not only:
        return Scope()
    words = ", ".join(only)
    if len(only) == 1 and only[0] in ("schema", "data"):
        return Scope(what="schema" if only[0] == "schema" else "data")
    if {"schema", "data"} & set(only):
        raise ScopeUnclear(words=words, reason="schema and data stand alone", hint="Leave --only out for everything.")
    try:
        tables = dict.fromkeys(str(Relation.parse(word)) for word in only)
    except ValueError as error:
        raise ScopeUnclear(words=words, reason=str(error), hint="Write --only public.a --only public.b.") from None
    return Scope(what="tables", tables=tuple(tables))


def in_scope(connection: AnyConnection, scope: Scope) -> InScope:
    """The tables and pg_dump's options of a scope. Raises ``TableMissing`` for a table that is not there."""
    every = list_tables(connection)
    if scope.what == "everything":
        return InScope(locked=every, counted=everything(connection), empty=(), options=())
    if scope.what == "schema":
        empty = tuple(TableContent(table=str(table), rows=0, hash=EMPTY_HASH) for table in every)
        return InScope(locked=every, counted=(), empty=empty, options=("--schema-only",))
    if scope.what == "data":
        return InScope(locked=every, counted=everything(connection), empty=(), options=("--data-only",))
    chosen = tuple(Relation.parse(table) for table in scope.tables)
    options = [f"--table={pattern(part)}" for table in chosen for part in with_partitions(connection, table)]
    return InScope(locked=chosen, counted=chosen, empty=(), options=tuple(options))


def with_partitions(connection: AnyConnection, table: Relation) -> tuple[Relation, ...]:
    """The table and all of its partitions. Raises ``TableMissing``."""
    found = connection.execute(_TREE, (str(table),)).fetchall()
    if not found:
        raise TableMissing(table=str(table), database=connection.info.dbname, hint="Name a table with its schema.")
    return tuple(Relation(schema, name) for schema, name in found)


def pattern(table: Relation) -> str:
    """The name as pg_dump's pattern that matches it alone."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name))
