"""The table of the ledger for what was tried out in scratch databases. Its schema is ``schema/V6__trials.sql``."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class TrialRecord(Base):
    """One trial that came to its end, whatever it showed."""

    __tablename__ = "trial"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    database: Mapped[str]
    kind: Mapped[str]
    """``round trip``, ``schema`` or ``rehearsal``."""
    fingerprint: Mapped[str]
    """SHA-256 of all that the result follows from: equal input, equal result."""
    result: Mapped[dict[str, Any]]
    run_id: Mapped[str | None]
    tried_at: Mapped[datetime] = mapped_column(server_default=func.now())
