"""Who is let in, and to do what.

By default the service listens on this machine alone and lets everybody on it in: no token is asked for. With
``tokens``, which is what holds as soon as it listens elsewhere, a request carries a token: as ``Authorization: Bearer``
or, of a browser, in the cookie of ``/login``. A trusted proxy may vouch for a user by a header, which is believed from
the proxy's own addresses alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from dbplatform.ledger.acting import Actor
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.tokens import Scope, list_tokens, recognized
from dbplatform.web.answers import NobodyMayCome, NotAllowed, NotLetIn

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

COOKIE: Final = "dbplatform_token"
#: Answered to everybody: whether the service is up, where to log in, and out of a token that may hold no more.
OPEN: Final = frozenset({"/healthz", "/readyz", "/login", "/logout"})
#: Requests that change nothing, and have no body.
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NAME_CHARACTERS: Final = 200
_ANYBODY: Final = "anybody on this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who has sent a request."""

    name: str
    scope: Scope
    origin: str
    """The address that it came from; behind a trusted proxy, the one that the proxy names."""
    known: bool = True
    """False: anybody on this machine."""
    token_id: int | None = None

    @property
    def may_act(self) -> bool:
        """Whether more than reading is let through; pages show who may not no button that acts."""
        return self.scope == "act"

    @property
    def logged_in(self) -> bool:
        """Whether a token has let it in, which a browser keeps until it is told to log out."""
        return self.token_id is not None

    @property
    def actor(self) -> Actor:
        """As the audit log notes it."""
        return Actor(name=self.name, way="service", origin=self.origin, token_id=self.token_id)

    def named(self, given: str | None) -> str:
        """In whose name something is noted: that of a known caller, whatever was given."""
        return self.name if self.known else (given or self.name)

    def signed(self, given: str | None) -> str:
        """The same for what somebody has to put their name to: empty where nobody is known and none was given."""
        return self.name if self.known else (given or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rules of one service; by default everybody whom the address lets through may read and act."""

    tokens: bool = False
    """Whoever does not come through a proxy needs one."""
    proxies: Sequence[Network] = ()
    """The addresses of the reverse proxies that are believed."""
    user_header: str = "X-Forwarded-User"
    proxy_scope: Scope = "read"
    """What the users of the proxies may do."""

    @property
    def is_open(self) -> bool:
        """Nobody is asked who they are."""
        return not self.tokens and not self.proxies

    def origin(self, request: HTTPConnection) -> str:
        """Where a request comes from: the nearest address that is not a trusted proxy's."""
        peer = request.client.host if request.client else "unknown"
        if not self._trusted(peer):
            return peer
        hops = [hop.strip() for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
        for hop in reversed(hops):
            if not _is_address(hop):
                return peer
            if not self._trusted(hop):
                return hop
        return peer

    def caller(self, ledger: Ledger, request: HTTPConnection) -> Caller:
        """Who has sent it, by the ledger at this moment. Raises ``NotLetIn`` and ``TokenRefused``."""
        origin = self.origin(request)
        if (token := _token(request.headers)) is not None:
            return _holder(ledger, token, origin)
        if request.client is not None and self._trusted(request.client.host):
            user = _single(request.headers, self.user_header)
            if user is not None:
                return Caller(name=user, scope=self.proxy_scope, origin=origin)
        if self.is_open:
            return Caller(name=_ANYBODY, scope="act", origin=origin, known=False)
        if token := request.cookies.get(COOKIE):
            return _holder(ledger, token, origin)
        raise NotLetIn(
            why="the request has neither", hint="Send Authorization: Bearer TOKEN, or log in at /login with a browser."
        )

    def _trusted(self, host: str) -> bool:
        if not self.proxies or not _is_address(host):
            return False
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.proxies)


def require_somebody(ledger: Ledger, host: str) -> None:
    """Raise ``NobodyMayCome`` where a service that asks for tokens could let nobody in, for there is none."""
    if not list_tokens(ledger, now=datetime.now(UTC)):
        hint = "Make a token: dbplatform token create NAME. Or name the proxy that users come through: --trusted-proxy."
        raise NobodyMayCome(host=host, hint=hint)


def require(caller: Caller, request: HTTPConnection) -> None:
    """Raise ``NotAllowed`` unless the caller may do what is asked: to read is GET, everything else is to act."""
    reads = request.scope["type"] == "websocket" or request.scope["method"] in READING
    if not reads and not caller.may_act:
        raise NotAllowed(who=caller.name, hint="Make a token that may: dbplatform token create NAME --scope act")


def _holder(ledger: Ledger, token: str, origin: str) -> Caller:
    known = recognized(ledger, token, origin=origin)
    return Caller(name=known.name, scope=known.scope, origin=origin, token_id=known.id)


def _token(headers: Headers) -> str | None:
    """What was sent as a token; whoever sends one is who the token says, or nobody.

    Other schemes are between the client and a proxy, which may pass them on.
    """
    bearer = [value for value in headers.getlist("authorization") if value.lower().startswith("bearer ")]
    return bearer[0][len("bearer ") :].strip() if bearer else None


def _single(headers: Headers, name: str) -> str | None:
    """A header that may stand once: of two nobody knows which one the proxy wrote. Raises ``NotLetIn``."""
    values = [value.strip() for value in headers.getlist(name)]
    if not any(values):
        return None
    if len(values) > 1 or len(values[0]) > _NAME_CHARACTERS or not values[0].isprintable():
        raise NotLetIn(why=f"the header {name} cannot be used", hint="It stands once, and holds one name.")
    return values[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
