"""The ledger's table of replication slots that nobody reads from. Its schema is ``schema/V30__stale_slots.sql``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class IdleSlot(Base):
    """A slot that was inactive at every look since ``idle_since``, at the same position."""

    __tablename__ = "idle_slot"

    database: Mapped[str] = mapped_column(primary_key=True)
    slot_name: Mapped[str] = mapped_column(primary_key=True)
    restart_lsn: Mapped[str | None]
    idle_since: Mapped[datetime]
    told_at: Mapped[datetime | None]
    """When it was stale for the first time."""
