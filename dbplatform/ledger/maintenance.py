"""The ledger's tables of maintenance. Their schema is ``schema/V27__maintenance.sql``."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class MaintenanceRun(Base):
    """One run; without ``finished_at`` it goes on, or was killed."""

    __tablename__ = "maintenance_run"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    database: Mapped[str]
    mode: Mapped[str]
    """``quick``, ``full``, or the one kind of work of an asset."""
    run_id: Mapped[str | None]
    """The Dagster run, where there was one."""
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    stopped: Mapped[str | None]
    """Why it ended before the work did."""
    report: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """The report without its items; until then ``changing``, the setting that is being changed, with its undo."""


class MaintenanceItem(Base):
    """What became of one item of work, kept as soon as it was known."""

    __tablename__ = "maintenance_item"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    maintenance_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(MaintenanceRun.id, ondelete="CASCADE"))
    kind: Mapped[str]
    verb: Mapped[str]
    subject: Mapped[str]
    priority: Mapped[int]
    reason: Mapped[str]
    statement: Mapped[str]
    undo: Mapped[str | None]
    state: Mapped[str]
    words: Mapped[str] = mapped_column(server_default="")
    before: Mapped[dict[str, Any]]
    after: Mapped[dict[str, Any]]
    bytes: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]
    noted_at: Mapped[datetime] = mapped_column(server_default=func.now())
