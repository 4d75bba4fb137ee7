"""Who may change something over HTTP, and how it is known that a person meant to.

A browser sends a form of any page in the world to this machine, in the name of whoever looks at that page. So a form
carries a word that only a page of this very service could have had (an HMAC by a key of this process), the browser must
not say that another site sent it, and a program writes JSON, which no foreign page may send without being allowed to.
Where ``DBPLATFORM_SERVICE_TOKEN`` is set, that is asked for as well; a service that listens to other machines takes
nothing without it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from typing import Self

from fastapi import Request

from dbplatform.errors import UsageError

TOKEN = "DBPLATFORM_SERVICE_TOKEN"


class WritingRefused(UsageError):
    """Nothing was noted: {why}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """The rules of one service."""

    token: str | None = field(default=None, repr=False)
    """Asked for with every change, where there is one."""
    open_to_others: bool = False
    """The service listens to other machines than this one."""
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @classmethod
    def declared(cls, *, open_to_others: bool = False) -> Self:
        """With the token of the environment, as it is now."""
        return cls(token=os.environ.get(TOKEN) or None, open_to_others=open_to_others)

    def word(self, what: str) -> str:
        """What a form about ``what`` has to carry."""
        return hmac.new(self.key, what.encode(), hashlib.sha256).hexdigest()

    def require_form(self, request: Request, what: str, *, word: str, token: str) -> None:
        """Raise ``WritingRefused`` unless a page of this service sent the form, with the token where one is set."""
        if not hmac.compare_digest(word.encode(), self.word(what).encode()):
            raise WritingRefused(
                why="the form is not of this service, or of an earlier start of it", hint="Load the page again."
            )
        self._require_own_site(request)
        self._require_token(token)

    def require_program(self, request: Request) -> None:
        """Raise ``WritingRefused`` unless it is JSON that no other site sent, with the token where one is set."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise WritingRefused(why="it is not JSON", hint="Send it with content-type: application/json.")
        self._require_own_site(request)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        self._require_token(given.strip() if scheme.lower() == "bearer" else "")

    def _require_own_site(self, request: Request) -> None:
        # Browsers say so with every request (W3C Fetch Metadata); programs say nothing.
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise WritingRefused(why="another site sent it", hint="Open the service itself.")

    def _require_token(self, given: str) -> None:
        if self.token is None:
            if self.open_to_others:
                raise WritingRefused(
                    why="this service listens to other machines and has no token",
                    hint=f"Start it with {TOKEN} set, or review by: dbplatform report review.",
                )
        elif not hmac.compare_digest(given.encode(), self.token.encode()):
            raise WritingRefused(why="the token is missing or wrong", hint=f"It is the value of {TOKEN}.")
