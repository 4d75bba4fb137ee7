"""The sessions of a database, each with what it does, how long, and whom it waits for. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from dbplatform.monitoring.probes.collecting import MARK
from dbplatform.monitoring.texts import without_values
from dbplatform.postgres.connection import AutocommitConnection

#: More are not shown; the longest transactions come first.
MOST = 500

_SESSIONS = """
    select pid, usename as role, application_name as application, coalesce(host(client_addr), 'local') as client,
           coalesce(state, 'unknown') as state,
           case when state = 'active' then wait_event_type || ': ' || wait_event end as waits_for,
           extract(epoch from clock_timestamp() - xact_start)::float as transaction_s,
           extract(epoch from clock_timestamp() - state_change)::float as in_state_s,
           case when wait_event_type = 'Lock' then pg_blocking_pids(pid) else '{}' end as blocked_by,
           backend_xid is not null as writes, query
    from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and application_name <> 'dbplatform metrics'
    order by xact_start nulls last, state_change limit 500
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """One session; its statement has no values."""

    pid: int
    role: str
    application: str
    client: str
    state: str
    waits_for: str | None
    transaction_s: float | None
    in_state_s: float | None
    blocked_by: tuple[int, ...]
    blocks: tuple[int, ...]
    writes: bool
    query: str

    def as_json(self) -> dict[str, Any]:
        """One entry of ``connections``."""
        return {
            "pid": self.pid,
            "role": self.role,
            "application": self.application,
            "client": self.client,
            "state": self.state,
            "waits_for": self.waits_for,
            "transaction_seconds": self.transaction_s,
            "in_state_seconds": self.in_state_s,
            "blocked_by": list(self.blocked_by),
            "blocks": list(self.blocks),
            "writes": self.writes,
            "query": self.query,
        }


def sessions(connection: AutocommitConnection) -> tuple[SessionState, ...]:
    """The sessions of the connected database, the longest transactions first; those that measure are left out."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute((MARK + _SESSIONS).encode()).fetchall()
    return tuple(
        SessionState(
            **{key: row[key] for key in row if key not in ("blocked_by", "query", "role")},
            role=row["role"] or "",
            blocked_by=tuple(row["blocked_by"]),
            blocks=tuple(other["pid"] for other in rows if row["pid"] in other["blocked_by"]),
            query=without_values(row["query"] or ""),
        )
        for row in rows
    )
