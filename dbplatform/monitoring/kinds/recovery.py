"""Metrics of how well the database could be recovered, and of its pooler."""

from __future__ import annotations

from dbplatform.monitoring.kind import Kind, manual

_BACKUPS = manual("backup.html")
_POOLS = "https://www.pgbouncer.org/usage.html#show-pools"

RECOVERY = (
    Kind(
        name="backup_age_s",
        unit="seconds",
        meaning="Time since the newest complete backup of the whole database: what would be lost without any WAL.",
        advice="See why none was made since: dbplatform backup list; make one: dbplatform backup create.",
        document=_BACKUPS,
        warn="> 26h",
        critical="> 50h",
        points=(15, 40),
        source="record",
    ),
    Kind(
        name="drill_age_s",
        unit="seconds",
        meaning="Time since a restore last proved a backup.",
        advice="A backup counts when it has been restored: dbplatform drill.",
        document=_BACKUPS,
        warn="> 8 days",
        critical="> 15 days",
        points=(10, 30),
        source="record",
    ),
    Kind(
        name="recovery_time_s",
        unit="seconds",
        meaning="How long the newest proven restore of a dump or recovery of the server took: the longer one (RTO).",
        advice="Restore with more jobs (backups.logical.jobs), archive old rows, or declare the limit that is meant.",
        document=_BACKUPS,
        warn="> 1h",
        critical="> 4h",
        source="record",
    ),
)

POOLER = (
    Kind(
        name="pool_used_ratio",
        unit="ratio",
        meaning="Server connections of the fullest pool of PgBouncer that are in use, of those that it may open.",
        advice="See which clients hold them (SHOW CLIENTS): long transactions first; then raise pool_size within what "
        "max_connections allows.",
        document=_POOLS,
        warn=">= 80%",
        critical=">= 100%",
        points=(10, 20),
        source="pooler",
    ),
    Kind(
        name="pool_waiting_clients",
        unit="count",
        meaning="Clients of PgBouncer that wait for a server connection.",
        advice="The pool is too small for the load, or transactions are too long: see pool_used_ratio.",
        document=_POOLS,
        source="pooler",
    ),
    Kind(
        name="pool_wait_s",
        unit="seconds",
        meaning="How long the first client in the queue of PgBouncer has waited.",
        advice="The pool is too small for the load, or transactions are too long: see pool_used_ratio.",
        document=_POOLS,
        warn="> 1s",
        critical="> 10s",
        source="pooler",
    ),
)
