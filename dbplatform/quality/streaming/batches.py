"""One batch of a stream, its columns decoded when they are first asked for, its conditions judged once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dbplatform.quality.checks.conditions import Condition
from dbplatform.quality.streaming import texts
from dbplatform.quality.streaming.columns import Column, Numbers, decoded

Array = np.ndarray[Any, Any]
Mask = Array | bool
"""In which rows something holds; ``True`` and ``False`` for all or none of them."""

_FEW_VALUES = 1_000


@dataclass(frozen=True, slots=True)
class Value:
    """A column of the stream: the values of a column of the table."""

    column: Column


@dataclass(frozen=True, slots=True)
class Flag:
    """A column of the stream: a condition that the server evaluates."""

    condition: Condition


Field = Value | Flag
Judge = Callable[["Batch"], Mask]
Text = Callable[[pa.Array], pa.Array]
"""Judges texts: booleans, or null for null."""


class Memory:
    """What one session has learned of its columns: which have too many values to be judged once per value."""

    def __init__(self) -> None:
        self.many_valued: set[str] = set()


class Batch:
    """Some rows of the table."""

    def __init__(self, batch: pa.RecordBatch, fields: Mapping[Field, int], memory: Memory) -> None:
        self.rows = batch.num_rows
        self._batch, self._fields, self._memory = batch, fields, memory
        self._numbers: dict[str, Numbers] = {}
        self._dictionaries: dict[str, tuple[Array, pa.Array]] = {}
        self._masks: dict[Any, Mask] = {}
        self._arrays: dict[tuple[str, str], Array] = {}

    def mask(self, condition: Any, judge: Judge) -> Mask:
        """Where a condition holds; judged once however many checks ask."""
        if condition not in self._masks:
            self._masks[condition] = judge(self)
        return self._masks[condition]

    def flag(self, condition: Condition) -> Mask:
        """Where the server says that a condition holds."""
        return _mask(self._batch.column(self._fields[Flag(condition)]))

    def null(self, column: Column) -> Mask:
        """Where a column is null."""
        array = self.array(column)
        if not array.null_count:
            return False
        return _mask(array.is_null())

    def array(self, column: Column) -> pa.Array:
        """The values as they came."""
        return self._batch.column(self._fields[Value(column)])

    def numbers(self, column: Column) -> Numbers:
        """The values of a column of any kind but text."""
        if column.name not in self._numbers:
            self._numbers[column.name] = decoded(column, self.array(column))
        return self._numbers[column.name]

    def texts(self, column: Column, judge: Text) -> Mask:
        """Where a judgement of a text holds, made once per different text where there are few."""
        array = self.array(column)
        if column.name not in self._memory.many_valued:
            codes, values = self._dictionary(column)
            of_value = _mask(judge(values))
            if isinstance(of_value, bool):
                return of_value and ~self._null_rows(column) if array.null_count else of_value
            found = of_value[codes]
            return found & ~self._null_rows(column) if array.null_count else found
        return _mask(judge(array))

    def lengths(self, column: Column) -> Array:
        """Characters of each text."""
        return self._kept(column, "lengths", texts.lengths)

    def hashes(self, column: Column) -> Array:
        """A hash of each text."""
        return self._kept(column, "hashes", texts.hashes)

    def _kept(self, column: Column, what: str, make: Callable[[pa.Array], Array]) -> Array:
        if (column.name, what) not in self._arrays:
            self._arrays[column.name, what] = make(self.array(column))
        return self._arrays[column.name, what]

    def _dictionary(self, column: Column) -> tuple[Array, pa.Array]:
        if column.name not in self._dictionaries:
            encoded = pc.dictionary_encode(self.array(column))
            codes = np.asarray(pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False))
            values = encoded.dictionary
            if len(values) == 0:  # only nulls
                values = pa.array([""], type=values.type)
            if len(values) > _FEW_VALUES:
                self._memory.many_valued.add(column.name)
            self._dictionaries[column.name] = codes, values
        return self._dictionaries[column.name]

    def _null_rows(self, column: Column) -> Array:
        return np.asarray(self.array(column).is_null().to_numpy(zero_copy_only=False))


def both(masks: list[Mask]) -> Mask:
    """Where all of them hold."""
    found: Mask = True
    for mask in masks:
        if mask is False:
            return False
        if mask is not True:
            found = mask if found is True else found & mask
    return found


def count(mask: Mask, rows: int) -> int:
    """In how many rows it holds."""
    if isinstance(mask, bool):
        return rows if mask else 0
    return int(np.count_nonzero(mask))


def _mask(array: pa.Array) -> Mask:
    """Booleans, null taken for false."""
    if array.null_count:
        array = pc.fill_null(array, False)
    true = array.true_count
    if true in (0, len(array)):
        return bool(true) and len(array) > 0
    return np.asarray(array.to_numpy(zero_copy_only=False))
