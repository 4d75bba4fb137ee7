"""The pages that move by themselves: all databases at a glance, and one database with everything that is known of it.

A page is a frame without any data: ``static/dashboard.js`` fills it from the API, and does so again when ``/ws`` says
that something is new. Nothing of the data becomes HTML, and the policy of these pages allows no script but our files.
Whoever may only read gets a page without a button that acts.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from dbplatform.web.access import Caller
from dbplatform.web.pages import render, with_forms
from dbplatform.web.reading import Reading

CONTENT_SECURITY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def router(reading: Reading) -> APIRouter:
    """``/dashboard``, ``/dashboard/<database>``, and the style that all pages share, as a file."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @routes.get("/dashboard")
    def fleet(request: Request) -> Response:
        """All databases."""
        return _page(request, None)

    @routes.get("/dashboard/{database}")
    def of_database(request: Request, database: str) -> Response:
        """One database; 404 for a name that nobody knows."""
        reading.require(database)
        return _page(request, database)

    @routes.get("/static/style.css")
    def style() -> Response:
        """What the other pages carry inside themselves."""
        return Response(render("style.css.j2"), media_type="text/css")

    def _page(request: Request, database: str | None) -> Response:
        caller: Caller = request.state.caller
        values = {"database": database, "dagster_url": reading.dagster_url, "may_act": caller.may_act}
        page = render("dashboard.html.j2", caller=caller, **values)
        headers = with_forms(CONTENT_SECURITY) if caller.logged_in else {"Content-Security-Policy": CONTENT_SECURITY}
        return HTMLResponse(page, headers=headers)

    return routes
