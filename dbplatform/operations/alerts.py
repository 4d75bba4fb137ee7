"""From what is seen of the declared databases to alerts in the ledger, and to the people who are told.

Four sources, each with keys of its own: metrics against thresholds (``<metric>``), the database that cannot be measured
(``reachable``), data-quality checks that failed or could not run (``check:<table>.<name>``), and runs that failed
(``run:<job>``). The ledger knows until when runs and checks have been seen; what ended shortly before is read again,
which changes nothing, so that nothing is missed where two processes end at the same moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from dbplatform.alerting import deliver, evaluate, record
from dbplatform.alerting.policy import NotifyPolicy
from dbplatform.alerting.record import AlertRecord
from dbplatform.alerting.sending import Send, send_by_apprise
from dbplatform.alerting.states import Observation, Severity
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Outbox, Watch
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.thresholds import Judgements, judge
from dbplatform.operations import watching
from dbplatform.operations.platform import Platform
from dbplatform.quality.record import results_since
from dbplatform.quality.results import CheckResult

REACHABLE, CHECK, RUN = "reachable", "check:", "run:"

#: A server that restarts is away for a moment.
_HOLD_UNREACHABLE = timedelta(minutes=1)
#: What ended so long before the last look is read again.
_OVERLAP = timedelta(minutes=5)
#: The first look at a database goes back so far.
_FIRST_LOOK = timedelta(days=1)
#: How many databases, or channels, are worked on side by side.
_SIDE_BY_SIDE = 8
#: Dagster gives a tick 60 s in all: most of them to look, the rest to tell.
_LOOK_SECONDS = 30.0
_TELL_SECONDS = 25.0
_MESSAGES_AT_ONCE = 20

_log = logging.getLogger(__name__)
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A run that ended, as whoever runs the jobs knows it."""

    job: str
    succeeded: bool
    reason: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The jobs that a database has, and their runs that ended, oldest first."""

    jobs: Collection[str] = ()
    ended: Sequence[RunEnd] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One look at one database: what was measured, why not, and the alerts that are open after it."""

    database: str
    at: datetime
    metrics: Metrics | None
    judgements: Judgements | None
    problem: PlatformError | None
    alerts: tuple[AlertRecord, ...] = ()
    changes: tuple[evaluate.Change, ...] = field(default=())

    @property
    def looked_at(self) -> bool:
        """Whether there was a database to look at."""
        return not isinstance(self.problem, watching.NothingToMeasure)

    @property
    def firing(self) -> tuple[AlertRecord, ...]:
        """The alerts that fire now."""
        return tuple(alert for alert in self.alerts if alert.state == "firing")


def watch(
    platform: Platform,
    declared: Declared,
    *,
    now: datetime,
    runs: Runs | None = None,
    metrics: Metrics | None = None,
) -> Watched:
    """Look at a database, and bring its alerts up to what was seen; messages go into the outbox.

    It is measured unless ``metrics`` are given. Without ``runs`` the alerts on runs stay as they are. A database that
    cannot be measured is an observation, not an error; a database that is not there yet is not looked at.
    """
    ledger, problem = platform.ledger, None
    try:
        metrics = metrics or watching.measure(platform, declared)
    except watching.NothingToMeasure as error:
        return Watched(database=declared.name, at=now, metrics=None, judgements=None, problem=error)
    except PlatformError as error:
        problem = error
    policies = watching.limits(declared)
    judgements = judge(metrics, policies) if metrics is not None else None
    observed = [_reachable(declared, problem)]
    observed += _metrics(judgements) if judgements is not None else []
    observed += _checks(ledger, declared, since=looked_until(ledger, declared.name, now))
    observed += _runs(runs)
    observed += _withdrawn(ledger, declared, runs)
    hold = {policy.metric: policy.for_.timedelta for policy in policies}
    found = evaluate.evaluate(
        ledger,
        declared.name,
        observed,
        declared.database.notify,
        now=now,
        hold={**hold, REACHABLE: _HOLD_UNREACHABLE},
    )
    _looked(ledger, declared.name, now, problem)
    return Watched(
        database=declared.name,
        at=now,
        metrics=metrics,
        judgements=judgements,
        problem=problem,
        alerts=record.list_alerts(ledger, declared.name),
        changes=found.changes,
    )


def watch_all(
    platform: Platform,
    databases: Sequence[Declared],
    *,
    now: datetime,
    runs: Mapping[str, Runs],
    send: Send = send_by_apprise,
) -> tuple[tuple[Watched, ...], dict[str, str]]:
    """Look at many databases side by side, then tell; one that fails hides no other.

    Returns the looks, and for each database that could not be looked at to the end, why.
    """
    platform.ledger  # noqa: B018  opened once, before the threads ask for it

    def look(declared: Declared) -> Watched:
        return watch(platform, declared, now=now, runs=runs.get(declared.name))

    looks, failed = _side_by_side(look, {one.name: one for one in databases}, seconds=_LOOK_SECONDS)
    for name, why in failed.items():
        _log.error("the database %s could not be watched: %s", name, why)
    failed |= tell(platform, databases, now=now, send=send)
    return tuple(looks[name] for name in sorted(looks)), failed


def tell(
    platform: Platform, databases: Iterable[Declared], *, now: datetime, send: Send = send_by_apprise
) -> dict[str, str]:
    """Send what waits in the outbox to each declared channel; a channel that hangs holds back no other.

    What a receiver did not take stays in the outbox, with its reason. Returns the channels that failed otherwise.
    """
    channels = {one.url_env: one for declared in databases for one in declared.database.notify}

    def work(channel: NotifyPolicy) -> deliver.Delivery:
        return deliver.deliver(platform.ledger, [channel], now=now, send=send, limit=_MESSAGES_AT_ONCE)

    _, failed = _side_by_side(work, channels, seconds=_TELL_SECONDS)
    for name, why in failed.items():
        _log.error("the channel %s could not be served: %s", name, why)
    return failed


