"""Metrics of the server as a whole: replication, slots, WAL, the archiver, checkpoints."""

from __future__ import annotations

from dbplatform.monitoring.kind import Kind, manual

_REPLICATION = manual("monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW")
_SLOTS = manual("view-pg-replication-slots.html")
_ARCHIVER = manual("continuous-archiving.html#BACKUP-ARCHIVING-WAL")
_WAL = manual("wal-configuration.html")

SERVER = (
    Kind(
        name="replicas",
        unit="count",
        meaning="Replicas that are connected now.",
        advice="See the log of the one that is missing.",
        document=_REPLICATION,
    ),
    Kind(
        name="replication_lag_s",
        unit="seconds",
        meaning="How long the slowest replica needs until it shows a commit.",
        advice="See pg_stat_replication: network, disk of the replica, or a query on it that holds replay back.",
        document=_REPLICATION,
        warn="> 5s",
        critical="> 60s",
    ),
    Kind(
        name="replication_lag_bytes",
        unit="bytes",
        meaning="WAL that the slowest replica, or replication slot, has not taken yet.",
        advice="See pg_stat_replication and pg_replication_slots; drop the slot of a replica that will not come back, "
        "it keeps WAL until the disk is full.",
        document=_REPLICATION,
        warn="> 50MB",
        critical="> 1GB",
    ),
    Kind(
        name="slots_inactive",
        unit="count",
        meaning="Replication slots whose replica or subscriber is away.",
        advice="Drop the slot of one that will not come back: it keeps WAL until the disk is full.",
        document=_SLOTS,
    ),
    Kind(
        name="slots_lost",
        unit="count",
        meaning="Replication slots whose WAL is gone or about to go: their replicas must be built anew.",
        advice="Build the replica anew and drop the slot; raise max_slot_wal_keep_size.",
        document=_SLOTS,
    ),
    Kind(
        name="slot_retained_bytes",
        unit="bytes",
        meaning="WAL that the slot which is furthest behind keeps on the disk.",
        advice="See why its replica is away; max_slot_wal_keep_size bounds it.",
        document=_SLOTS,
    ),
    Kind(
        name="archiver_failures",
        unit="count",
        meaning="Failed tries to archive a WAL file since the previous collection.",
        advice="Run archive_command by hand as the server's user; while it fails, WAL fills the disk.",
        document=_ARCHIVER,
        sample_unit="seconds",
    ),
    Kind(
        name="archiver_failure_age_s",
        unit="seconds",
        meaning="Time since the archiver last failed.",
        advice="Run archive_command by hand as the server's user; while it fails, WAL fills the disk and there is no "
        "recovery to a point in time after the failure.",
        document=_ARCHIVER,
        warn="< 24h",
        critical="< 1h",
        points=(15, 30),
    ),
    Kind(
        name="archiver_queue_files",
        unit="count",
        meaning="WAL files that wait for the archiver.",
        advice="The archive is slower than the writes, or fails: see archiver_failures.",
        document=_ARCHIVER,
    ),
    Kind(
        name="wal_per_s",
        unit="bytes_per_second",
        meaning="WAL that the server writes (a standby: takes), since the previous collection.",
        advice="Full-page images after checkpoints are most of it: raise max_wal_size, set wal_compression.",
        document=_WAL,
        sample_unit="seconds",
    ),
    Kind(
        name="wal_bytes",
        unit="bytes",
        meaning="Size of the folder of WAL.",
        advice="Beyond max_wal_size something keeps it: a slot, a failing archiver, wal_keep_size.",
        document=_WAL,
    ),
    Kind(
        name="checkpoints_timed",
        unit="count",
        meaning="Checkpoints that came by time (checkpoint_timeout) since the previous collection.",
        advice="That is how checkpoints should come.",
        document=_WAL,
        sample_unit="seconds",
    ),
    Kind(
        name="checkpoints_requested",
        unit="count",
        meaning="Checkpoints that came by much WAL, a backup or a person since the previous collection.",
        advice="If they come often, raise max_wal_size: each makes the next writes dearer.",
        document=_WAL,
        sample_unit="seconds",
    ),
    Kind(
        name="checkpoint_write_s",
        unit="seconds",
        meaning="Time that checkpoints spent writing and syncing since the previous collection.",
        advice="Spread over checkpoint_completion_target it does no harm; a long sync is a slow disk.",
        document=_WAL,
        sample_unit="seconds",
    ),
)
