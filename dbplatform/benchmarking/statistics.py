"""From the times of rounds to a verdict: ranks, not means, so that one slow moment of the machine decides nothing.

Two sides that are measured in turns are compared by the logarithms of their ratios, round by round: what slows both is
in neither. A round has sessions of its own, so that rounds do not hang on each other. The change is the Hodges-Lehmann
estimate, its interval that of Wilcoxon's signed-rank test, exact for any number of rounds. Where both sides are the
same, the ratios are symmetric about nothing, which is all that the test asks for. What a side differs from itself
within the rounds is the noise: a change that is not larger is none.

Source: Hollander, Wolfe, Chicken, "Nonparametric Statistical Methods", 3rd edition, 3.1-3.3 and 4.1-4.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

#: One comparison in a thousand of equals lies outside its interval: of twenty pairs one in fifty.
CONFIDENCE = 0.999
#: With fewer rounds there is no verdict.
LEAST_ROUNDS = 12
#: Between two runs lie hours: a smaller change than this says nothing.
NOTABLE_BETWEEN_RUNS = 0.10

Verdict = Literal["better", "worse", "no difference", "too noisy", "too few samples", "not comparable"]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Both sides twice, in seconds for one call, each in the order of time."""

    a: tuple[float, float]
    b: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval; infinite where the samples are too few for one."""

    estimate: float
    low: float
    high: float

    @property
    def bound(self) -> float:
        """How far from nothing it reaches."""
        return max(abs(self.low), abs(self.high))

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A: shares, 0.2 for a fifth slower, -0.2 for a fifth less time."""

    verdict: Verdict
    change: float
    low: float
    high: float
    noise: float
    """How far A is from itself within the rounds; a change that is not larger is none."""
    rounds: int
    reason: str = ""
    """Why there is no verdict, where there is none."""

    def as_json(self) -> dict[str, Any]:
        """For the ledger and ``--json``; what is not finite is null."""
        numbers = {"change": self.change, "low": self.low, "high": self.high, "noise": self.noise}
        plain = {name: round(value, 5) if math.isfinite(value) else None for name, value in numbers.items()}
        return {"verdict": self.verdict, **plain, "rounds": self.rounds, "reason": self.reason}


def paired(rounds: Sequence[Round], *, notable: float) -> Comparison:
    """The two sides of rounds that were measured in turns. Pure."""
    if len(rounds) < LEAST_ROUNDS:
        return _none("too few samples", len(rounds), _few(len(rounds)))
    change = differences(rounds)
    # Two single blocks differ by the square root of two more than two means of two do.
    itself = np.array([math.log(one.a[1] / one.a[0]) for one in rounds]) / math.sqrt(2)
    return _judged(signed_rank(change), noise=signed_rank(itself).bound, notable=notable, rounds=len(rounds))


def _few(rounds: int) -> str:
    return f"{rounds} rounds, and {LEAST_ROUNDS} are needed: raise benchmarks.seconds"


def differences(rounds: Sequence[Round]) -> Numbers:
    """The logarithm of B through A of each round."""
    return np.array([math.log(one.b[0] * one.b[1] / (one.a[0] * one.a[1])) / 2 for one in rounds])


def between_runs(then: Sequence[float], now: Sequence[float], *, notable: float, waiting: float = 1.0) -> Comparison:
    """Two runs at different times, each given by the ratios of a benchmark to the yardstick of its rounds. Pure.

    The noise between runs is not seen by either of them: a change below a tenth is none, nor is one below ``waiting``,
    how many times its best a call took in the run in which it waited more for the machine.
    """
    fewest = min(len(then), len(now))
    if fewest < LEAST_ROUNDS:
        return _none("too few samples", fewest, _few(fewest))
    change = rank_sum(np.log(then), np.log(now))
    halves = [rank_sum(np.log(one[: len(one) // 2]), np.log(one[len(one) // 2 :])) for one in (then, now)]
    noise = max(math.log(max(waiting, 1.0)), *(abs(half.estimate) for half in halves))
    return _judged(change, noise=noise, notable=max(notable, NOTABLE_BETWEEN_RUNS), rounds=fewest)


def not_comparable(reason: str) -> Comparison:
    """No verdict, and why."""
    return _none("not comparable", 0, reason)


def _none(verdict: Verdict, rounds: int, reason: str) -> Comparison:
    unknown = float("nan")
    return Comparison(
        verdict=verdict, change=unknown, low=unknown, high=unknown, noise=unknown, rounds=rounds, reason=reason
    )


def _judged(change: Interval, *, noise: float, notable: float, rounds: int) -> Comparison:
    # Logarithms: a fifth slower and a fifth faster are equally far from nothing.
    least = max(math.log1p(notable), noise)
    verdict: Verdict = "too noisy"
    reason = ""
    if change.low > 0 and change.estimate >= least:
        verdict = "worse"
    elif change.high < 0 and change.estimate <= -least:
        verdict = "better"
    elif change.bound <= max(math.log1p(notable), 1e-9):
        verdict = "no difference"
    else:
        reason = f"a change of {notable:.1%} could hide in it"
    return Comparison(
        verdict=verdict,
        change=math.expm1(change.estimate),
        low=math.expm1(change.low),
        high=math.expm1(change.high),
        noise=math.expm1(noise),
        rounds=rounds,
        reason=reason,
    )


def signed_rank(values: Sequence[float] | Numbers) -> Interval:
    """The centre of a symmetric distribution: the median of all means of two, and the interval that ranks allow."""
    given = np.asarray(values, dtype=np.float64)
    upper = np.triu_indices(len(given))
    means = np.sort((given[upper[0]] + given[upper[1]]) / 2)
    place = _signed_rank_place(len(given))
    return _interval(means, place)


def rank_sum(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> Interval:
    """How far the second sample lies from the first: the median of all differences, and its interval."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    apart = np.sort(np.subtract.outer(other, one).ravel())
    pairs = len(apart)
    spread = math.sqrt(pairs * (len(one) + len(other) + 1) / 12)
    return _interval(apart, math.floor(pairs / 2 - _z() * spread))


def _interval(ordered: Numbers, place: int) -> Interval:
    """From the ``place``-th value to the same one from the end; none of either where there is no such place."""
    estimate = float(np.median(ordered))
    if place < 1:
        return Interval(estimate=estimate, low=-math.inf, high=math.inf)
    return Interval(estimate=estimate, low=float(ordered[place - 1]), high=float(ordered[-place]))


@cache
def _signed_rank_place(many: int) -> int:
    """The largest place at which chance leaves no more than what the confidence allows on either side."""
    chances = np.zeros(many * (many + 1) // 2 + 1)
    chances[0] = 1.0
    for rank in range(1, many + 1):
        moved = np.zeros_like(chances)
        moved[rank:] = chances[:-rank]
        chances = (chances + moved) / 2
    return int(np.searchsorted(np.cumsum(chances), (1 - CONFIDENCE) / 2, side="right"))


@cache
def _z() -> float:
    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
