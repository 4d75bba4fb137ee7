"""Made series of growth with a known future, drawn from a seed: how often does the truth lie in the range that is told?

A series goes on behind its history as it did in it; the limit is where its own growth comes in a while, and the truth
is the day on which the path that was made first reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from dbplatform.capacity.trend import Sample, Trend, Until, trend, until

START = datetime(2025, 3, 1, 2, tzinfo=UTC)
LEVEL = 500.0

#: The growth of each day; the drawn growth of a day is about 1.
Maker = Callable[[np.random.Generator, int], np.ndarray]
MAKERS: dict[str, Maker] = {}
#: What is added to the values of single days.
NOISY = {"noisy": 4.0, "flat": 3.0}


def maker(function: Maker) -> Maker:
    """Make a series known by the name of its function."""
    MAKERS[function.__name__] = function
    return function


@maker
def steady(random: np.random.Generator, days: int) -> np.ndarray:
    """Nearly the same growth every day."""
    return random.normal(1, 0.1, days)


@maker
def noisy(random: np.random.Generator, days: int) -> np.ndarray:
    """Each value is off by more than the growth of a day (``NOISY``)."""
    return np.full(days, 1.0)


@maker
def wandering(random: np.random.Generator, days: int) -> np.ndarray:
    """The growth of a day is anything between -4 and 6."""
    return random.normal(1, 2.5, days)


@maker
def weekly(random: np.random.Generator, days: int) -> np.ndarray:
    """Nothing comes at weekends."""
    working = (np.arange(days) % 7) < 5
    return np.where(working, random.normal(1.4, 0.4, days), random.normal(0, 0.05, days))


@maker
def bursts(random: np.random.Generator, days: int) -> np.ndarray:
    """Mostly little, at times much: log-normal."""
    return random.lognormal(-0.5, 1.0, days)


@maker
def weekly_load(random: np.random.Generator, days: int) -> np.ndarray:
    """All of it comes once a week."""
    return np.where(np.arange(days) % 7 == 2, random.normal(7, 1, days), random.normal(0, 0.05, days))


@maker
def flat(random: np.random.Generator, days: int) -> np.ndarray:
    """It does not grow."""
    return np.zeros(days)


@maker
def archived_monthly(random: np.random.Generator, days: int) -> np.ndarray:
    """What came in a month leaves at its end, but for a fifth."""
    grown = random.normal(1, 0.3, days)
    grown[random.integers(0, 30) :: 30] -= 24
    return grown


@dataclass(frozen=True, slots=True)
class Case:
    """A history, its limit, and on which day behind it that is reached; none within five years' horizon."""

    samples: tuple[Sample, ...]
    limit: float
    truth: float | None


#: What is done to a history: the kinds of steps, a change of growth, missing days.
Change = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]


def archived_once(random: np.random.Generator, grown: np.ndarray, history: int) -> np.ndarray:
    """A quarter of all leaves on one day."""
    grown[random.integers(3, history - 3)] -= 120
    return grown


def loaded_once(random: np.random.Generator, grown: np.ndarray, history: int) -> np.ndarray:
    """As much as in two months comes on one day."""
    grown[random.integers(3, history - 3)] += 60
    return grown


def repacked(random: np.random.Generator, grown: np.ndarray, history: int) -> np.ndarray:
    """A table is written anew: twice the room for a day, then less than before."""
    day = random.integers(3, history - 4)
    grown[day] += 150
    grown[day + 1] -= 220
    return grown


def faster(random: np.random.Generator, grown: np.ndarray, history: int) -> np.ndarray:
    """For the last two fifths it grows three times as fast, and goes on so."""
    since = int(history * 0.6)
    grown[since:] += 2
    return grown


CHANGES: dict[str, Change] = {
    "archived_once": archived_once, "loaded_once": loaded_once, "repacked": repacked, "faster": faster,
}  # fmt: skip


def made(name: str, seed: int, *, history: int, change: str | None = None, missing: float = 0.0) -> Case:
    """A case of that name and seed with so many days of history; ``missing``: the share of its days without a value."""
    random = np.random.default_rng([seed, history, *name.encode(), *(change or "").encode()])
    coming = 6 * history
    grown = MAKERS[name](random, history + coming)
    per_day = max(float(np.mean(grown)), 0.25)
    if change is not None:
        grown = CHANGES[change](random, grown, history)
        if change == "faster":
            per_day += 2
    path = LEVEL + np.concatenate([[0.0], np.cumsum(grown)])
    seen = path[: history + 1] + random.normal(0, 1, history + 1) * NOISY.get(name, 0.0)
    limit = float(path[history]) + per_day * float(random.uniform(0.3, 2.5)) * history
    reached = np.flatnonzero(path[history:] >= limit)
    kept = random.random(history + 1) >= missing
    kept[[0, -1]] = True
    samples = tuple(Sample(START + timedelta(days=day), float(value)) for day, value in enumerate(seen) if kept[day])
    return Case(samples=samples, limit=limit, truth=float(reached[0]) if len(reached) else None)


def holds(told: Until, truth: float | None) -> bool:
    """Whether the truth lies in the range; beyond the horizon a range that is open, or says so, is right."""
    if truth is None or truth > told.horizon_days:
        return told.high is None
    return told.low is not None and told.low <= truth and (told.high is None or truth <= told.high)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of so many cases: how many hold, how many say only "not within", and the middle width of the others."""

    cases: int
    held: int
    silent: int
    width: float | None
    """Of the range, as a share of the true time."""
    least_sure: float
    """How often the truth came before the range began: what would be an outage."""

    @property
    def share(self) -> float:
        return self.held / self.cases


def coverage(name: str, cases: int, *, history: int, change: str | None = None, missing: float = 0.0) -> Coverage:
    """Tell so many cases, and compare each with its truth."""
    held = silent = late = 0
    widths: list[float] = []
    for seed in range(cases):
        case = made(name, seed, history=history, change=change, missing=missing)
        found: Trend | None = trend(case.samples)
        assert found is not None
        told = until(found, case.limit)
        held += holds(told, case.truth)
        silent += told.low is None
        late += case.truth is not None and (told.low or told.horizon_days) > case.truth
        if told.low is not None and told.high is not None and case.truth:
            widths.append((told.high - told.low) / case.truth)
    middle = float(np.median(widths)) if widths else None
    return Coverage(cases=cases, held=held, silent=silent, width=middle, least_sure=late / cases)
