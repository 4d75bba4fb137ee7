"""The tables of the ledger for physical backups: servers and their databases, restore points, witnesses.

Their schema is ``schema/V11__physical_backups.sql``.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class ServerDatabase(Base):
    """A declared database was seen on a server; one that moved has a row for each."""

    __tablename__ = "server_database"

    database: Mapped[str] = mapped_column(primary_key=True)
    system_identifier: Mapped[str] = mapped_column(primary_key=True)
    on_server: Mapped[str]
    """Its name there."""
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RestorePointRecord(Base):
    """A named restore point of a server."""

    __tablename__ = "restore_point"

    system_identifier: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    lsn: Mapped[str]
    timeline_id: Mapped[int]
    database: Mapped[str]
    """The declared database for which it was made."""
    made_at: Mapped[datetime]


class WitnessRecord(Base):
    """A transaction of our own: a recovery to a moment after ``ended_at`` has it, to one before ``began_at`` not."""

    __tablename__ = "witness"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    system_identifier: Mapped[str]
    database: Mapped[str]
    xid: Mapped[str]
    lsn: Mapped[str]
    """Right behind its commit."""
    timeline_id: Mapped[int]
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    tables: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    """Of each table of the database: content hash, rows and the server's count of changes, at that moment."""
