"""The service put together: routes, who is let in, and the answers to everything that goes wrong.

It reads the ledger and the reports, and asks a managed database for nothing but the plan of a statement. On this
machine alone, as ``serve`` is by default, it lets everybody in; ``access`` says who is let in otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from dbplatform.errors import PlatformError
from dbplatform.ledger.ledger import Ledger
from dbplatform.web import api, dashboard, login, pages, reviewing
from dbplatform.web.access import Access
from dbplatform.web.answers import BadRequest, PageNotFound
from dbplatform.web.bounds import Rate
from dbplatform.web.cache import Cache
from dbplatform.web.failing import failed
from dbplatform.web.guard import Guard, Headers, add_headers
from dbplatform.web.location import Location
from dbplatform.web.push import route
from dbplatform.web.push.service import Push, Pushed
from dbplatform.web.reading import Reading
from dbplatform.web.writing import Writing


def create_app(
    ledger: Ledger,
    reports: Path,
    *,
    dagster_url: str | None = None,
    location: Location | None = None,
    access: Access | None = None,
    writing: Writing | None = None,
    rate: Rate | None = None,
    cache: Cache | None = None,
    push: Push | None = None,
) -> FastAPI:
    """The service over one ledger and one folder of reports; ``dagster_url`` is where the Dagster UI is linked to.

    ``location`` is what is declared, ``access`` who is let in, ``push`` what may be watched: by default nothing,
    everybody and nothing. Makes no connection before it runs; a ledger that does not answer gives 503.
    """
    access, writing, rate = access or Access(), writing or Writing(), rate or Rate()
    # The interactive documentation would load scripts from elsewhere, so only the description itself is served.
    push = push or Push(Pushed())

    @asynccontextmanager
    async def pushing(_: FastAPI) -> AsyncIterator[None]:
        async with push.running():
            yield

    app = FastAPI(
        title="dbplatform", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json", lifespan=pushing
    )
    reading = Reading(ledger=ledger, location=location or Location(), dagster_url=dagster_url)
    app.include_router(api.router(reading, cache or Cache()))
    app.include_router(pages.router(ledger, reports, dagster_url=dagster_url))
    app.include_router(dashboard.router(reading))
    app.include_router(reviewing.router(ledger, writing, dagster_url=dagster_url))
    app.include_router(route.router(push))
    app.mount("/static", StaticFiles(packages=[("dbplatform.web", "static")]), name="static")
    app.include_router(login.router(ledger, access, writing, rate))
    app.add_middleware(Guard, ledger=ledger, access=access, rate=rate)
    app.add_middleware(Headers)

    @app.exception_handler(PlatformError)
    @app.exception_handler(SQLAlchemyError)
    async def refused(request: Request, error: Exception) -> Response:
        return failed(request, error)

    @app.exception_handler(Exception)
    async def mistaken(request: Request, error: Exception) -> Response:
        # Starlette logs it, and answers outside of everything else.
        answer = failed(request, error)
        add_headers(answer.headers)
        return answer

    @app.exception_handler(RequestValidationError)
    async def misused(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        hint = "See /api/v1/openapi.json."
        return failed(request, BadRequest(name=name, problem=first["msg"], hint=hint))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return failed(request, PageNotFound(path=request.url.path, hint="Begin at /."))
        if error.status_code == 400:  # a body that is not even text
            hint = "See /api/v1/openapi.json."
            return failed(request, BadRequest(name="body", problem="it cannot be read", hint=hint))
        body = {"error": {"kind": "http_error", "message": str(error.detail), "hint": None, "file": None, "line": None}}
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    return app
