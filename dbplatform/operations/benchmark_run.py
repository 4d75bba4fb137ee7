"""One run of benchmarks on its sides: each benchmark by turns, bounded, and what could not be run with its reason."""

from __future__ import annotations

import hashlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dbplatform.benchmarking.errors import BenchmarkFailed, NoCopy, NoValues, WritesUndeclared
from dbplatform.benchmarking.model import Report, Result, milliseconds
from dbplatform.benchmarking.pgbench import SliceTimer, script
from dbplatform.benchmarking.policy import BenchmarkPolicy, QueryPolicy
from dbplatform.benchmarking.rounds import Bounds, interleave
from dbplatform.benchmarking.statistics import Round, paired
from dbplatform.benchmarking.surroundings import Surroundings, read_surroundings
from dbplatform.benchmarking.timing import YARDSTICK, QueryTimer
from dbplatform.benchmarking.values import bind, draw
from dbplatform.benchmarking.yielding import Courtesy
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, ServerError
from dbplatform.operations.benchmark_sides import Side, on_copy, set_all
from dbplatform.operations.benchmark_wanted import (
    Benchmark,
    Wanted,
    clients_of,
    kind_of,
    seconds_of,
    target_ms,
    text_of,
)
from dbplatform.operations.platform import Platform
from dbplatform.postgres.client_programs import login
from dbplatform.postgres.connection import AutocommitConnection, connect
from dbplatform.postgres.programs import find_programs

_LOCK_TIMEOUT_MS = 2_000
_ERRORED = (BenchmarkFailed, NoValues, NoCopy, WritesUndeclared, ServerError)


class Run:
    """One run: its bounds, and what has come together so far."""

    def __init__(self, platform: Platform, declared: Declared, policy: BenchmarkPolicy, wanted: Wanted) -> None:
        self.platform, self.declared, self.policy, self.wanted = platform, declared, policy, wanted
        self.started_at = datetime.now(UTC)
        self.bounds = Bounds(
            seconds=seconds_of(policy, wanted),
            until=time.monotonic() + policy.budget.timedelta.total_seconds(),
            notable=policy.notable,
        )
        self.courtesy = Courtesy(policy.busy)
        self.notes: list[str] = []
        self.surroundings: Surroundings | None = None

    @property
    def timeout_ms(self) -> int:
        """How long a statement may take."""
        return self.policy.statement_timeout.milliseconds

    @contextmanager
    def session(self, side: Side) -> Iterator[AutocommitConnection]:
        """A session of a side, bounded."""
        with connect(
            side.target, work="bench", statement_timeout_ms=self.timeout_ms, lock_timeout_ms=_LOCK_TIMEOUT_MS
        ) as connection:
            set_all(connection, side.settings)
            yield connection

    def not_counted(self, seconds: float) -> None:
        """Give the budget back what a copy has taken to be made."""
        self.bounds = replace(self.bounds, until=self.bounds.until + seconds)

    def look_around(self, side: Side) -> None:
        """Keep what the times hang on."""
        if self.surroundings is None:
            with self.session(side) as connection:
                self.surroundings = read_surroundings(connection)

    def report(
        self,
        kind: Literal["run", "compare", "pool"],
        sides: tuple[str, str],
        *,
        results: tuple[Result, ...] = (),
        pool: tuple[Mapping[str, Any], ...] = (),
        against: str | None = None,
    ) -> Report:
        """What has come together. It is no baseline unless everything could be measured."""
        notes = (*self.notes, *self.courtesy.notes)
        measured = bool(results) and all(one.error is None for one in results)
        return Report(
            id=str(uuid.uuid4()),
            database=self.declared.name,
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            kind=kind,
            sides=sides,
            surroundings=self.surroundings.as_json() if self.surroundings is not None else {},
            notes=notes,
            baseline=self.wanted.baseline if measured else None,
            against=against,
            results=results,
            pool=pool,
        )


def writing(run: Run, chosen: Sequence[Benchmark], other: Callable[[Side], Side | None]) -> list[Result]:
    """Those that write, on a copy; without one all of them have errored."""
    writers = [one for one in chosen if one.writes]
    if not writers:
        return []
    begun = time.monotonic()
    try:
        with on_copy(run.platform, run.declared, "What writes") as copy:
            run.not_counted(time.monotonic() - begun)
            return on(run, copy, other(copy), writers)
    except PlatformError as error:
        return [_errored(run, one, "copy", error) for one in writers]


def on(run: Run, a: Side, b: Side | None, chosen: Sequence[Benchmark]) -> list[Result]:
    """Each benchmark on these sides; without a second one against the yardstick."""
    results = []
    run.look_around(a)
    for one in chosen:
        place = "copy" if a.copy else (run.surroundings.place if run.surroundings is not None else "primary")
        timed = _timed_query if isinstance(one, QueryPolicy) else _timed_script
        try:
            results.append(timed(run, one, a, b, place))
        except _ERRORED as error:
            results.append(_errored(run, one, place, error))
    return results


