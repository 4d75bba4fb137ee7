"""A pool of connections under load: how much gets through, and how long callers wait, by the size of the pool.

The pool is that of the declared profile, its size alone varied; beside it the same calls with a connection each, opened
and closed. Both are measured in turns. One pool is open at a time, so that there are never more connections than the
largest may have. The callers are threads of this process, whose own work bounds what gets through: the sizes compare
with each other, not with another program's callers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import psycopg
from psycopg import RawCursor

from dbplatform import progress
from dbplatform.benchmarking.statistics import Comparison, Round, paired
from dbplatform.benchmarking.timing import failed
from dbplatform.benchmarking.values import Bound
from dbplatform.errors import PlatformError
from dbplatform.postgres.connection import Target, connect_plainly
from dbplatform.postgres.pools import DatabasePool, PoolExhausted, PoolSettings

_SLICE_S = 0.2

_Taking = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What the callers of one slice saw: seconds that each waited for a connection, and of the whole call.

    One that got its connection behind the end of the slice has waited, and does not call.
    """

    waits: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    refused: int = 0
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One size of the pool, 0 for a connection each, under the callers."""

    size: int
    callers: int
    per_second: float
    wait_p50_ms: float
    wait_p95_ms: float
    call_p50_ms: float
    refused: int
    comparison: Comparison | None
    """The time of a call against that with a connection each."""

    def as_json(self) -> dict[str, Any]:
        """One entry of ``bench run --pool --json``."""
        return {
            "mode": f"pool of {self.size}" if self.size else "a connection each",
            "size": self.size,
            "callers": self.callers,
            "per_second": round(self.per_second, 1),
            "wait_p50_ms": round(self.wait_p50_ms, 3),
            "wait_p95_ms": round(self.wait_p95_ms, 3),
            "call_p50_ms": round(self.call_p50_ms, 3),
            "refused": self.refused,
            "comparison": self.comparison.as_json() if self.comparison is not None else None,
        }


def sizes(settings: PoolSettings, callers: int) -> tuple[int, ...]:
    """The sizes that are worth comparing: one, the declared one, the most, and halves between. Pure."""
    wanted = {1, settings.size, settings.most, settings.most // 2, settings.most // 4}
    return tuple(sorted(size for size in wanted if 1 <= size <= settings.most and size <= max(callers, settings.size)))


def measure_pools(
    target: Target, settings: PoolSettings, bound: Bound, *, callers: int, seconds: float, notable: float
) -> tuple[Load, ...]:
    """Measure each size, and a connection each, in turns for so long. The statement may only read.

    It ends with the first slice behind that time, though not before each size had one; a round that did not come to
    its end is not counted. Opens at most the larger of ``callers`` and the largest size. Raises ``BenchmarkFailed``,
    and ``CannotConnect``.
    """
    wanted = sizes(settings, callers)
    until = time.monotonic() + seconds
    _prepare(target, bound)
    many = max(1, round(seconds / (_SLICE_S * (len(wanted) + 2))))
    seen: dict[int, list[_Seen]] = {size: [] for size in (0, *wanted)}
    times: dict[int, list[float]] = {size: [] for size in seen}
    for number in range(many):
        inner = wanted if number % 2 == 0 else tuple(reversed(wanted))
        turn = [
            (size, *_slice(target, settings, bound, size, callers))
            for size in (0, *inner, 0)
            if not number or time.monotonic() < until
        ]
        if len(turn) < len(inner) + 2:
            break
        for size, found, took in turn:
            seen[size].append(found)
            times[size].append(took)
        progress.report("pools", done=number + 1, total=many, unit="rounds")
    direct = list(zip(times[0][::2], times[0][1::2], strict=True))
    loads = []
    for size, parts in seen.items():
        rounds = [Round(a=each, b=(one, one)) for each, one in zip(direct, times[size], strict=True)] if size else []
        waits = sorted(wait for part in parts for wait in part.waits)
        loads.append(
            Load(
                size=size,
                callers=callers,
                per_second=1 / median(times[size]),
                wait_p50_ms=1000 * _at(waits, 0.5),
                wait_p95_ms=1000 * _at(waits, 0.95),
                call_p50_ms=1000 * _at(sorted(call for part in parts for call in part.calls), 0.5),
                refused=sum(part.refused for part in parts),
                comparison=paired(rounds, notable=notable) if size else None,
            )
        )
    return tuple(loads)


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _prepare(target: Target, bound: Bound) -> None:
    """Run the statement once as a prepared one that only reads: a text of several statements is refused here."""
    (given,) = bound.of_turn(0, 1)
    try:
        with (
            connect_plainly(target, work="bench pool") as connection,
            connection.transaction(force_rollback=True),
            RawCursor(connection) as cursor,
        ):
            connection.execute("set transaction read only")
            cursor.execute(bound.query.encode(), given, prepare=True)
    except psycopg.Error as error:
        raise failed("pool", error) from error


def _slice(target: Target, settings: PoolSettings, bound: Bound, size: int, callers: int) -> tuple[_Seen, float]:
    """One slice: what was seen, and the seconds for each call that came through."""
    with _taking(target, settings, size) as take:
        seen, stop = _Seen(), threading.Event()
        threads = [
            threading.Thread(target=_call, args=(take, bound, number, stop, seen), name="bench-pool", daemon=True)
            for number in range(callers)
        ]
        begun = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            stop.wait(_SLICE_S)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        took = time.monotonic() - begun
    if isinstance(seen.error, psycopg.Error):
        raise failed("pool", seen.error) from seen.error
    if seen.error is not None:
        raise seen.error
    return seen, took / max(len(seen.calls), 1)


@contextmanager
def _taking(target: Target, settings: PoolSettings, size: int) -> Iterator[_Taking]:
    """How a caller comes to a connection; those of a pool are opened beforehand."""
    if size == 0:
        yield lambda: connect_plainly(target, work="bench pool")
        return
    pool = DatabasePool(target, replace(settings, size=size, max_overflow=0), work="bench pool")

    @contextmanager
    def taken() -> Iterator[psycopg.Connection[Any]]:
        with pool.connection() as connection:
            raw: Any = connection.connection.driver_connection
            yield raw

    try:
        with ExitStack() as opened:
            for _ in range(size):
                opened.enter_context(taken())
        yield taken
    finally:
        pool.close()


def _call(take: _Taking, bound: Bound, number: int, stop: threading.Event, seen: _Seen) -> None:
    """One caller: takes a connection, asks, gives it back, until it is told to stop."""
    turn = 0
    while not stop.is_set():
        (given,) = bound.of_turn(1_000 * number + turn, 1)
        turn += 1
        begun = time.perf_counter()
        try:
            with take() as connection:
                seen.waits.append(time.perf_counter() - begun)
                if stop.is_set():
                    return
                with connection.transaction(force_rollback=True), RawCursor(connection) as cursor:
                    connection.execute("set transaction read only")
                    cursor.execute(bound.query.encode(), given)
        except PoolExhausted:
            seen.refused += 1
        except (PlatformError, psycopg.Error) as error:
            seen.error = error
            stop.set()
        else:
            seen.calls.append(time.perf_counter() - begun)
