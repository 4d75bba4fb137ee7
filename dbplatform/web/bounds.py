"""What one client may cost the service: requests in a time, and bytes of one request. Memory is bounded, too."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import anyio
from starlette.types import Message, Receive, Scope

from dbplatform.web.answers import TooLarge, TooMany, TooSlow

MOST_BYTES: Final = 64 * 1024
_BODY_SECONDS: Final = 20.0
#: A client may ask so often in the long run, and so much at once: a page with its charts is a dozen requests.
_PER_SECOND: Final = 50.0
_BURST: Final = 500.0
#: One that is not let in costs as much as so many that are.
REFUSED_COSTS: Final = 20.0
_MOST_CLIENTS: Final = 10_000


class Rate:
    """A bucket for each client, from which every request takes; it fills up with time.

    For one thread, that of the event loop. Of more than 10,000 clients the one that was idle longest is forgotten: its
    bucket is the fullest. Clients of IPv6 are networks of 64 bits, because one machine has all of their addresses.
    """

    def __init__(
        self,
        *,
        per_second: float = _PER_SECOND,
        burst: float = _BURST,
        most: int = _MOST_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second, self._burst, self._most, self._clock = per_second, burst, most, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, origin: str, cost: float = 1.0) -> None:
        """Take from the bucket of a client. Raises ``TooMany`` where it is empty, and takes nothing then."""
        who, now = _client(origin), self._clock()
        left, at = self._buckets.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        enough = left >= 1.0
        self._buckets[who] = (left - cost if enough else left, now)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        if not enough:
            raise TooMany(who=origin, seconds=(1.0 - left) / self._per_second, hint="Ask less often.")

    @property
    def clients(self) -> int:
        """How many are remembered."""
        return len(self._buckets)


async def whole(scope: Scope, receive: Receive, *, most: int = MOST_BYTES, seconds: float = _BODY_SECONDS) -> Receive:
    """The body of a request, read to its end before anybody works on it. Raises ``TooLarge`` and ``TooSlow``."""
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > most:
        raise TooLarge(bytes=most, hint="Write less.")
    body = b""
    with anyio.move_on_after(seconds) as waiting:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _again(message, receive)
            body += message.get("body", b"")
            if len(body) > most:
                raise TooLarge(bytes=most, hint="Write less.")
            if not message.get("more_body", False):
                break
    if waiting.cancelled_caught:
        raise TooSlow(seconds=seconds, hint="Send it again.")
    return _again({"type": "http.request", "body": body, "more_body": False}, receive)


def _again(message: Message, receive: Receive) -> Receive:
    """What gives that message first, and then what comes."""
    waiting = [message]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


def _client(origin: str) -> str:
    try:
        address = ipaddress.ip_address(origin)
    except ValueError:
        return origin
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:  # how a socket for both families names those of IPv4, all in one /64
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return origin
