"""Which checks can be answered partition by partition, what is kept of each answer, and how answers are put together.

Counts are added up; sums are added by the server as exact numbers, and divided by it; the newest moment is the newest
of all. What cannot be put together, or might have another answer although no row has changed, is read as a whole: a
key that may repeat across partitions, sums of floats (their last digits depend on the order), and whatever depends on
the moment, on other tables, or on functions, operators and types that a person can redefine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.base import Check, Filtered, one_row
from dbplatform.quality.checks.conditions import NOW, Condition, Count, IsNull, Measured, NotAmong, Outside, Part, Where
from dbplatform.quality.checks.keys import Relationship, Unique
from dbplatform.quality.checks.measures import Aggregate, Freshness, NullRatio, RowCount
from dbplatform.quality.checks.rows import RowCheck
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.unchanged.witness import Tree

_KINDS = (RowCheck, NullRatio, Aggregate, RowCount, Freshness, Unique, Relationship)
_SUMMED = ("int2", "int4", "int8", "numeric")
_MOMENTS = ("date", "timestamp", "timestamptz")
_MEANING = 1  # raise it when the same declaration comes to count otherwise

_COLUMNS = """
    select a.attname::text, t.typname::text,
           t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' and a.attgenerated in ('', 's')
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
"""
_REDEFINABLE = """
    select exists (select from pg_proc f where f.proname = any(%(words)s)
                   and (f.provolatile <> 'i' or f.pronamespace <> 'pg_catalog'::regnamespace))
        or exists (select from pg_type t where t.typname = any(%(words)s)
                   and t.typnamespace <> 'pg_catalog'::regnamespace)
        or exists (select from pg_class c where c.relname = any(%(words)s) and c.oid <> %(table)s::regclass
                   and c.relkind in ('r', 'v', 'm', 'p', 'f'))
        or exists (select from pg_operator o where o.oprnamespace <> 'pg_catalog'::regnamespace
                   and position(o.oprname in %(text)s) > 0)
"""
_OF_THE_MOMENT = {
    "now", "today", "tomorrow", "yesterday", "allballs", "current_date", "current_time", "current_timestamp",
    "localtime", "localtimestamp", "current_user", "session_user", "user", "current_role", "current_schema",
    "current_catalog", "select", "table", "values", "system_user", "tableoid", "ctid", "xmin", "xmax", "cmin", "cmax",
}  # fmt: skip


_HIDING = ("u&", "@@", "::reg")  # names in escapes, a text search by a setting, names of objects as values


@dataclass(frozen=True, slots=True)
class Columns:
    """The types of a table's columns by name; ``odd`` are those whose values a person can redefine."""

    types: Mapping[str, str]
    odd: frozenset[str]

    @classmethod
    def of(cls, connection: SnapshotConnection, relation: Relation) -> Columns:
        """Read the catalog."""
        rows = connection.execute(_COLUMNS, (relation.schema, relation.name)).fetchall()
        return cls({row[0]: row[1] for row in rows}, frozenset(row[0] for row in rows if not row[2]))


def whole(
    connection: SnapshotConnection,
    relation: Relation,
    check: Check,
    tree: Tree,
    columns: Columns,
    proofs: Collection[str],
) -> str | None:
    """Why a check must be read as a whole; none where its answers by partition can be put together."""
    if not isinstance(check, _KINDS):
        return "its answers by partition cannot be put together"
    for part in check.parts:
        if isinstance(part, Measured):
            known = _MOMENTS if part.function == "max" else _SUMMED
            if columns.types.get(part.column) not in known:
                return "its answers by partition cannot be put together exactly"
    apart = tree.keys_are_columns and tree.keys <= set(check.columns_read)
    if isinstance(check, Unique) and check.name not in proofs and not apart:
        return "rows of two partitions may share a key"
    if isinstance(check, Relationship) and check.to.relation == relation:
        return "it refers to the table itself"
    if set(check.columns_read) & columns.odd:
        return "the type of its column can be redefined"
    return _unsteady(connection, relation, check, columns)


