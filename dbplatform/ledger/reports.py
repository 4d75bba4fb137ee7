"""The ledger's tables around reports: what a run saw beside the data, and who has reviewed its report.

Their schema is ``schema/V19__report_reviews.sql``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base, QualityRun


class QualitySurroundings(Base):
    """What a run of checks found around the data; what differs from the run before may be a cause."""

    __tablename__ = "quality_surroundings"

    run_id: Mapped[str] = mapped_column(ForeignKey(QualityRun.run_id, ondelete="CASCADE"), primary_key=True)
    settings: Mapped[dict[str, Any]]
    """Value and source of each setting of the server that is not the default."""
    newest_migration: Mapped[int | None]
    """The highest rank in the history table of migrations."""
    migrations: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    """The rows of that table that no earlier run had seen; none at the first run."""


class ReportReview(Base):
    """Somebody has read a report, and said something about it. A report may have several."""

    __tablename__ = "report_review"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey(QualityRun.run_id, ondelete="CASCADE"))
    sha256: Mapped[str]
    """Of the report that was reviewed: one that was written anew is not."""
    reviewer: Mapped[str]
    comment: Mapped[str]
    way: Mapped[str]
    """``command line``, ``service`` or ``dagster``."""
    reviewed_at: Mapped[datetime] = mapped_column(server_default=func.now())
