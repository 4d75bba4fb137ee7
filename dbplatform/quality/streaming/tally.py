"""What one session counts and measures over the batches that it sees; what several have counted, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dbplatform.quality.checks.conditions import Condition, Count, Measured, Part
from dbplatform.quality.streaming.batches import Batch, Mask, both, count
from dbplatform.quality.streaming.columns import Column
from dbplatform.quality.streaming.compiled import Compiled
from dbplatform.quality.streaming.keys import Keys, repeating
from dbplatform.quality.streaming.references import Known
from dbplatform.quality.streaming.texts import mixed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """Columns that together should not repeat in the rows that fulfil the conditions."""

    columns: tuple[Column, ...]
    conditions: tuple[Condition, ...]

    @property
    def exact(self) -> bool:
        """Whether its number of 64 bits is the key itself, and not a hash of it."""
        if any(column.kind == "text" for column in self.columns):
            return False
        return sum(32 if column.type in ("int2", "int4", "date") else 64 for column in self.columns) <= 64


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows whose value is not known, among those that fulfil the conditions."""

    name: str
    known: Known
    conditions: tuple[Condition, ...]

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(slots=True)
class Sum:
    """A sum of whole numbers, exact, how many there were, the greatest, and whether one was NaN."""

    total: int = 0
    count: int = 0
    greatest: int | None = None
    nan: bool = False

    def add(self, other: Sum) -> None:
        """What another session has seen."""
        self.total, self.count, self.nan = self.total + other.total, self.count + other.count, self.nan or other.nan
        if other.greatest is not None and (self.greatest is None or other.greatest > self.greatest):
            self.greatest = other.greatest


class Tally:
    """One session's counts. Batches are given to ``take``; ``close`` gives back what it holds on disk."""

    def __init__(
        self,
        judges: Mapping[Condition, Compiled],
        parts: Sequence[Part],
        keys: Sequence[Key],
        references: Sequence[Reference],
        columns: Mapping[str, Column],
    ) -> None:
        self.judges, self.columns, self.references = judges, columns, references
        self.rows = 0
        self.counts: dict[Count, int] = {part: 0 for part in parts if isinstance(part, Count)}
        self.sums: dict[Measured, Sum] = {part: Sum() for part in parts if isinstance(part, Measured)}
        self.keys: dict[Key, Keys] = {key: Keys() for key in keys}
        self.missing: dict[str, int] = {reference.name: 0 for reference in references}

    def take(self, batch: Batch) -> None:
        """Count the rows of a batch."""
        self.rows += batch.rows
        for part in self.counts:
            self.counts[part] += count(self._where(batch, part.conditions), batch.rows)
        for measured, so_far in self.sums.items():
            so_far.add(_sum(batch, self.columns[measured.column], self._where(batch, measured.conditions)))
        for key, keys in self.keys.items():
            numbers = _numbers(key, batch, self._where(batch, key.conditions))
            if numbers.size:
                keys.add(numbers)
        for reference in self.references:
            found = both([reference.known.missing(batch), self._where(batch, reference.conditions)])
            self.missing[reference.name] += count(found, batch.rows)

    def _where(self, batch: Batch, conditions: tuple[Condition, ...]) -> Mask:
        masks: list[Mask] = []
        for condition in reversed(conditions):  # the violation first: mostly it holds nowhere
            mask = batch.mask(condition, self.judges[condition].judge)
            if mask is False:
                return False
            masks.append(mask)
        return both(masks)

    def close(self) -> None:
        """Give back the disk."""
        for keys in self.keys.values():
            keys.close()


@dataclass(frozen=True, slots=True)
class Total:
    """What all sessions together have found."""

    rows: int
    counts: dict[Count, int]
    sums: dict[Measured, Sum]
    repeats: dict[Key, int]
    missing: dict[str, int]

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> Total:
        """Add up; compares the keys of all sessions."""
        first = tallies[0]
        sums = {measured: Sum() for measured in first.sums}
        for tally in tallies:
            for measured, found in tally.sums.items():
                sums[measured].add(found)
        return cls(
            rows=sum(tally.rows for tally in tallies),
            counts={part: sum(tally.counts[part] for tally in tallies) for part in first.counts},
            sums=sums,
            repeats={key: repeating([tally.keys[key] for tally in tallies]) for key in first.keys},
            missing={name: sum(tally.missing[name] for tally in tallies) for name in first.missing},
        )


def _sum(batch: Batch, column: Column, where: Mask) -> Sum:
    numbers = batch.numbers(column)
    chosen = where if numbers.valid is None else both([where, numbers.valid])
    if chosen is False:
        return Sum()
    nan = False
    if numbers.nan is not None:
        nan = count(both([chosen, numbers.nan]), batch.rows) > 0
        chosen = both([chosen, ~numbers.nan])
    values = numbers.values if chosen is True else numbers.values[chosen]
    if not values.size:
        return Sum(nan=nan)
    # Halves, each of which fits for two thousand million rows.
    total = (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())
    return Sum(total=total, count=int(values.size), greatest=int(values.max()), nan=nan)


def _numbers(key: Key, batch: Batch, where: Mask) -> Array:
    """The key of each row that is compared, as a scattered number: the key itself where it is exact."""
    masks = [where]
    for column in key.columns:
        null = batch.null(column)
        masks.append(not null if isinstance(null, bool) else ~null)
    chosen = both(masks)
    if chosen is False:
        return np.empty(0, dtype=np.uint64)
    parts = []
    for column in key.columns:
        values = batch.hashes(column) if column.kind == "text" else batch.numbers(column).values.view(np.uint64)
        parts.append(values if chosen is True else values[chosen])
    if len(parts) == 1:
        return mixed(parts[0])
    if key.exact:
        packed = (parts[0] << np.uint64(32)) | (parts[1] & np.uint64(0xFFFFFFFF))
        return mixed(packed)
    combined = mixed(parts[0])
    for part in parts[1:]:
        combined = mixed(combined ^ (part + np.uint64(0x9E3779B97F4A7C15)))
    return combined
