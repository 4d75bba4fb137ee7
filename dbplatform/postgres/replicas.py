"""Whether a read may go to the replica: it is one, it follows, and it is not too far behind.

How far behind: a replica that has replayed all that the primary has written is not behind, however long ago that was;
otherwise the time since the last commit that it has replayed bounds what it lacks. A replica whose primary does not
answer is judged by that bound alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from dbplatform.errors import CannotConnect
from dbplatform.postgres.connection import ServerRefused, SessionLost, Target, connect

A = TypeVar("A")

_WRITTEN = "select case when pg_is_in_recovery() then null else pg_current_wal_lsn()::text end"
_REPLAYED = """
    select pg_is_in_recovery(),
           pg_last_wal_replay_lsn() >= %s::pg_lsn,
           extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8
"""
#: The replica ended the statement to go on with replay; on the primary it can be done.
_CONFLICT = ("40001", "57014")
_PATIENCE_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a replica stands: why it may not be read (none: it may), and how far behind it is at most."""

    reason: str | None
    behind_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[A]):
    """What was read, and where: ``reason`` says why it was not the replica, where one is declared."""

    value: A
    from_replica: bool
    reason: str | None = None


def standing(replica: Target, primary: Target, *, budget: timedelta) -> Standing:
    """Ask both. Takes no lock; two short sessions. A replica that cannot be reached is a reason, not an error."""
    try:
        with connect(primary, work="replica", statement_timeout_ms=_PATIENCE_MS) as session:
            row = session.execute(_WRITTEN).fetchone()
        written = row[0] if row is not None else None
    except (CannotConnect, SessionLost, ServerRefused):
        written = None
    try:
        with connect(replica, work="replica", statement_timeout_ms=_PATIENCE_MS) as session:
            row = session.execute(_REPLAYED, (written,)).fetchone()
    except (CannotConnect, SessionLost, ServerRefused) as error:
        return Standing(reason=error.message.rstrip("."), behind_s=None)
    assert row is not None
    in_recovery, all_replayed, since_last = row
    if not in_recovery:
        return Standing(reason=f"{replica.name} is no replica", behind_s=None)
    behind = 0.0 if all_replayed else since_last
    if behind is None:
        return Standing(reason="it has replayed no commit yet", behind_s=None)
    if behind > budget.total_seconds():
        words = f"it is up to {behind:.1f} s behind, and {budget.total_seconds():g} s are allowed"
        return Standing(reason=words, behind_s=behind)
    return Standing(reason=None, behind_s=behind)


def read(primary: Target, replica: Target | None, work: Callable[[Target], A], *, budget: timedelta) -> Read[A]:
    """Do the reading on the replica where that may be, else on the primary; once more there, when the replica fails.

    ``work`` reads only, and may be called twice. What it raises on the primary, or for reasons of its own, is raised.
    """
    if replica is None:
        return Read(value=work(primary), from_replica=False)
    reason = standing(replica, primary, budget=budget).reason
    if reason is None:
        try:
            return Read(value=work(replica), from_replica=True)
        except (CannotConnect, SessionLost) as error:
            reason = error.message.rstrip(".")
        except ServerRefused as error:
            if error.fields.get("sqlstate") not in _CONFLICT:
                raise
            reason = f"it ended the statement: {error.message.rstrip('.')}"
    return Read(value=work(primary), from_replica=False, reason=reason)
