"""Benchmarks of a declared database: run, compared, kept in the ledger; bounded, and yielding to others.

What only reads is timed in the database itself, or on its replica; what writes on a copy restored from the newest
backup. Nothing here changes a row of the declared database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbplatform.benchmarking import record, surroundings
from dbplatform.benchmarking.model import Report, Result
from dbplatform.benchmarking.policy import QueryPolicy
from dbplatform.benchmarking.pooled import measure_pools
from dbplatform.benchmarking.statistics import Comparison, between_runs, not_comparable
from dbplatform.benchmarking.surroundings import Surroundings
from dbplatform.benchmarking.values import Bound, bind
from dbplatform.declaration.loading import Declared
from dbplatform.operations.benchmark_run import Run, on, writing
from dbplatform.operations.benchmark_sides import (
    Change,
    Side,
    before_and_after,
    create_index,
    itself,
    migrate,
    with_settings,
)
from dbplatform.operations.benchmark_wanted import (
    BASELINE,
    Benchmark,
    Mode,
    Wanted,
    allowed,
    callers,
    chosen_of,
    plan,
    settings_of,
    text_of,
)
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.locks import advisory_lock

_ONE = Bound(name="select_1", query="select 1")


def measure(platform: Platform, declared: Declared, wanted: Wanted, *, run_id: str | None = None) -> Report:
    """Measure, compare, and keep the run in the ledger; recorded as an operation.

    A benchmark that cannot be run has errored in the report, and the others go on. Of two runs on one database the
    second waits for the first, in the ledger. Raises ``LockNotAcquired``, ``NotDeclared``, ``UnknownBenchmark``,
    ``UnknownRun``, ``TooManyClients``, ``NotAllowedNow``, ``NotComparable`` and ``NoCopy``.
    """
    planned = plan(platform, declared, wanted)
    with (
        connect(platform.ledger.target, work="bench") as connection,
        advisory_lock(connection, f"bench {declared.name}"),
    ):
        policy, chosen = chosen_of(declared, wanted)
        allowed(declared, policy, wanted, chosen)  # again: the wait may have outlasted the window
        run = Run(platform, declared, policy, wanted)
        with platform.ledger.operation(declared.name, "bench", run_id=run_id) as summary:
            summary.update(plan=planned.words, benchmarks=[one.name for one in chosen])
            report = _MODES[wanted.mode](run, chosen)
            record.keep(platform.ledger, report, run_id=run_id)
            summary.update(id=report.id, worse=[one.name for one in report.bad], errored=len(report.errored))
        return report


def has_baseline(platform: Platform, declared: Declared, name: str = BASELINE) -> bool:
    """Whether a run is kept under that name."""
    return record.has_baseline(platform.ledger, declared.name, name)


def _plain(run: Run, chosen: Sequence[Benchmark]) -> Report:
    """Each benchmark in turns with the yardstick."""
    side = _itself(run)
    results = [
        *on(run, side, None, [one for one in chosen if not one.writes]),
        *writing(run, chosen, lambda copy: None),
    ]
    return run.report("run", (side.words, "yardstick"), results=_in_order(chosen, results))


def _against_baseline(run: Run, chosen: Sequence[Benchmark]) -> Report:
    then = record.find(run.platform.ledger, run.declared.name, run.wanted.to)
    now = _plain(run, chosen)
    before, here = Surroundings.from_json(then.surroundings), run.surroundings
    assert here is not None
    run.notes += surroundings.changes(before, here)
    reasons = surroundings.obstacles(before, here)
    known = {one.name: one for one in then.results}
    results = [replace(one, comparison=_since(run, known.get(one.name), one, reasons)) for one in now.results]
    against = f"{then.baseline or then.id[:8]}, of {then.started_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return run.report("run", now.sides, results=tuple(results), against=against)


def _since(run: Run, then: Result | None, now: Result, reasons: Sequence[str]) -> Comparison | None:
    """A benchmark now against an earlier run of it."""
    if now.error is not None:
        return None
    if then is None or then.error is not None:
        keep = f"dbplatform bench run {run.declared.name} --baseline"
        return not_comparable(f"it was not measured then; keep a new baseline: {keep}")
    if then.identity != now.identity:
        return not_comparable("its statement, its parameters or its clients are other ones")
    if reasons:
        return not_comparable("; ".join(reasons))
    found = between_runs(
        _ratios(then), _ratios(now), notable=run.policy.notable, waiting=max(then.waiting, now.waiting)
    )
    if then.values != now.values and found.verdict in ("better", "worse"):
        return replace(found, reason="other values were drawn from the data")
    return found


def _ratios(one: Result) -> list[float]:
    """Its times by those of the yardstick in the same round: a machine that is slower today slows both."""
    return [a / b for a, b in zip(one.a, one.b, strict=True)]


def _with_settings(run: Run, chosen: Sequence[Benchmark]) -> Report:
    settings = run.wanted.settings or {}
    side = _itself(run)
    other = with_settings(side, settings)
    results = [
        *on(run, side, other, [one for one in chosen if not one.writes]),
        *writing(run, chosen, lambda copy: with_settings(copy, settings)),
    ]
    return run.report("compare", (side.words, other.words), results=_in_order(chosen, results))


def _with_index(run: Run, chosen: Sequence[Benchmark]) -> Report:
    assert run.wanted.index is not None
    return _changed(run, chosen, create_index(run.wanted.index), "the index")


def _with_migration(run: Run, chosen: Sequence[Benchmark]) -> Report:
    assert run.wanted.migration is not None
    return _changed(run, chosen, migrate(run.declared, run.wanted.migration), f"version {run.wanted.migration}")


def _changed(run: Run, chosen: Sequence[Benchmark], change: Change, words: str) -> Report:
    begun = time.monotonic()
    with before_and_after(run.platform, run.declared, change, words=words) as (before, after):
        run.not_counted(time.monotonic() - begun)
        results = on(run, before, after, chosen)
        return run.report("compare", (before.words, after.words), results=_in_order(chosen, results))


def _pool(run: Run, chosen: Sequence[Benchmark]) -> Report:
    side, settings = _itself(run), settings_of(run.declared)
    query = next((one for one in chosen if isinstance(one, QueryPolicy) and not one.writes), None)
    with run.session(side) as connection:
        bound = _ONE if query is None else bind(connection, query.name, text_of(run.declared, query), query.params)
    run.look_around(side)
    given = conninfo_to_dict(side.target.url).get("options") or ""
    options = f"{given} -c statement_timeout={run.timeout_ms}".strip()
    target = Target(side.target.name, make_conninfo(side.target.url, options=options))
    loads = measure_pools(
        target,
        replace(settings, statement_timeout_s=run.timeout_ms / 1000),
        bound,
        callers=callers(settings, run.wanted),
        seconds=min(run.bounds.seconds, run.policy.budget.timedelta.total_seconds()),
        notable=run.policy.notable,
    )
    words = f"{bound.name}, a connection each"
    return run.report("pool", (words, "a pool"), pool=tuple(one.as_json() for one in loads))


_MODES: Mapping[Mode, Callable[[Run, Sequence[Benchmark]], Report]] = {
    "run": _plain,
    "baseline": _against_baseline,
    "settings": _with_settings,
    "index": _with_index,
    "migration": _with_migration,
    "pool": _pool,
}


def _itself(run: Run) -> Side:
    side, reason = itself(run.platform, run.declared)
    if reason is not None:
        run.notes.append(f"measured on the primary, not on the replica: {reason.rstrip('.')}")
    run.look_around(side)
    return side


def _in_order(chosen: Sequence[Benchmark], results: Sequence[Result]) -> tuple[Result, ...]:
    places = {one.name: place for place, one in enumerate(chosen)}
    return tuple(sorted(results, key=lambda one: places[one.name]))
