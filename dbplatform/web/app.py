"""The service put together: routes, headers and the answers to everything that goes wrong.

It reads the ledger and the reports. It asks no reader for a password, so it belongs behind 127.0.0.1 (``serve`` sees
to that by default). The one thing that it changes is that a report was reviewed: see ``writing``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException

from dbplatform.errors import NotBuiltYet, PlatformError
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.monitoring.thresholds import default_thresholds
from dbplatform.operations.reviews import NoReview, NothingToReview
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.storage.place import StorageFailed
from dbplatform.web import api, pages, reviewing
from dbplatform.web.answers import BadRequest, LedgerSilent, PageNotFound
from dbplatform.web.writing import Writing, WritingRefused

_HEADERS = {
    "Content-Security-Policy": pages.CONTENT_SECURITY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Reports hold rows of the database: no cache on the way may keep them.
    "Cache-Control": "private, no-store",
}
_FOR_PROGRAMS = ("/api/", "/ws", "/metrics", "/healthz", "/readyz")


def create_app(
    ledger: Ledger,
    reports: Path,
    *,
    dagster_url: str | None = None,
    writing: Writing | None = None,
    limits: api.Limits = lambda _: default_thresholds(),
) -> FastAPI:
    """The service over one ledger and one folder of reports; ``dagster_url`` is where the Dagster UI is linked to.

    ``writing`` says who may note a review; by default whoever reaches the service from a page of its own. ``limits``
    are those by which a database has its score; by default those that experts use.

    Makes no connection; a ledger that does not answer gives 503.
    """
    # The interactive documentation would load scripts from elsewhere, so only the description itself is served.
    app = FastAPI(title="dbplatform", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    writing = writing or Writing()
    app.include_router(api.router(ledger, writing, limits))
    app.include_router(pages.router(ledger, reports, dagster_url=dagster_url))
    app.include_router(reviewing.router(ledger, writing))

    @app.middleware("http")
    async def secured(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(PlatformError)
    async def refused(request: Request, error: PlatformError) -> Response:
        status = 404 if isinstance(error, ReportNotFound | PageNotFound | NothingToReview) else 500
        if isinstance(error, LedgerSilent | StorageFailed | NothingMeasured):
            status = 503
        if isinstance(error, NoReview | BadRequest):
            status = 422
        if isinstance(error, WritingRefused):
            status = 403
        if isinstance(error, NotBuiltYet):
            status = 501 if request.url.path.startswith("/api/") else 404
        return _answer(request, status, error)

    @app.exception_handler(SQLAlchemyError)
    async def silent(request: Request, error: SQLAlchemyError) -> Response:
        if isinstance(error, DataError):  # a name that PostgreSQL cannot even hold, such as one with NUL
            return _answer(request, 404, PageNotFound(path=request.url.path, hint="Begin at /."))
        return _answer(request, 503, LedgerSilent.because(error))

    @app.exception_handler(RequestValidationError)
    async def misused(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return _answer(request, 422, BadRequest(name=name, problem=first["msg"], hint="See /api/v1/openapi.json."))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return _answer(request, 404, PageNotFound(path=request.url.path, hint="Begin at /."))
        body = {"error": {"kind": "http_error", "message": str(error.detail), "hint": None, "file": None, "line": None}}
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    return app


def _answer(request: Request, status: int, error: PlatformError) -> Response:
    """The error as a page for a browser, as the contract's ``error`` object for everybody else."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.url.path.startswith(_FOR_PROGRAMS):
        return HTMLResponse(pages.error_page(status, error), status_code=status)
    return JSONResponse({"error": error.as_json()}, status_code=status)
