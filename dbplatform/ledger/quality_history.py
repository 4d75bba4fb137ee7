"""The ledger's table of what each check has measured over time. The schema is ``V17__quality_history.sql``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Double
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class QualityHistory(Base):
    """One value of one check; of a check by period, the value of one period."""

    __tablename__ = "quality_history"

    database: Mapped[str] = mapped_column(primary_key=True)
    table_name: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    """The moment of the snapshot; the beginning of the period."""
    run_id: Mapped[str]
    """The run that measured it; that measured the period first."""
    type: Mapped[str]
    status: Mapped[str]
    value: Mapped[float | None] = mapped_column(Double)
    failed_rows: Mapped[int | None] = mapped_column(BigInteger)
    considered_rows: Mapped[int | None] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Double)
    """How long the checks of the table took, all together: one read answers them."""
    expected: Mapped[float | None] = mapped_column(Double)
    """None: nothing was expected of it, or the past was too short."""
    low: Mapped[float | None] = mapped_column(Double)
    high: Mapped[float | None] = mapped_column(Double)
