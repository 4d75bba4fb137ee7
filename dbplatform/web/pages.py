"""The pages for people: an index, the lists of reports, and the reports themselves as they were written."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import ChoiceLoader, Environment, PackageLoader
from pydantic import BaseModel

from dbplatform.errors import PlatformError
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import reviews
from dbplatform.operations.runbooks import runbooks
from dbplatform.reporting import benchmarks as benchmarks_page
from dbplatform.reporting import page as report_page
from dbplatform.reporting import periods
from dbplatform.reporting.errors import NotAWebAddress, ReportNotFound
from dbplatform.reporting.store import list_reports, read_report, report_at, report_of
from dbplatform.web.access import Caller
from dbplatform.web.answers import ReportChanged, databases

CONTENT_SECURITY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def with_forms(policy: str) -> dict[str, str]:
    """The headers of a page with a form: it may be sent to this service, and a browser may tell where it came from."""
    allowed = policy.replace("form-action 'none'", "form-action 'self'")
    return {"Content-Security-Policy": allowed, "Referrer-Policy": "same-origin"}


FORM_HEADERS: Final = with_forms(CONTENT_SECURITY)
_LISTED = 200
#: Reports of months and quarters: of a year and a half, where there is one database.
_PERIODS: Final = 24
_TYPES: Final = {"html": "text/html; charset=utf-8", "json": "application/json", "junit": "application/xml"}


def router(ledger: Ledger, reports: Path, *, dagster_url: str | None) -> APIRouter:
    """``/`` and ``/reports/...``. Raises ``NotAWebAddress`` for a ``dagster_url`` that is none."""
    if dagster_url is not None and urlsplit(dagster_url).scheme not in ("http", "https"):
        raise NotAWebAddress(url=dagster_url, hint="Give one that begins with http:// or https://.")
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    listed = partial(_list, ledger, dagster_url)

    @routes.get("/")
    def index(request: Request) -> Response:
        """Every database with its newest verdict and report."""
        return _page(request, "index.html.j2", databases=databases(ledger), dagster_url=dagster_url)

    @routes.get("/runbooks")
    def all_runbooks(request: Request) -> Response:
        """What each alert means and what to do about it; every message links into it."""
        return _page(request, "runbooks.html.j2", runbooks=runbooks().values())

    @routes.get("/reports/")
    def all_reports(request: Request, chosen: Annotated[Chosen, Query()]) -> Response:
        """The newest reports of all databases."""
        return listed(request, None, chosen)

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
    def of_database(request: Request, database: str, chosen: Annotated[Chosen, Query()]) -> Response:
        """The newest reports of one database; 404 when it has none at all."""
        if not list_reports(ledger, database, 1) and not periods.list_periods(ledger, database=database, limit=1):
            raise ReportNotFound(what=f"database {database!r}", hint=f"Write one: dbplatform check {database}.")
        return listed(request, database, chosen)

    @routes.get("/benchmarks/{database}/")
    def benchmarks(database: str) -> str:
        """The newest run of benchmarks of a database; 404 where there is none."""
        return benchmarks_page.page_of(ledger, database)

    @routes.get("/benchmarks/{database}/{run}")
    def benchmarks_of_run(database: str, run: str) -> str:
        """The run of benchmarks whose id begins so."""
        return benchmarks_page.page_of(ledger, database, run)

    @routes.get("/reports/{database}/{file}")
    def report(database: str, file: str) -> Response:
        """A form as it was written: only what the ledger names is served, and only with the hash that it names."""
        location = f"{database}/{file}"
        try:
            entry, form = report_at(ledger, location)
        except ReportNotFound:
            return _of_period(location)
        content = read_report(reports, entry, form)
        if content is None:
            raise ReportChanged(location=entry.name(form), hint="Write it again: dbplatform check DATABASE.")
        return Response(content, media_type=_TYPES[form])

    def _of_period(location: str) -> Response:
        """A report of a month or quarter, by the same rule."""
        entry, form = periods.period_at(ledger, location)
        content = periods.read_period(reports, entry, form)
        if content is None:
            raise ReportChanged(
                location=entry.name(form), hint=f"Write it again: dbplatform report {entry.kind} {entry.database}."
            )
        return Response(content, media_type=_TYPES[form])

    return routes


class Chosen(BaseModel):
    """Which reports of a list are shown; left out: all."""

    verdict: Literal["passed", "failed", "errored"] | None = None
    reviewed: Literal["yes", "no"] | None = None
    """``no``: those that failed and wait for a review."""


def _list(ledger: Ledger, dagster_url: str | None, request: Request, database: str | None, chosen: Chosen) -> Response:
    caller: Caller = request.state.caller
    reviewed = None if chosen.reviewed is None else chosen.reviewed == "yes"
    entries = list_reports(ledger, database, _LISTED, verdict=chosen.verdict, reviewed=reviewed)
    return _page(
        request,
        "reports.html.j2",
        database=database,
        databases=[state.name for state in databases(ledger)],
        chosen=chosen,
        entries=entries,
        reviews=reviews.reviews_of(ledger, [entry.run_id for entry in entries]),
        limit=_LISTED,
        periods=periods.list_periods(ledger, database=database, limit=_PERIODS),
        dagster_url=dagster_url,
        may_act=caller.may_act,
    )


def _page(request: Request, template: str, **values: object) -> Response:
    """A page for whoever asks; with a form, where they can log out."""
    caller: Caller = request.state.caller
    page = render(template, caller=caller, **values)
    return HTMLResponse(page, headers=FORM_HEADERS if caller.logged_in else None)


def error_page(status: int, error: PlatformError) -> str:
    """What a browser shows of an error."""
    return render("error.html.j2", status=status, error=error)


def render(template: str, **values: object) -> str:
    """A page of the service."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    """The report's own environment, so that a page and a report look and count alike."""
    shared = report_page.environment()
    assert shared.loader is not None
    made = shared.overlay(loader=ChoiceLoader([PackageLoader("dbplatform.web"), shared.loader]))
    made.filters = {**shared.filters, "quoted": quote}
    return made
