"""The geometry of the small charts: numbers in, SVG path data out; colours and words are the template's.

Labels are never drawn into the picture, they stand beside it as text: so they keep their size on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from dbplatform.reporting.evidence import BandPoint, CheckEvidence, TableEvidence
from dbplatform.reporting.words import number

_SLOT, _BAR, _COLUMN_HEIGHT = 6, 4, 24
_BAND_WIDTH, _BAND_HEIGHT, _BAND_POINTS = 120, 36, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One small picture. ``bars`` and ``line`` are values, ``zeros`` runs without a finding, ``gaps`` unknown ones.

    ``band`` is what was expected, ``outside`` the values that were not.
    """

    width: int
    height: int
    label: str
    bars: str = ""
    zeros: str = ""
    gaps: str = ""
    line: str = ""
    last: tuple[float, float] | None = None
    band: str = ""
    outside: tuple[tuple[float, float], ...] = ()


def check_trend(check: CheckEvidence) -> Chart | None:
    """What a check is judged by over its last runs: its measured value, else its failed rows; none on its first run."""
    if sum(point.value is not None and isfinite(point.value) for point in check.band) > 1:
        return _band(check.band[-_BAND_POINTS:])
    if len(check.history) < 2:
        return None
    values = [point.value if point.value is not None and isfinite(point.value) else None for point in check.history]
    if any(value is not None for value in values):
        return _line(values, 120, 24, f"Measured value over the last {len(values)} runs: {_range(values)}")
    rows = [point.failed_rows for point in check.history]
    if any(value is not None for value in rows):
        return _columns(rows, f"Failed rows over the last {len(rows)} runs: {_range(rows)}")
    return None


def row_count_trend(table: TableEvidence) -> Chart | None:
    """The rows of a table over its last runs; none on its first run."""
    counts = [point.rows for point in table.row_counts]
    if sum(count is not None for count in counts) < 2:
        return None
    return _line(counts, 240, 44, f"Rows over the last {len(counts)} runs: {_range(counts)}")


def row_count_range(table: TableEvidence) -> str:
    """From the smallest to the largest count, in words: the axis of ``row_count_trend``."""
    return _range([point.rows for point in table.row_counts])


def trend(values: Sequence[float | None], what: str) -> Chart | None:
    """Any number over the last runs; none of fewer than two."""
    if sum(value is not None for value in values) < 2:
        return None
    return _line(values, 120, 24, f"{what} over the last {len(values)} runs: {_range(values)}")


def _range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    now = "unknown" if values[-1] is None else number(values[-1])
    return f"from {number(min(known))} to {number(max(known))}, now {now}"


def _columns(values: Sequence[int | None], label: str) -> Chart:
    """One column per run, from zero, so that heights compare."""
    highest = max((value for value in values if value is not None), default=0)
    bars, zeros, gaps = [], [], []
    for place, value in enumerate(values):
        x = place * _SLOT + 1
        if value is None:
            middle = _COLUMN_HEIGHT - 5
            gaps.append(f"M{x} {middle - 2}l4 4m0-4l-4 4")
        elif value == 0:
            zeros.append(f"M{x} {_COLUMN_HEIGHT - 1}h{_BAR}")
        else:
            height = max(2.0, round(value / highest * (_COLUMN_HEIGHT - 2), 1))
            bars.append(f"M{x} {_COLUMN_HEIGHT}v-{height:g}h{_BAR}v{height:g}z")
    width = len(values) * _SLOT + 1
    return Chart(
        width=width,
        height=_COLUMN_HEIGHT,
        label=label,
        bars="".join(bars),
        zeros="".join(zeros),
        gaps="".join(gaps),
    )


def _band(points: Sequence[BandPoint]) -> Chart:
    """The values as a line over the range that was expected; what lies outside of it is marked by its shape, too."""
    values = [point.value if point.value is not None and isfinite(point.value) else None for point in points]
    ends = [end for point in points for end in (point.low, point.high) if end is not None and isfinite(end)]
    known = [value for value in values if value is not None] + ends
    scale = _Scale(low=min(known), high=max(known), width=_BAND_WIDTH, height=_BAND_HEIGHT, many=len(points))
    area = "".join(
        _area([(scale.x(place), scale.y(points[place].low, 0), scale.y(points[place].high, 1)) for place in piece])
        for piece in _pieces([point.low is not None or point.high is not None for point in points])
    )
    line = "".join(
        _path([(scale.x(place), scale.y(values[place], 0)) for place in piece])
        for piece in _pieces([value is not None for value in values])
    )
    marks = tuple((scale.x(place), scale.y(point.value, 0)) for place, point in enumerate(points) if point.outside)
    many = f"{len(marks)} of them not as expected" if marks else "all as expected"
    label = f"Measured value, the last {len(points)}: {_range(values)}{_expected(points[-1])}; {many}"
    last = (scale.x(len(points) - 1), scale.y(values[-1], 0)) if values[-1] is not None else None
    return Chart(width=_BAND_WIDTH, height=_BAND_HEIGHT, label=label, line=line, last=last, band=area, outside=marks)


def _expected(point: BandPoint) -> str:
    if point.low is not None and point.high is not None:
        return f", expected {number(point.low)} to {number(point.high)}"
    if point.low is not None:
        return f", expected at least {number(point.low)}"
    return f", expected at most {number(point.high)}" if point.high is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """From places and values to points of a picture, with a margin of four."""

    low: float
    high: float
    width: int
    height: int
    many: int

    def x(self, place: int) -> float:
        return round(4 + place * (self.width - 8) / max(1, self.many - 1), 1)

    def y(self, value: float | None, otherwise: float) -> float:
        """``otherwise`` is the share of the height where there is no value: an end that is open."""
        share = otherwise
        if value is not None and isfinite(value):
            share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.height - 4 - share * (self.height - 8), 1)


def _pieces(there: Sequence[bool]) -> list[list[int]]:
    """The places of each stretch without a gap."""
    pieces: list[list[int]] = [[]]
    for place, is_there in enumerate(there):
        if is_there:
            pieces[-1].append(place)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _area(stretch: Sequence[tuple[float, float, float]]) -> str:
    """Between the lower and the upper end, from left to right and back."""
    there = [f"{x:g} {low:g}" for x, low, _ in stretch]
    back = [f"{x:g} {high:g}" for x, _, high in reversed(stretch)]
    return f"M{'L'.join([*there, *back])}z"


def _line(values: Sequence[float | None], width: int, height: int, label: str) -> Chart:
    """From the lowest to the highest value, so nothing below the line is filled; where one is unknown it is broken."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    step = (width - 8) / max(1, len(values) - 1)
    pieces: list[list[tuple[float, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            pieces.append([])
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        pieces[-1].append((round(4 + place * step, 1), round(height - 4 - share * (height - 8), 1)))
    drawn = [piece for piece in pieces if piece]
    line = "".join(_path(piece) for piece in drawn)
    last = drawn[-1][-1] if values[-1] is not None else None
    return Chart(width=width, height=height, label=label, line=line, last=last)


def _path(points: Sequence[tuple[float, float]]) -> str:
    first, *rest = points
    return f"M{first[0]:g} {first[1]:g}" + "".join(f"L{x:g} {y:g}" for x, y in rest or [first])
