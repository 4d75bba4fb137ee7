"""The values that a referenced column has, held by the client where they are few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dbplatform.quality.streaming.batches import Batch, Mask
from dbplatform.quality.streaming.columns import Column, decoded

MOST_ROWS = 4_000_000
MOST_TEXTS = 100_000
_DENSE = 1 << 24


class Known:
    """The referenced values; null refers to nothing and is never missing."""

    def __init__(self, column: Column, to: Column, arrays: list[pa.Array]) -> None:
        self.column = column
        if column.kind == "text":
            every = pa.chunked_array(arrays, type=pa.string()).unique().drop_null()
            self._texts = every
            return
        values = [(decoded(to, array), array) for array in arrays]
        known = [n.values if n.valid is None else n.values[n.valid] for n, _ in values]
        self._values: np.ndarray[Any, Any] = np.unique(np.concatenate(known)) if known else np.empty(0, dtype=np.int64)
        self._first = int(self._values[0]) if self._values.size else 0
        self._table: np.ndarray[Any, Any] | None = None
        span = int(self._values[-1]) - self._first + 1 if self._values.size else 0
        if 0 < span <= _DENSE:
            self._table = np.zeros(span, dtype=bool)
            self._table[self._values - self._first] = True

    def missing(self, batch: Batch) -> Mask:
        """Where a value is not null and not known."""
        if self.column.kind == "text":
            return batch.texts(self.column, self._missing_texts)
        numbers = batch.numbers(self.column)
        found = self._missing(numbers.values)
        return found if numbers.valid is None else found & numbers.valid

    def _missing_texts(self, texts: pa.Array) -> pa.Array:
        return pc.and_(pc.invert(pc.is_in(texts, value_set=self._texts)), texts.is_valid())

    def _missing(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self._table is None:
            if not self._values.size:
                return np.ones(values.size, dtype=bool)
            places = np.minimum(np.searchsorted(self._values, values), self._values.size - 1)
            return np.asarray(self._values[places] != values)
        # The difference wraps around, and is then beyond the table.
        places = (values - np.int64(self._first)).view(np.uint64)
        last = np.uint64(self._table.size - 1)
        return np.asarray((places > last) | ~self._table[np.minimum(places, last).astype(np.int64)])
