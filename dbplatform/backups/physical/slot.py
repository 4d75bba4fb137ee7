"""The replication slot by which a server keeps its WAL until ``wal receive`` has it; how much that is, is watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dbplatform.backups.files import size_words
from dbplatform.postgres.connection import AnyConnection

# wal_status and safe_wal_size came with PostgreSQL 13.
_SLOT = """
    select slot_name::text, active, wal_status, restart_lsn::text,
           coalesce(pg_wal_lsn_diff(
               case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn),
               0)::bigint
    from pg_replication_slots where slot_name = %s and slot_type = 'physical'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The slot now."""

    name: str
    active: bool
    wal_status: str | None
    """``lost``: the server has removed WAL that was not received."""
    restart_lsn: str | None
    kept_bytes: int
    """How much WAL lies between what was received and the server's end."""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "active": self.active,
            "wal_status": self.wal_status,
            "restart_lsn": self.restart_lsn,
            "kept_bytes": self.kept_bytes,
        }

    def finding(self, limit_bytes: int) -> str | None:
        """What is wrong with it, in one sentence."""
        if self.wal_status == "lost":
            return (
                f"The server has removed WAL that the slot {self.name} had not received: take a base backup now, and "
                f"drop the slot: select pg_drop_replication_slot('{self.name}')."
            )
        if self.kept_bytes > limit_bytes:
            return (
                f"The server keeps {size_words(self.kept_bytes)} of WAL for the slot {self.name}, more than "
                f"{size_words(limit_bytes)}: let wal receive run, or drop the slot before the server's disk is full."
            )
        return None


def slot_name(system: str) -> str:
    """The slot of this platform; a server has one."""
    return f"dbplatform_{system}"


def read_slot(connection: AnyConnection, system: str) -> Slot | None:
    """The slot as the server tells it; None where there is none."""
    row = connection.execute(_SLOT, (slot_name(system),)).fetchone()
    if row is None:
        return None
    name, active, wal_status, restart_lsn, kept = row
    return Slot(name=name, active=active, wal_status=wal_status, restart_lsn=restart_lsn, kept_bytes=kept)


def is_active(connection: AnyConnection, system: str) -> bool:
    """Whether somebody receives now."""
    slot = read_slot(connection, system)
    return slot is not None and slot.active