class _Sessions:
    """The sessions of one comparison, opened anew for each round, now the one first and now the other.

    Sides of the same database share one.
    """

    def __init__(self, run: Run, opened: ExitStack, a: Side, b: Side | None) -> None:
        self._run, self._sides = run, [a] if b is None or b.target == a.target else [a, b]
        self._open = opened.enter_context(ExitStack())
        self.each: list[AutocommitConnection] = []
        self.renew(0)

    def renew(self, number: int) -> None:
        """Close those of the last round, and open new ones."""
        self._open.close()
        places = range(len(self._sides))
        made = {
            place: self._open.enter_context(self._run.session(self._sides[place]))
            for place in (places if number % 2 == 0 else reversed(places))
        }
        self.each = [made[place] for place in places]


def _timed_query(run: Run, one: Any, a: Side, b: Side | None, place: str) -> Result:
    with ExitStack() as opened:
        sessions = _Sessions(run, opened, a, b)
        bound = bind(sessions.each[0], one.name, text_of(run.declared, one), one.params)
        timer = QueryTimer(sessions.each[0], bound, writes=one.writes)
        other = QueryTimer(sessions.each[-1], YARDSTICK)
        if b is not None:
            settings = b.settings if b.target == a.target else None
            other = QueryTimer(sessions.each[-1], bound, writes=one.writes, settings=settings)
        timer.warm()
        other.warm()
        if b is not None:
            other.repeat = timer.repeat

        def fresh(number: int) -> None:
            sessions.renew(number)
            moves = [(timer, sessions.each[0]), (other, sessions.each[-1])]
            for one_timer, session in moves if number % 2 == 0 else reversed(moves):
                one_timer.move_to(session)

        rounds = interleave(
            timer.block,
            other.block,
            run.bounds,
            fresh=fresh,
            yielding=lambda until: run.courtesy.wait(sessions.each[0], until),
            task=f"bench {one.name}",
        )
    ordered = sorted(timer.calls)
    at = {share: 1000 * ordered[int(share * len(ordered))] for share in (0.5, 0.95) if ordered}
    drawn = bound.values_sha256
    return _result(run, one, rounds, place, b is not None, values=drawn, typical_ms=at.get(0.5), p95_ms=at.get(0.95))


def _timed_script(run: Run, one: Any, a: Side, b: Side | None, place: str) -> Result:
    program = find_programs().path("pgbench")
    with tempfile.TemporaryDirectory(prefix="dbplatform-bench-") as folder, run.session(a) as watcher:
        values = {name: draw(watcher, one.name, name, query, most=2) for name, query in one.params.items()}
        made = script(
            one.name,
            text_of(run.declared, one),
            clients=clients_of(one, run.wanted),
            writes=one.writes,
            variables=values,
        )
        slices = partial(SliceTimer, program, script=made, folder=Path(folder), statement_timeout_ms=run.timeout_ms)
        timer = slices(login=login(a.target, work="bench"), settings=a.settings)
        timer.warm()
        if b is None:
            yardstick = QueryTimer(watcher, YARDSTICK)
            yardstick.warm()
            other = yardstick.block
        else:
            second = slices(login=login(b.target, work="bench"), settings=b.settings)
            second.warm()
            second.repeat = timer.repeat
            other = second.block
        rounds = interleave(
            timer.block,
            other,
            run.bounds,
            yielding=partial(run.courtesy.wait, watcher),
            task=f"bench {one.name}",
        )
    drawn = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
    return _result(run, one, rounds, place, b is not None, values=drawn)


def _result(
    run: Run, one: Benchmark, rounds: Sequence[Round], place: str, compared: bool, *, values: str, **more: Any
) -> Result:
    if not rounds:
        raise BenchmarkFailed(
            name=one.name,
            reason="no round came to its end within the budget",
            hint="Raise benchmarks.budget, or measure fewer of them: --name.",
        )
    return Result(
        name=one.name,
        kind=kind_of(one),
        clients=clients_of(one, run.wanted),
        identity=_identity(run, one),
        values=values,
        place=place,
        a=milliseconds(rounds, "a"),
        b=milliseconds(rounds, "b"),
        target_ms=None if compared else target_ms(one),
        comparison=paired(rounds, notable=run.policy.notable) if compared else None,
        **more,
    )


def _errored(run: Run, one: Benchmark, place: str, error: PlatformError) -> Result:
    return Result(
        name=one.name,
        kind=kind_of(one),
        clients=clients_of(one, run.wanted),
        identity="",
        values="",
        place=place,
        target_ms=target_ms(one),
        error=str(error),
    )


def _identity(run: Run, one: Benchmark) -> str:
    parts = (text_of(run.declared, one), sorted(one.params.items()), clients_of(one, run.wanted), one.writes)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
