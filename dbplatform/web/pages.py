"""The pages for people: an index, the lists of reports, and the reports themselves as they were written."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import ChoiceLoader, Environment, PackageLoader

from dbplatform.errors import PlatformError
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.runbooks import runbooks
from dbplatform.reporting import page as report_page
from dbplatform.reporting.errors import NotAWebAddress, ReportNotFound
from dbplatform.reporting.store import list_reports, read_report, report_at, report_of
from dbplatform.web.answers import ReportChanged, databases

_LISTED = 200


def router(ledger: Ledger, reports: Path, *, dagster_url: str | None) -> APIRouter:
    """``/`` and ``/reports/...``. Raises ``NotAWebAddress`` for a ``dagster_url`` that is none."""
    if dagster_url is not None and urlsplit(dagster_url).scheme not in ("http", "https"):
        raise NotAWebAddress(url=dagster_url, hint="Give one that begins with http:// or https://.")
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @routes.get("/")
    def index() -> str:
        """Every database with its newest verdict and report."""
        return _render("index.html.j2", databases=databases(ledger), dagster_url=dagster_url)

    @routes.get("/runbooks")
    def all_runbooks() -> str:
        """What each alert means and what to do about it; every message links into it."""
        return _render("runbooks.html.j2", runbooks=runbooks().values())

    @routes.get("/reports/")
    def all_reports() -> str:
        """The newest reports of all databases."""
        entries = list_reports(ledger, None, _LISTED)
        return _render("reports.html.j2", database=None, entries=entries, limit=_LISTED)

    @routes.get("/reports/run/{run_id}")
    def by_run(run_id: str) -> Response:
        """Lead from a Dagster run to its report."""
        try:
            return RedirectResponse(f"/reports/{quote(report_of(ledger, None, run_id).location)}", status_code=307)
        except ReportNotFound:
            if run_id.endswith(".html"):  # a database may be called "run"
                return report("run", run_id)
            raise

    @routes.get("/reports/{database}/")
    def of_database(database: str) -> str:
        """The newest reports of one database; 404 when it has none."""
        entries = list_reports(ledger, database, _LISTED)
        if not entries:
            raise ReportNotFound(what=f"database {database!r}", hint=f"Write one: dbplatform check {database}.")
        return _render("reports.html.j2", database=database, entries=entries, limit=_LISTED)

    @routes.get("/reports/{database}/{file}")
    def report(database: str, file: str) -> Response:
        """The file as it was written: only what the ledger names is served, and only with the hash that it names."""
        entry = report_at(ledger, f"{database}/{file}")
        content = read_report(reports, entry)
        if content is None:
            raise ReportChanged(location=entry.location, hint="Write it again: dbplatform check DATABASE.")
        return HTMLResponse(content)

    return routes


def error_page(status: int, error: PlatformError) -> str:
    """What a browser shows of an error."""
    return _render("error.html.j2", status=status, error=error)


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    """The report's own environment, so that a page and a report look and count alike."""
    shared = report_page.environment()
    assert shared.loader is not None
    made = shared.overlay(loader=ChoiceLoader([PackageLoader("dbplatform.web"), shared.loader]))
    made.filters = {**shared.filters, "quoted": quote}
    return made
