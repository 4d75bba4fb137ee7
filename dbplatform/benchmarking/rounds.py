"""Measuring two sides in turns, A B B A and B A A B: whatever the machine does meanwhile, it does to both.

A session keeps its place on the machine, such as a processor that others use, too: turns of the same two sessions are
no independent samples. Each round has sessions of its own, and is one sample: for each call the best of its turns, for
what a call takes beyond that it has waited for the processor.

What the end of a comparison rests on is the width of its interval, never the side to which it leans, so that looking at
it early favours nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dbplatform import progress
from dbplatform.benchmarking.statistics import LEAST_ROUNDS, Round, differences, signed_rank

MOST_ROUNDS = 300
#: A round has so many turns, or as many as are begun in so many seconds.
_TURNS, _ROUND_S = 6, 0.3
#: From so many rounds on, and again after as many, the width of the interval is looked at.
_LOOK_EVERY = 40

#: Measures one block of calls with the values of the round of this number; the seconds of each call.
Block = Callable[[int], Sequence[float]]
_Turn = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long rounds may go on. ``until`` is by the monotonic clock, and holds for the whole run."""

    seconds: float
    until: float
    notable: float
    most: int = MOST_ROUNDS


def interleave(
    a: Block,
    b: Block,
    bounds: Bounds,
    *,
    fresh: Callable[[int], None] = lambda number: None,
    yielding: Callable[[float], None] = lambda until: None,
    clock: Callable[[], float] = time.monotonic,
    task: str = "rounds",
) -> tuple[Round, ...]:
    """Rounds until the time is over, or the interval is a third of what is notable.

    Before each round ``yielding`` is called with the time until which it may wait for others, which counts against the
    whole run alone; then ``fresh`` with the number of the round, for new sessions. A round is not begun that would, by
    the longest so far, end after the time. Reports progress as ``task``.
    """
    rounds: list[Round] = []
    measured = longest = 0.0
    while len(rounds) < bounds.most:
        yielding(bounds.until)
        begun = clock()
        if begun + longest > bounds.until or (rounds and measured + longest > bounds.seconds):
            break
        fresh(len(rounds))
        number, turns = len(rounds), list[_Turn]()
        opened = clock()
        while not turns or (len(turns) < _TURNS and clock() - opened < _ROUND_S):
            turns.append(_abba(a, b, number) if (number + len(turns)) % 2 == 0 else _baab(a, b, number))
        rounds.append(_together(turns))
        took = clock() - begun
        measured, longest = measured + took, max(longest, took)
        progress.report(task, done=len(rounds), total=None, unit="rounds")
        if len(rounds) % _LOOK_EVERY == 0 and _settled(rounds, bounds.notable):
            break
    progress.report(task, done=len(rounds), total=len(rounds), unit="rounds")
    return tuple(rounds)


def _abba(a: Block, b: Block, number: int) -> _Turn:
    first = a(number)
    between = b(number), b(number)
    return first, a(number), *between


def _baab(a: Block, b: Block, number: int) -> _Turn:
    first, last, *between = _abba(b, a, number)
    return between[0], between[1], first, last


def _together(turns: Sequence[_Turn]) -> Round:
    a_first, a_last, b_first, b_last = (_best(blocks) for blocks in zip(*turns, strict=True))
    return Round(a=(a_first, a_last), b=(b_first, b_last))


def _best(blocks: Sequence[Sequence[float]]) -> float:
    """The mean of the calls, each by its fastest turn."""
    return fmean(min(times) for times in zip(*blocks, strict=True))


def _settled(rounds: list[Round], notable: float) -> bool:
    return len(rounds) >= LEAST_ROUNDS and signed_rank(differences(rounds)).half < math.log1p(notable) / 3
