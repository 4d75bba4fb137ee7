"""The statistics of benchmarks on made numbers: exact intervals, silence on equals, a planted change found."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbplatform.benchmarking.rounds import Bounds, interleave
from dbplatform.benchmarking.statistics import (
    CONFIDENCE,
    LEAST_ROUNDS,
    Round,
    between_runs,
    paired,
    signed_rank,
)

NOTABLE = 0.05
OPPOSITE = {"worse": "better", "better": "worse"}


def made(seed: int, *, factor: float = 1.0, many: int = 60, spread: float = 0.15, hits: float = 0.125) -> list[Round]:
    """Rounds on a noisy machine: every block has noise of its own, some are hit, and the speed wanders."""
    drawn, speed = random.Random(seed), 1.0
    found = []
    for _ in range(many):
        speed *= math.exp(drawn.gauss(0, 0.05))
        times = [
            speed * math.exp(drawn.gauss(0, spread)) * (drawn.uniform(1, 4) if drawn.random() < hits else 1)
            for _ in range(4)
        ]
        found.append(Round(a=(times[0], times[3]), b=(factor * times[1], factor * times[2])))
    return found


def exact(many: int) -> int:
    """The place of the signed-rank interval, by counting all signs."""
    sums = sorted(sum(rank for rank, sign in enumerate(signs, 1) if sign) for signs in product((0, 1), repeat=many))
    place = 0
    while sum(one <= place for one in sums) <= (1 - CONFIDENCE) / 2 * len(sums):
        place += 1
    return place


@pytest.mark.parametrize("many", [11, 12, 14])
def test_the_signed_rank_interval_is_that_of_all_signs_counted(many: int) -> None:
    values = [random.Random(many).gauss(0, 1) for _ in range(many)]
    means = sorted((values[i] + values[j]) / 2 for i in range(many) for j in range(i, many))
    place = exact(many)
    assert (signed_rank(values).low, signed_rank(values).high) == (means[place - 1], means[-place])


def test_the_fewest_rounds_are_the_fewest_that_can_exclude_anything() -> None:
    assert math.isfinite(signed_rank(list(range(LEAST_ROUNDS))).low)
    assert math.isinf(signed_rank(list(range(LEAST_ROUNDS - 2))).low)
    assert paired(made(1, factor=9)[: LEAST_ROUNDS - 1], notable=NOTABLE).verdict == "too few samples"


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.floats(-1e3, 1e3))
def test_an_interval_holds_its_estimate_and_moves_with_the_values(values: list[float], by: float) -> None:
    found, moved = signed_rank(values), signed_rank([value + by for value in values])
    assert found.low <= found.estimate <= found.high
    assert moved.estimate == pytest.approx(found.estimate + by, abs=1e-6)


@given(st.integers(0, 10**6), st.floats(0.5, 2.0))
@settings(max_examples=40, deadline=None)
def test_the_sides_exchanged_give_the_opposite_verdict(seed: int, factor: float) -> None:
    rounds = made(seed, factor=factor)
    verdict = paired(rounds, notable=NOTABLE).verdict
    other = paired([Round(a=one.b, b=one.a) for one in rounds], notable=NOTABLE)
    # The noise is that of the side that is called A.
    assert other.verdict in (OPPOSITE.get(verdict, verdict), "too noisy") or verdict == "too noisy"
    assert other.change == pytest.approx(1 / (1 + paired(rounds, notable=NOTABLE).change) - 1, rel=1e-9)


@given(st.integers(0, 10**6), st.floats(1e-6, 1e6))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_time_changes_no_verdict(seed: int, unit: float) -> None:
    rounds = made(seed, factor=1.15)
    scaled = [
        Round(a=(unit * one.a[0], unit * one.a[1]), b=(unit * one.b[0], unit * one.b[1])) for one in rounds
    ]  # fmt: skip
    assert paired(scaled, notable=NOTABLE).verdict == paired(rounds, notable=NOTABLE).verdict


def test_of_many_equal_pairs_hardly_one_is_called_different() -> None:
    verdicts = [paired(made(seed), notable=NOTABLE).verdict for seed in range(400)]
    assert sum(verdict in ("worse", "better") for verdict in verdicts) <= 1


def test_a_planted_fifth_is_found_whichever_side_it_is_on() -> None:
    slower = [paired(made(seed, factor=1.2, many=120), notable=NOTABLE).verdict for seed in range(60)]
    faster = [paired(made(seed, factor=1 / 1.2, many=120), notable=NOTABLE).verdict for seed in range(60)]
    assert (slower.count("worse") >= 58, slower.count("better")) == (True, 0)
    assert (faster.count("better") >= 58, faster.count("worse")) == (True, 0)


def test_equals_on_a_quiet_machine_are_no_difference_and_on_a_noisy_one_it_is_not_said() -> None:
    quiet = paired(made(1, many=300, spread=0.01, hits=0.02), notable=NOTABLE)
    noisy = paired(made(1, many=20, spread=0.5), notable=NOTABLE)
    assert (quiet.verdict, noisy.verdict) == ("no difference", "too noisy")
    assert noisy.noise > quiet.noise
    assert noisy.reason == "a change of 5.0% could hide in it"


def test_a_change_that_is_not_notable_is_not_called_one() -> None:
    found = paired(made(3, factor=1.02, many=300, spread=0.01, hits=0.02), notable=NOTABLE)
    assert found.low > 0
    assert found.verdict == "no difference"


def test_a_few_slow_moments_of_one_side_move_nothing() -> None:
    rounds = made(5, many=100, spread=0.01, hits=0.02)
    hit = [Round(a=one.a, b=(50 * one.b[0], one.b[1])) if place % 20 == 0 else one for place, one in enumerate(rounds)]
    assert paired(hit, notable=NOTABLE).verdict == "no difference"


def test_another_run_on_a_slower_machine_is_no_slower_by_its_yardstick() -> None:
    drawn = random.Random(1)
    then, now = ([math.exp(drawn.gauss(0, 0.03)) for _ in range(80)] for _ in range(2))
    assert between_runs(then, now, notable=NOTABLE).verdict == "no difference"
    assert between_runs(then, [1.2 * ratio for ratio in now], notable=NOTABLE).verdict == "worse"
    assert between_runs(then, [1.07 * ratio for ratio in now], notable=NOTABLE).verdict != "worse"
    assert between_runs(then, [1.2 * ratio for ratio in now], notable=NOTABLE, waiting=1.5).verdict == "too noisy"
    assert between_runs(then[:5], now, notable=NOTABLE).verdict == "too few samples"


def test_the_sides_take_turns_and_neither_always_comes_first() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> list[float]:
        order.append(name)
        return [seconds]

    rounds = interleave(
        lambda number: side("a", 1.0),
        lambda number: side("b", 2.0),
        Bounds(seconds=60, until=1e9, notable=NOTABLE, most=2),
        clock=lambda: 0.0,
    )
    assert "".join(order) == 3 * ("abba" + "baab") + 3 * ("baab" + "abba")
    assert set(rounds) == {Round(a=(1.0, 1.0), b=(2.0, 2.0))}


def test_each_round_has_sessions_of_its_own_and_is_one_sample_of_the_best_turn_of_each_call() -> None:
    opened: list[int] = []
    # Of two calls, each with values of its own; in every block but one somebody was in the way of one of them.
    blocks = iter([[1.0, 9.0], [5.0, 2.0], [4.0, 2.0], [1.0, 8.0], [7.0, 3.0], [1.0, 3.0]] + 6 * [[6.0, 6.0]])
    found = interleave(
        lambda number: next(blocks),
        lambda number: [1.0, 1.0],
        Bounds(seconds=60, until=1e9, notable=NOTABLE, most=1),
        fresh=opened.append,
        clock=lambda: 0.0,
    )
    assert opened == [0]
    assert found == (Round(a=((1.0 + 2.0) / 2, (1.0 + 2.0) / 2), b=(1.0, 1.0)),)


def test_no_round_is_begun_that_would_end_after_the_time() -> None:
    now = [0.0]

    def block(_: int) -> list[float]:
        now[0] += 1.0
        return [1.0]

    for seconds, until, expected in ((10.0, 100.0, 2), (100.0, 13.0, 3), (100.0, 11.9, 2), (100.0, -1.0, 0)):
        now[0] = 0.0
        bounds = Bounds(seconds=seconds, until=until, notable=NOTABLE)
        assert len(interleave(block, block, bounds, clock=lambda: now[0])) == expected


def test_what_was_waited_for_others_is_not_taken_from_the_time_of_a_benchmark() -> None:
    now = [0.0]

    def block(_: int) -> list[float]:
        now[0] += 1.0
        return [1.0]

    def wait(until: float) -> None:
        now[0] = min(now[0] + 50, until)

    found = interleave(
        block, block, Bounds(seconds=12, until=1e6, notable=NOTABLE), yielding=wait, clock=lambda: now[0]
    )
    assert len(found) == 3


def test_measuring_ends_early_once_the_interval_is_narrow_whichever_way_it_leans() -> None:
    for factor in (1.0, 1.3, 0.7):
        rounds = iter(made(7, factor=factor, many=300, spread=0.005, hits=0.0))
        queue: dict[str, list[float]] = {"a": [], "b": []}

        def take(side: str, rounds: object = rounds, queue: dict[str, list[float]] = queue) -> float:
            if not queue[side]:
                one = next(rounds)  # type: ignore[call-overload]
                queue["a"] += one.a
                queue["b"] += one.b
            return queue[side].pop(0)

        bounds = Bounds(seconds=60, until=1e9, notable=NOTABLE)
        found = interleave(lambda _: [take("a")], lambda _: [take("b")], bounds, clock=lambda: 0.0)
        assert len(found) < 300
