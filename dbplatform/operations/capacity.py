"""How long the room of a declared database lasts: its growth, and when each limit is reached, as ranges.

The growth of whole databases, WAL and connections comes from the history of metrics, that of tables, indexes, sequences
and transaction ids from the sizes of each day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

from dbplatform.capacity.policy import CapacityPolicy
from dbplatform.capacity.sizes import Sizes, kept_sizes
from dbplatform.capacity.trend import MIN_DAYS, WINDOW_DAYS, Sample, Trend, Until, trend, until
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.monitoring import record
from dbplatform.monitoring.kind import Unit
from dbplatform.monitoring.metrics import Metrics
from dbplatform.operations import daily_sizes, partitions, watching
from dbplatform.operations.platform import Platform

#: Three million ids before the end the server takes no more ("Preventing Transaction ID Wraparound Failures").
_XID_STOP: Final = 2**31 - 3_000_000
#: So many tables, and as many indexes: those that grow fastest, and the largest.
MOST_LISTED: Final = 40
_DAY_S: Final = 86_400.0

LimitName = Literal["disk", "partitions", "sequence", "transaction_ids", "connections"]
Growing = Literal["database", "table", "index", "wal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One thing that runs out: what is used of it, and when it is all used; ``reason`` where that is not known."""

    name: LimitName
    subject: str
    unit: Unit
    used: float | None
    of: float | None
    days: Until | None
    reason: str | None
    growth: Trend | None
    advice: str
    command: str | None
    """What to type first."""
    samples: tuple[Sample, ...] = ()
    """The history, for a plot."""
    renewed: bool = False
    """It is moved on all the time, by a run or by autovacuum, and that works: so it is no finding."""

    def within(self, days: float) -> bool:
        """Whether it may be reached so soon, unless it is renewed before."""
        return not self.renewed and self.days is not None and self.days.low is not None and self.days.low <= days

    def as_json(self) -> dict[str, Any]:
        """One entry of ``limits``."""
        return {
            "limit": self.name,
            "subject": self.subject,
            "unit": self.unit,
            "used": self.used,
            "of": self.of,
            "days": self.days.as_json() if self.days else None,
            "words": self.days.words if self.days else self.reason,
            "reason": self.reason,
            "growth": self.growth.as_json() if self.growth else None,
            "advice": self.advice,
            "command": self.command,
            "renewed": self.renewed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """The growth of one thing in bytes; of WAL, the bytes of a day."""

    kind: Growing
    name: str
    bytes: float
    trend: Trend | None
    reason: str | None
    samples: tuple[Sample, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """One entry of ``growth``."""
        return {
            "kind": self.kind,
            "name": self.name,
            "bytes": self.bytes,
            "growth": self.trend.as_json() if self.trend else None,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What is known of the capacity of a database at one time; limits that come first stand first."""

    database: str
    at: datetime
    warn_within_days: float
    limits: tuple[Limit, ...]
    growth: tuple[Growth, ...]

    @property
    def near(self) -> tuple[Limit, ...]:
        """The limits that may be reached within the time that is declared."""
        return tuple(limit for limit in self.limits if limit.within(self.warn_within_days))

    def as_json(self) -> dict[str, Any]:
        """The document of ``capacity --json``."""
        return {
            "database": self.database,
            "at": self.at.isoformat(),
            "warn_within_days": self.warn_within_days,
            "limits": [limit.as_json() for limit in self.limits],
            "growth": [one.as_json() for one in self.growth],
        }


def capacity(platform: Platform, declared: Declared) -> Capacity:
    """Measure, and tell how long what there is will last. Raises as ``watching.measure``."""
    metrics = watching.measured(platform, declared)
    now_sizes = daily_sizes.read(platform, declared, watching.existing(platform, declared), metrics)
    since = metrics.at - timedelta(days=WINDOW_DAYS + 1)
    days = [one for one in kept_sizes(platform.ledger, declared.name, since=since) if one.at < now_sizes.at]
    history = _History(platform, declared.name, since)
    days = [*days, now_sizes]
    policy = declared.database.capacity or CapacityPolicy()
    limits = [
        _disk(history, days, metrics),
        *_partitions(platform, declared),
        *_sequences(declared.name, days),
        _transaction_ids(declared.name, days),
        _connections(history, metrics),
    ]
    return Capacity(
        database=declared.name,
        at=metrics.at,
        warn_within_days=policy.warn_within.approximate_days,
        limits=tuple(sorted(limits, key=_soonest)),
        growth=(_database(history, metrics), _wal(history, metrics), *_relations(days)),
    )


def _soonest(limit: Limit) -> tuple[float, float]:
    """What comes first; then what is far, then what is not known."""
    if limit.days is None:
        return (3, 0)
    if limit.days.low is None:
        return (2, 0)
    return (1, limit.days.low)


@dataclass(frozen=True, slots=True)
class _History:
    """The history of metrics of one database."""

    platform: Platform
    database: str
    since: datetime

    def samples(
        self, metric: str, of: Callable[[record.Point], float] = lambda point: point.value
    ) -> tuple[Sample, ...]:
        """As measured, and in steps before."""
        points = record.history(self.platform.ledger, self.database, metric, since=self.since)
        return tuple(Sample(point.at, of(point)) for point in points)


def too_short(samples: Iterable[Sample]) -> str:
    """Why nothing is said of a series."""
    seen = max(0, len({sample.at.astimezone(UTC).date() for sample in samples}) - 1)
    return f"it needs {MIN_DAYS} days of history and has {seen}"


def _limit(
    name: LimitName,
    subject: str,
    unit: Unit,
    samples: Sequence[Sample],
    of: float,
    *,
    advice: str,
    command: str | None,
) -> Limit:
    """A limit of a series that rises to ``of``."""
    found = trend(samples)
    return Limit(
        name=name,
        subject=subject,
        unit=unit,
        used=found.level if found else (samples[-1].value if samples else None),
        of=of,
        days=until(found, of) if found else None,
        reason=None if found else too_short(samples),
        growth=found,
        advice=advice,
        command=command,
        samples=tuple(samples),
    )


def _unknown(name: LimitName, subject: str, unit: Unit, reason: str, *, advice: str = "", **known: Any) -> Limit:
    about: dict[str, Any] = {"used": None, "of": None, "growth": None, "command": None, **known}
    return Limit(name=name, subject=subject, unit=unit, days=None, reason=reason, advice=advice, **about)


def _disk(history: _History, days: Sequence[Sizes], metrics: Metrics) -> Limit:
    """The disk of the server, by what is used of it; by the database alone where only that has a history."""
    advice = "See which tables grow: archive or retire old rows, repack what is bloated, or give the disk more room."
    command = f"dbplatform capacity {history.database}"
    if days[-1].disk is None:
        return _unknown(
            "disk",
            "the server's disk",
            "bytes",
            "the size of the disk is not known: the server is on another machine, or the user may not read its "
            "settings; declare capacity: {disk: 500GB}",
            advice=advice,
        )
    used, size = days[-1].disk
    # A disk of another size is another disk.
    of_disk = [Sample(day.at, float(day.disk[0])) for day in days if day.disk is not None and day.disk[1] == size]
    found = _limit("disk", "the server's disk", "bytes", of_disk, float(size), advice=advice, command=command)
    if found.growth is not None:
        return found
    of_database = history.samples("database_bytes")
    free = size - used
    now = metrics.values.get("database_bytes")
    grown = trend(of_database)
    if grown is None or now is None:
        return found
    return Limit(
        name="disk",
        subject="the server's disk, as this database grows",
        unit="bytes",
        used=float(used),
        of=float(size),
        days=until(grown, grown.level + free),
        reason=None,
        growth=grown,
        advice=advice,
        command=command,
        samples=tuple(Sample(one.at, one.value - grown.level + used) for one in of_database),
    )


def _partitions(platform: Platform, declared: Declared) -> Iterable[Limit]:
    """The partitions that are there reach so far: that is known, and no forecast."""
    for policy in declared.database.partitioned_tables:
        subject, command = str(policy.table), f"dbplatform partition apply {declared.name}"
        advice = "Each run makes partitions ahead: see why none was made lately."
        try:
            reach = partitions.reach(platform, declared, policy)
        except PlatformError as error:
            yield _unknown("partitions", subject, "count", error.message, advice=advice)
            continue
        if not isinstance(reach.horizon, timedelta):
            words = f"they are by number: {reach.horizon:,} more numbers have a partition"
            yield _unknown("partitions", subject, "count", words, advice=advice)
            continue
        left = reach.horizon / timedelta(days=1)
        yield Limit(
            name="partitions",
            subject=subject,
            unit="seconds",
            used=None,
            of=None,
            days=Until(low=left, likely=left, high=left, horizon_days=max(1, round(left))),
            reason=None,
            growth=None,
            advice=advice,
            command=command,
            renewed=reach.verdict == "enough",
        )


def _sequences(database: str, days: Sequence[Sizes]) -> Iterable[Limit]:
    for name, (_, end) in days[-1].sequences.items():
        samples = [Sample(day.at, float(day.sequences[name][0])) for day in days if name in day.sequences]
        yield _limit(
            "sequence",
            name,
            "count",
            samples,
            float(end),
            advice="Change the column and its sequence to bigint before the inserts fail.",
            command=f"dbplatform advise list {database}",
        )


def _transaction_ids(database: str, days: Sequence[Sizes]) -> Limit:
    """How long transaction ids would last if nothing were frozen any more: what autovacuum has in hand."""
    now = days[-1]
    used, age, freeze_at = now.xid
    samples = [Sample(day.at, float(day.xid[0] - used + age)) for day in days]
    advice = (
        f"Autovacuum freezes a table once its oldest id is {freeze_at:,} old; this is the time it has if it "
        "does not come to that. End old transactions, prepared ones and stale slots; VACUUM (FREEZE) the oldest tables."
    )
    found = _limit(
        "transaction_ids", "if nothing is frozen from now on", "count", samples, float(_XID_STOP),
        advice=advice, command=f"dbplatform health {database}",
    )  # fmt: skip
    return replace(found, renewed=age <= freeze_at)


def _connections(history: _History, metrics: Metrics) -> Limit:
    """The peak of each day, of what ordinary users may open."""
    by_day: dict[date, Sample] = {}
    for one in history.samples(
        "connections_used_ratio", lambda point: point.value if point.greatest is None else point.greatest
    ):
        day = one.at.astimezone(UTC).date()
        if day not in by_day or one.value >= by_day[day].value:
            by_day[day] = one
    # The day that goes on counts only where it is the highest so far: its peak may be yet to come.
    today = metrics.at.astimezone(UTC).date()
    before = [one for day, one in by_day.items() if day < today]
    peaks = tuple(one for day, one in by_day.items() if day < today or not before or one.value >= before[-1].value)
    now = metrics.values.get("connections_used_ratio")
    if now is None and not peaks:
        reason = metrics.unmeasured.get("connections_used_ratio", "it was not measured")
        return _unknown("connections", "max_connections", "ratio", reason)
    return _limit(
        "connections", "max_connections", "ratio", peaks, 1.0,
        advice="Lower the pools, or put a pooler in front, before raising max_connections, which needs a restart.",
        command=f"dbplatform connections {history.database}",
    )  # fmt: skip


def _database(history: _History, metrics: Metrics) -> Growth:
    return _growth("database", history.database, history.samples("database_bytes"))


def _wal(history: _History, metrics: Metrics) -> Growth:
    """The bytes of each whole day, as far as they were measured."""
    by_day: dict[datetime, list[float]] = {}
    for sample in history.samples("wal_per_s"):
        day = sample.at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        by_day.setdefault(day, []).append(sample.value)
    whole = sorted(day for day in by_day if day + timedelta(days=1) <= metrics.at)
    days = [Sample(day, sum(by_day[day]) / len(by_day[day]) * _DAY_S) for day in whole]
    return _growth("wal", "WAL in a day", days)


def _relations(days: Sequence[Sizes]) -> list[Growth]:
    """Tables and indexes: those that grow fastest, then the largest."""
    chosen = [
        *_chosen("table", [(day.at, day.tables) for day in days]),
        *_chosen("index", [(day.at, day.indexes) for day in days]),
    ]
    return sorted(chosen, key=lambda one: (-_per_day(one), -one.bytes))


def _chosen(kind: Growing, days: Sequence[tuple[datetime, Mapping[str, int]]]) -> list[Growth]:
    found = [
        _growth(kind, name, [Sample(at, float(sizes[name])) for at, sizes in days if name in sizes])
        for name in days[-1][1]
    ]
    fastest = sorted(found, key=lambda one: -_per_day(one))[: MOST_LISTED // 2]
    largest = sorted((one for one in found if one not in fastest), key=lambda one: -one.bytes)
    return [*fastest, *largest[: MOST_LISTED // 2]]


def _per_day(one: Growth) -> float:
    return one.trend.per_day if one.trend is not None else 0.0


def _growth(kind: Growing, name: str, samples: Sequence[Sample]) -> Growth:
    found = trend(samples)
    return Growth(
        kind=kind,
        name=name,
        bytes=samples[-1].value if samples else 0.0,
        trend=found,
        reason=None if found else too_short(samples),
        samples=tuple(samples),
    )
