"""Why a connection could not be opened: how far it came, the cause in one sentence, and what mends it.

libpq tells only a text. What it says of its own is put into plain words here; what the server says is kept, because
people look for it in the server's log, and is explained by the hint. A text that is not known (a server that speaks
another language) is passed on as it is. Sources: fe-connect.c and fe-secure-openssl.c of libpq, postinit.c and
hba.c of the server, and ``client.c`` of PgBouncer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import psycopg

#: How far a connection comes, in the order in which it gets there.
Stage = Literal["URL", "host", "port", "TLS", "server", "login", "database"]
STAGES: tuple[Stage, ...] = ("URL", "host", "port", "TLS", "server", "login", "database")

_AT = re.compile(
    r'connection to server (?:at "(?P<host>[^"]*)"(?: \([^)]*\))?, port (?P<port>\d+)|on socket "(?P<socket>[^"]*)")'
    r" failed: (?P<said>.*)"
)
_LEVEL = re.compile(r"^[A-ZÄÖÜ]+:\s+")
_URL = (
    "Write it as postgresql://user:password@host:port/database; in a password an @ is written %40, a slash %2F, "
    "a colon %3A, a percent sign %25."
)
_REACH = "Check host and port in the URL, that the server runs, and that a firewall lets you through from here."
_TRUST = "Name the certificate of the authority that signed the server's in sslrootcert=... of the URL."
_ROOM = "End sessions that are not needed, or raise the limit"
_WAIT = "Wait until it is ready, then run the command again; the server's log tells how far it is."
_PGBOUNCER = "Give the URL of the server itself, or ask who runs the pooler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One connection that was not opened. ``stage`` is where it ended; all before it worked."""

    stage: Stage
    reason: str
    hint: str


