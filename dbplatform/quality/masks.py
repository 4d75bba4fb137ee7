"""Columns whose values never leave the database as they are: not in failing rows, not in what a check says.

The server masks: what comes to the client, and so to the ledger, reports, logs and metadata, is masked already (but for
the stream that large tables are judged by, which stays in the client's memory). A mask belongs to a table and holds
for all its partitions and children, whichever of them a check is declared on, and for the tables that its rows are
moved aside to.

- ``redact``: ``***``.
- ``hash``: 16 hexadecimal digits of SHA-256 over a salt and the value. The salt is drawn for each table's round of
  checks and kept nowhere: equal values look equal within it, and nobody can try out values on a hash that was kept.
- ``partial``: the first and last two characters of a value with at least eight, else ``***``.

Null stays null: that a value is missing is what a check may be about.

Of a query (``sql``) every column is masked that is a masked column of its table, under whatever name; what is no plain
column of a table (an expression, a column of a view) is redacted wherever the database masks anything, because nobody
can tell what went into it.

PostgreSQL's messages quote values (``invalid input syntax for type integer: "..."``): where anything is masked, those
that the data may have gone into are replaced by the name of their SQLSTATE (manual: Appendix A).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import psycopg
from psycopg import sql
from pydantic import BeforeValidator, WithJsonSchema

from dbplatform.errors import UsageError
from dbplatform.postgres.catalog import columns
from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation, quoted
from dbplatform.postgres.words import ColumnName
from dbplatform.quality.checks.base import Separable
from dbplatform.quality.quarantine.place import place_of

if TYPE_CHECKING:
    from dbplatform.quality.policy import TablePolicy

MaskKind = Literal["redact", "hash", "partial"]

_SALT = "dbplatform.mask_salt"
#: Classes of SQLSTATE whose messages speak of statements, rights, locks and the server, not of data.
_WITHOUT_DATA = ("08", "0A", "25", "28", "3D", "3F", "42", "53", "55", "57", "58")

# Those that a table is part of, and those that are part of it: partitions and children by inheritance.
_FAMILY = """
    with recursive above (oid) as (
        select %(oid)s::oid union select h.inhparent from pg_inherits h join above on above.oid = h.inhrelid
    ), below (oid) as (
        select %(oid)s::oid union select h.inhrelid from pg_inherits h join below on below.oid = h.inhparent
    )
    select n.nspname::text, c.relname::text, c.relkind::text
    from (select oid from above union select oid from below) as family
    join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
"""
_ORIGINS = """
    select a.attrelid::bigint, a.attnum::int, a.attname::text
    from pg_attribute a join pg_class c on c.oid = a.attrelid and c.relkind in ('r', 'p', 'f')
    where a.attrelid = any(%s::bigint[]::oid[])
