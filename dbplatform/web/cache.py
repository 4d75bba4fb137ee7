"""Documents that many look at are made once in a while, and sent once to each who has not got them yet.

However many ask for the same one at the same time, it is made by one of them while the others wait.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request, Response
from pydantic import BaseModel

#: A look at a database is made once a minute: a viewer sees it two seconds later at worst.
SECONDS: Final = 2.0
_MOST: Final = 512


@dataclass(slots=True)
class _Made:
    at: float | None = None
    """When it was ready; None while it is made, however long that takes."""
    content: Future[bytes] = field(default_factory=Future)


class Cache:
    """Documents by what they are of; at most 512 of them, those that nobody asked for the longest go first."""

    def __init__(
        self, *, seconds: float = SECONDS, most: int = _MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._made: OrderedDict[Hashable, _Made] = OrderedDict()
        self._lock = threading.Lock()

    def content(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What ``make`` gives, or gave less than two seconds ago; an error is raised to all who wait, and not kept."""
        with self._lock:
            known = self._made.get(key)
            if known is not None and (known.at is None or self._clock() - known.at < self._seconds):
                self._made.move_to_end(key)
                mine = False
            else:
                known, mine = _Made(), True
                self._made[key] = known
                self._made.move_to_end(key)
                while len(self._made) > self._most:
                    self._made.popitem(last=False)
        if mine:
            try:
                content = make()
                known.at = self._clock()
                known.content.set_result(content)
            except BaseException as error:
                with self._lock:
                    if self._made.get(key) is known:
                        del self._made[key]
                known.content.set_exception(error)
        return known.content.result()

    def answer(self, request: Request, key: Hashable, make: Callable[[], BaseModel]) -> Response:
        """The document as JSON with an ``ETag``; 304 without it for whoever has it already."""
        return answer(request, self.content(key, lambda: make().model_dump_json().encode()), "application/json")


def answer(request: Request, content: bytes, media_type: str) -> Response:
    """Bytes with an ``ETag``, or 304 (RFC 9110, 13.1.2). Clients may keep them, and ask each time."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
