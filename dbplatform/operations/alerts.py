"""From what is seen of the declared databases to alerts in the ledger, and to the people who are told.

What is seen: ``observations``. How far the watch has come: ``looks``. The life of an alert and its messages: the room
``alerting``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import func, select

from dbplatform.alerting import deliver, evaluate, record
from dbplatform.alerting.policy import NotifyPolicy, quiet_now
from dbplatform.alerting.record import AlertRecord
from dbplatform.alerting.sending import Send, send_by_apprise
from dbplatform.alerting.states import Observation
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Outbox
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.thresholds import Judgements, judge
from dbplatform.operations import heartbeats, looks, observations, reviews, runbooks, wal, watching
from dbplatform.operations.observations import REACHABLE, UNMEASURED, WAL_ARCHIVE, WATCH_OF, Runs, Tick
from dbplatform.operations.platform import Platform
from dbplatform.operations.preceding import preceding
from dbplatform.quality.record import results_since

#: A server that restarts is away for a moment; a bucket answers again after a while.
_HOLD = {REACHABLE: timedelta(minutes=1), WAL_ARCHIVE: timedelta(minutes=5), UNMEASURED: timedelta(minutes=15)}
#: A look that failed once, or took too long, is made again a minute later.
_UNWATCHED = timedelta(minutes=3)
_DATABASES_SIDE_BY_SIDE = 8
#: Each holds a connection to the ledger while its receiver answers: fewer than the ledger's pool has.
_CHANNELS_SIDE_BY_SIDE = 4
#: Dagster gives a tick 60 s in all: half of them to look, most of the rest to tell.
_LOOK_SECONDS = 30.0
_TELL_SECONDS = 25.0
_MESSAGES_AT_ONCE = 20

_log = logging.getLogger(__name__)
#: What a thread of this process still works at, though nobody waits for it any more.
_busy: set[tuple[str, str]] = set()
_busy_lock = threading.Lock()
A = TypeVar("A")
B = TypeVar("B")


class StillBusy(WorkError):
    """The work that was begun before has not ended yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One look at one database: what was measured, why not, and the alerts that are open after it."""

    database: str
    there: bool
    """Whether there is, or once was, a database to look at."""
    metrics: Metrics | None
    judgements: Judgements | None
    problem: PlatformError | None
    alerts: tuple[AlertRecord, ...]

    @property
    def firing(self) -> tuple[AlertRecord, ...]:
        """The alerts that fire now."""
        return tuple(alert for alert in self.alerts if alert.state == "firing")


def watch(platform: Platform, declared: Declared, *, now: datetime, runs: Runs | None = None) -> Watched:
    """Look at a database, and bring its alerts up to what was seen; messages go into the outbox.

    What waits of its WAL goes into the archive. Without ``runs`` the alerts on runs stay as they are. A database that
    cannot be measured is an observation, not an error; one that was never there is none. Killed before its end, the
    next look sees the same again.
    """
    ledger, name = platform.ledger, declared.name
    look = looks.begin(ledger, name, now)
    metrics, problem = None, None
    try:
        metrics = watching.measure(platform, declared, judged=True)
    except PlatformError as error:
        problem = error
    there = look.was_there or not isinstance(problem, watching.NothingToMeasure)
    policies = watching.limits(declared)
    judgements = judge(metrics, policies) if metrics is not None else None
    already = record.list_alerts(ledger, name)
    observed = [
        *([observations.reachable(declared, problem)] if there else ()),
        *([_wal_archive(platform, declared)] if wal.archives_wal(declared) else ()),
        *(observations.metrics(judgements) if judgements is not None else ()),
        *_unmeasured(platform, declared, metrics),
        *observations.checks(declared, results_since(ledger, name, since=look.checks_since)),
        *_unreviewed(platform, declared, now),
        *observations.runs(runs),
        *observations.stuck(runs, already),
        *observations.asset_checks(runs),
        *observations.schedules(runs),
        *observations.withdrawn(declared, already, runs),
    ]
    owners = tuple(declared.database.owners)
    evaluate.evaluate(
        ledger,
        name,
        [replace(one, owners=one.owners or owners, runbook=runbooks.address(one.key)) for one in observed],
        declared.database.notify,
        now=now,
        hold={**{policy.metric: policy.for_.timedelta for policy in policies}, **_HOLD},
        keep={policy.metric: policy.keep_firing_for.timedelta for policy in policies},
        preceding=lambda session, since: preceding(session, name, since),
    )
    looks.end(ledger, name, now, runs_seen=runs is not None, measured=metrics is not None)
    return Watched(
        database=name,
        there=there,
        metrics=metrics,
        judgements=judgements,
        problem=problem,
        alerts=record.list_alerts(ledger, name),
    )


def _wal_archive(platform: Platform, declared: Declared) -> Observation:
    """Bring the WAL that waits into the archive; how that went."""
    try:
        wal.bring(platform, declared)
    except (PlatformError, OSError) as error:
        return observations.wal_archive(declared, error)
    return observations.wal_archive(declared, None)


def _unmeasured(platform: Platform, declared: Declared, metrics: Metrics | None) -> list[Observation]:
    """Limits that can no longer be measured; where nothing was, that is said already."""
    if metrics is None:
        return []
    return [observations.unmeasured(declared, watching.unmeasured(platform, declared, metrics))]


def _unreviewed(platform: Platform, declared: Declared, now: datetime) -> list[Observation]:
    """Failing reports that wait for a review; not asked where that is nobody's concern."""
    if observations.review_within(declared) is None:
        return []
    return observations.unreviewed(declared, reviews.waiting(platform.ledger, declared.name), now=now)


