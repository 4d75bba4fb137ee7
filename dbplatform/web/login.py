"""How a browser shows its token: on a page, once; then in a cookie that no script can read and no other site can send.

The cookie holds the token itself, so that a restart of the service logs nobody out, and a revoked token is out at once.
"""

from __future__ import annotations

from typing import Final

from anyio import from_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.tokens import TokenRefused, recognized
from dbplatform.web.access import COOKIE, Access
from dbplatform.web.bounds import REFUSED_COSTS, Rate
from dbplatform.web.forms import Form
from dbplatform.web.pages import FORM_HEADERS, render
from dbplatform.web.writing import Writing, require_own_site

_DAY: Final = 86_400


def router(ledger: Ledger, access: Access, writing: Writing, rate: Rate) -> APIRouter:
    """``/login`` and ``/logout``."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/login")
    def page(next: str = "/") -> Response:
        """The form."""
        return HTMLResponse(_page(writing, next), headers=FORM_HEADERS)

    @routes.post("/login")
    def log_in(request: Request, given: Form) -> Response:
        """Set the cookie and go on to where the browser wanted to."""
        wanted, origin = given.get("next", "/"), access.origin(request)
        writing.require_form(request, "login", word=given.get("word", ""))
        token = given.get("token", "").strip()
        try:
            known = recognized(ledger, token, origin=origin)
        except TokenRefused as error:
            from_thread.run_sync(rate.take, origin, REFUSED_COSTS)
            return HTMLResponse(_page(writing, wanted, problem=str(error)), status_code=401, headers=FORM_HEADERS)
        answer = RedirectResponse(_own(wanted), status_code=303)
        left = int((known.expires_at - known.created_at).total_seconds())
        answer.set_cookie(
            COOKIE,
            token,
            max_age=min(left, 30 * _DAY),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https",
        )
        return answer

    @routes.post("/logout")
    def log_out(request: Request) -> Response:
        """Take the cookie away; the token stays valid elsewhere."""
        require_own_site(request)
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return routes


def _page(writing: Writing, wanted: str, *, problem: str | None = None) -> str:
    return render("login.html.j2", word=writing.word("login"), next=_own(wanted), problem=problem)


def _own(wanted: str) -> str:
    """A place of this service; of anything else, its beginning."""
    own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if own else "/"
