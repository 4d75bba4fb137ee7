"""How a column travels in a stream and becomes an array of the client, without losing anything.

Only types whose order, equality and sums the client computes exactly as PostgreSQL does are here. Of any other column
the server itself evaluates the condition, as a boolean in the same stream.

- ``smallint``, ``integer``, ``bigint`` as they are.
- ``numeric(p, s)`` with p at most 15 travels as ``float8`` and becomes the whole number of its last decimals: with at
  most 15 digits the nearest double times 10^s lies within 0.23 of that number: rounding gives it back. NaN stays NaN.
- ``date``, ``timestamp`` and ``timestamptz`` become PostgreSQL's own count of days or microseconds since 2000;
  infinities are the ends of the integers. The driver counts from 1970 and wraps around, and so does the way back.
- ``real`` and ``double precision`` as they are: for bounds, not for sums, whose last digits depend on the order.
- ``text`` and ``varchar`` whose collation is deterministic, so that equal means equal bytes, in a UTF-8 database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.conditions import column_of

Kind = Literal["int", "decimal", "moment", "float", "text"]

_COLUMNS = """
    select a.attname::text, t.typname::text, a.atttypmod, coalesce(l.collisdeterministic, true),
           coalesce(s.avg_width, 16)
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_type t on t.oid = a.atttypid and t.typnamespace = 'pg_catalog'::regnamespace
    left join pg_collation l on l.oid = a.attcollation
    left join pg_stats s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = a.attname
        and s.inherited = (c.relkind = 'p')
    where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
"""
_INTEGERS = {"int2": (-(2**15), 2**15 - 1), "int4": (-(2**31), 2**31 - 1), "int8": (-(2**63), 2**63 - 1)}
_EPOCH_DAYS = 10_957
_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400 * 10**6
_MOST_DIGITS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column that the client can judge: its name, type, and what to do with its values."""

    name: str
    type: str
    kind: Kind
    scale: int = 0
    width: int = 8
    """Average bytes of a value, by the statistics."""

    @property
    def limits(self) -> tuple[int, int]:
        """The ends of its integers: for a moment, ``-infinity`` and ``infinity``."""
        return _INTEGERS.get({"date": "int4"}.get(self.type, self.type), _INTEGERS["int8"])

    def sql(self, relation: Relation) -> sql.Composable:
        """What is selected."""
        name = column_of(relation, self.name)
        return sql.SQL("{}::float8").format(name) if self.kind == "decimal" else name


def columns(connection: SnapshotConnection, relation: Relation) -> dict[str, Column]:
    """The columns of a table that the client can judge, by name."""
    row = connection.execute("select current_setting('server_encoding') = 'UTF8'").fetchone()
    utf8 = row is not None and bool(row[0])
    found = {}
    for name, type_, typmod, deterministic, width in connection.execute(_COLUMNS, (relation.schema, relation.name)):
        scale = 0
        if type_ in _INTEGERS:
            kind: Kind = "int"
        elif type_ in ("date", "timestamp", "timestamptz"):
            kind = "moment"
        elif type_ in ("float4", "float8"):
            kind = "float"
        elif type_ == "numeric" and typmod >= 4:
            precision, scale = (typmod - 4) >> 16, (typmod - 4) & 0x7FF
            if precision > _MOST_DIGITS or scale > precision:
                continue
            kind = "decimal"
        elif type_ in ("text", "varchar") and deterministic and utf8:
            kind = "text"
        else:
            continue
        found[name] = Column(name=name, type=type_, kind=kind, scale=scale, width=width)
    return found


@dataclass(frozen=True, slots=True)
class Numbers:
    """Values of one batch: whole numbers or floats, what is under a null is arbitrary; ``valid`` none: no nulls."""

    values: np.ndarray[Any, Any]
    valid: np.ndarray[Any, Any] | None
    nan: np.ndarray[Any, Any] | None = None
    """Where a decimal is NaN; none where it never is."""


def decoded(column: Column, array: pa.Array) -> Numbers:
    """The numbers of a batch of any kind but text."""
    valid = None
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(array.type):
        values = _fixed(array, np.int64) - np.int64(_EPOCH_MICROSECONDS)
    elif pa.types.is_date32(array.type):
        values = (_fixed(array, np.int32) - np.int32(_EPOCH_DAYS)).astype(np.int64)
    elif column.kind == "decimal":
        floats = _fixed(array, np.float64)
        nan = np.isnan(floats)
        if valid is not None:
            nan &= valid
        if not nan.any():
            return Numbers(_whole(floats, column.scale, valid), valid)
        known = ~nan if valid is None else valid & ~nan
        return Numbers(_whole(floats, column.scale, known), valid, nan)
    else:
        values = _fixed(array, array.type.to_pandas_dtype())
        if column.kind == "int":
            values = values.astype(np.int64, copy=False)
    return Numbers(values, valid)


def _fixed(array: pa.Array, type_: Any) -> np.ndarray[Any, Any]:
    buffer = array.buffers()[1]
    return np.frombuffer(buffer, dtype=type_)[array.offset : array.offset + len(array)]


def _whole(floats: np.ndarray[Any, Any], scale: int, known: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    scaled = np.rint(floats * float(10**scale))
    if known is not None:
        scaled = np.where(known, scaled, 0.0)
    return scaled.astype(np.int64)
