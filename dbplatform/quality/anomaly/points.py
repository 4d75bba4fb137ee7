"""A value of a series before and after it was judged, and what a check knows of its past."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A measured value: when (aware), over how many rows, and whether a person has accepted it as it is."""

    at: datetime
    value: float
    rows: int | None = None
    accepted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A value beside what was expected of it. ``expected`` is none where too few were ``comparable`` to judge it.

    ``low`` and ``high`` are inclusive; one is none where values beyond it are welcome.
    """

    point: Point
    comparable: int
    since: datetime | None
    """When the first of the comparable values was measured."""
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    anomalous: bool = False
    drifted: bool = False
    """It lies in the range, but the last values together lie to one side of all before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What earlier runs have left of a check, oldest first."""

    points: tuple[Point, ...] = ()
    accepted: frozenset[datetime] = field(default_factory=frozenset)
    """The moments of values that were out of their range and accepted."""
