"""The ledger's catalogue of archives: which rows left which table, and the file that holds them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class Archive(Base):
    """One archive file. It is listed from the moment that the file is complete and has its name."""

    __tablename__ = "archive"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    database: Mapped[str]
    name: Mapped[str]
    """As declared."""
    table_name: Mapped[str]
    column_name: Mapped[str | None]
    cutoff: Mapped[datetime | None]
    predicate: Mapped[str | None]
    """The condition that was declared as ``where``."""
    rows: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    """Of the file."""
    content_hash: Mapped[str]
    """Of the rows, as the snapshot held them: ``catalog.content_hash`` of a table with just these rows."""
    location: Mapped[str]
    backup_id: Mapped[str]
    """The proven backup behind which the rows were deleted."""
    status: Mapped[str]
    """``exported``, ``verified`` (read back and equal), ``deleted`` (gone from the table) or ``restored``."""
    deleted_rows: Mapped[int] = mapped_column(BigInteger, server_default="0")
    kept: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """Exported rows that stayed in the table, counted by reason."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    verified_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    restored_at: Mapped[datetime | None]
