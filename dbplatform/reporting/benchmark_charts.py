"""The geometry of the pictures of benchmarks: numbers in, SVG path data out; colours and words are the template's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dbplatform.benchmarking.model import Result
from dbplatform.benchmarking.statistics import Comparison
from dbplatform.reporting.words import number

_WIDTH, _HEIGHT, _MARGIN = 560, 120, 6
_SPAN_WIDTH, _SPAN_HEIGHT = 260, 26
#: Half as fast and twice as fast are the ends of the axis; what lies beyond is drawn at the end.
_SPAN_END = math.log(2)
_OF_ALL = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The times of both sides by round: a dot each, and a line at each median."""

    width: int
    height: int
    label: str
    a: str
    b: str
    a_median: float
    b_median: float | None
    top: float
    """The milliseconds at the upper end; slower ones are drawn there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A change with its interval on an axis from half to twice the time, and the noise around nothing."""

    width: int
    height: int
    label: str
    zero: float
    noise: tuple[float, float]
    """From where, and how wide."""
    low: float
    high: float
    at: float


def rounds(one: Result, *, compared: bool) -> Rounds | None:
    """The rounds of a benchmark; of a plain run without the yardstick. None where it was not measured."""
    if not one.a:
        return None
    other = one.b if compared else ()
    # One slow moment would flatten all the others.
    every = sorted([*one.a, *other])
    top = every[min(int(_OF_ALL * len(every)), len(every) - 1)] * 1.05
    medians = [_median(side) for side in (one.a, other) if side]
    words = f"{len(one.a)} rounds from 0 to {number(top)} ms, median {number(medians[0])} ms"
    if other:
        words += f" (A) and {number(medians[1])} ms (B)"
    return Rounds(
        width=_WIDTH,
        height=_HEIGHT,
        label=words,
        a=_dots(one.a, top, -1.5),
        b=_dots(other, top, 1.5),
        a_median=_y(medians[0], top),
        b_median=_y(medians[1], top) if other else None,
        top=top,
    )


def span(found: Comparison | None) -> Span | None:
    """The change of a comparison; none where there is none."""
    if found is None or not math.isfinite(found.change):
        return None
    noise = _x(found.noise) - _x(0)
    words = (
        f"{percent(found.change)} (from {percent(found.low)} to {percent(found.high)}), noise {percent(found.noise)}"
    )
    return Span(
        width=_SPAN_WIDTH,
        height=_SPAN_HEIGHT,
        label=words,
        zero=_x(0),
        noise=(round(_x(0) - noise, 1), round(2 * noise, 1)),
        low=_x(found.low),
        high=_x(found.high),
        at=_x(found.change),
    )


def percent(share: float | None) -> str:
    """``+20.3 %``; a dash where nothing is known."""
    if share is None or not math.isfinite(share):
        return "\N{EN DASH}"
    return f"{100 * share:+.1f} %"


def _x(share: float) -> float:
    """A share on the axis, by its logarithm: twice and half are equally far."""
    logarithm = math.log1p(share) if share > -1 else -math.inf
    clipped = min(max(logarithm, -_SPAN_END), _SPAN_END)
    return round(_MARGIN + (clipped + _SPAN_END) / (2 * _SPAN_END) * (_SPAN_WIDTH - 2 * _MARGIN), 1)


def _y(value: float, top: float) -> float:
    return round(_HEIGHT - _MARGIN - min(value / top, 1.0) * (_HEIGHT - 2 * _MARGIN), 1)


def _dots(values: Sequence[float], top: float, aside: float) -> str:
    step = (_WIDTH - 2 * _MARGIN) / max(1, len(values) - 1)
    return "".join(
        f"M{round(_MARGIN + place * step + aside, 1):g} {_y(value, top):g}h0" for place, value in enumerate(values)
    )


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
