"""Who is connected, who is in a transaction, who waits for whom."""

from __future__ import annotations

from dbplatform.monitoring.probes.collecting import Collecting, Probe, one
from dbplatform.postgres.connection import AutocommitConnection

_NAMES = (
    "connections_used_ratio", "connections_active", "connections_idle", "connections_idle_in_transaction",
    "connections_waiting", "longest_transaction_s", "idle_in_transaction_s", "longest_statement_s",
    "blocked_sessions", "longest_lock_wait_s", "locks",
)  # fmt: skip


def _measure(connection: AutocommitConnection, into: Collecting) -> None:
    if not into.facts.reads_all_stats:
        into.unknown("the user may not see the sessions of others", *_NAMES)
        into.missing.append(f"pg_monitor, to see the sessions of others: GRANT pg_monitor TO {into.facts.user};")
        return
    row = one(connection, "metrics_sessions")
    clients, usable = row["clients"], into.facts.usable_connections
    into.found("connections_used_ratio", clients / usable, sample=clients, detail=f"{clients} of {usable} are in use")
    into.found("connections_active", row["active"])
    into.found("connections_idle", row["idle"])
    into.found("connections_idle_in_transaction", row["idle_in_transaction"])
    into.found("connections_waiting", row["waiting"])
    for name, column in (
        ("longest_transaction_s", "longest_transaction"),
        ("idle_in_transaction_s", "longest_idle"),
        ("longest_statement_s", "longest_statement"),
        ("longest_lock_wait_s", "longest_wait"),
    ):
        seconds, who = row[column] or (0, "")
        into.found(name, max(0.0, float(seconds)), detail=who)
    into.found("blocked_sessions", row["blocked"], detail=_blocker(row["blocker"]))
    into.found("locks", row["locks"])
    into.worst["blocked"] = row["blocked_list"] or ()


def _blocker(pid: int | None) -> str:
    if pid is None:
        return ""
    return f"most wait for backend {pid}" if pid else "most wait for a prepared transaction"


SESSIONS = Probe(_NAMES, _measure)
