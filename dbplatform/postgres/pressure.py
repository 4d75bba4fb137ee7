"""What else the server has to do: sessions at work and in wait, replicas that lag. Work that can wait looks here first.

Who waits for a lock everybody may see, in pg_locks; what others do, and how far replicas are, only who has
``pg_read_all_stats``. Source: PostgreSQL manual, pg_stat_activity, pg_locks, pg_stat_replication.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbplatform.postgres.connection import AnyConnection

_BEHIND = """
    select application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint
    from pg_stat_replication where replay_lsn is not null order by 2 desc limit 1
"""
_WAITING = """
    select count(distinct pid) from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))
"""
_SESSIONS = """
    select count(*) filter (where state = 'active' and wait_event_type is distinct from 'Lock'),
           (select count(distinct pid) from pg_locks where not granted and pid <> pg_backend_pid())
    from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
"""
_BLOCKED = """
    select max(extract(epoch from clock_timestamp() - waitstart))
    from pg_locks where not granted and pg_blocking_pids(pid) && %s::int[] and pid <> all (%s::int[])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """One look at the server. ``replica`` is the farthest one behind, none where there is none that may be seen."""

    active_sessions: int
    waiting_sessions: int
    replica: str | None
    replica_lag_bytes: int


def pressure(connection: AnyConnection) -> Pressure:
    """How much is going on: sessions of the whole server without this one. Takes no lock.

    Where ``sees_others`` is false, nobody is at work and there is no replica, as far as this user can see.
    """
    row = connection.execute(_SESSIONS).fetchone()
    assert row is not None
    behind = farthest_behind(connection)
    return Pressure(
        active_sessions=row[0],
        waiting_sessions=row[1],
        replica=behind[0] if behind else None,
        replica_lag_bytes=behind[1] if behind else 0,
    )


def sees_others(connection: AnyConnection) -> bool:
    """Whether the user may see what other sessions do and how far replicas are, as a superuser or by pg_monitor."""
    row = connection.execute("select pg_has_role('pg_read_all_stats', 'usage')").fetchone()
    return row is not None and bool(row[0])


def waiting_for_us(connection: AnyConnection) -> int:
    """How many sessions wait for a lock that this one holds."""
    row = connection.execute(_WAITING).fetchone()
    assert row is not None
    return int(row[0])


def longest_wait_for(connection: AnyConnection, *pids: int) -> float:
    """For how many seconds another session has waited by now for a lock that one of these backends has, or has asked
    for before it; 0: nobody waits."""
    row = connection.execute(_BLOCKED, (list(pids), list(pids))).fetchone()
    return float(row[0]) if row is not None and row[0] is not None else 0.0


def farthest_behind(connection: AnyConnection) -> tuple[str, int] | None:
    """The replica with the most WAL to replay, in bytes; None: there is none, or the user may not see it."""
    row = connection.execute(_BEHIND).fetchone()
    return None if row is None else (row[0], row[1])