def watch_all(
    platform: Platform,
    databases: Sequence[Declared],
    *,
    now: datetime,
    runs: Mapping[str, Runs],
    own_ticks: Sequence[Tick] = (),
    send: Send = send_by_apprise,
) -> tuple[tuple[Watched, ...], dict[str, str]]:
    """Look at many databases side by side, then tell; one that fails hides no other.

    Those that were looked at longest ago come first; what is not done after 30 s is done at the next call. A database
    whose last look has not ended yet is left alone: two never look at the same one. Returns the looks, and for each
    database or channel that was not served to the end, why. A database whose looks do not end well for three minutes is
    an alert of the platform itself. The status service's sign of life is looked at, too, and ``own_ticks``, those of
    sensors that belong to no database.
    """
    by_name = {declared.name: declared for declared in databases}

    def look(declared: Declared) -> Watched:
        return watch(platform, declared, now=now, runs=runs.get(declared.name))

    queue = {name: by_name[name] for name in looks.longest_ago_first(platform.ledger, list(by_name))}
    done, failed = _side_by_side(look, queue, workers=_DATABASES_SIDE_BY_SIDE, seconds=_LOOK_SECONDS)
    channels = [one for declared in databases for one in declared.database.notify]
    of_itself = [
        *heartbeats.observations(platform.ledger, heartbeats.SERVICE),
        *(observations.watched(declared, failed.get(name)) for name, declared in by_name.items()),
        *observations.schedules(Runs(ticks=own_ticks)),
        *observations.unwatched(databases, record.list_alerts(platform.ledger, heartbeats.PLATFORM)),
    ]
    judge_heartbeats(platform.ledger, of_itself, channels, now=now)
    failed |= tell(platform, databases, now=now, send=send)
    return tuple(done[name] for name in sorted(done)), failed


def judge_heartbeats(
    ledger: Ledger, seen: Iterable[Observation], channels: Sequence[NotifyPolicy], *, now: datetime
) -> None:
    """Signs of life and looks, or their want, become alerts of the platform itself."""
    with_page = [replace(one, runbook=runbooks.address(one.key)) for one in seen]
    hold = {one.key: _UNWATCHED for one in with_page if one.key.startswith(WATCH_OF)}
    evaluate.evaluate(ledger, heartbeats.PLATFORM, with_page, channels, now=now, hold=hold)


def tell(
    platform: Platform, databases: Iterable[Declared], *, now: datetime, send: Send = send_by_apprise
) -> dict[str, str]:
    """Send what waits in the outbox to each declared channel.

    A channel that hangs holds back three others at most, and for 25 s. What a receiver did not take stays in the
    outbox, with its reason. Returns the channels that failed otherwise.
    """
    databases = tuple(databases)
    channels = {one.url_env: one for declared in databases for one in declared.database.notify}
    quiet = {pair for one in databases for pair in quiet_now(one.name, one.database.notify, now)}

    def work(channel: NotifyPolicy) -> deliver.Delivery:
        return deliver.deliver(platform.ledger, [channel], now=now, send=send, limit=_MESSAGES_AT_ONCE, quiet=quiet)

    _, failed = _side_by_side(work, channels, workers=_CHANNELS_SIDE_BY_SIDE, seconds=_TELL_SECONDS)
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


def _side_by_side(
    work: Callable[[A], B], items: Mapping[str, A], *, workers: int, seconds: float
) -> tuple[dict[str, B], dict[str, str]]:
    """Do the work for every item in a few threads; what fails, or has not ended after so long, is said by name.

    An item at which a thread of an earlier call still works is not begun again.
    """
    done: dict[str, B] = {}
    failed: dict[str, str] = {}
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="watch")
    futures: dict[str, Future[B]] = {name: pool.submit(_alone, name, work, item) for name, item in items.items()}
    try:
        wait(futures.values(), timeout=seconds)
        for name, future in futures.items():
            if not future.done():
                failed[name] = f"it was not done after {seconds:.0f} s"
            elif (error := future.exception()) is not None:
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                done[name] = future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    for name, why in failed.items():
        _log.error("the watch over %s: %s", name, why)
    return done, failed


def _alone(name: str, work: Callable[[A], B], item: A) -> B:
    key = (work.__qualname__, name)
    with _busy_lock:
        if key in _busy:
            raise StillBusy()
        _busy.add(key)
    try:
        return work(item)
    finally:
        with _busy_lock:
            _busy.discard(key)
