"""The ledger's table of advice: what was found, what became of it, and the receipts. See ``schema/V24__advice.sql``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class AdviceRecord(Base):
    """One advice, from when it was first found; found again it is the same row."""

    __tablename__ = "advice"

    id: Mapped[str] = mapped_column(primary_key=True)
    database: Mapped[str]
    kind: Mapped[str]
    subject: Mapped[str]
    severity: Mapped[str]
    """``warning`` or ``info``."""
    reason: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    lock: Mapped[str]
    cost: Mapped[str]
    confidence: Mapped[str]
    """``proven``, ``certain`` or ``estimated``."""
    document: Mapped[str]
    sql: Mapped[str]
    undo_sql: Mapped[str | None]
    action: Mapped[dict[str, Any] | None]
    """None: it is for a person to do."""
    undo: Mapped[dict[str, Any] | None]
    statements: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    table_name: Mapped[list[str] | None] = mapped_column(JSONB)
    """Schema and name."""
    state: Mapped[str]
    """``open``, ``applying``, ``applied``, ``undoing``, ``undone``, ``dismissed``, or ``gone``: no longer found."""
    note: Mapped[str] = mapped_column(server_default="")
    """Why it was dismissed."""
    first_seen_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    """When its state changed."""
    receipt: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """What was measured before and after it was applied."""
