"""Reports about a time: where those of capacity (a quarter) and maintenance (a month) lie, and are found again.

Each is HTML with its JSON beside it, at the declared destination of reports, and named by database, kind and time:
written again, it takes its own place. As with reports of checks, the record comes last and holds the hashes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from dbplatform.errors import UsageError
from dbplatform.ledger.acting import current
from dbplatform.ledger.capacity import PeriodReport
from dbplatform.ledger.ledger import Ledger
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.reporting.store import store_at_destination, write_file

Kind = Literal["capacity", "maintenance"]
_FORMS: Final = {"html": ".html", "json": ".json"}
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


class UnknownMonth(UsageError):
    """{text!r} is no month."""


class MonthToCome(UsageError):
    """The month {month} has not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A time, half open, in UTC, with its name: ``2026-10``, ``2026-Q4``."""

    name: str
    starts_at: datetime
    ends_at: datetime

    def days(self) -> list[datetime]:
        """The beginning of each of its days."""
        return [self.starts_at + timedelta(days=one) for one in range((self.ends_at - self.starts_at).days)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodEntry:
    """Such a report as the ledger remembers it."""

    id: str
    database: str
    kind: Kind
    starts_at: datetime
    ends_at: datetime
    location: str
    destination: str | None
    sha256: str
    json_sha256: str
    decisions: int
    run_id: str | None
    """The Dagster run that wrote it last."""
    created_at: datetime

    @property
    def period(self) -> str:
        """``2026-10``, ``2026-Q4``."""
        return self.id.removeprefix(f"{self.database}-{self.kind}-")

    @property
    def in_dagster(self) -> bool:
        """Its run can be seen in the Dagster UI."""
        return self.run_id is not None

    def name(self, form: str = "html") -> str:
        """Where a form lies, relative to the destination."""
        return self.location.removesuffix(_FORMS["html"]) + _FORMS[form]

    def kept_at(self, folder: Path, form: str = "html") -> str:
        """Where a form lies; ``folder`` is that of reports without a destination."""
        return store_at_destination(self.destination, folder).location(self.name(form))

    def as_json(self) -> dict[str, Any]:
        """One entry of ``reports``."""
        return {
            "id": self.id,
            "database": self.database,
            "kind": self.kind,
            "starts_at": self.starts_at.isoformat(),
            "ends_at": self.ends_at.isoformat(),
            "location": self.location,
            "destination": self.destination,
            "sha256": self.sha256,
            "decisions": self.decisions,
            "created_at": self.created_at.isoformat(),
        }


def month(text: str | None, *, now: datetime) -> Period:
    """``2026-10``; by default the last whole month on the clock of ``now``. A month begins and ends in UTC.

    Raises ``UnknownMonth`` and ``MonthToCome``.
    """
    if text is None:
        last = now.replace(day=1) - timedelta(days=1)
        begin = datetime(last.year, last.month, 1, tzinfo=UTC)
    else:
        found = _MONTH.fullmatch(text)
        if found is None or int(found[1]) < 1970:
            raise UnknownMonth(text=text, hint="Write year and month, such as 2026-10.")
        begin = datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)
        if begin > now:
            raise MonthToCome(month=text, hint="Name one that has begun.")
    return Period(name=f"{begin:%Y-%m}", starts_at=begin, ends_at=_next(begin, 1))


def quarter(now: datetime) -> Period:
    """The quarter of a time."""
    number = (now.month - 1) // 3
    begin = datetime(now.year, 3 * number + 1, 1, tzinfo=UTC)
    return Period(name=f"{now.year}-Q{number + 1}", starts_at=begin, ends_at=_next(begin, 3))


def _next(begin: datetime, months: int) -> datetime:
    total = begin.year * 12 + begin.month - 1 + months
    return begin.replace(year=total // 12, month=total % 12 + 1)


def write_period(
    ledger: Ledger,
    database: str,
    kind: Kind,
    period: Period,
    *,
    page: str,
    document: Mapping[str, Any],
    decisions: int,
    folder: Path,
    destination: str | None,
) -> PeriodEntry:
    """Write both forms to ``<database>/<kind>-<period>.html`` and ``.json``, then the record.

    Run twice, it replaces its own files and record. Raises ``ReportNotWritten``; then no record is made.
    """
    location = f"{database}/{kind}-{period.name}.html"
    store = store_at_destination(destination, folder)
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    hashes = {
        form: write_file(store, location.removesuffix(_FORMS["html"]) + _FORMS[form], content.encode())
        for form, content in (("json", text), ("html", page))
    }
    kept = {
        "ends_at": period.ends_at,
        "location": location,
        "destination": destination,
        "sha256": hashes["html"],
        "json_sha256": hashes["json"],
        "decisions": decisions,
        "run_id": current().run_id,
    }
    id_ = f"{database}-{kind}-{period.name}"
    row = {"id": id_, "database": database, "kind": kind, "starts_at": period.starts_at, **kept}
    with ledger.session() as session:
        record = insert(PeriodReport).values(row)
        session.execute(
            record.on_conflict_do_update(index_elements=[PeriodReport.id], set_={**kept, "created_at": func.now()})
        )
    return period_report(ledger, id_)


def period_report(ledger: Ledger, id_: str) -> PeriodEntry:
    """The report of that id; raises ``ReportNotFound``."""
    with ledger.session() as session:
        row = session.get(PeriodReport, id_)
        if row is None:
            raise ReportNotFound(what=id_, hint="See which there are: dbplatform report list --kind maintenance.")
        return _entry(row)


def period_at(ledger: Ledger, location: str) -> tuple[PeriodEntry, str]:
    """The report whose form lies at exactly this location, and which form; raises ``ReportNotFound``."""
    form = next((form for form, end in _FORMS.items() if location.endswith(end)), "html")
    html = location.removesuffix(_FORMS[form]) + _FORMS["html"]
    with ledger.session() as session:
        row = session.scalars(select(PeriodReport).where(PeriodReport.location == html)).first()
        if row is None:
            raise ReportNotFound(what=location, hint="See which there are: dbplatform report list.")
        return _entry(row), form


def list_periods(
    ledger: Ledger, kind: Kind | None = None, database: str | None = None, limit: int = 50
) -> list[PeriodEntry]:
    """The newest ones by the time that they are about, of one kind and database or of all."""
    newest = (PeriodReport.starts_at.desc(), PeriodReport.database, PeriodReport.kind)
    query = select(PeriodReport).order_by(*newest).limit(limit)
    if kind is not None:
        query = query.where(PeriodReport.kind == kind)
    if database is not None:
        query = query.where(PeriodReport.database == database)
    with ledger.session() as session:
        return [_entry(row) for row in session.scalars(query)]


def read_period(folder: Path, entry: PeriodEntry, form: str = "html") -> bytes | None:
    """A form as it was written; none when it is missing, or is not what was written. Raises ``StorageFailed``."""
    try:
        with store_at_destination(entry.destination, folder).reading(entry.name(form)) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    wanted = entry.sha256 if form == "html" else entry.json_sha256
    return content if hashlib.sha256(content).hexdigest() == wanted else None


def _entry(row: PeriodReport) -> PeriodEntry:
    return PeriodEntry(
        id=row.id,
        database=row.database,
        kind=cast("Kind", row.kind),
        starts_at=row.starts_at.astimezone(UTC),
        ends_at=row.ends_at.astimezone(UTC),
        location=row.location,
        destination=row.destination,
        sha256=row.sha256,
        json_sha256=row.json_sha256,
        decisions=row.decisions,
        run_id=row.run_id,
        created_at=row.created_at.astimezone(UTC),
    )
