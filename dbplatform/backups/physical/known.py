"""What the ledger remembers of servers: the databases seen on them, and their named restore points.

It is asked when a server is lost, so that nothing here connects to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.physical import RestorePointRecord, ServerDatabase


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A declared database on a server, and its name there."""

    system: str
    on_server: str
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """A named position of a server's WAL."""

    name: str
    system: str
    lsn: str
    timeline_id: int
    database: str
    made_at: datetime


def remember(ledger: Ledger, database: str, *, system: str, on_server: str, seen_at: datetime | None = None) -> None:
    """The declared database has been seen on that server, by default just now."""
    with ledger.session() as session:
        session.merge(
            ServerDatabase(
                database=database, system_identifier=system, on_server=on_server, seen_at=seen_at or datetime.now(UTC)
            )
        )


def seats(ledger: Ledger, database: str) -> tuple[Seat, ...]:
    """The servers on which the database was seen, the newest first."""
    query = select(ServerDatabase).where(ServerDatabase.database == database)
    with ledger.session() as session:
        return tuple(
            Seat(system=row.system_identifier, on_server=row.on_server, seen_at=row.seen_at)
            for row in session.scalars(query.order_by(ServerDatabase.seen_at.desc()))
        )


def databases_on(ledger: Ledger, system: str) -> dict[str, str]:
    """The declared databases that were seen on that server, and their names there."""
    query = select(ServerDatabase).where(ServerDatabase.system_identifier == system).order_by(ServerDatabase.database)
    with ledger.session() as session:
        return {row.database: row.on_server for row in session.scalars(query)}


def keep_restore_point(ledger: Ledger, point: RestorePoint) -> None:
    """Write down a restore point; its name is the server's only one."""
    with ledger.session() as session:
        session.add(
            RestorePointRecord(
                system_identifier=point.system,
                name=point.name,
                lsn=point.lsn,
                timeline_id=point.timeline_id,
                database=point.database,
                made_at=point.made_at,
            )
        )


def restore_points(ledger: Ledger, systems: Sequence[str]) -> tuple[RestorePoint, ...]:
    """The known restore points of these servers, the newest first."""
    query = select(RestorePointRecord).where(RestorePointRecord.system_identifier.in_(systems))
    with ledger.session() as session:
        return tuple(
            RestorePoint(
                name=row.name,
                system=row.system_identifier,
                lsn=row.lsn,
                timeline_id=row.timeline_id,
                database=row.database,
                made_at=row.made_at,
            )
            for row in session.scalars(query.order_by(RestorePointRecord.made_at.desc()))
        )
