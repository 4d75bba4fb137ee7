"""Whether a read may go to the replica: it is a replica of this very server, and has all that was written until now.

A read on the replica must not miss what was committed before it was asked for: the checks behind a load judge the rows
of that load. So it waits, for as long as is allowed, until the replica has replayed what the primary had written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from dbplatform.errors import CannotConnect
from dbplatform.postgres.connection import ServerRefused, SessionLost, Target, connect

A = TypeVar("A")

#: The server, its timeline and database, and how far it has written: the same on a replica, once that has replayed it.
_PRIMARY = """
    select pg_is_in_recovery(),
           (select system_identifier from pg_control_system())::text,
           ('x' || substr(pg_walfile_name(written.lsn), 1, 8))::bit(32)::int,
           current_database(),
           written.lsn::text
    from (select case when not pg_is_in_recovery() then pg_current_wal_lsn() end) as written(lsn)
"""
_REPLICA = """
    select pg_is_in_recovery(),
           (select system_identifier from pg_control_system())::text,
           coalesce((select received_tli from pg_stat_wal_receiver), (select timeline_id from pg_control_checkpoint())),
           current_database()
"""
_REPLAYED = "select pg_last_wal_replay_lsn() >= %s::pg_lsn, %s::pg_lsn - pg_last_wal_replay_lsn()"
#: The replica ended the statement to go on with replay; on the primary it can be done.
_CONFLICT = "40001"
_PATIENCE_MS = 5_000
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[A]):
    """What was read, and where: ``reason`` says why it was not the replica, where one is declared."""

    value: A
    from_replica: bool
    reason: str | None = None


def reason_not_to_read(replica: Target, primary: Target, *, wait: timedelta) -> str | None:
    """Why the replica may not be read now; none when it has all that the primary had written when this was asked.

    Waits for that up to ``wait``, in one short session on each, without a transaction or a lock. A replica that cannot
    be reached is a reason; a primary that cannot raises.
    """
    with connect(primary, work="replica", statement_timeout_ms=_PATIENCE_MS) as session:
        row = session.execute(_PRIMARY).fetchone()
    assert row is not None
    if row[0]:
        return f"{primary.name} is a replica itself"
    *identity, written = row[1:]
    try:
        with connect(replica, work="replica", statement_timeout_ms=_PATIENCE_MS) as session:
            row = session.execute(_REPLICA).fetchone()
            assert row is not None
            if not row[0]:
                return f"{replica.name} is no replica"
            if list(row[1:]) != identity:
                return f"{replica.name} is of another server, timeline or database"
            deadline = time.monotonic() + wait.total_seconds()
            while True:
                row = session.execute(_REPLAYED, (written, written)).fetchone()
                assert row is not None
                if row[0]:
                    return None
                if time.monotonic() >= deadline:
                    behind = f"{int(row[1]):,} bytes" if row[1] is not None else "all of it"
                    return f"after {wait.total_seconds():g} s it still lacks {behind} of what had been written"
                time.sleep(_PAUSE_S)
    except (CannotConnect, SessionLost, ServerRefused) as error:
        return error.message.rstrip(".")


def read(primary: Target, replica: Target | None, work: Callable[[Target], A], *, wait: timedelta) -> Read[A]:
    """Do the reading on the replica where that may be, else on the primary; once more there, when the replica fails.

    ``work`` reads only, and may be called twice. What it raises on the primary, or for reasons of its own, is raised.
    """
    if replica is None:
        return Read(value=work(primary), from_replica=False)
    reason = reason_not_to_read(replica, primary, wait=wait)
    if reason is None:
        try:
            return Read(value=work(replica), from_replica=True)
        except (CannotConnect, SessionLost) as error:
            reason = error.message.rstrip(".")
        except ServerRefused as error:
            if error.fields.get("sqlstate") != _CONFLICT:
                raise
            reason = f"it ended the statement: {error.message.rstrip('.')}"
    return Read(value=work(primary), from_replica=False, reason=reason)
