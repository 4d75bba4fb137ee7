"""Moves old data to the present, by whole multiples of a fixed length, so that a Monday stays a Monday.

How far is decided once per profile and recorded in the managed database before the first row is loaded, so that a
repeated seeding gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dbplatform.errors import WorkError
from dbplatform.postgres.words import Interval
from dbplatform.seeding.csv_text import blocks, header_of, values_of
from dbplatform.seeding.errors import BadCsv, SeedHeaderWrong
from dbplatform.seeding.files import SeedFile

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
        parts = blocks(stream, file.name)
        names, block = header_of(parts, file.name)
        if column not in names:
            raise SeedHeaderWrong(
                owner=f"The file {file.name}",
                missing=column,
                present=", ".join(names),
                hint="Correct shift.newest.column.",
            )
        position = names.index(column)
        while True:
            for value in values_of(block, position, len(names), file.name):
                if value != last and value not in empty:
                    last = value
                    moment = _time(value, file.name)
                    newest = moment if newest is None else max(newest, moment)
            following = next(parts, None)
            if following is None:
                break
            block = following
    if newest is None:
        raise NothingToShift(column=column, name=file.name, hint="Correct shift.newest.", file=file.name)
    return RecordedShift(newest=newest, by=by, steps=max(0, (now - newest) // by.timedelta))


def mover(length: timedelta) -> Callable[[bytes], bytes]:
    """A function that moves the text of a time; the zone that it was written with stays."""
    known: dict[bytes, bytes] = {}

    def move(text: bytes) -> bytes:
        moved = known.get(text)
        if moved is None:
            if len(known) >= _MOST_CACHED:
                known.clear()
            moved = (datetime.fromisoformat(text.decode()) + length).isoformat().encode()
            known[text] = moved
        return moved

    return move


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
