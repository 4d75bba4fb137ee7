"""The service on a port of this machine."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from dbplatform.web.answers import PortTaken

DEFAULT_PORT: Final = 8765


def serve(app: FastAPI, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
    """Answer requests until SIGINT or SIGTERM. Raises ``PortTaken`` before anything starts."""
    listening = listen(host, port)
    config = uvicorn.Config(guarded(app, host), log_level="warning", server_header=False)
    server = uvicorn.Server(config)
    with listening, suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def guarded(app: ASGIApp, host: str) -> ASGIApp:
    """On a loopback address, answer only requests for this machine's own names.

    Otherwise a web page elsewhere could have its name point here (DNS rebinding) and read the reports through the
    browser of whoever visits it.
    """
    if not _is_loopback(host):
        return app
    return TrustedHostMiddleware(app, allowed_hosts=["127.0.0.1", "localhost", "[::1]", host])


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that nobody can take the port between the question and the start."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # Linux lets two sockets bind with SO_REUSEADDR as long as none listens.
        listening.listen(128)
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        raise PortTaken(
            host=host,
            port=port,
            reason="another program listens there" if taken else (error.strerror or str(error)),
            hint="Choose another one with --port, or end that program.",
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
