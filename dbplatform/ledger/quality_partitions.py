"""The ledger's table of answers by partition: what a later run of checks may take over."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class QualityPartition(Base):
    """One partition of a table under checks, as it was when its rows were last read."""

    __tablename__ = "quality_partition"

    database: Mapped[str] = mapped_column(primary_key=True)
    table_name: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[str] = mapped_column(primary_key=True)
    witness: Mapped[dict[str, Any]]
    """What is compared before the answers are taken over."""
    answers: Mapped[dict[str, Any]]
    """By the name of a check: its fingerprint, its counts and sums, and where its failing rows are kept."""
    read_at: Mapped[datetime]
