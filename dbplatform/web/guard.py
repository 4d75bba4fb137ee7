"""What stands before every route: how often, how much, by whom; and the headers of every answer.

Both parts are plain ASGI, so that ``/ws`` goes through them like everything else and an idle connection costs no task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from anyio.to_thread import run_sync
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbplatform.errors import PlatformError
from dbplatform.ledger.acting import acting
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.tokens import TokenRefused
from dbplatform.web import bounds
from dbplatform.web.access import OPEN, READING, Access, Caller, require
from dbplatform.web.answers import NotLetIn
from dbplatform.web.bounds import Rate
from dbplatform.web.failing import failed, wants_page
from dbplatform.web.pages import CONTENT_SECURITY

#: An answer for programs loads nothing, whatever a browser takes it for.
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Reports hold rows of the database: no cache on the way may keep them.
    "Cache-Control": "private, no-store",
}
_POLICY_VIOLATION: Final = 1008
_LOG: Final = logging.getLogger(__name__)


def add_headers(headers: MutableHeaders) -> None:
    """Those of every answer, unless its route has said otherwise."""
    is_page = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY if is_page else _NOTHING)
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)


class Headers:
    """Every answer has them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_headers(MutableHeaders(scope=message))
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Guard:
    """Lets a request through to the routes, which find its ``Caller`` in ``request.state``, or answers itself."""

    def __init__(self, app: ASGIApp, *, ledger: Ledger, access: Access, rate: Rate) -> None:
        self.app, self.ledger, self.access, self.rate = app, ledger, access, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        try:
            caller = await self._let_in(request)
            if scope["type"] == "http" and scope["method"] not in READING:
                receive = await bounds.whole(scope, receive)
        except Exception as error:
            if not isinstance(error, PlatformError | SQLAlchemyError):  # those of the routes are logged by Starlette
                _LOG.error("The service has made a mistake before a route was asked.", exc_info=error)
            await self._refuse(request, error, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        with acting(caller.actor):
            await self.app(scope, receive, send)

    async def _let_in(self, request: HTTPConnection) -> Caller:
        origin = self.access.origin(request)
        self.rate.take(origin)
        if request.scope["path"] in OPEN:
            return Caller(name="nobody", scope="read", origin=origin, known=False)
        try:
            caller = await _in_thread(lambda: self.access.caller(self.ledger, request))
        except (NotLetIn, TokenRefused):
            self.rate.take(origin, bounds.REFUSED_COSTS)
            raise
        require(caller, request)
        return caller

    async def _refuse(self, request: HTTPConnection, error: Exception, receive: Receive, send: Send) -> None:
        if request.scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": str(error)[:120]})
            return
        answer = failed(request, error)
        if answer.status_code == 401 and wants_page(request) and request.scope["method"] == "GET":
            answer = _to_login(request)
        await answer(request.scope, receive, send)


def _to_login(request: HTTPConnection) -> Response:
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(wanted, safe='')}", status_code=303)


async def _in_thread(work: Callable[[], Caller]) -> Caller:
    return await run_sync(work)
