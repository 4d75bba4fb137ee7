"""The tables of the ledger: what was done to which database, and the evidence that was read back.

The schema itself is made by ``ledger/schema/*.sql``, applied by the platform's own migration engine; a test compares
the two.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, ForeignKey, MetaData, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "ledger"


class Base(DeclarativeBase):
    """All times are aware, all documents are JSONB."""

    metadata = MetaData(schema=SCHEMA)
    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: JSONB}


class Operation(Base):
    """One change that was made, or tried, by one capability: who, when, and how it ended."""

    __tablename__ = "operation"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    database: Mapped[str]
    kind: Mapped[str]
    """``migrate``, ``partition`` or ``seed``."""
    run_id: Mapped[str | None]
    """The Dagster run, where there was one."""
    actor: Mapped[str]
    """Who made it: the operating system's user, ``dagster``, or whom the status service knows."""
    origin: Mapped[str] = mapped_column(server_default="")
    """From which machine; empty of long ago."""
    status: Mapped[str]
    """``running``, ``succeeded`` or ``failed``; one that is still ``running`` after its process ended was killed."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    summary: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class QualityRun(Base):
    """One run of data-quality checks over one or more tables of a database."""

    __tablename__ = "quality_run"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    """The Dagster run's id, or one of our own for a run from the command line."""
    in_dagster: Mapped[bool] = mapped_column(server_default="false")
    """It is the Dagster run's."""
    database: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    verdict: Mapped[str | None]
    """``passed``, ``failed`` or ``errored``; none while the run goes on."""


class QualityTable(Base):
    """What one run read of one table."""

    __tablename__ = "quality_table"
    __table_args__ = (UniqueConstraint("run_id", "table_name"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey(QualityRun.run_id, ondelete="CASCADE"))
    table_name: Mapped[str]
    row_count: Mapped[int | None] = mapped_column(BigInteger)
    seconds: Mapped[float]
    checked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    partitions: Mapped[int | None]
    """How many the table has; none where it was read as a whole."""
    partitions_read: Mapped[int | None]


class QualityResult(Base):
    """The outcome of one check on one table in one run."""

    __tablename__ = "quality_result"
    __table_args__ = (UniqueConstraint("run_id", "table_name", "name"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey(QualityRun.run_id, ondelete="CASCADE"))
    table_name: Mapped[str]
    name: Mapped[str]
    type: Mapped[str]
    column_name: Mapped[str | None]
    status: Mapped[str]
    """``passed``, ``failed``, ``errored``, or ``accepted``: it failed, and somebody has answered for that."""
    severity: Mapped[str]
    """``warn`` or ``error``."""
    blocking: Mapped[bool]
    owner: Mapped[str | None]
    failed_rows: Mapped[int | None] = mapped_column(BigInteger)
    """The exact number; none for a check that does not judge rows."""
    considered_rows: Mapped[int | None] = mapped_column(BigInteger)
    """How many rows the check looked at; none where it could not."""
    tolerance: Mapped[str | None]
    """How many rows may fail, as it was declared."""
    kept_rows: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """How many of them are in ``quality_failed_row``."""
    key_columns: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    """The fields of its kept rows that say which row it is; ``value_columns`` are what was looked at."""
    value_columns: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    masked_columns: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    """Those of both whose values were masked before they left the database."""
    rows_removed_at: Mapped[datetime | None]
    """When retention removed its failing rows."""
    quarantined_rows: Mapped[int | None] = mapped_column(BigInteger)
    """How many of them this run moved aside, into ``quarantine_table``; none where that is not declared."""
    quarantine_table: Mapped[str | None]
    accepted_until: Mapped[date | None]
    """From the beginning of this day (UTC) on a failure counts again; as declared, whatever the status."""
    accepted_reason: Mapped[str | None]
    sample: Mapped[str | None]
    """By which part of the table it was judged, in words; none: by all rows."""
    sampled_rows: Mapped[int | None] = mapped_column(BigInteger)
    value: Mapped[float | None]
    """What was measured, where the check measures a number."""
    message: Mapped[str]
    sql: Mapped[str | None]


class QualityFailedRow(Base):
    """One row that failed one check: its key and the offending values."""

    __tablename__ = "quality_failed_row"

    result_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(QualityResult.id, ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    row: Mapped[dict[str, Any]]


class Report(Base):
    """One report that was written: where it lies, and the hash of each of its forms."""

    __tablename__ = "report"

    run_id: Mapped[str] = mapped_column(ForeignKey(QualityRun.run_id, ondelete="CASCADE"), primary_key=True)
    database: Mapped[str]
    location: Mapped[str]
    """Of the HTML, relative to ``destination``; the other forms lie beside it."""
    destination: Mapped[str | None]
    """A folder, or ``s3://bucket/prefix``; none: the folder ``reports`` of ``DBPLATFORM_HOME``."""
    sha256: Mapped[str]
    json_sha256: Mapped[str | None]
    junit_sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    removed_at: Mapped[datetime | None]
    """When its removal began: from then on it is no longer there."""
