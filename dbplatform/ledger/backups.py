"""The tables of the ledger for backups: each attempt, and each drill that was to prove one.

Their schema is ``schema/V2__backups.sql``, ``V10__backup_scopes.sql`` and ``V13__drill_checks.sql``.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class BackupRecord(Base):
    """One attempt to back up one database, from its first moment until its files are gone."""

    __tablename__ = "backup"

    id: Mapped[str] = mapped_column(primary_key=True)
    database: Mapped[str]
    kind: Mapped[str]
    """``logical`` or ``physical``."""
    status: Mapped[str]
    """``running``, ``complete``, ``failed`` or ``pruned``; a ``running`` one whose advisory lock is free was killed."""
    scope: Mapped[str] = mapped_column(server_default="everything")
    """``everything``, or what alone is in it: then it proves nothing of the database."""
    run_id: Mapped[str | None]
    location: Mapped[str]
    """Where its manifest and data lie: an absolute folder, or ``s3://bucket/key``."""
    started_at: Mapped[datetime]
    taken_at: Mapped[datetime | None]
    """What was committed before this moment is in it."""
    finished_at: Mapped[datetime | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    """Of the manifest, which holds those of all other files."""
    proven_at: Mapped[datetime | None]
    """When a restore last gave back what was dumped; none when its files were found damaged since."""
    damage: Mapped[str | None]
    """What the last verification or drill found wrong."""
    error: Mapped[str | None]
    removed_at: Mapped[datetime | None]
    """When nothing was left of a failed or pruned one."""


class DrillRecord(Base):
    """One restore of one backup into a scratch database, compared with the manifest."""

    __tablename__ = "drill"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    backup_id: Mapped[str] = mapped_column(ForeignKey(BackupRecord.id))
    database: Mapped[str]
    run_id: Mapped[str | None]
    status: Mapped[str]
    """``running``, ``proven``, ``not proven``, or ``errored``: it could not be carried out."""
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    rto_seconds: Mapped[float | None]
    """From the start of the restore until every table was compared."""
    rpo_seconds: Mapped[float | None]
    """From the backup's snapshot until the start of the drill."""
    tables: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    errors: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    checks: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    """The data-quality checks on the copy."""
    target: Mapped[str | None]
    """The moment to which a physical backup was recovered."""
