"""The ledger's catalogue of archives: which rows left which table, the file that holds them, what was erased since."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, func
from sqlalchemy.dialects.postgresql import JSONB
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
    parent_id: Mapped[uuid.UUID | None]
    """The archive whose rows these refer to, and have left along with."""
    parent_columns: Mapped[list[Any]] = mapped_column(JSONB, server_default="[]")
    """Pairs: the column of this table, the column that it refers to."""


class Erasure(Base):
    """Rows of one table that were erased on purpose, known again by the hashes of their keys."""

    __tablename__ = "erasure"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    database: Mapped[str]
    table_name: Mapped[str]
    cause: Mapped[str]
    """``asked`` (``archive erase``) or ``expired`` (``archive expire``)."""
    note: Mapped[str | None]
    """Who asked, in the words of whoever erased."""
    key_columns: Mapped[list[Any]] = mapped_column(JSONB)
    salt: Mapped[bytes]
    rows: Mapped[int] = mapped_column(BigInteger)
    column_name: Mapped[str | None]
    before: Mapped[datetime | None]
    """Expired rows are those whose ``column_name`` is before this; a later row with the same key is another row."""
    decided_at: Mapped[datetime] = mapped_column(server_default=func.now())
    done_at: Mapped[datetime | None]
    """None: a killed erasure, which the next one finishes."""


class ErasedKeys(Base):
    """A part of the hashes of an erasure, 32 bytes each: SHA-256 of the salt and the key."""

    __tablename__ = "erased_keys"

    erasure_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("ledger.erasure.id", ondelete="CASCADE"), primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hashes: Mapped[bytes]


class RemovedArchive(Base):
    """An archive that is no longer there: what it was, why it went, what took its place."""

    __tablename__ = "removed_archive"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    database: Mapped[str]
    name: Mapped[str]
    table_name: Mapped[str]
    parent_id: Mapped[uuid.UUID | None]
    rows: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    content_hash: Mapped[str]
    location: Mapped[str]
    created_at: Mapped[datetime]
    erasure_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("ledger.erasure.id"))
    replaced_by: Mapped[uuid.UUID | None]
    newest: Mapped[datetime | None]
    """The newest time among its rows, as its own content has it."""
    decided_at: Mapped[datetime] = mapped_column(server_default=func.now())
    removed_at: Mapped[datetime | None]
    """None: the file is still to be removed."""
