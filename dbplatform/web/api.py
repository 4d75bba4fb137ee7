"""The HTTP API for programs, and the two questions of whoever keeps the service running.

What the contract names and the platform does not do yet is refused with 501 and ``not_built_yet``, never answered
with an empty document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, NoReturn

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from dbplatform.alerting import record as alerts
from dbplatform.errors import NotBuiltYet
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityRun
from dbplatform.monitoring import health, record
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.thresholds import ThresholdPolicy
from dbplatform.operations import reviews
from dbplatform.reporting.store import ReportEntry, list_reports
from dbplatform.web.answers import PageNotFound, databases
from dbplatform.web.writing import Writing

_LATER: Final = frozenset({"connections", "slow-queries", "dashboard", "recommendations"})

Limits = Callable[[str], Sequence[ThresholdPolicy]]
"""The limits that hold for a database, by its name."""


class Reviewed(BaseModel):
    """A review as a program sends it."""

    model_config = ConfigDict(extra="forbid")

    by: str
    comment: str
    and_earlier: bool = False


def router(ledger: Ledger, writing: Writing, limits: Limits) -> APIRouter:
    """``/healthz``, ``/readyz``, ``/api/v1/...``; errors are answered by the application."""
    routes = APIRouter()

    @routes.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is up; nothing else is asked."""
        return {"status": "up"}

    @routes.get("/readyz")
    def readyz() -> dict[str, str]:
        """The ledger answers and has its tables; 503 otherwise."""
        with ledger.session() as session:
            session.execute(select(QualityRun.run_id).limit(1))
        return {"status": "ready"}

    @routes.get("/api/v1/databases")
    def known() -> dict[str, Any]:
        """Each database with the verdict of its newest finished run and its newest report."""
        found = []
        for state in databases(ledger):
            document = asdict(state)
            document["report"] = _url(state.report) if state.report else None
            found.append(document)
        return {"databases": found}

    @routes.get("/api/v1/reports")
    def reports(
        database: str | None = None,
        verdict: Literal["passed", "failed", "errored"] | None = None,
        reviewed: bool | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, list[dict[str, Any]]]:
        """The newest reports, of one database or of all; ``reviewed=false``: failing ones that wait for a review."""
        entries = list_reports(ledger, database, limit, verdict=verdict, reviewed=reviewed)
        said = reviews.reviews_of(ledger, [entry.run_id for entry in entries])
        return {
            "reports": [
                {
                    **asdict(entry),
                    "url": _url(entry),
                    "reviews": [review.as_json() for review in said.get(entry.run_id, [])],
                }
                for entry in entries
            ]
        }

    @routes.post("/api/v1/reports/{run_id}/reviews", status_code=201)
    def review(run_id: str, given: Reviewed, request: Request) -> dict[str, list[dict[str, object]]]:
        """Note that a report was reviewed; with ``and_earlier`` every older failing one that waits, too."""
        writing.require_program(request)
        made = reviews.review(
            ledger, run_id, by=given.by, comment=given.comment, way="service", and_earlier=given.and_earlier
        )
        return {"reviews": [one.as_json() for one in made]}

    @routes.get("/api/v1/databases/{name}/health")
    def health_of(name: str) -> dict[str, Any]:
        """The score of what was measured last, with every deduction: the document of ``dbplatform health --json``."""
        return health.score(_measured(ledger, name), limits(name)).as_json()

    @routes.get("/api/v1/databases/{name}/metrics")
    def metrics_of(name: str) -> dict[str, Any]:
        """What was measured last: the document of ``dbplatform metrics --json``."""
        return _measured(ledger, name).as_json()

    @routes.get("/api/v1/databases/{name}/alerts")
    def alerts_of(name: str, resolved: bool = False) -> dict[str, Any]:
        """Its open alerts, with ``resolved=true`` the past ones, too; none of a database that nobody watches."""
        found = alerts.list_alerts(ledger, name, resolved=resolved)
        return {"database": name, "alerts": [alert.as_json() for alert in found]}

    @routes.get("/api/v1/databases/{name}/{what}", response_model=None)
    def later(name: str, what: str) -> NoReturn:
        """501 for what the contract promises; 404 for anything else."""
        if what not in _LATER:
            raise PageNotFound(path=f"/api/v1/databases/{name}/{what}", hint="See /api/v1/openapi.json.")
        raise NotBuiltYet(what=f"{what} of a database over HTTP", hint="See /api/v1/reports for data quality.")

    @routes.get("/ws", response_model=None)
    def live() -> NoReturn:
        """404 until the live status exists."""
        raise NotBuiltYet(what="The live status (/ws)", hint="See /api/v1/databases.")

    @routes.get("/metrics", response_model=None)
    def metrics() -> NoReturn:
        """404 until there are metrics."""
        raise NotBuiltYet(what="The Prometheus text (/metrics)", hint="See /api/v1/databases.")

    return routes


def _measured(ledger: Ledger, name: str) -> Metrics:
    found = record.latest(ledger, name)
    if found is None:
        raise PageNotFound(path=f"the health of {name}", hint=f"Nothing was measured yet: dbplatform metrics {name}")
    return found


def _url(entry: ReportEntry) -> str:
    return f"/reports/{entry.location}"
