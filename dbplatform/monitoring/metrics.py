"""The metrics: their names, units, what they mean and what helps; and what one collection of them found.

``KINDS`` is the whole list. Everything that speaks of a metric (thresholds, health, alerts, the ledger) takes its unit
and its words from here; how each one is measured is in ``probes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from dbplatform.monitoring.errors import UnknownMetric

Unit = Literal["ratio", "seconds", "bytes", "count"]
Severity = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One metric by its nature.

    ``warn`` and ``critical`` are the limits that experts use (none: it is judged only where a threshold is declared).
    ``min_sample`` and ``min_sample_critical`` are the evidence below which a value says nothing, in the unit that
    ``sample_unit`` names. ``points`` are taken from the health score: at warning, at critical.
    """

    name: str
    unit: Unit
    meaning: str
    advice: str
    warn: str | None = None
    critical: str | None = None
    sample_unit: str | None = None
    min_sample: float = 0
    min_sample_critical: float = 0
    points: tuple[int, int] = (10, 25)
    of_backups: bool = False
    """It is read from the record of backups and drills, not measured in the database."""


_ALL = (
    Kind(
        name="cache_hit_ratio",
        unit="ratio",
        meaning="Blocks found in shared buffers, of all blocks asked for since the previous collection.",
        advice="See which statements read most (pg_stat_statements, shared_blks_read), add the index they miss; "
        "then give shared_buffers more memory.",
        warn="< 0.98",
        critical="< 0.90",
        sample_unit="blocks",
        min_sample=10_000,
        min_sample_critical=10_000,
    ),
    Kind(
        name="connections_used_ratio",
        unit="ratio",
        meaning="Client sessions of the server, of those that ordinary users may open.",
        advice="See who holds them in pg_stat_activity; lower the pools or put a pooler in front before raising "
        "max_connections, which needs a restart.",
        warn=">= 75%",
        critical=">= 90%",
        points=(15, 35),
    ),
    Kind(
        name="longest_transaction_s",
        unit="seconds",
        meaning="Age of the oldest open or prepared transaction of the database.",
        advice="It holds back vacuum and keeps its locks: end it with pg_cancel_backend, or ROLLBACK PREPARED.",
        warn="> 300s",
        critical="> 3600s",
    ),
    Kind(
        name="idle_in_transaction_s",
        unit="seconds",
        meaning="How long a session has done nothing inside an open transaction.",
        advice="Mend the application that forgets to commit; idle_in_transaction_session_timeout ends such sessions.",
        warn="> 300s",
        critical="> 900s",
    ),
    Kind(
        name="dead_tuple_ratio",
        unit="ratio",
        meaning="Dead rows of the worst table with more than 10,000 of them, of all its rows.",
        advice="VACUUM (ANALYZE) that table; lower its autovacuum_vacuum_scale_factor; see what holds vacuum back: "
        "old transactions, replication slots.",
        warn=">= 10%",
        critical=">= 30%",
        sample_unit="dead rows",
        min_sample_critical=100_000,
        points=(5, 15),
    ),
    Kind(
        name="database_bytes",
        unit="bytes",
        meaning="Size of the database on disk.",
        advice="See which tables grow; archive or retire old rows, or give the disk more room.",
    ),
    Kind(
        name="deadlocks",
        unit="count",
        meaning="Deadlocks since the previous collection.",
        advice="The server's log names both statements: take the locks in the same order in each transaction.",
        sample_unit="seconds",
    ),
    Kind(
        name="temp_bytes",
        unit="bytes",
        meaning="Bytes that statements wrote to temporary files since the previous collection.",
        advice="log_temp_files names the statements; raise work_mem for them, or spare them the sort by an index.",
        sample_unit="seconds",
    ),
    Kind(
        name="replication_lag_s",
        unit="seconds",
        meaning="How long the slowest replica needs until it shows a commit.",
        advice="See pg_stat_replication: network, disk of the replica, or a query on it that holds replay back.",
        warn="> 5s",
        critical="> 60s",
    ),
    Kind(
        name="replication_lag_bytes",
        unit="bytes",
        meaning="WAL that the slowest replica, or replication slot, has not taken yet.",
        advice="See pg_stat_replication and pg_replication_slots; drop the slot of a replica that will not come back, "
        "it keeps WAL until the disk is full.",
        warn="> 50MB",
        critical="> 1GB",
    ),
    Kind(
        name="xid_age_ratio",
        unit="ratio",
        meaning="Age of the oldest transaction id of the server's databases, of the 2^31 at which it stops.",
        advice="VACUUM (FREEZE) the oldest tables of that database; end old transactions, prepared ones and stale "
        "slots first.",
        warn=">= 50%",
        critical=">= 75%",
        points=(20, 50),
    ),
    Kind(
        name="sequence_used_ratio",
        unit="ratio",
        meaning="How far the sequence nearest to its end has come; the end is that of its column, if that is smaller.",
        advice="Change the column and its sequence to bigint before the inserts fail.",
        warn=">= 75%",
        critical=">= 90%",
        points=(15, 40),
    ),
    Kind(
        name="invalid_indexes",
        unit="count",
        meaning="Indexes that a failed CREATE or REINDEX CONCURRENTLY left: they cost writes and serve no query.",
        advice="DROP INDEX CONCURRENTLY it and build it again, or REINDEX INDEX CONCURRENTLY.",
    ),
    Kind(
        name="archiver_failures",
        unit="count",
        meaning="Failed tries to archive a WAL file since the previous collection.",
        advice="Run archive_command by hand as the server's user; while it fails, WAL fills the disk.",
        sample_unit="seconds",
    ),
    Kind(
        name="archiver_failure_age_s",
        unit="seconds",
        meaning="Time since the archiver last failed.",
        advice="Run archive_command by hand as the server's user; while it fails, WAL fills the disk and there is no "
        "recovery to a point in time after the failure.",
        warn="< 24h",
        critical="< 1h",
        points=(15, 30),
    ),
    Kind(
        name="blocked_sessions",
        unit="count",
        meaning="Sessions of the database that wait for a lock of another session.",
        advice="See who blocks them: pg_blocking_pids(pid); end the blocker with pg_cancel_backend.",
    ),
    Kind(
        name="backup_age_s",
        unit="seconds",
        meaning="Time since the newest complete backup of the whole database: what would be lost without any WAL.",
        advice="See why none was made since: dbplatform backup list; make one: dbplatform backup create.",
        warn="> 26h",
        critical="> 50h",
        points=(15, 40),
        of_backups=True,
    ),
    Kind(
        name="drill_age_s",
        unit="seconds",
        meaning="Time since a restore last proved a backup.",
        advice="A backup counts when it has been restored: dbplatform drill.",
        warn="> 8 days",
        critical="> 15 days",
        points=(10, 30),
        of_backups=True,
    ),
    Kind(
        name="recovery_time_s",
        unit="seconds",
        meaning="How long the newest drill that proved a backup took to restore and compare it (RTO).",
        advice="Restore with more jobs (backups.logical.jobs), archive old rows, or declare the limit that is meant.",
        warn="> 1h",
        critical="> 4h",
        of_backups=True,
    ),
)

