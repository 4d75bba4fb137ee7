"""What is demanded of the way to a database in production: that it is encrypted, and leads to the right server.

Source: PostgreSQL manual, "SSL Support" of libpq: of all modes, ``verify-full`` alone checks certificate and name.
"""

from __future__ import annotations

from ipaddress import ip_address

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from dbplatform.errors import UsageError

VERIFIED = "verify-full"


class TlsNotVerified(UsageError):
    """The URL in {variable} leads to production at {host} with sslmode={mode}: anybody in between may be the server."""


def demand_verified(url: str, *, variable: str) -> None:
    """Raise ``TlsNotVerified`` unless the URL asks for ``verify-full``, or never leaves this machine.

    Sockets and loopback addresses do not. What the URL leaves out comes from the environment, as for libpq. A URL that
    cannot be read is left to ``connect``, which says why. Opens nothing.
    """
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:
        return
    usual = {
        option.keyword.decode(): option.val.decode()
        for option in Conninfo.get_defaults()
        if option.val is not None and option.keyword in (b"host", b"hostaddr", b"sslmode")
    }
    mode = given.get("sslmode", usual.get("sslmode", "prefer"))
    if mode == VERIFIED:
        return
    named = given.get("hostaddr") or given.get("host") or usual.get("hostaddr") or usual.get("host") or ""
    if not named and "service" in given:
        named = f"the service {given['service']}"
    away = [host for host in named.split(",") if not _stays_here(host)]
    if away:
        raise TlsNotVerified(
            variable=variable,
            host=away[0],
            mode=mode,
            hint="Put sslmode=verify-full into the URL, and the authority's certificate as sslrootcert=... "
            "(sslrootcert=system: those that this machine trusts).",
        )


def _stays_here(host: str) -> bool:
    """Whether it is a socket, the default one or one of a folder, or this machine by a loopback address."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
