"""Where reports lie and how they are found again: files at the declared destination, and their record in the ledger.

A report has three forms that lie beside each other: the HTML, which gives it its name, JSON and JUnit XML. A file gets
its name when it is whole, and the record comes last: whatever the ledger names exists, with the hash that it names.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ARRAY, Row, Select, Text, case, cast, func, select, true
from sqlalchemy.dialects.postgresql import insert

from dbplatform.errors import UsageError
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityResult, QualityRun, QualityTable, Report
from dbplatform.operations import reviews
from dbplatform.reporting.document import render_document
from dbplatform.reporting.errors import ReportNotFound, ReportNotWritten
from dbplatform.reporting.evidence import RunEvidence, load_evidence
from dbplatform.reporting.junit import render_junit
from dbplatform.reporting.page import render_report
from dbplatform.storage.folder import FolderPlace
from dbplatform.storage.place import S3_SCHEME, StorageFailed
from dbplatform.storage.store import Store, store_at

#: The end of the name of each form.
FORMS: Final[Mapping[str, str]] = {"html": ".html", "json": ".json", "junit": ".junit.xml"}


class AmbiguousRun(UsageError):
    """{begin!r} is the beginning of several runs: {runs}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReport:
    """A report that was written and read back."""

    run_id: str
    database: str
    location: str
    """Of the HTML, relative to the destination, with ``/``."""
    kept_at: str
    """The whole of it: an absolute path, or ``s3://bucket/key``."""
    sha256: str
    verdict: str
    bytes: int

    @property
    def path(self) -> Path:
        """Where it is in a folder."""
        return Path(self.kept_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportEntry:
    """A report as the ledger remembers it, with what its run found."""

    run_id: str
    database: str
    location: str
    destination: str | None
    """None: the folder of reports of whoever asks."""
    sha256: str
    json_sha256: str | None
    junit_sha256: str | None
    created_at: datetime
    started_at: datetime
    finished_at: datetime
    verdict: str
    tables: int
    checks: int
    failed: int
    errored: int
    reviewed: bool
    """Somebody has reviewed what it says now."""
    in_dagster: bool
    """Its run can be seen in the Dagster UI."""

    @property
    def forms(self) -> dict[str, str]:
        """The hash of each form that was written."""
        known = {"html": self.sha256, "json": self.json_sha256, "junit": self.junit_sha256}
        return {form: sha256 for form, sha256 in known.items() if sha256 is not None}

    @property
    def waits(self) -> bool:
        """It did not pass, and nobody has reviewed it."""
        return self.verdict != "passed" and not self.reviewed

    def name(self, form: str = "html") -> str:
        """Where a form lies, relative to the destination."""
        return form_name(self.location, form)

    def kept_at(self, folder: Path, form: str = "html") -> str:
        """Where a form lies; ``folder`` is that of reports without a destination."""
        return store_at_destination(self.destination, folder).location(self.name(form))


def form_name(location: str, form: str) -> str:
    """The name of a form beside the HTML at ``location``."""
    return location.removesuffix(FORMS["html"]) + FORMS[form]


def write_report(
    ledger: Ledger,
    database: str,
    run_id: str,
    *,
    folder: Path,
    destination: str | None = None,
    dagster_run_url: str | None = None,
    review_url: str | None = None,
    owners: Sequence[str] = (),
) -> WrittenReport:
    """Write the report of a finished run to ``<database>/<start>-<run id>.html`` and its other forms, and record it.

    ``owners`` are those of the database. It goes to ``destination`` (an absolute folder, or ``s3://bucket/prefix``), by
    default to ``folder``. Run twice, it replaces its own files and record. Raises ``UnknownRun``,
    ``RunOfAnotherDatabase``, ``RunNotFinished``, ``NotAWebAddress`` and, when a file cannot be written or does not read
    back as written, ``ReportNotWritten``; then no record is made.
    """
    run = load_evidence(ledger, run_id, database=database)
    page = render_report(run, dagster_run_url=dagster_run_url, review_url=review_url, owners=owners)
    contents = {"junit": render_junit(run), "json": render_document(run), "html": page}
    location = _free_location(ledger, run)
    store = store_at_destination(destination, folder)
    hashes = {form: write_file(store, form_name(location, form), text.encode()) for form, text in contents.items()}
    kept = {
        "location": location,
        "destination": destination,
        "sha256": hashes["html"],
        "json_sha256": hashes["json"],
        "junit_sha256": hashes["junit"],
    }
    with ledger.session() as session:
        before = session.get(Report, run_id)
        moved = before is not None and (before.destination, before.location) != (destination, location)
        old = (before.destination, before.location) if before is not None and moved else None
        record = insert(Report).values(run_id=run_id, database=database, **kept)
        session.execute(
            record.on_conflict_do_update(
                index_elements=[Report.run_id], set_={**kept, "created_at": func.now(), "removed_at": None}
            )
        )
    if old is not None:
        remove_files(store_at_destination(old[0], folder), old[1])
    return WrittenReport(
        run_id=run_id,
        database=database,
        location=location,
        kept_at=store.location(location),
        sha256=hashes["html"],
        verdict=run.verdict,
        bytes=len(contents["html"].encode()),
    )


def list_reports(
    ledger: Ledger,
    database: str | None = None,
    limit: int = 50,
    *,
    verdict: str | None = None,
    reviewed: bool | None = None,
) -> list[ReportEntry]:
    """The newest reports by the start of their run: of one database or of all, of one verdict or of any.

    ``reviewed`` False: the failing ones that nobody has reviewed.
    """
    query = _entries().order_by(QualityRun.started_at.desc(), QualityRun.run_id.desc()).limit(limit)
    if database is not None:
        query = query.where(Report.database == database)
    if verdict is not None:
        query = query.where(QualityRun.verdict == verdict)
    if reviewed is not None:
        query = query.where(reviews.reviewed() if reviewed else reviews.unreviewed())
    with ledger.session() as session:
        return [_entry(row) for row in session.execute(query)]


def newest_reports(ledger: Ledger, databases: Sequence[str]) -> dict[str, ReportEntry]:
    """The newest report of each of these databases that has one; one step into the index for each."""
    each = func.unnest(cast(list(databases), ARRAY(Text))).table_valued("name").render_derived()
    newest = (
        select(Report.run_id)
        .join(QualityRun, QualityRun.run_id == Report.run_id)
        .where(Report.database == each.c.name, Report.removed_at.is_(None))
        .order_by(QualityRun.started_at.desc(), QualityRun.run_id.desc())
        .limit(1)
        .lateral()
    )
    runs = select(newest.c.run_id).select_from(each).join(newest, true())
    with ledger.session() as session:
        return {row.database: _entry(row) for row in session.execute(_entries().where(Report.run_id.in_(runs)))}


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


def report_that_begins(ledger: Ledger, database: str | None, begin: str) -> ReportEntry:
    """The report of the run whose id this is, or begins so; raises ``ReportNotFound`` and ``AmbiguousRun``."""
    query = _entries().where(Report.run_id.startswith(begin, autoescape=True)).order_by(Report.run_id).limit(4)
    if database is not None:
        query = query.where(Report.database == database)
    with ledger.session() as session:
        found = [_entry(row) for row in session.execute(query)]
    exact = [entry for entry in found if entry.run_id == begin]
    if not (exact or found) or not begin:
        raise ReportNotFound(what=f"run {begin}", hint="See which there are: dbplatform report list.")
    if not exact and len(found) > 1:
        raise AmbiguousRun(begin=begin, runs=", ".join(one.run_id for one in found), hint="Write more of it.")
    return (exact or found)[0]


def report_at(ledger: Ledger, location: str) -> tuple[ReportEntry, str]:
    """The report recorded with a form at exactly this location, and which form; raises ``ReportNotFound``."""
    form = next((form for form, end in FORMS.items() if location.endswith(end)), "html")
    html = location.removesuffix(FORMS[form]) + FORMS["html"]
    with ledger.session() as session:
        row = session.execute(_entries().where(Report.location == html)).first()
    if row is None or form not in _entry(row).forms or not location.endswith(FORMS[form]):
        raise ReportNotFound(what=location, hint="See which there are: dbplatform report list.")
    return _entry(row), form


def read_report(folder: Path, entry: ReportEntry, form: str = "html") -> bytes | None:
    """A form of a recorded report; none when it is missing, lies outside its folder or is not what was written.

    Raises ``StorageFailed`` where a bucket does not answer.
    """
    store, name = store_at_destination(entry.destination, folder), entry.name(form)
    if isinstance(store, FolderPlace):
        path = (store.folder / name).resolve()
        if not path.is_relative_to(store.folder.resolve()) or not path.is_file():
            return None
    try:
        with store.reading(name) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    return content if hashlib.sha256(content).hexdigest() == entry.forms.get(form) else None


def remove_files(store: Store, location: str) -> None:
    """Remove every form of a report; none is no error. Raises ``StorageFailed``."""
    for form in FORMS:
        store.remove(form_name(location, form))


def store_at_destination(destination: str | None, folder: Path) -> Store:
    """The declared destination of reports; without one, the folder of reports."""
    return store_at(destination) if destination is not None else FolderPlace(folder.absolute())


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


def write_file(store: Store, name: str, content: bytes) -> str:
    """Write a file by way of the local disk; returns its hash."""
    sha256 = hashlib.sha256(content).hexdigest()
    location = store.location(name)
    try:
        with tempfile.TemporaryDirectory(prefix="dbplatform-report-") as folder:
            made = Path(folder) / "report"
            made.write_bytes(content)
            if hashlib.sha256(made.read_bytes()).hexdigest() != sha256:
                raise ReportNotWritten(
                    location=location, reason="it does not read back as it was written", hint="Check the disk."
                )
            store.put(name, made, sha256=sha256)
    except StorageFailed as error:
        folder_hint = f"Check that {Path(location).parent} can be written and that the disk is not full."
        hint = error.hint if location.startswith(S3_SCHEME) else folder_hint
        raise ReportNotWritten(location=location, reason=error.fields["reason"], hint=hint) from error
    except OSError as error:
        raise ReportNotWritten(
            location=location, reason=error.strerror or str(error), hint="Check that the disk is not full."
        ) from error
    return sha256


def _entries() -> Select[*tuple[Any, ...]]:
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
    columns: Select[*tuple[Any, ...]] = select(
        Report.run_id,
        Report.database,
        Report.location,
        Report.destination,
        Report.sha256,
        Report.json_sha256,
        Report.junit_sha256,
        Report.created_at,
        QualityRun.started_at,
        QualityRun.finished_at,
        QualityRun.verdict,
        tables.c.tables,
        checks.c.checks,
        checks.c.failed,
        checks.c.errored,
        reviews.reviewed().label("reviewed"),
        QualityRun.in_dagster,
    )
    return (
        columns.join(QualityRun, QualityRun.run_id == Report.run_id)
        .join(checks, true())
        .join(tables, true())
        .where(Report.removed_at.is_(None))
    )


def _entry(row: Row[Any]) -> ReportEntry:
    return ReportEntry(**row._asdict())
