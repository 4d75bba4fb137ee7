"""The rows that failed, read from the snapshot in which they were counted.

A row is kept as its key (the primary key, else a unique index, else ``ctid``) and the values of the check's columns, as
JSON that the server makes: NaN, infinities and times are text, as ``to_jsonb`` writes them. Rows come as a stream of
COPY lines, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from dbplatform.postgres.catalog import is_partitioned
from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.base import Check
from dbplatform.quality.checks.conditions import column_of
from dbplatform.quality.checks.keys import Unique
from dbplatform.quality.checks.query import Sql
from dbplatform.quality.examination import Examination

FAILED_ROWS_KEPT = 100_000
"""How many failing rows of one check are kept; the total is exact whatever it is."""

_NULL = b"\\N"
_PAIRS_PER_OBJECT = 50  # a function of PostgreSQL takes at most 100 arguments

_KEY = """
    select array_agg(a.attname::text order by k.place)
    from pg_index i
    cross join unnest(i.indkey) with ordinality as k(attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = %s::regclass and i.indisunique and i.indisvalid and i.indimmediate
      and i.indpred is null and i.indexprs is null and k.place <= i.indnkeyatts
    group by i.indexrelid, i.indisprimary
    order by i.indisprimary desc, bool_and(a.attnotnull) desc, count(*), i.indexrelid
    limit 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Failing rows of one or more checks that one statement reads: a JSON column (or null) for each check."""

    names: tuple[str, ...]
    statement: sql.Composable


def batches(examination: Examination, *, bound: int = FAILED_ROWS_KEPT) -> list[Batch]:
    """What to read: the checks on single rows in one scan, all others, and those over the bound, each by itself."""
    connection, relation = examination.connection, examination.relation
    failed = {result.name: result.failed_rows or 0 for result in examination.result.checks}
    failing = [check for check in examination.checks if failed[check.name]]
    if not failing:
        return []
    rows = _Rows.of(connection, relation)
    shared = [check for check in failing if check.fusable_rows and failed[check.name] <= bound]
    found = [rows.together(shared)] if shared else []
    return found + [rows.alone(check, bound) for check in failing if check not in shared]


def lines(connection: SnapshotConnection, batch: Batch) -> Iterator[tuple[str, bytes]]:
    """The name of a check and one of its failing rows, a field of COPY's text format, again and again.

    Raises ``psycopg.Error`` when the rows cannot be read.
    """
    with connection.cursor().copy(sql.SQL("copy ({}) to stdout").format(batch.statement)) as copy:
        for line in copy:
            fields = bytes(line).rstrip(b"\n").split(b"\t")
            for name, field in zip(batch.names, fields, strict=True):
                if field != _NULL:
                    yield name, field


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """How the rows of one table are identified and written."""

    relation: Relation
    key: tuple[str, ...]

    @classmethod
    def of(cls, connection: SnapshotConnection, relation: Relation) -> _Rows:
        row = connection.execute(_KEY, (str(relation),)).fetchone()
        if row is not None:
            key = tuple(row[0])
        else:
            key = ("tableoid", "ctid") if is_partitioned(connection, relation) else ("ctid",)
        return cls(relation=relation, key=key)

    def together(self, checks: Sequence[Check]) -> Batch:
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
        return Batch(names=tuple(check.name for check in checks), statement=statement)

    def alone(self, check: Check, bound: int) -> Batch:
        """One statement for one check, with a limit."""
        if isinstance(check, Sql):
            statement = sql.SQL("select to_jsonb(failing) from ({}\n) as failing limit {}").format(
                sql.SQL(check.rows), sql.Literal(bound)
            )
        else:
            # Rows that share a key stand together.
            order: sql.Composable = sql.SQL("")
            if isinstance(check, Unique):
                key = sql.SQL(", ").join(column_of(self.relation, column) for column in check.columns)
                order = sql.SQL("order by {} ").format(key)
            statement = sql.SQL("select {} from {} where {} {}limit {}").format(
                self._object(check), self.relation.identifier, self._condition(check), order, sql.Literal(bound)
            )
        return Batch(names=(check.name,), statement=statement)

    def _condition(self, check: Check) -> sql.Composable:
        condition = check.failing(self.relation)
        assert condition is not None, check.type
        return condition

    def _object(self, check: Check) -> sql.Composable:
        names = list(dict.fromkeys([*self.key, *check.columns_read]))
        objects = []
        for start in range(0, len(names), _PAIRS_PER_OBJECT):
            pairs = [
                part
                for name in names[start : start + _PAIRS_PER_OBJECT]
                for part in (sql.Literal(name), self._value(name))
            ]
            objects.append(sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(pairs)))
        return sql.SQL(" || ").join(objects)

    def _value(self, name: str) -> sql.Composable:
        column = column_of(self.relation, name)
        return sql.SQL("{}::regclass").format(column) if name == "tableoid" else column
