"""Conditions as functions over a batch, where the client's answer is certain to be PostgreSQL's.

What is compiled here has the same meaning as its SQL for every value of the column's type; whatever is not certain is
left to the server, which evaluates the condition in the stream.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import split_name
from dbplatform.quality.checks.conditions import (
    NOW,
    Condition,
    Finite,
    IsNull,
    LengthOutside,
    NoMatch,
    NotAmong,
    Outside,
    Where,
)
from dbplatform.quality.streaming import patterns
from dbplatform.quality.streaming.batches import Array, Batch, Field, Flag, Judge, Mask, Value
from dbplatform.quality.streaming.columns import Column

_EQUAL = re.compile(r"""\s*([A-Za-z_][A-Za-z0-9_]*|"(?:[^"]|"")+")\s*=\s*(?:'([^'\\]*)'|(-?\d{1,18}))\s*""")
_MOST_VALUES = 1_000


@dataclass(frozen=True, slots=True)
class Compiled:
    """How a condition is judged, and what it needs of the stream."""

    field: Field
    judge: Judge


class Compiler:
    """Compiles the conditions of one table."""

    def __init__(self, connection: SnapshotConnection, columns: Mapping[str, Column]) -> None:
        self.connection, self.columns = connection, columns
        words = connection.execute("select word from pg_get_keywords() where catcode in ('R', 'T')")
        self.reserved = {row[0] for row in words}

    def compiled(self, condition: Condition) -> Compiled:
        """The condition for the client, else as a flag of the server."""
        return self.of_client(condition) or Compiled(Flag(condition), lambda batch: batch.flag(condition))

    def of_client(self, condition: Condition) -> Compiled | None:
        """The condition for the client; none where only the server knows."""
        if isinstance(condition, Where):
            return self._equal(condition)
        column = self.columns.get(condition.column)
        if column is None or isinstance(condition, IsNull):
            return None  # a null is cheaper as a flag; where the values are there anyway, ``null`` is asked for
        judge: Judge | None = None
        match condition:
            case Outside():
                judge = self._outside(column, condition)
            case NotAmong():
                judge = self._not_among(column, condition)
            case NoMatch():
                judge = _no_match(column, condition.regex)
            case LengthOutside() if column.kind == "text":
                judge = partial(_length_outside, column, condition.low, condition.high)
            case Finite() if column.kind == "moment":
                judge = partial(_finite, column)
        return None if judge is None else Compiled(Value(column), judge)

    def null(self, condition: IsNull) -> Compiled | None:
        """Whether a column is null, by its values."""
        column = self.columns.get(condition.column)
        return None if column is None else Compiled(Value(column), lambda batch: batch.null(column))

    def _equal(self, where: Where) -> Compiled | None:
        """``status = 'paid'`` of a text, ``store = 7`` of an integer: the equality of bytes and of numbers."""
        match = _EQUAL.fullmatch(where.text)
        if match is None:
            return None
        name, text, number = match.groups()
        try:
            parts = split_name(name)
        except ValueError:
            return None
        column = self.columns.get(parts[0])
        if column is None or (not name.startswith('"') and parts[0] in self.reserved):
            return None
        if text is not None and column.kind == "text":
            wanted = pa.scalar(text, type=pa.string())
            return Compiled(Value(column), lambda batch: batch.texts(column, lambda values: pc.equal(values, wanted)))
        if number is not None and column.kind == "int":
            return Compiled(Value(column), partial(_is_number, column, int(number)))
        return None

    def _outside(self, column: Column, condition: Outside) -> Judge | None:
        if column.kind == "float":
            low, high = condition.low, condition.high
            if isinstance(low, str) or isinstance(high, str) or not all(map(_is_double, (low, high))):
                return None
            return partial(_float_outside, column, _double(low), _double(high))
        ends: list[int | None] = []
        for bound, end in ((condition.low, math.ceil), (condition.high, math.floor)):
            if bound is None:
                ends.append(None)
            elif column.kind == "moment":
                ends.append(self._moment(column, bound))
            elif column.kind in ("int", "decimal") and not isinstance(bound, str):
                ends.append(end(Decimal(str(bound)).scaleb(column.scale)))
            else:
                return None
            if bound is not None and (ends[-1] is None or not -(2**63) <= ends[-1] < 2**63):
                return None
        return partial(_outside, column, ends[0], ends[1])

    def _moment(self, column: Column, bound: int | float | str) -> int | None:
        """The server's own number of a date or time; none where it compares otherwise than by that number."""
        if not isinstance(bound, str) or (bound == NOW and column.type != "timestamptz"):
            return None
        moment = (
            sql.SQL("now()")
            if bound == NOW
            else sql.SQL("{}::{}").format(sql.Literal(bound), sql.Identifier(column.type))
        )
        row = self.connection.execute(
            sql.SQL("select {}({})").format(sql.Identifier(f"{column.type}_send"), moment)
        ).fetchone()
        assert row is not None
        return int.from_bytes(row[0], "big", signed=True)

    def _not_among(self, column: Column, condition: NotAmong) -> Judge | None:
        values = condition.values
        if len(values) > _MOST_VALUES:
            return None
        if column.kind == "text" and all(isinstance(value, str) for value in values):
            accepted = pa.array(values, type=pa.string())

            def unaccepted(texts: pa.Array) -> pa.Array:
                return pc.and_(pc.invert(pc.is_in(texts, value_set=accepted)), texts.is_valid())

            return lambda batch: batch.texts(column, unaccepted)
        whole = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
        if column.kind == "int" and len(whole) == len(values) and all(-(2**63) <= value < 2**63 for value in whole):
            return partial(_not_number, column, np.array(whole, dtype=np.int64))
        return None


