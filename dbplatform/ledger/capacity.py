"""The ledger's tables of capacity, and of the reports about a time. Their schema is ``schema/V29__capacity.sql``."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class CapacityDay(Base):
    """What was read of a database on one day (UTC): the first time that day."""

    __tablename__ = "capacity_day"

    database: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    measured: Mapped[dict[str, Any]]
    """As ``capacity.sizes.Sizes`` writes it."""


class PeriodReport(Base):
    """A report about a time; written anew, it is the same row with another hash."""

    __tablename__ = "period_report"
    __table_args__ = (UniqueConstraint("database", "kind", "starts_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """``flights-capacity-2026-Q4``, ``flights-maintenance-2026-10``."""
    database: Mapped[str]
    kind: Mapped[str]
    """``capacity`` or ``maintenance``."""
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    location: Mapped[str]
    """Of the HTML, relative to ``destination``; the JSON lies beside it."""
    destination: Mapped[str | None]
    """A folder, or ``s3://bucket/prefix``; none: the folder ``reports`` of ``DBPLATFORM_HOME``."""
    sha256: Mapped[str]
    json_sha256: Mapped[str]
    decisions: Mapped[int]
    """How many things wait for somebody to decide."""
    run_id: Mapped[str | None]
    """The Dagster run that wrote it last."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PeriodReview(Base):
    """Somebody has read such a report, and said something about it. A report may have several."""

    __tablename__ = "period_review"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    report_id: Mapped[str] = mapped_column(ForeignKey(PeriodReport.id, ondelete="CASCADE"))
    sha256: Mapped[str]
    """Of the report that was reviewed."""
    reviewer: Mapped[str]
    comment: Mapped[str]
    way: Mapped[str]
    """``command line``, ``service`` or ``dagster``."""
    reviewed_at: Mapped[datetime] = mapped_column(server_default=func.now())
