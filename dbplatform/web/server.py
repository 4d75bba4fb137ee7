"""The service on a port of this machine."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import h11
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from dbplatform.web.answers import PortTaken

#: More connections are answered 503, so that memory has a bound; each takes some kilobytes.
MOST_CONNECTIONS: Final = 4_096
#: The head of a request is at most so large, and complete after so long; an idle connection is closed then.
_HEAD_BYTES: Final = 16 * 1024
#: What one message on /ws may be long: all databases with their tokens.
_WORD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 30.0


class Connection(H11Protocol):
    """A connection that may not wait for ever with the head of a request; h11 bounds how large one is."""

    _ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._ends is None:
            self._ends = self.loop.call_later(HEAD_SECONDS, self._close)

    def _stop(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None

    def _close(self) -> None:
        self._ends = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def serve(app: FastAPI, listening: socket.socket, *, names: Sequence[str] = ()) -> None:
    """Answer requests on a socket of ``listen`` until SIGINT or SIGTERM; closes it. ``names``: see ``guarded``."""
    host = str(listening.getsockname()[0])
    _room_for_connections()
    with listening, suppress(KeyboardInterrupt):
        uvicorn.Server(configuration(guarded(app, host, names))).run(sockets=[listening])


def configuration(app: ASGIApp) -> uvicorn.Config:
    """How the service is run. Who asks is decided by ``access``, so uvicorn believes no header about it."""
    return uvicorn.Config(
        app,
        http=Connection,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        limit_concurrency=MOST_CONNECTIONS,
        # A client of /ws says one thing.
        ws_max_size=_WORD_BYTES,
        ws_max_queue=2,
        # A message would be compressed anew for each of those who watch, and that takes longer than all the rest.
        ws_per_message_deflate=False,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
    )


def guarded(app: ASGIApp, host: str, names: Sequence[str] = ()) -> ASGIApp:
    """On a loopback address, answer only requests for this machine's own names, and for ``names``.

    Otherwise a web page elsewhere could have its name point here (DNS rebinding) and read the reports through the
    browser of whoever visits it. On another address any name is answered, unless ``names`` are given.
    """
    if not is_loopback(host):
        return TrustedHostMiddleware(app, allowed_hosts=[host, *names]) if names else app
    return TrustedHostMiddleware(app, allowed_hosts=["127.0.0.1", "localhost", "[::1]", host, *names])


def _room_for_connections() -> None:
    """A process may often open 1,024 files: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MOST_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(host: str, port: int, *, what: str = "the status service", option: str = "--port") -> socket.socket:
    """A socket that is bound, so that nobody can take the port between the question and the start.

    Raises ``PortTaken``, which names ``what`` wanted to listen and the ``option`` that chooses another port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Of a client that takes nothing: its place is free again after a minute.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
        listening.bind((host, port))
        # Linux lets two sockets bind with SO_REUSEADDR as long as none listens.
        listening.listen(1024)
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        raise PortTaken(
            what=what[0].upper() + what[1:],
            host=host,
            port=port,
            reason="another program listens there" if taken else (error.strerror or str(error)),
            hint=f"Choose another one with {option}, or end that program.",
        ) from error
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
