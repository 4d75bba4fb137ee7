"""The rows that failed, read from the snapshot in which they were counted.

A row is kept as its key (the primary key, else a unique index, else ``ctid``) and the values of the check's columns, as
JSON that the server makes: NaN, infinities and times are text, as ``to_jsonb`` writes them. Rows come as a stream of
COPY lines, so that memory does not grow with their number. What is masked (``masks``) the server masks in the same
statement; a row whose key is masked is known by its place (``ctid``), too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from psycopg import sql

from dbplatform.postgres.catalog import is_partitioned
from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.base import Blaming, Check
from dbplatform.quality.checks.conditions import column_of
from dbplatform.quality.checks.keys import Unique
from dbplatform.quality.checks.query import Sql
from dbplatform.quality.examination import Examination
from dbplatform.quality.masks import MaskKind, Masks, masked
from dbplatform.quality.policy import FAILED_ROWS_KEPT

_NULL = b"\\N"
_PAIRS_PER_OBJECT = 50  # a function of PostgreSQL takes at most 100 arguments

# A key without a masked column comes first.
_KEY = """
    select array_agg(a.attname::text order by k.place)
    from pg_index i
    cross join unnest(i.indkey) with ordinality as k(attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = %(table)s::regclass and i.indisunique and i.indisvalid and i.indimmediate
      and i.indpred is null and i.indexprs is null and k.place <= i.indnkeyatts
    group by i.indexrelid, i.indisprimary
    order by bool_or(a.attname = any(%(masked)s)), i.indisprimary desc, bool_and(a.attnotnull) desc, count(*),
             i.indexrelid
    limit 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What is kept of each failing row of a check."""

    key: tuple[str, ...]
    values: tuple[str, ...]
    masked: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A statement that reads failing rows: a JSON column (or null) for each check, with its fields."""

    fields: Mapping[str, Fields]
    statement: sql.Composable


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Failing rows of one or more checks that one statement reads."""

    names: tuple[str, ...]
    reading: Callable[[], Reading]
    """Raises ``psycopg.Error`` where PostgreSQL cannot say what a query returns."""


def batches(examination: Examination, *, bound: int = FAILED_ROWS_KEPT) -> list[Batch]:
    """What to read: the checks on single rows in one scan, all others, and those over the bound, each by itself.

    ``bound`` is for the checks that declare no other one.
    """
    failed = {result.name: result.failed_rows or 0 for result in examination.result.checks}
    bounds = {check.name: bound_of(check, bound) for check in examination.checks}
    failing = [check for check in examination.checks if failed[check.name] and bounds[check.name]]
    if not failing:
        return []
    rows = _Rows.of(examination)
    shared = [check for check in failing if check.fusable_rows and failed[check.name] <= bounds[check.name]]
    found = [Batch(names=tuple(check.name for check in shared), reading=partial(rows.together, shared))]
    alone = [
        Batch(names=(check.name,), reading=partial(rows.alone, check, bounds[check.name]))
        for check in failing
        if check not in shared
    ]
    return found * bool(shared) + alone


def lines(connection: SnapshotConnection, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """The name of a check and one of its failing rows, a field of COPY's text format, again and again.

    Raises ``psycopg.Error`` when the rows cannot be read.
    """
    names = tuple(reading.fields)
    with connection.cursor().copy(sql.SQL("copy ({}) to stdout").format(reading.statement)) as copy:
        for line in copy:
            fields = bytes(line).rstrip(b"\n").split(b"\t")
            for name, field in zip(names, fields, strict=True):
                if field != _NULL:
                    yield name, field


def key_columns(examination: Examination) -> tuple[str, ...]:
    """What identifies a row."""
    return _Rows.of(examination).key


def bound_of(check: Check, default: int) -> int:
    """How many failing rows of a check are kept."""
    own = check.keep_rows if isinstance(check, Blaming) else None
    return default if own is None else own


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """How the rows of one table are identified and written."""

    connection: SnapshotConnection
    relation: Relation
    key: tuple[str, ...]
    masks: Masks
    own: Mapping[str, MaskKind]
    """The masks of the table's columns."""

    @classmethod
    def of(cls, examination: Examination) -> _Rows:
        connection, relation, masks = examination.connection, examination.relation, examination.masks
        whole = examination.key_of or relation
        own = {**masks.of(connection, whole), **masks.of(connection, relation)}
        row = connection.execute(_KEY, {"table": str(whole), "masked": list(own)}).fetchone()
        key = tuple(row[0]) if row is not None else ()
        if not key or not own.keys().isdisjoint(key):
            key += ("tableoid", "ctid") if is_partitioned(connection, whole) else ("ctid",)
        return cls(connection=connection, relation=relation, key=key, masks=masks, own=own)

    def together(self, checks: Sequence[Check]) -> Reading:
        """One scan for checks on single rows."""
        conditions = [self._condition(check) for check in checks]
        objects = [
            sql.SQL("case when {} then {} end").format(condition, self._object(check))
            for check, condition in zip(checks, conditions, strict=True)
        ]
        statement = sql.SQL("select {} from {} where {}").format(
            sql.SQL(", ").join(objects),
            self.relation.identifier,
            sql.SQL(" or ").join(sql.SQL("({})").format(condition) for condition in conditions),
        )
        return Reading(fields={check.name: self._fields(check) for check in checks}, statement=statement)

    def alone(self, check: Check, bound: int) -> Reading:
        """One statement for one check, with a limit."""
        if isinstance(check, Sql):
            return self._query(check, bound)
        # Rows that share a key stand together.
        order: sql.Composable = sql.SQL("")
        if isinstance(check, Unique):
            key = sql.SQL(", ").join(column_of(self.relation, column) for column in check.columns)
            order = sql.SQL("order by {} ").format(key)
        statement = sql.SQL("select {} from {} where {} {}limit {}").format(
            self._object(check), self.relation.identifier, self._condition(check), order, sql.Literal(bound)
        )
        return Reading(fields={check.name: self._fields(check)}, statement=statement)

    def _query(self, check: Sql, bound: int) -> Reading:
        """The rows of a query; its columns get names of ours, for two of them may have the same."""
        found = self.masks.of_query(self.connection, sql.SQL(check.rows))
        names = [sql.Identifier(f"c{place}") for place in range(len(found))]
        pairs = [(name, masked(own, kind)) for own, (name, kind) in zip(names, found, strict=True)]
        alias = sql.SQL("({})").format(sql.SQL(", ").join(names)) if names else sql.SQL("")
        statement = sql.SQL("select {} from ({}\n) as failing {} limit {}").format(
            _json(pairs), sql.SQL(check.rows), alias, sql.Literal(bound)
        )
        fields = Fields(
            key=(),
            values=tuple(dict.fromkeys(name for name, _ in found)),
            masked=tuple(dict.fromkeys(name for name, kind in found if kind)),
        )
        return Reading(fields={check.name: fields}, statement=statement)

    def _fields(self, check: Check) -> Fields:
        values = tuple(name for name in check.columns_read if name not in self.key)
        return Fields(
            key=self.key, values=values, masked=tuple(name for name in (*self.key, *values) if name in self.own)
        )

    def _condition(self, check: Check) -> sql.Composable:
        condition = check.failing(self.relation)
        assert condition is not None, check.type
        return condition

    def _object(self, check: Check) -> sql.Composable:
        fields = self._fields(check)
        return _json([(name, self._value(name)) for name in (*fields.key, *fields.values)])

    def _value(self, name: str) -> sql.Composable:
        column = column_of(self.relation, name)
        return sql.SQL("{}::regclass").format(column) if name == "tableoid" else masked(column, self.own.get(name))


def _json(pairs: Sequence[tuple[str, sql.Composable]]) -> sql.Composable:
    """An object of names and values."""
    objects = []
    for start in range(0, max(len(pairs), 1), _PAIRS_PER_OBJECT):
        some = [part for name, value in pairs[start : start + _PAIRS_PER_OBJECT] for part in (sql.Literal(name), value)]
        objects.append(sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(some)))
    return sql.SQL(" || ").join(objects)