#: Every metric by its name, in the order in which they are shown.
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})


def kind_of(name: str) -> Kind:
    """The metric of that name; raises ``UnknownMetric`` with the names that there are."""
    if name not in KINDS:
        raise UnknownMetric(name=name, hint=f"The metrics are {', '.join(KINDS)}.")
    return KINDS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One value that was measured.

    ``sample`` is the size of the evidence in the kind's ``sample_unit`` (none: the value needs no minimum). ``labels``
    say what it is about: at most one relation or database, never a list that grows. ``detail`` is a sentence for
    people. With ``complete=False`` a part could not be read, and the truth is this value or a worse one.
    """

    name: str
    value: float
    unit: Unit
    sample: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
    complete: bool = True

    def as_json(self) -> dict[str, Any]:
        """One entry of ``metrics``."""
        return {
            "value": self.value,
            "unit": self.unit,
            "sample": self.sample,
            "labels": dict(self.labels),
            "detail": self.detail,
            "complete": self.complete,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One collection.

    Every metric of ``KINDS`` is in one of three places: ``values``; ``absent``, where the database has nothing to
    measure (no replica, no archiver); or ``unmeasured``, where it could not be measured, so nothing is known. Those of
    backups are added by whoever has their record.
    ``counters`` are the running totals, from which the next collection takes differences. ``missing`` are the rights
    that the user lacks, each with the statement that grants it.
    """

    database: str
    at: datetime
    values: Mapping[str, Metric]
    absent: Mapping[str, str] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document of ``metrics --json``."""
        return {
            "database": self.database,
            "at": self.at.isoformat(),
            "metrics": {name: metric.as_json() for name, metric in self.values.items()},
            "absent": dict(self.absent),
            "unmeasured": dict(self.unmeasured),
            "missing": list(self.missing),
        }