"""


class MaskedColumnMissing(UsageError):
    """{table} has no column {column}, which is to be masked."""


@dataclass(frozen=True, slots=True)
class Masks:
    """The masked columns of all tables of a database."""

    tables: Mapping[Relation, Mapping[str, MaskKind]] = field(default_factory=dict)
    places: Mapping[Relation, Relation] = field(default_factory=dict)
    """Whose rows lie aside in which table."""

    @classmethod
    def declared(cls, policies: Iterable[TablePolicy]) -> Masks:
        """Those of these tables, and of the quarantines of their rows: the default one, whether declared (still) or
        not, and those that checks name."""
        tables: dict[Relation, Mapping[str, MaskKind]] = {}
        places: dict[Relation, Relation] = {}
        for policy in policies:
            if policy.mask:
                tables[policy.table] = policy.mask
            named = [one.quarantine for one in policy.checks if isinstance(one, Separable) and one.quarantine]
            places |= {place_of(policy.table, to): policy.table for to in (None, *(one.to for one in named))}
        return cls(tables, places)

    def __bool__(self) -> bool:
        return bool(self.tables)

    def of(self, connection: SnapshotConnection, relation: Relation) -> Mapping[str, MaskKind]:
        """The masked columns of a table, by its own name and those of its family.

        Raises ``MaskedColumnMissing`` where any table lacks a column that is masked on it: a wrong name would let the
        values of the right one out, through a query of another table, too.
        """
        if not self:
            return {}
        for table in self.tables:
            self._require_columns(connection, table)
        row = connection.execute("select %s::regclass::oid::bigint", (str(relation),)).fetchone()
        return self._family(connection, row[0] if row else 0)

    def of_query(self, connection: SnapshotConnection, query: sql.Composable) -> list[tuple[str, MaskKind | None]]:
        """The columns of a query in their order, each with its mask; runs it for no row. Raises ``psycopg.Error``."""
        asked = connection.execute(sql.SQL("select * from ({}\n) as failing limit 0").format(query), binary=True)
        result, description = asked.pgresult, asked.description or []
        assert result is not None
        places = [(result.ftable(index), result.ftablecol(index)) for index in range(len(description))]
        names = [column.name for column in description]
        if not self:
            return [(name, None) for name in names]
        tables = sorted({table for table, _ in places if table})
        known = {(oid, place): name for oid, place, name in connection.execute(_ORIGINS, (tables,))}
        masks = {oid: self._family(connection, oid) for oid in tables}
        return [
            (name, masks[place[0]].get(known[place]) if place in known else "redact")
            for name, place in zip(names, places, strict=True)
        ]

    def _require_columns(self, connection: SnapshotConnection, table: Relation) -> None:
        names = {column.name for column in columns(connection, table)}
        for column in self.tables[table]:
            if names and column not in names:
                raise MaskedColumnMissing(
                    table=table.words,
                    column=quoted(column),
                    hint=f"It has: {', '.join(sorted(map(quoted, names)))}.",
                    relation=table,
                )

    def _family(
        self, connection: SnapshotConnection, oid: int, seen: frozenset[Relation] = frozenset()
    ) -> Mapping[str, MaskKind]:
        found: dict[str, MaskKind] = {}
        for schema, name, _ in connection.execute(_FAMILY, {"oid": oid}).fetchall():
            relation = Relation(schema, name)
            found |= self.tables.get(relation, {})
            if relation in self.places and relation not in seen:  # two tables may be each other's quarantine
                source = self.places[relation]
                row = connection.execute("select to_regclass(%s)::oid::bigint", (str(source),)).fetchone()
                there = row[0] if row else None
                found |= self._family(connection, there, seen | {relation}) if there else self.tables.get(source, {})
        return found


def draw_salt(connection: SnapshotConnection) -> None:
    """A new salt for the hashes of this transaction, drawn once in it; it stands in no statement's text."""
    connection.execute("select set_config(%s, %s, true)", (_SALT, secrets.token_hex(16)))


def masked(value: sql.Composable, kind: MaskKind | None) -> sql.Composable:
    """The expression for what may be seen of a value."""
    text = sql.SQL("({})::text").format(value)
    match kind:
        case None:
            return value
        case "redact":
            return sql.SQL("case when {} is not null then '***' end").format(text)
        case "hash":
            return sql.SQL("left(encode(sha256(convert_to(current_setting({}) || {}, 'UTF8')), 'hex'), 16)").format(
                sql.Literal(_SALT), text
            )
        case "partial":
            return sql.SQL(
                "case when length({0}) >= 8 then left({0}, 2) || '***' || right({0}, 2) "
                "when {0} is not null then '***' end"
            ).format(text)


def reason_of(error: psycopg.Error, *, masks: bool) -> str:
    """PostgreSQL's message and hint as one sentence, without the position; without its words where these may tell."""
    state = error.sqlstate
    if masks and state is not None and state[:2] not in _WITHOUT_DATA:
        name = type(error).__name__
        return f"PostgreSQL refused it with SQLSTATE {state} ({name}); its words may quote a masked value."
    primary = error.diag.message_primary or next(iter(str(error).strip().splitlines()), type(error).__name__)
    hint = error.diag.message_hint
    return f"{primary.rstrip('.')}. {hint}" if hint else f"{primary.rstrip('.')}."


def _by_column(value: Any) -> Any:
    if isinstance(value, list):
        names = [str(name) for name in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the column {twice[0]} is masked twice")
        return dict.fromkeys(value, "redact") if all(isinstance(name, str) for name in value) else value
    return value


#: Columns to mask: a list, or each with its kind.
MaskWords = Annotated[
    dict[ColumnName, MaskKind],
    BeforeValidator(_by_column),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"enum": ["redact", "hash", "partial"]}},
            ]
        }
    ),
]
