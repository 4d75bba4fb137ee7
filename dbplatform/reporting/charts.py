"""The geometry of the small charts: numbers in, SVG path data out; colours and words are the template's.

Labels are never drawn into the picture, they stand beside it as text: so they keep their size on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from dbplatform.reporting.evidence import CheckEvidence, TableEvidence
from dbplatform.reporting.words import number

_SLOT, _BAR, _COLUMN_HEIGHT = 6, 4, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One small picture. ``bars`` and ``line`` are values, ``zeros`` runs without a finding, ``gaps`` unknown ones."""

    width: int
    height: int
    label: str
    bars: str = ""
    zeros: str = ""
    gaps: str = ""
    line: str = ""
    last: tuple[float, float] | None = None


def check_trend(check: CheckEvidence) -> Chart | None:
    """What a check is judged by over its last runs: its measured value, else its failed rows; none on its first run."""
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
