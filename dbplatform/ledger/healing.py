"""The ledger's table of work that alerts have begun. See ``schema/V32__healing.sql``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base
from dbplatform.ledger.monitoring import Alert


class Healing(Base):
    """One piece of work that one episode of an alert began."""

    __tablename__ = "healing"
    __table_args__ = (UniqueConstraint("key"),)

    alert_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Alert.id, ondelete="CASCADE"), primary_key=True)
    work: Mapped[str] = mapped_column(primary_key=True)
    """The asset, by its key below the database."""
    database: Mapped[str]
    key: Mapped[str]
    """By which its run is known; the same whenever it is asked for again."""
    begun_at: Mapped[datetime]
    run_id: Mapped[str | None]
    """None: the run is not seen yet."""
    outcome: Mapped[str | None]
    """``succeeded`` or ``failed``; none while it goes on."""