# What is searched for; the stage; the reason ({said}: the words of the server, {place}: the address that was tried,
# names of groups); the hint.
_KNOWN: tuple[tuple[str, Stage, str, str], ...] = (
    (
        r"failed to resolve host '(?P<name>[^']*)'|could not translate host name \"(?P<other>[^\"]*)\"",
        "host",
        'the host name "{name}" is not known',
        "Correct the host in the URL, or ask who runs the name service.",
    ),
    (r"Connection refused", "port", "nothing listens on {place} (Connection refused)", _REACH),
    (r"(?:timeout expired|timed out)", "port", "{place} does not answer", _REACH),
    (r"(?:No route to host|Network is unreachable|Host is down)", "port", "{place} cannot be reached: {said}", _REACH),
    (
        r"^No such file or directory",
        "port",
        "there is no socket of a server at {place}",
        "Check host and port in the URL (a host with a slash is the folder of the socket), and that the server runs.",
    ),
    (
        r"invalid response to SSL negotiation|expected authentication request|unsupported frontend protocol",
        "port",
        "what listens on {place} is not PostgreSQL",
        "Correct host and port in the URL.",
    ),
    (
        r"server does not support SSL",
        "TLS",
        "the server has no TLS, and the URL asks for it",
        "Set ssl = on and a certificate on the server, or leave sslmode out of the URL where nobody can listen.",
    ),
    (r"root certificate file", "TLS", "{said}", _TRUST),
    (r"certificate verify failed", "TLS", "the server's certificate is not signed by whom the URL trusts", _TRUST),
    (
        r"server certificate for .* does not match host name",
        "TLS",
        "{said}",
        "Write the host in the URL as the certificate names it.",
    ),
    (r"SSL error|certificate", "TLS", "{said}", "Check sslmode, sslrootcert, sslcert and sslkey in the URL."),
    (r"too many clients already", "server", "{said}", f"{_ROOM} max_connections."),
    (r"connection slots are reserved", "server", "{said}", f"{_ROOM} max_connections."),
    (r"no more connections allowed", "server", "{said}", f"{_ROOM} max_client_conn of PgBouncer."),
    (r"query_wait_timeout", "server", "the connection pooler had no free session: {said}", f"{_PGBOUNCER}."),
    (
        r"unsupported startup parameter",
        "server",
        "a connection pooler refuses a setting of the URL: {said}",
        f"{_PGBOUNCER} to add it to ignore_startup_parameters.",
    ),
    (r"the database system is", "server", "{said}", _WAIT),
    (
        r"server closed the connection unexpectedly",
        "server",
        "{place} closed the connection at once",
        "Look into the server's log for the reason.",
    ),
    (
        r"password authentication failed|SASL authentication failed",
        "login",
        "wrong user or password: {said}",
        "Check user and password in the variable that holds the URL.",
    ),
    (
        r"no password supplied",
        "login",
        "the server asks for a password, and the URL holds none",
        "Write it into the variable that holds the URL (postgresql://user:password@...), or into ~/.pgpass.",
    ),
    (
        r"no pg_hba.conf entry .*no encryption",
        "login",
        "{said}",
        "Let it in by a line of the server's pg_hba.conf, then SELECT pg_reload_conf(); "
        "where the server takes TLS alone, ask for it: sslmode=verify-full in the URL.",
    ),
    (
        r"pg_hba\.conf",
        "login",
        "{said}",
        "Let it in by a line of the server's pg_hba.conf, then SELECT pg_reload_conf();",
    ),
    (
        r"authentication failed for user",
        "login",
        "the server does not take this user from here: {said}",
        "Use the operating system's user that pg_hba.conf asks for, or a URL with host and password.",
    ),
    (
        r'role "(?P<name>.*)" is not permitted to log in',
        "login",
        "{said}",
        "Use another user in the URL, or let this one in: ALTER ROLE ... LOGIN;",
    ),
    (r'role "(?P<name>.*)" does not exist', "login", "{said}", "Create it (CREATE ROLE), or correct the URL."),
    (r"too many connections for role", "login", "{said}", f"{_ROOM}: ALTER ROLE ... CONNECTION LIMIT n;"),
    (r"too many connections for database", "database", "{said}", f"{_ROOM}: ALTER DATABASE ... CONNECTION LIMIT n;"),
    (
        r'database "(?P<name>.*)" does not exist|no such database',
        "database",
        "{said}",
        "Create it (CREATE DATABASE), or correct the name at the end of the URL.",
    ),
    (
        r'permission denied for database "(?P<name>.*)"',
        "database",
        "{said}",
        "Grant it: GRANT CONNECT ON DATABASE ... TO ...;",
    ),
    (
        r"is not currently accepting connections",
        "database",
        "{said}",
        "Let it: ALTER DATABASE ... ALLOW_CONNECTIONS true;",
    ),
    # What stands where the port should be may be half of a password.
    (r"invalid (?:integer value|port number)", "URL", "the URL cannot be read: its port is no number", _URL),
    (r"definition of service", "URL", "{said}", "Add it to the file ~/.pg_service.conf, or write the URL out."),
)


def unreadable_url() -> Refusal:
    """The refusal of a URL that is none. Any part of it may be one of the password, so none is repeated."""
    return Refusal(stage="URL", reason="the URL cannot be read", hint=_URL)


def explain(error: psycopg.OperationalError, *, host: str, port: str) -> Refusal:
    """What an error of ``psycopg.connect`` means; ``host`` and ``port`` stand where the error names none.

    Where the URL names several hosts, it is the last one that is spoken of.
    """
    text = str(error).strip()
    tried = list(_AT.finditer(text))
    place, said = f"{host}, port {port}", text.splitlines()[-1] if text else "no reason was given"
    if tried:
        last = tried[-1]
        place = last["socket"] or f"{last['host']}, port {last['port']}"
        said = last["said"]
    said = _LEVEL.sub("", said).removeprefix("connection is bad: ").strip().rstrip(".")
    for pattern, stage, reason, hint in _KNOWN:
        if match := re.search(pattern, said):
            names = [value for value in match.groupdict().values() if value is not None]
            words = reason.format(said=said, place=place, name=names[0] if names else "")
            return Refusal(stage=stage, reason=words, hint=hint)
    return Refusal(stage="server", reason=said, hint="Check the URL and the rights of its user.")