def fingerprints(checks: Sequence[Check], policy: TablePolicy, proofs: Collection[str]) -> dict[str, str]:
    """What the answers depend on besides the rows, by check: declaration, version of the code, what was asked."""
    try:
        code = version("dbplatform")
    except PackageNotFoundError:
        code = "unknown"
    table = [code, _MEANING, policy.model_dump(mode="json", exclude={"checks", "statement_timeout", "sample"})]
    found = {}
    for check in checks:
        declared = [table, check.type, check.name in proofs, check.model_dump(mode="json")]
        text = json.dumps(declared, sort_keys=True, default=str)
        found[check.name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def parts_of(check: Check) -> tuple[Part, ...]:
    """What is asked of one partition in place of the check's own parts: what can be put together."""
    return tuple(piece for part in check.parts for piece in _pieces(part))


def together(
    connection: SnapshotConnection, check: Check, columns: Columns, values: Sequence[Sequence[Any]], *, proven: bool
) -> list[Any]:
    """The answers to the check's own parts, from those of all partitions to ``parts_of``."""
    found: list[Any] = []
    place = 0
    for part in check.parts[:1] if proven else check.parts:
        pieces = [[row[place + number] for row in values] for number in range(len(_pieces(part)))]
        place += len(pieces)
        found.append(_joined(connection, part, columns, pieces))
    return found


def as_text(value: Any) -> str | None:
    """One answer for the ledger; a number keeps all of its digits."""
    return None if value is None else str(value)


def _pieces(part: Part) -> tuple[Part, ...]:
    if isinstance(part, Count):
        return (part,)
    if part.function == "max":
        return (Measured("max", part.column, part.conditions, _plain),)
    if part.function == "sum":
        return (Measured("sum", part.column, part.conditions),)
    nulls = Count((*part.conditions, IsNull(part.column)))
    return (Measured("sum", part.column, part.conditions), Count(part.conditions), nulls)


def _plain(aggregate: sql.Composable) -> sql.Composable:
    return sql.SQL("({})::text").format(aggregate)


def _joined(connection: SnapshotConnection, part: Part, columns: Columns, pieces: list[list[Any]]) -> Any:
    if isinstance(part, Count):
        return sum(int(value) for value in pieces[0])
    type_ = columns.types[part.column]
    texts = sql.Literal([as_text(value) for value in pieces[0]])
    if part.function == "max":
        values = sql.SQL("unnest({}::text[]::{}[])").format(texts, sql.Identifier(type_))
        return one_row(connection, sql.SQL("select {} from {} as v").format(part.shown(sql.SQL("max(v)")), values))[0]
    total = sql.SQL("(select sum(v) from unnest({}::text[]::numeric[]) as v)").format(texts)
    if part.function == "avg":
        number = sum(int(value) for value in pieces[1]) - sum(int(value) for value in pieces[2])
        if not number:
            return None
        return one_row(connection, sql.SQL("select {} / {}::numeric").format(total, sql.Literal(str(number))))[0]
    found = one_row(connection, sql.SQL("select {}").format(total))[0]
    return int(found) if type_ in ("int2", "int4") and isinstance(found, Decimal) else found


def _unsteady(connection: SnapshotConnection, relation: Relation, check: Check, columns: Columns) -> str | None:
    """Why the answer may change although no row does."""
    conditions: set[Condition] = {condition for part in check.parts for condition in part.conditions}
    for condition in conditions:
        if isinstance(condition, Outside):
            if NOW in (condition.low, condition.high):
                return "its bound is the moment of the check"
            if columns.types.get(condition.column) not in (*_SUMMED, *_MOMENTS, "float4", "float8"):
                return "the order of its type is that of a library"
    where = check.where if isinstance(check, Filtered) and check.where else ""
    literals = [
        value
        for condition in conditions
        for value in (
            (condition.low, condition.high)
            if isinstance(condition, Outside)
            else condition.values
            if isinstance(condition, NotAmong)
            else ()
        )
        if isinstance(value, str)
    ]
    literal_words = {word.lower() for text in literals for word in re.findall(r"\w+", text)}
    named = [*re.findall(r"\w+", where), *(name.replace('""', '"') for name in re.findall(r'"((?:[^"]|"")+)"', where))]
    words = {form for word in named for form in (word, word.lower())}
    if literal_words & _OF_THE_MOMENT or words & _OF_THE_MOMENT or any(sign in where.lower() for sign in _HIDING):
        return "its condition may depend on the moment or on other rows"
    if where and relation.name in words:
        return "its condition names the table"  # which a partition is not, and its columns may stand in another order
    if any(name.lower() in where.lower() for name in columns.odd):
        return "its condition reads a column whose type can be redefined"
    if any(isinstance(condition, Where) for condition in conditions):
        row = connection.execute(_REDEFINABLE, {"words": list(words), "text": where, "table": str(relation)}).fetchone()
        if row is None or row[0]:
            return "its condition names what can be redefined"
    return None
