"""Moves old data to the present, by whole multiples of a fixed length, so that a Monday stays a Monday.

How far is decided once per profile and recorded in the managed database before the first row is loaded, so that a
repeated seeding gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import BinaryIO

from dbplatform.errors import WorkError
from dbplatform.postgres.words import Interval
from dbplatform.seeding.csv_text import blocks, header_of, values_of
from dbplatform.seeding.errors import BadCsv, SeedHeaderWrong
from dbplatform.seeding.files import SeedFile
from dbplatform.seeding.json_lines import objects

_MOST_CACHED = 100_000


class NothingToShift(WorkError):
    """The column {column} of {name} holds no time, so that the shift cannot be found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedShift:
    """``steps`` times ``by``; ``newest`` is the newest moment of the file, before the shift."""

    newest: datetime
    by: Interval
    steps: int

    @property
    def length(self) -> timedelta:
        """How far the data is moved."""
        return self.steps * self.by.timedelta


def find_shift(
    file: SeedFile, column: str, nulls: frozenset[bytes] | None, by: Interval, now: datetime
) -> RecordedShift:
    """The most whole steps that leave the newest moment not after ``now``; none for data of the future.

    Reads the file. A time without a zone is UTC.
    """
    newest: datetime | None = None
    last = b""
    empty = frozenset((b"",)) if nulls is None else nulls
    with file.open() as stream:
        for value in _texts(stream, file.name, column):
            if value != last and value not in empty:
                last = value
                moment = _time(value, file.name)
                newest = moment if newest is None else max(newest, moment)
    if newest is None:
        raise NothingToShift(column=column, name=file.name, hint="Correct shift.newest.", file=file.name)
    return shift_from(newest, by, now)


def shift_from(newest: datetime, by: Interval, now: datetime) -> RecordedShift:
    """The most whole steps that leave ``newest`` not after ``now``."""
    return RecordedShift(newest=newest, by=by, steps=max(0, (now - newest) // by.timedelta))


def mover(length: timedelta) -> Callable[[bytes], bytes]:
    """A function that moves the text of a time; the zone that it was written with stays."""
    known: dict[bytes, bytes] = {}

    def move(text: bytes) -> bytes:
        moved = known.get(text)
        if moved is None:
            if len(known) >= _MOST_CACHED:
                known.clear()
            try:
                moved = (datetime.fromisoformat(text.decode()) + length).isoformat().encode()
            except (ValueError, OverflowError) as error:
                shown = text.decode(errors="replace")
                raise ValueError(f"{shown!r} is no time that can be moved; write ISO 8601") from error
            known[text] = moved
        return moved

    return move


def _texts(stream: BinaryIO, name: str, column: str) -> Iterator[bytes]:
    """The values of one column of a file."""
    if ".jsonl" in name:
        for _, row in objects(stream, name):
            if isinstance(value := row.get(column), str):
                yield value.encode()
        return
    parts = blocks(stream, name)
    names, first = header_of(parts, name)
    if column not in names:
        raise SeedHeaderWrong(
            owner=f"The file {name}",
            missing=column,
            present=", ".join(names),
            hint="Correct shift.newest.column.",
        )
    for block in chain((first,), parts):
        yield from values_of(block, names.index(column), len(names), name)


def _time(value: bytes, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value.decode())
    except ValueError as error:
        raise BadCsv(
            reason=f"{value.decode(errors='replace')!r} is no time",
            file=name,
            hint="Write times as ISO 8601, or name its text under nulls.",
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