def _outside(column: Column, low: int | None, high: int | None, batch: Batch) -> Mask:
    numbers = batch.numbers(column)
    values = numbers.values
    if not values.size:
        return False
    below = low is not None and int(values.min()) < low
    above = high is not None and int(values.max()) > high
    found: Mask = False
    if below and above:
        found = (values < low) | (values > high)
    elif below:
        found = values < low
    elif above:
        found = values > high
    if numbers.nan is not None:  # what stands in the place of a NaN means nothing; NaN is above all
        found = (found if found is not False else np.zeros(values.size, dtype=bool)) & ~numbers.nan
        found = found if high is None else found | numbers.nan
    return found if found is False or numbers.valid is None else found & numbers.valid


def _float_outside(column: Column, low: float | None, high: float | None, batch: Batch) -> Mask:
    numbers = batch.numbers(column)
    values = numbers.values.astype(np.float64, copy=False)
    found = np.zeros(values.size, dtype=bool)
    if low is not None:
        found |= values < low
    if high is not None:
        found |= (values > high) | np.isnan(values)
    return found if numbers.valid is None else found & numbers.valid


def _is_number(column: Column, wanted: int, batch: Batch) -> Mask:
    numbers = batch.numbers(column)
    found: Mask = numbers.values == wanted
    return found if numbers.valid is None else found & numbers.valid


def _not_number(column: Column, accepted: Array, batch: Batch) -> Mask:
    numbers = batch.numbers(column)
    found = ~np.isin(numbers.values, accepted)
    return found if numbers.valid is None else found & numbers.valid


def _length_outside(column: Column, low: int | None, high: int | None, batch: Batch) -> Mask:
    lengths = batch.lengths(column)
    if not lengths.size:
        return False
    null = batch.null(column)
    if null is False and (low is None or lengths.min() >= low) and (high is None or lengths.max() <= high):
        return False
    found = np.zeros(lengths.size, dtype=bool)
    if low is not None:
        found |= lengths < low
    if high is not None:
        found |= lengths > high
    if null is True:
        return False
    return found if null is False else found & ~null


def _finite(column: Column, batch: Batch) -> Mask:
    numbers = batch.numbers(column)
    low, high = column.limits
    found: Mask = True
    if numbers.values.size and (int(numbers.values.min()) == low or int(numbers.values.max()) == high):
        found = (numbers.values != low) & (numbers.values != high)
    if numbers.valid is None:
        return found
    return numbers.valid if found is True else found & numbers.valid


def _no_match(column: Column, regex: str) -> Judge | None:
    if column.kind != "text":
        return None
    beginning = patterns.prefix(regex)
    if beginning is not None:
        return lambda batch: batch.texts(column, lambda texts: pc.invert(pc.starts_with(texts, beginning)))
    same = patterns.as_re2(regex)
    if same is None:
        return None
    try:
        pc.match_substring_regex(pa.array(["a"]), same)
    except pa.ArrowInvalid:  # too large for RE2
        return None
    return lambda batch: batch.texts(column, lambda texts: pc.invert(pc.match_substring_regex(texts, same)))


def _is_double(bound: object) -> bool:
    return bound is None or isinstance(bound, float) or (isinstance(bound, int) and abs(bound) <= 2**53)


def _double(bound: int | float | str | None) -> float | None:
    return None if bound is None else float(bound)
