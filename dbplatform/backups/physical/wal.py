"""WAL by its names: positions, segments, timelines, and what is missing between two of them.

A segment's name is three numbers of eight hexadecimal digits: timeline, and the segment's number in two parts. Which
segments a recovery reads follows from the histories of the timelines. Sources: PostgreSQL manual, "WAL Internals",
"Timelines"; ``xlog_internal.h``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

SEGMENT = re.compile(r"[0-9A-F]{24}")
HISTORY = re.compile(r"[0-9A-F]{8}\.history")
#: What a server archives and what a recovery may ask for.
FINISHED = re.compile(r"[0-9A-F]{24}(?:\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> int:
    """``16/B374D848`` as the number of bytes; raises ValueError with a sentence."""
    match = _LSN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no WAL position; write it as PostgreSQL does: 16/B374D848")
    return int(match[1], 16) << 32 | int(match[2], 16)


def lsn_words(lsn: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True, slots=True)
class Segments:
    """How this server cuts its WAL: ``wal_segment_size`` in bytes."""

    size: int

    def number(self, lsn: int) -> int:
        """The segment that holds the byte at ``lsn``."""
        return lsn // self.size

    def start(self, number: int) -> int:
        """The position of its first byte."""
        return number * self.size

    def name(self, timeline: int, number: int) -> str:
        """The name of its file."""
        per_id = (1 << 32) // self.size
        return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"

    def parse(self, name: str) -> tuple[int, int]:
        """Timeline and number of a segment's name."""
        per_id = (1 << 32) // self.size
        return int(name[:8], 16), int(name[8:16], 16) * per_id + int(name[16:], 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The way from the first timeline to one: where each began, the oldest first."""

    begins: tuple[tuple[int, int], ...]
    """Pairs of a timeline and the position at which it left the one before."""

    @property
    def id(self) -> int:
        return self.begins[-1][0]

    def holds(self, timeline: int, lsn: int) -> bool:
        """Whether that position of that timeline lies on this way."""
        for index, (id_, begin) in enumerate(self.begins):
            if id_ == timeline:
                end = self.begins[index + 1][1] if index + 1 < len(self.begins) else None
                return begin <= lsn and (end is None or lsn <= end)
        return False

    def segment(self, segments: Segments, number: int) -> str:
        """The file that a recovery along this way reads for the segment: of the newest timeline that has begun in it.

        The first segment of a timeline holds a copy of what came before.
        """
        id_ = next(id_ for id_, begin in reversed(self.begins) if segments.number(begin) <= number)
        return segments.name(id_, number)


def timelines(histories: Mapping[int, str], *, also: Iterable[int] = ()) -> tuple[Timeline, ...]:
    """The ways to all timelines with a history file, and to those of ``also`` that need none; the newest first."""
    found = {id_: Timeline(begins=((id_, 0),)) for id_ in (1, *also) if id_ not in histories}
    found |= {id_: Timeline(begins=tuple(_begins(id_, text))) for id_, text in histories.items()}
    return tuple(found[id_] for id_ in sorted(found, reverse=True))


def _begins(id_: int, history: str) -> Iterator[tuple[int, int]]:
    """A line of a history file says of a timeline where the next one left it."""
    begin = 0
    for line in history.splitlines():
        words = line.split("#")[0].split()
        if len(words) >= 2 and words[0].isdigit():
            yield int(words[0]), begin
            begin = parse_lsn(words[1])
    yield id_, begin


def contiguous_end(timeline: Timeline, segments: Segments, first: int, archived: Iterable[str]) -> int:
    """The number of the first segment, from ``first`` on, that is missing."""
    there = set(archived)
    number = first
    while timeline.segment(segments, number) in there:
        number += 1
    return number
