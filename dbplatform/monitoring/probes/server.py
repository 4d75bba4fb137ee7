"""The first question of a collection: what the others must know, and the counters of database and server."""

from __future__ import annotations

from psycopg import sql

from dbplatform.monitoring.metrics import Metric
from dbplatform.monitoring.probes.collecting import (
    NO_STATISTICS,
    Collecting,
    Facts,
    Probe,
    Row,
    one,
)
from dbplatform.postgres.connection import AutocommitConnection

XID_LIMIT = 2**31

#: The view of checkpoints and its columns, from that version on.
_CHECKPOINTS = {
    17: (
        "pg_stat_checkpointer",
        "c.num_timed as checkpoints_timed, c.num_requested as checkpoints_requested, "
        "c.write_time + c.sync_time as checkpoint_ms, "
        "coalesce(extract(epoch from c.stats_reset), 0) as checkpoint_reset",
    ),
    14: (
        "pg_stat_bgwriter",
        "c.checkpoints_timed, c.checkpoints_req as checkpoints_requested, "
        "c.checkpoint_write_time + c.checkpoint_sync_time as checkpoint_ms, "
        "coalesce(extract(epoch from c.stats_reset), 0) as checkpoint_reset",
    ),
}
_OF_DATABASE = ("xact_commit", "xact_rollback", "blks_hit", "blks_read", "deadlocks", "temp_files", "temp_bytes")
_COUNTED = (
    "cache_hit_ratio", "commits_per_s", "rollbacks_per_s", "rollback_ratio", "deadlocks", "temp_files", "temp_bytes",
)  # fmt: skip


def _measure(connection: AutocommitConnection, into: Collecting) -> None:
    view, columns = _CHECKPOINTS[17 if into.major >= 17 else 14]
    row = one(connection, "metrics_server", checkpointer=sql.SQL(view), checkpoints=sql.SQL(columns))
    into.facts = _facts(row, into.major)
    into.settings = row["settings"] or {}
    into.count(row, "postmaster_start", "database_stats_reset")
    _database(row, into)
    _ids(row, into)
    _checkpoints(row, into)
    _archiver(row, into)


def _facts(row: Row, major: int) -> Facts:
    return Facts(
        major=major,
        user=row["user_name"],
        in_recovery=row["in_recovery"],
        reads_all_stats=row["reads_all_stats"],
        lists_wal=row["lists_wal"],
        track_counts=row["track_counts"],
        archive_mode=row["archive_mode"],
        usable_connections=row["usable_connections"],
        counting_since=float(row["database_stats_reset"] or row["postmaster_start"]),
        statements=tuple(row["statements"]) if row["statements"] else None,
    )


def _database(row: Row, into: Collecting) -> None:
    reset = "database_stats_reset"
    if not into.facts.track_counts:
        into.unknown(NO_STATISTICS, *_COUNTED, "recovery_conflicts")
        return
    into.count(row, *_OF_DATABASE, "conflicts")
    into.share("cache_hit_ratio", reset, "blks_hit", "blks_read", of="blocks", are="were in shared buffers")
    into.since("commits_per_s", reset, "xact_commit", per_second=True)
    into.since("rollbacks_per_s", reset, "xact_rollback", per_second=True)
    into.share("rollback_ratio", reset, "xact_rollback", "xact_commit", of="transactions", are="were rolled back")
    for name in ("deadlocks", "temp_files", "temp_bytes"):
        into.since(name, reset, name)
    if into.facts.in_recovery:
        into.since("recovery_conflicts", reset, "conflicts")
    else:
        into.nothing("the server is no standby", "recovery_conflicts")


def _ids(row: Row, into: Collecting) -> None:
    for what, name in (("xid", "xid_age_ratio"), ("multixact", "multixact_age_ratio")):
        database, age = row[f"{what}_database"], row[f"{what}_age"]
        detail = f"the oldest id of the database {database} is {age:,} ids old"
        into.values[name] = Metric(
            name=name, value=age / XID_LIMIT, unit="ratio", labels={"database": database}, detail=detail
        )


def _checkpoints(row: Row, into: Collecting) -> None:
    into.count(row, "wal_position", "checkpoints_timed", "checkpoints_requested", "checkpoint_ms", "checkpoint_reset")
    into.since("wal_per_s", "postmaster_start", "wal_position", per_second=True)
    into.since("checkpoints_timed", "checkpoint_reset", "checkpoints_timed")
    into.since("checkpoints_requested", "checkpoint_reset", "checkpoints_requested")
    into.since("checkpoint_write_s", "checkpoint_reset", "checkpoint_ms", scale=0.001)


def _archiver(row: Row, into: Collecting) -> None:
    if not into.facts.archives:
        into.nothing("the server archives no WAL (archive_mode)", "archiver_failures", "archiver_failure_age_s")
        return
    into.count(row, "archived_count", "failed_count", "archiver_stats_reset")
    into.since("archiver_failures", "archiver_stats_reset", "failed_count")
    if row["archiver_failure_age"] is None:
        into.nothing("no try has failed since the statistics began", "archiver_failure_age_s")
    else:
        age = max(0.0, float(row["archiver_failure_age"]))
        into.found("archiver_failure_age_s", age, detail=f"the last one was {row['last_failed_wal']}")


SERVER = Probe(
    (
        *_COUNTED, "recovery_conflicts", "xid_age_ratio", "multixact_age_ratio", "wal_per_s", "checkpoints_timed",
        "checkpoints_requested", "checkpoint_write_s", "archiver_failures", "archiver_failure_age_s",
    ),
    _measure,
)  # fmt: skip
