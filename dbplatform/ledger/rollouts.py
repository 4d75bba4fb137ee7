"""The ledger's tables of migrations over many databases. See ``schema/V37__rollouts.sql``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class Rollout(Base):
    """Migrations of one choice of databases, however often it was stopped and gone on with."""

    __tablename__ = "rollout"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    scope: Mapped[str]
    """``all``, or the owner whose databases they are."""
    target: Mapped[str | None]
    actor: Mapped[str]
    """Who went on with it last."""
    origin: Mapped[str]
    status: Mapped[str]
    """``running``, ``succeeded``, ``failed`` or ``stopped``; one that is ``running`` while nobody holds its lock was
    killed."""
    reason: Mapped[str] = mapped_column(server_default="")
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class RolloutDatabase(Base):
    """How far it is with one database. Its migration history has the truth; here is what was seen."""

    __tablename__ = "rollout_database"

    rollout_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Rollout.id, ondelete="CASCADE"), primary_key=True)
    database: Mapped[str] = mapped_column(primary_key=True)
    canary: Mapped[bool]
    state: Mapped[str]
    """``untouched``, ``running``, ``done``, ``failed`` or ``stopped``."""
    version: Mapped[str | None]
    """The one that it has, when it was seen last."""
    seconds: Mapped[float | None]
    ended_at: Mapped[datetime | None]
    """When it was migrated."""
    reason: Mapped[str] = mapped_column(server_default="")
    before: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """Of a canary: what was seen of it before, and ``after``."""
    after: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    proven_at: Mapped[datetime | None]
    """When a canary was found to be as well as before."""
