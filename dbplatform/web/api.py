"""The HTTP API for programs, and the two questions of whoever keeps the service running.

Everything is read from the ledger, and kept for two seconds: a hundred viewers cost it as much as one, and the managed
databases nothing. What the contract names and the platform does not do yet is refused with 501 and ``not_built_yet``,
never answered with an empty document.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache as once
from importlib.resources import files
from typing import Annotated, Any, Literal, NoReturn

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPBearer
from sqlalchemy import text

from dbplatform.alerting import silences
from dbplatform.errors import NotBuiltYet
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import audit, reviews
from dbplatform.reporting.store import list_reports
from dbplatform.web import acts, of_database, openmetrics
from dbplatform.web import documents as d
from dbplatform.web.answers import LedgerBehind
from dbplatform.web.cache import Cache, answer
from dbplatform.web.failing import Failure
from dbplatform.web.overview import overview
from dbplatform.web.paging import PartOf, key_of
from dbplatform.web.reading import Reading, fields_of, report_url, silence_document

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token of dbplatform token create. Not asked for on a service of this machine alone.",
)
_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": words}
    for status, words in {
        401: "No token, or one that is not valid.",
        403: "A token that may only read, or a request of another site.",
        404: "There is no such thing.",
        408: "The request was not complete in time.",
        409: "It is over already, or not there.",
        413: "The request is too large.",
        422: "A parameter cannot be used.",
        429: "Too many requests; Retry-After says when the next one is answered.",
        503: "The ledger does not answer, or there is nothing to judge.",
    }.items()
}


def router(reading: Reading, cache: Cache) -> APIRouter:
    """``/healthz``, ``/readyz``, ``/metrics``, ``/api/v1/...``; errors are answered by the application."""
    routes = APIRouter(responses=_FAILURES, dependencies=[Depends(_BEARER)])
    ledger = reading.ledger

    @routes.get("/healthz", response_model=d.Up)
    async def healthz() -> d.Up:
        """The process is up; nothing else is asked."""
        return d.Up(status="up")

    @routes.get("/readyz", response_model=d.Ready)
    def readyz() -> d.Ready:
        """The ledger answers, and its schema is that of this version; 503 otherwise."""
        require_current_schema(ledger)
        return d.Ready(status="ready")

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {openmetrics.CONTENT_TYPE: {"schema": {"type": "string"}}}}},
    )
    def metrics(request: Request) -> Response:
        """What is known of every database, as OpenMetrics text."""
        made = cache.content(
            "/metrics", lambda: openmetrics.text(ledger, reading.location.names, now=datetime.now(UTC)).encode()
        )
        return answer(request, made, openmetrics.CONTENT_TYPE)

    @routes.get("/api/v1/databases", response_model=d.Databases)
    def known(request: Request) -> Response:
        """Each database: what was measured last, what fires, its newest finished run of checks and report."""
        return cache.answer(request, "databases", lambda: overview(reading))

    @routes.get("/api/v1/reports", response_model=d.Reports)
    def reports(
        request: Request,
        part: PartOf,
        database: str | None = None,
        verdict: Literal["passed", "failed", "errored"] | None = None,
        reviewed: bool | None = None,
    ) -> Response:
        """The newest reports, of one database or of all; ``reviewed=false``: failing ones that wait for a review."""

        def make() -> d.Reports:
            most = part.offset + part.limit + 1
            found, more = part.of(list_reports(ledger, database, most, verdict=verdict, reviewed=reviewed))
            said = reviews.reviews_of(ledger, [entry.run_id for entry in found])
            return d.Reports(
                reports=[
                    d.ReportDocument.model_validate(
                        {
                            **fields_of(entry),
                            "url": report_url(entry),
                            "run_url": reading.run_url(entry),
                            "reviews": [review.as_json() for review in said.get(entry.run_id, [])],
                        }
                    )
                    for entry in found
                ],
                next=more,
            )

        return cache.answer(request, key_of(request), make)

    @routes.get("/api/v1/silences", response_model=d.Silences)
    def silences_in_force() -> d.Silences:
        """The silences that hold, or are to come."""
        found = silences.list_silences(ledger, now=datetime.now(UTC))
        return d.Silences(silences=[silence_document(one) for one in found])

    @routes.get("/api/v1/audit", response_model=d.Changes)
    def changes(
        request: Request,
        part: PartOf,
        database: str | None = None,
        days: Annotated[int, Query(ge=1, le=400, description="How far back.")] = 7,
    ) -> d.Changes:
        """Every change by whom, from where, with which run: the document of ``dbplatform audit list --json``."""
        since = datetime.now(UTC) - timedelta(days=days)
        found = audit.changes(ledger, database, since=since, limit=part.limit + 1, offset=part.offset)
        more = part.next if len(found) > part.limit else None
        made = [d.ChangeDocument.model_validate(one.as_json()) for one in found[: part.limit]]
        return d.Changes(changes=made, next=more)

    routes.include_router(of_database.router(reading, cache))
    routes.include_router(acts.router(reading))

    @routes.get("/ws", response_model=None, include_in_schema=False)
    def live() -> NoReturn:
        """404 until the live status exists."""
        raise NotBuiltYet(what="The live status (/ws)", hint="See /api/v1/databases.")

    return routes


def require_current_schema(ledger: Ledger) -> None:
    """Raise ``LedgerBehind`` where a migration of this version is missing; ``SQLAlchemyError`` where nobody answers."""
    with ledger.session() as session:
        applied = set(session.scalars(text("select version from ledger.schema_history where success")))
    missing = sorted(_versions() - applied, key=int)
    if missing:
        hint = "Run any verb that writes, such as dbplatform list --json, by this version."
        raise LedgerBehind(missing=", ".join(f"V{version}" for version in missing), hint=hint)


@once
def _versions() -> frozenset[str]:
    names = (entry.name for entry in (files("dbplatform.ledger") / "schema").iterdir())
    return frozenset(found[1] for name in names if (found := re.match(r"V(\d+)__.*\.sql$", name)))
