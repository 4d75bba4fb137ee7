"""Where reports lie and how they are found again: a file below the folder of reports, and its record in the ledger.

A file is written under another name, read back and only then given its own; the record comes last. So whatever the
ledger names exists, whole, with the hash that it names.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Select, case, func, select, true
from sqlalchemy.dialects.postgresql import insert

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityResult, QualityRun, QualityTable, Report
from dbplatform.reporting.errors import ReportNotFound, ReportNotWritten
from dbplatform.reporting.evidence import RunEvidence, load_evidence
from dbplatform.reporting.page import render_report


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReport:
    """A report that was written and read back."""

    run_id: str
    database: str
    location: str
    """Relative to the folder of reports, with ``/``."""
    path: Path
    sha256: str
    verdict: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportEntry:
    """A report as the ledger remembers it, with what its run found."""

    run_id: str
    database: str
    location: str
    sha256: str
    created_at: datetime
    started_at: datetime
    finished_at: datetime
    verdict: str
    tables: int
    checks: int
    failed: int
    errored: int


def write_report(
    ledger: Ledger, database: str, run_id: str, *, folder: Path, dagster_run_url: str | None = None
) -> WrittenReport:
    """Write the report of a finished run to ``folder/<database>/<start>-<run id>.html`` and record it.

    Run twice, it replaces its own file and record. Raises ``UnknownRun``, ``RunOfAnotherDatabase``,
    ``RunNotFinished``, ``NotAWebAddress`` and, when the file cannot be written or does not read back as written,
    ``ReportNotWritten``; then no record is made.
    """
    run = load_evidence(ledger, run_id, database=database)
    content = render_report(run, dagster_run_url=dagster_run_url).encode()
    location = _free_location(ledger, run)
    path = folder / location
    sha256 = _write(path, content, location)
    with ledger.session() as session:
        record = insert(Report).values(run_id=run_id, database=database, location=location, sha256=sha256)
        session.execute(
            record.on_conflict_do_update(
                index_elements=[Report.run_id],
                set_={"location": location, "sha256": sha256, "created_at": func.now()},
            )
        )
    return WrittenReport(
        run_id=run_id,
        database=database,
        location=location,
        path=path,
        sha256=sha256,
        verdict=run.verdict,
        bytes=len(content),
    )


def list_reports(ledger: Ledger, database: str | None = None, limit: int = 50) -> list[ReportEntry]:
    """The newest reports by the start of their run, of one database or of all."""
    query = _entries().order_by(QualityRun.started_at.desc(), QualityRun.run_id.desc()).limit(limit)
    if database is not None:
        query = query.where(Report.database == database)
    with ledger.session() as session:
        return [_entry(row) for row in session.execute(query)]


def report_of(ledger: Ledger, database: str | None, run_id: str | None = None) -> ReportEntry:
    """The report of a run, without ``run_id`` the newest one; raises ``ReportNotFound``."""
    query = _entries().order_by(QualityRun.started_at.desc(), QualityRun.run_id.desc()).limit(1)
    if database is not None:
        query = query.where(Report.database == database)
    if run_id is not None:
        query = query.where(Report.run_id == run_id)
    with ledger.session() as session:
        row = session.execute(query).first()
    if row is None:
        what = f"run {run_id}" if run_id is not None else f"database {database!r}"
        raise ReportNotFound(what=what, hint="Write one by running the checks: dbplatform check DATABASE.")
    return _entry(row)


def report_at(ledger: Ledger, location: str) -> ReportEntry:
    """The report recorded at exactly this location; raises ``ReportNotFound``."""
    with ledger.session() as session:
        row = session.execute(_entries().where(Report.location == location)).first()
    if row is None:
        raise ReportNotFound(what=location, hint="See which there are: dbplatform report list.")
    return _entry(row)


def read_report(folder: Path, entry: ReportEntry) -> bytes | None:
    """The file of a recorded report; none when it is missing, lies outside ``folder`` or is not what was written."""
    path = (folder / entry.location).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    content = path.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == entry.sha256 else None


def _free_location(ledger: Ledger, run: RunEvidence) -> str:
    """The first name that no other run's report has: by 8 characters of the run id, else by all of them."""
    start = run.started_at.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    names = [f"{_safe(run.database)}/{start}-{_safe(part)}.html" for part in (run.run_id[:8], run.run_id)]
    with ledger.session() as session:
        taken = session.scalars(
            select(Report.location).where(Report.location.in_(names), Report.run_id != run.run_id)
        ).all()
    for name in names:
        if name not in taken:
            return name
    raise ReportNotWritten(location=names[-1], reason="another run's report has this name", hint="Check the run ids.")


def _safe(text: str) -> str:
    """One part of a path on any file system, never hidden and never a step upwards."""
    return re.sub(r"[^\w.-]", "_", text).lstrip(".") or "_"


def _write(path: Path, content: bytes, location: str) -> str:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if hashlib.sha256(temporary.read_bytes()).hexdigest() != sha256:
            raise ReportNotWritten(
                location=location, reason="it does not read back as it was written", hint="Check the disk."
            )
        temporary.replace(path)
    except OSError as error:
        raise ReportNotWritten(
            location=location,
            reason=error.strerror or str(error),
            hint=f"Check that {path.parent} can be written and that the disk is not full.",
        ) from error
    finally:
        with suppress(OSError):  # what went wrong above is what must be told
            temporary.unlink(missing_ok=True)
    return sha256


def _entries() -> Select[Any]:
    checks = (
        select(
            func.count().label("checks"),
            func.count(case((QualityResult.status == "failed", 1))).label("failed"),
            func.count(case((QualityResult.status == "errored", 1))).label("errored"),
        )
        .where(QualityResult.run_id == QualityRun.run_id)
        .lateral()
    )
    tables = select(func.count().label("tables")).where(QualityTable.run_id == QualityRun.run_id).lateral()
    return (
        select(
            Report.run_id,
            Report.database,
            Report.location,
            Report.sha256,
            Report.created_at,
            QualityRun.started_at,
            QualityRun.finished_at,
            QualityRun.verdict,
            tables.c.tables,
            checks.c.checks,
            checks.c.failed,
            checks.c.errored,
        )
        .join(QualityRun, QualityRun.run_id == Report.run_id)
        .join(checks, true())
        .join(tables, true())
    )


def _entry(row: Row[Any]) -> ReportEntry:
    return ReportEntry(**row._asdict())
