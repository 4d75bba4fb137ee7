"""The ledger's tables of the status service's tokens and of the audit log. Their schema is ``V31``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class ServiceToken(Base):
    """One token; what it is cannot be told from its row."""

    __tablename__ = "service_token"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str]
    """Of all that are not revoked there is one of a name."""
    sha256: Mapped[str] = mapped_column(unique=True)
    scope: Mapped[str]
    """``read`` or ``act``, which reads, too."""
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]
    last_used_at: Mapped[datetime | None]
    """To the minute."""
    last_used_from: Mapped[str | None]


class AuditEntry(Base):
    """One change that is not an operation of its own: who made it, by which way, from where. It is never changed."""

    __tablename__ = "audit_entry"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    way: Mapped[str]
    """``command line``, ``service`` or ``dagster``."""
    origin: Mapped[str]
    """The name of the machine, or the network address that the request came from."""
    token_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(ServiceToken.id))
    act: Mapped[str]
    """``acknowledge alert``, ``silence``, ``review report`` and so on."""
    database: Mapped[str | None]
    """None: it concerns all of them, or none."""
    subject: Mapped[str]
    run_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