def waiting_messages(ledger: Ledger, channels: Collection[str]) -> dict[str, str]:
    """The channels that did not take a message, each with the reason."""
    statement = (
        select(Outbox.channel, func.max(Outbox.last_error))
        .where(
            Outbox.channel.in_(channels),
            Outbox.delivered_at.is_(None),
            Outbox.next_attempt_at.is_not(None),
            Outbox.attempts > 0,
        )
        .group_by(Outbox.channel)
    )
    with ledger.session() as session:
        return {channel: reason or "" for channel, reason in session.execute(statement)}


def looked_until(ledger: Ledger, database: str, now: datetime) -> datetime:
    """From when on runs and checks of a database have to be read, with the overlap."""
    with ledger.session() as session:
        at = session.scalar(select(Watch.at).where(Watch.database == database))
    return now - _FIRST_LOOK if at is None else min(at, now) - _OVERLAP


def _looked(ledger: Ledger, database: str, now: datetime, problem: PlatformError | None) -> None:
    values = {"at": now, "problem": str(problem) if problem is not None else None}
    with ledger.session() as session:
        session.execute(
            insert(Watch)
            .values(database=database, **values)
            .on_conflict_do_update(index_elements=[Watch.database], set_=values)
        )


def _reachable(declared: Declared, problem: PlatformError | None) -> Observation:
    return Observation(
        key=REACHABLE,
        metric=REACHABLE,
        severity="critical" if problem is not None else None,
        cause=problem.message.rstrip(".") if problem is not None else f"{declared.name} can be measured",
        advice=f"{problem.hint or ''} dbplatform doctor {declared.name} says more.".strip() if problem else "",
    )


def _metrics(judgements: Judgements) -> list[Observation]:
    return [
        Observation(
            key=one.metric,
            metric=one.metric,
            severity=one.severity,
            value=one.value,
            limit=one.limit,
            cause=one.cause,
            labels=one.labels,
            advice=one.policy.kind.advice,
        )
        for one in judgements.judged
    ]


def _check_keys(declared: Declared) -> set[str]:
    return {f"{CHECK}{policy.table}.{check.name}" for policy in declared.database.quality for check in policy.checks}


def _checks(ledger: Ledger, declared: Declared, *, since: datetime) -> list[Observation]:
    """The last result of each declared check among those that were recorded since."""
    declared_keys = _check_keys(declared)
    newest = {
        f"{CHECK}{table}.{result.name}": (table, result)
        for table, result in results_since(ledger, declared.name, since=since)
    }
    return [_check(key, *newest[key]) for key in newest if key in declared_keys]


def _check(key: str, table: str, result: CheckResult) -> Observation:
    severity: Severity | None = None
    if result.status == "errored":
        severity = "critical"
    elif result.status == "failed":
        severity = "warning" if result.severity == "warn" else "critical"
    table = table.removeprefix("public.")
    said = "could not run: " if result.status == "errored" else ""
    return Observation(
        key=key,
        metric=f"{table} {result.name}",
        severity=severity,
        value=result.value if result.failed_rows is None else float(result.failed_rows),
        cause=f"{table} {result.name}: {said}{result.message.rstrip('.')}",
        advice="The report of the run shows the rows.",
        labels={"table": table, "check": result.name, **({"owner": result.owner} if result.owner else {})},
    )


def _runs(runs: Runs | None) -> list[Observation]:
    """The last end of each job."""
    last = {end.job: end for end in (runs.ended if runs is not None else ())}
    return [
        Observation(
            key=f"{RUN}{end.job}",
            metric=f"run of {end.job}",
            severity=None if end.succeeded else "critical",
            cause=f"the job {end.job} {'succeeded' if end.succeeded else f'failed: {end.reason}'}".rstrip("."),
            advice=end.advice,
            labels={"job": end.job},
        )
        for end in last.values()
    ]


def _withdrawn(ledger: Ledger, declared: Declared, runs: Runs | None) -> list[Observation]:
    """An end for each open alert whose threshold, check or job is no longer declared."""
    limits = {policy.metric for policy in watching.limits(declared)} | {REACHABLE}
    checks = _check_keys(declared)
    gone = []
    for alert in record.list_alerts(ledger, declared.name):
        if alert.key.startswith(CHECK):
            there = alert.key in checks
        elif alert.key.startswith(RUN):
            there = runs is None or alert.key.removeprefix(RUN) in runs.jobs
        else:
            there = alert.key in limits
        if not there:
            cause = f"{alert.metric} is no longer declared"
            gone.append(Observation(key=alert.key, metric=alert.metric, severity=None, cause=cause))
    return gone


def _side_by_side(
    work: Callable[[A], B], items: Mapping[str, A], *, seconds: float
) -> tuple[dict[str, B], dict[str, str]]:
    """Do the work for every item in a few threads; what fails, or has not ended after so long, is said by name."""
    done: dict[str, B] = {}
    failed: dict[str, str] = {}
    pool = ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE, thread_name_prefix="watch")
    futures: dict[str, Future[B]] = {name: pool.submit(work, item) for name, item in items.items()}
    try:
        wait(futures.values(), timeout=seconds)
        for name, future in futures.items():
            if not future.done():
                failed[name] = f"it took longer than {seconds:.0f} s"
            elif (error := future.exception()) is not None:
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                done[name] = future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return done, failed
