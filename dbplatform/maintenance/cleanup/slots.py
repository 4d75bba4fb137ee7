"""What others left on the server, and what it keeps for them: replication slots, prepared transactions, files.

A slot is dropped only where the declaration has its name, and a day after it was told that it is stale. Prepared
transactions are never ended: whoever prepared one may have committed its other half elsewhere. Source: PostgreSQL
manual, "Replication Slots", "PREPARE TRANSACTION", view pg_replication_slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from sqlalchemy import delete, select

from dbplatform.errors import WorkError
from dbplatform.ledger.cleanup import IdleSlot
from dbplatform.ledger.ledger import Ledger
from dbplatform.maintenance.cleanup.leftovers import Leftover
from dbplatform.maintenance.cleanup.policy import SlotPolicy
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.words import Interval

SLOT, PREPARED, FILE = "replication slot", "prepared transaction", "temporary file"
#: So long a person has from the first word until a slot is dropped.
WARNED = timedelta(days=1)

# inactive_since came with PostgreSQL 17, wal_status with 13. A logical slot can be dropped in its own database alone.
_SLOTS = """
    select s.slot_name::text, s.restart_lsn::text, to_jsonb(s) ->> 'wal_status',
           (to_jsonb(s) ->> 'inactive_since')::timestamptz,
           coalesce(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                                    else pg_current_wal_lsn() end, s.restart_lsn), 0)::bigint
    from pg_replication_slots s
    where not s.active and not s.temporary and (s.database is null or s.database = current_database())
    order by 1
"""
_DROP = """
    select pg_drop_replication_slot(slot_name) from pg_replication_slots
    where slot_name = %s and not active and restart_lsn::text is not distinct from %s
"""
_PREPARED = """
    select gid, prepared, owner::text from pg_prepared_xacts
    where database = current_database() and prepared < %s order by prepared
"""
_MAY_LIST = "select has_function_privilege('pg_ls_tmpdir()', 'execute')"
# A temporary file has the number of its process in its name.
_FILES = r"""
    select name, size from pg_ls_tmpdir()
    where modification < %s and name ~ '^pgsql_tmp\d+\.' and not exists (
        select from pg_stat_activity where pid = substring(name from '^pgsql_tmp(\d+)\.')::int)
    order by name
"""


class SlotInUse(WorkError):
    """The slot {name} is in use again, and was not dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Idle:
    """A slot that nobody reads from now."""

    name: str
    restart_lsn: str | None
    since: datetime
    kept_bytes: int
    lost: bool
    told_at: datetime | None

    def is_stale(self, policy: SlotPolicy, now: datetime) -> bool:
        """One whose WAL is lost is of no use to anybody, however much is kept for it."""
        long = now - self.since >= policy.inactive_for.timedelta
        return long and (self.lost or self.kept_bytes >= policy.holding)


def remember_slots(
    connection: AnyConnection, ledger: Ledger, database: str, policy: SlotPolicy, *, now: datetime
) -> None:
    """Note since when each slot is idle, and that the stale ones are told now; one transaction in the ledger."""
    idle = _idle(connection, ledger, database, now=now)
    with ledger.session() as session:
        session.execute(
            delete(IdleSlot).where(IdleSlot.database == database, IdleSlot.slot_name.not_in([one.name for one in idle]))
        )
        for one in idle:
            told = one.told_at or now if one.is_stale(policy, now) else None
            session.merge(
                IdleSlot(
                    database=database,
                    slot_name=one.name,
                    restart_lsn=one.restart_lsn,
                    idle_since=one.since,
                    told_at=told,
                )
            )


