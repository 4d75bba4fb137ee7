"""The service on a port of this machine."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from dbplatform.web.answers import PortTaken


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answer requests on a socket of ``listen`` until SIGINT or SIGTERM; closes it."""
    host = str(listening.getsockname()[0])
    config = uvicorn.Config(guarded(app, host), log_level="warning", server_header=False)
    server = uvicorn.Server(config)
    with listening, suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def guarded(app: ASGIApp, host: str) -> ASGIApp:
    """On a loopback address, answer only requests for this machine's own names.

    Otherwise a web page elsewhere could have its name point here (DNS rebinding) and read the reports through the
    browser of whoever visits it.
    """
    if not is_loopback(host):
        return app
    return TrustedHostMiddleware(app, allowed_hosts=["127.0.0.1", "localhost", "[::1]", host])


def listen(host: str, port: int, *, what: str = "the status service", option: str = "--port") -> socket.socket:
    """A socket that is bound, so that nobody can take the port between the question and the start.

    Raises ``PortTaken``, which names ``what`` wanted to listen and the ``option`` that chooses another port.
    """
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
