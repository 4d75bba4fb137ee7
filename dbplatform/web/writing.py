"""How it is known that whoever changes something over HTTP meant to.

A browser sends a form of any page in the world to this service, in the name of whoever looks at that page. So a form
carries a word that only a page of this very service could have had (an HMAC by a key of this process), the browser must
not say that another site sent it, and a program writes JSON, which no foreign page may send without being allowed to.
Who may change something at all: ``access``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import Request

from dbplatform.web.answers import WritingRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """The rules of one service."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def word(self, what: str) -> str:
        """What a form about ``what`` has to carry."""
        return hmac.new(self.key, what.encode(), hashlib.sha256).hexdigest()

    def require_form(self, request: Request, what: str, *, word: str) -> None:
        """Raise ``WritingRefused`` unless a page of this service sent the form."""
        if not hmac.compare_digest(word.encode(), self.word(what).encode()):
            raise WritingRefused(
                why="the form is not of this service, or of an earlier start of it", hint="Load the page again."
            )
        require_own_site(request)


def require_program(request: Request) -> None:
    """Raise ``WritingRefused`` unless it is JSON that no other site sent."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise WritingRefused(why="it is not JSON", hint="Send it with content-type: application/json.")
    require_own_site(request)


def require_own_site(request: Request) -> None:
    """Raise ``WritingRefused`` where a browser says that the page of another site sent it; programs say nothing."""
    site = request.headers.get("sec-fetch-site")  # W3C Fetch Metadata; over plain HTTP from this machine alone
    origin = request.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not own:
        raise WritingRefused(why="another site sent it", hint="Open the service itself.")
