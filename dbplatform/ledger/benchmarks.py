"""The ledger's table of benchmark runs, and of the baselines among them. See ``schema/V28__benchmarks.sql``."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class BenchmarkRun(Base):
    """One run of benchmarks that came to its end: what was measured, and where."""

    __tablename__ = "benchmark_run"
    __table_args__ = (UniqueConstraint("database", "baseline"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    database: Mapped[str]
    kind: Mapped[str]
    """``run``, ``compare`` or ``pool``."""
    baseline: Mapped[str | None]
    """The name under which it is kept; of a database one run has it."""
    run_id: Mapped[str | None]
    """The Dagster run, where there was one."""
    surroundings: Mapped[dict[str, Any]]
    """Server, version, settings, schema and rows."""
    result: Mapped[dict[str, Any]]
    """The sides, and of each benchmark its times by round, its verdict and its noise."""
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime]
