"""What one bounded read tells of a table's columns: nulls, different values, extremes, lengths, examples.

The server computes all of it in one statement over at most ``MOST_ROWS`` rows: the whole table, or a repeatable sample
of its blocks. What is counted is exact for the rows that were read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation

MOST_ROWS = 100_000
_SEED = 42
_VALUES, _EXAMPLES = 30, 1_000
_SHORT = 200  # characters: whole documents in a column would not fit into one answer

_COLUMNS = """
    select a.attname::text, coalesce(base.typname, t.typname)::text, format_type(a.atttypid, a.atttypmod),
           t.typtype::text, a.attnotnull, a.attidentity <> '' or a.attgenerated <> ''
               or coalesce(pg_get_expr(d.adbin, d.adrelid) like 'nextval(%%', false),
           col_description(a.attrelid, a.attnum)
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_type t on t.oid = a.atttypid
    left join pg_type base on base.oid = t.typbasetype and t.typtype = 'd'
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""
_SIZE = """
    select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint, coalesce(sum(pg_relation_size(c.oid)), 0)::bigint / 8192
    from pg_class c where c.oid in (select relid from pg_partition_tree(%(table)s::regclass) where isleaf)
       or c.oid = %(table)s::regclass and c.relkind = 'r'
"""
_ROWS_PER_BLOCK = 50  # for a table that was never analyzed

_KNOWN = sql.SQL("'known', count({c})")
_DIFFERENT = sql.SQL("'different', count(distinct {c})")
_EXTREMES = sql.SQL("'least', min({c})::text, 'greatest', max({c})::text")
_PAST = sql.SQL("'past', coalesce(max({c}) <= now(), false)")
_LENGTHS = sql.SQL("'shortest', min(length({c})), 'longest', max(length({c}))")
_FREQUENT = sql.SQL("""
    'values', (
        select coalesce(jsonb_agg(jsonb_build_array(v, n)), '[]')
        from (select {c}::text as v, count(*) as n from rows where length({c}) <= {short} group by 1 order by 2 desc, 1
              limit {values}) as frequent
    )
""")
_SOME = sql.SQL("""
    'examples', (
        select coalesce(jsonb_agg(v), '[]')
        from (select distinct {c}::text as v from rows where length({c}) <= {short} limit {examples}) as some_values
    )
""")

NUMBERS = ("int2", "int4", "int8", "numeric", "float4", "float8")
WHOLE = ("int2", "int4", "int8")
MOMENTS = ("date", "timestamp", "timestamptz")
TEXTS = ("text", "varchar", "bpchar")
_COMPARABLE = (*NUMBERS, *MOMENTS, *TEXTS, "uuid", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, and what the rows that were read hold in it."""

    name: str
    type: str
    """The type's name in the catalog; of a domain, that of its base."""
    type_words: str
    kind: str
    """``b`` for a base type, ``e`` for an enum, ``d`` for a domain."""
    not_null: bool
    generated: bool
    """The server makes its values: identity, serial or generated."""
    comment: str | None
    known: int = 0
    """Values that are not null."""
    different: int = 0
    least: str | None = None
    greatest: str | None = None
    shortest: int | None = None
    longest: int | None = None
    values: tuple[tuple[str, int], ...] = ()
    """The most frequent values of at most 200 characters, with how often they occur."""
    examples: tuple[str, ...] = ()
    """Different values of at most 200 characters."""
    past: bool = False
    """No moment lies in the future."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A table as it was read."""

    relation: Relation
    rows: int
    """So many were read."""
    sampled: float | None
    """The percentage of the table's blocks that was read; none: all."""
    columns: tuple[Column, ...]

    @property
    def words(self) -> str:
        """``5,000 rows`` or ``98,112 rows, a sample of 3 %``."""
        return f"{self.rows:,} rows" + ("" if self.sampled is None else f", a sample of {self.sampled:g} %")


def profile(connection: SnapshotConnection, relation: Relation, *, most_rows: int = MOST_ROWS) -> Profile:
    """Read at most ``most_rows`` rows, once. ACCESS SHARE. Raises ``psycopg.Error``, also for a statement timeout."""
    columns = [_column(row) for row in connection.execute(_COLUMNS, (relation.schema, relation.name)).fetchall()]
    percent = _percent(connection, relation, most_rows)
    sample = (
        sql.SQL("")
        if percent is None
        else sql.SQL(" tablesample system ({}) repeatable ({})").format(sql.Literal(percent), sql.Literal(_SEED))
    )
    names = [sql.Identifier(f"c{number}") for number in range(len(columns))]
    statement = sql.SQL("with rows as materialized (select {} from {}{} limit {}) select {}").format(
        sql.SQL(", ").join(
            sql.SQL("{} as {}").format(sql.Identifier(column.name), name)
            for column, name in zip(columns, names, strict=True)
        ),
        relation.identifier,
        sample,
        sql.Literal(most_rows),
        sql.SQL(", ").join(
            [sql.SQL("(select count(*) from rows)")]
            + [_facts(column, name) for column, name in zip(columns, names, strict=True)]
        ),
    )
    row = connection.execute(sql.Composed([statement]), binary=True).fetchone()
    assert row is not None
    rows = int(row[0])
    if percent is None and rows == most_rows:
        percent = 100.0  # the statistics were wrong: its first rows only
    found = tuple(_filled(column, document) for column, document in zip(columns, row[1:], strict=True))
    return Profile(relation=relation, rows=rows, sampled=percent, columns=found)


def _percent(connection: SnapshotConnection, relation: Relation, most_rows: int) -> float | None:
    row = connection.execute(_SIZE, {"table": str(relation)}).fetchone()
    assert row is not None
    rows, blocks = row
    expected = int(rows or blocks * _ROWS_PER_BLOCK)
    if expected <= most_rows:
        return None
    return float(max(0.001, round(95 * most_rows / expected, 3)))


def _column(row: Any) -> Column:
    name, type_, words, kind, not_null, generated, comment = row
    return Column(
        name=name,
        type=type_,
        type_words=words,
        kind=kind,
        not_null=not_null,
        generated=generated,
        comment=comment,
    )


def _facts(column: Column, name: sql.Identifier) -> sql.Composable:
    """One JSON document of a column of ``rows``."""
    plain = column.kind in ("b", "d")
    aggregates, apart = [_KNOWN], []
    if plain and column.type in _COMPARABLE:
        aggregates.append(_DIFFERENT)
    if plain and column.type in (*NUMBERS, *MOMENTS):
        aggregates.append(_EXTREMES)
    if plain and column.type in MOMENTS:
        aggregates.append(_PAST)
    if plain and column.type in TEXTS:
        aggregates.append(_LENGTHS)
        apart = [_FREQUENT, _SOME]
    names = {
        "c": name,
        "values": sql.Literal(_VALUES),
        "examples": sql.Literal(_EXAMPLES),
        "short": sql.Literal(_SHORT),
    }
    return sql.SQL("(select jsonb_build_object({}) from rows) || jsonb_build_object({})").format(
        *(sql.SQL(", ").join(part.format(**names) for part in parts) for parts in (aggregates, apart))
    )


def _filled(column: Column, document: dict[str, Any]) -> Column:
    if "values" in document:
        document["values"] = tuple((value, number) for value, number in document["values"])
        document["examples"] = tuple(document["examples"])
    return replace(column, **document)