def find_stale_slots(
    connection: AnyConnection, ledger: Ledger, database: str, policy: SlotPolicy, *, now: datetime
) -> list[Leftover]:
    """The slots that are stale at ``now`` (aware); only reads."""
    found = []
    for one in _idle(connection, ledger, database, now=now):
        if not one.is_stale(policy, now):
            continue
        held = "its WAL is lost" if one.lost else f"the server keeps {one.kept_bytes:,} bytes of WAL for it"
        why = f"nobody has read from it since {one.since:%Y-%m-%d %H:%M} UTC, and {held}"
        goes = one.told_at + WARNED if one.name in policy.drop and one.told_at is not None else None
        if goes is not None and now >= goes:
            found.append(Leftover(kind=SLOT, name=one.name, reason=why, bytes=one.kept_bytes))
            continue
        advice = f"See to its reader, or drop it: select pg_drop_replication_slot('{one.name}')."
        if one.name in policy.drop:
            advice = (
                f"See to its reader: it is dropped {f'from {goes:%Y-%m-%d %H:%M} UTC on' if goes else 'a day later'}."
            )
        found.append(Leftover(kind=SLOT, name=one.name, reason=why, fate="tell", advice=advice, bytes=one.kept_bytes))
    return found


def drop_slot(
    connection: AutocommitConnection,
    ledger: Ledger,
    database: str,
    policy: SlotPolicy,
    leftover: Leftover,
    *,
    now: datetime,
) -> bool:
    """Drop a stale slot that is still idle, at the same position; whether it was. Raises ``SlotInUse``."""
    positions = {one.name: one.restart_lsn for one in _idle(connection, ledger, database, now=now)}
    due = {one.name for one in find_stale_slots(connection, ledger, database, policy, now=now) if one.fate == "remove"}
    if leftover.name not in due:
        return False
    try:
        return connection.execute(_DROP, (leftover.name, positions[leftover.name])).fetchone() is not None
    except psycopg.errors.ObjectInUse as error:
        raise SlotInUse(name=leftover.name, hint="Its reader is back.") from error


def find_prepared(connection: AnyConnection, older_than: Interval, *, now: datetime) -> list[Leftover]:
    """Prepared transactions of this database that are older; only reads. They hold their locks, and back vacuum."""
    rows = connection.execute(_PREPARED, (now - older_than.timedelta,)).fetchall()
    return [
        Leftover(
            kind=PREPARED,
            name=gid,
            reason=f"prepared at {prepared:%Y-%m-%d %H:%M} UTC by {owner}; it holds its locks, and VACUUM back",
            fate="tell",
            advice="Ask whoever prepared it; then commit prepared, or rollback prepared, with this name.",
        )
        for gid, prepared, owner in rows
    ]


def find_files(connection: AnyConnection, *, now: datetime) -> list[Leftover]:
    """Temporary files of sessions that are gone; only reads. Without the right to list them there is nothing."""
    row = connection.execute(_MAY_LIST).fetchone()
    if row is None or not row[0]:
        return []
    return [
        Leftover(
            kind=FILE,
            name=name,
            reason="its session is gone",
            fate="tell",
            advice="The server removes it when it starts anew (remove_temp_files_after_crash = on: after each crash).",
            bytes=size,
        )
        for name, size in connection.execute(_FILES, (now - timedelta(hours=1),)).fetchall()
    ]


def _idle(connection: AnyConnection, ledger: Ledger, database: str, *, now: datetime) -> list[_Idle]:
    with ledger.session() as session:
        rows = session.scalars(select(IdleSlot).where(IdleSlot.database == database)).all()
    known: Mapping[str, IdleSlot] = {row.slot_name: row for row in rows}
    found = []
    for name, position, wal_status, since, kept in connection.execute(_SLOTS).fetchall():
        before = known.get(name)
        if before is not None and before.restart_lsn != position:
            before = None
        if since is None:  # an older server does not say: since it was seen so first
            since = before.idle_since if before is not None else now
        found.append(
            _Idle(
                name=name,
                restart_lsn=position,
                since=since,
                kept_bytes=max(0, kept),
                lost=wal_status == "lost",
                told_at=before.told_at if before is not None else None,
            )
        )
    return found
