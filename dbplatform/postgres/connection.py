"""Connections to PostgreSQL by psycopg, and what each may do.

The type of a connection says what its transactions are. ``AutocommitConnection`` runs every statement by itself, opens
a transaction only by ``connection.transaction()`` and so can run what PostgreSQL refuses inside one (``CREATE INDEX
CONCURRENTLY``, ``DETACH PARTITION CONCURRENTLY``). ``SnapshotConnection`` is inside one read-only transaction that sees
one moment.

Every session has a fixed time zone, date style and float form, so that a row reads the same whoever asks.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NewType
from weakref import WeakSet

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from dbplatform.errors import CannotConnect, WorkError, out_of_memory
from dbplatform.postgres.refusals import Refusal, explain, unreadable_url

if TYPE_CHECKING:
    from sqlalchemy import URL

AutocommitConnection = NewType("AutocommitConnection", psycopg.Connection[TupleRow])
SnapshotConnection = NewType("SnapshotConnection", psycopg.Connection[TupleRow])
AnyConnection = AutocommitConnection | SnapshotConnection | psycopg.Connection[TupleRow]


class ServerRefused(WorkError):
    """PostgreSQL refused a statement on {target}: {reason}."""


class SessionLost(WorkError):
    """The session with {target} was lost: {reason}."""


_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "search_path": "public",
}
#: For ``hang_up``; those that nobody needs any more are not kept.
_OPENED: WeakSet[psycopg.Connection[TupleRow]] = WeakSet()


@dataclass(frozen=True, slots=True)
class Target:
    """One database to work on. The URL is a secret: it is never shown, not even by ``repr``."""

    name: str
    url: str = field(repr=False)

    @property
    def place(self) -> str:
        """``user@host:port/dbname``: what may be shown of the URL."""
        parts = conninfo_to_dict(self.url)
        host, port = parts.get("host", "local socket"), parts.get("port", 5432)
        return f"{parts.get('user', 'default user')}@{host}:{port}/{parts.get('dbname', '')}"


@contextmanager
def connect(
    target: Target,
    *,
    work: str,
    lock_timeout_ms: int | None = None,
    statement_timeout_ms: int | None = None,
    search_path: str | None = None,
    jit: bool | None = None,
) -> Iterator[AutocommitConnection]:
    """A session that runs each statement by itself, closed at the end of the block.

    ``work`` names what it is for (``application_name`` becomes ``dbplatform <work>``). Raises ``CannotConnect``; an
    error of PostgreSQL that nobody in the block answered becomes ``ServerRefused`` or, where the session was lost,
    ``SessionLost``. ``jit=False``: long statements over a catalog take many times as long to compile as to run.
    """
    connection = AutocommitConnection(_open(target, work))
    try:
        settings = dict(_SESSION)
        if search_path is not None:
            settings["search_path"] = search_path
        if jit is not None:
            settings["jit"] = "on" if jit else "off"
        if lock_timeout_ms is not None:
            settings["lock_timeout"] = str(lock_timeout_ms)
        if statement_timeout_ms is not None:
            settings["statement_timeout"] = str(statement_timeout_ms)
        calls = sql.SQL(", ").join([sql.SQL("set_config(%s, %s, false)")] * len(settings))
        connection.execute(sql.SQL("select ") + calls, list(chain.from_iterable(settings.items())))
        yield connection
    except psycopg.Error as error:
        interruption = _interruption(error)
        if interruption is not None:
            raise interruption from None
        raise in_words(target.name, error) from error
    finally:
        if not connection.closed and connection.info.transaction_status == TransactionStatus.ACTIVE:
            # Interrupted in a statement: the server is told, or it would go on with it.
            connection.cancel_safe(timeout=5)
        connection.close()


@asynccontextmanager
async def connect_to_listen(target: Target, *, work: str) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
    """A session for an event loop that stays for long and mostly waits; each statement by itself.

    Where the server is gone without a word, that is noticed within two minutes. Raises ``CannotConnect``; other errors
    come through as they are.
    """
    with _opening(target, work) as info:
        quiet = {"keepalives_idle": 60, "keepalives_interval": 15, "keepalives_count": 4}
        settings = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in _SESSION.items())
        given = conninfo_to_dict(info).get("options") or ""
        whole = make_conninfo(info, options=f"{given} {settings}".strip(), **quiet)
        connection = await psycopg.AsyncConnection.connect(whole, autocommit=True)
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def connect_plainly(target: Target, *, work: str) -> Iterator[psycopg.Connection[TupleRow]]:
    """A session as server, database and role make it: nothing is set in it, and no error is translated.

    For looking at exactly that, also through a connection pooler, where a setting would reach the sessions of others.
    Raises ``CannotConnect``, whose field ``stage`` tells how far it came.
    """
    connection = _open(target, work)
    try:
        yield connection
    finally:
        connection.close()


def beside(connection: AnyConnection, *, work: str, settings: Mapping[str, str]) -> psycopg.Connection[TupleRow]:
    """A second session like ``connection``, of these settings from its first moment; the caller closes it.

    Raises psycopg's errors: where a pooler or a limit stands in the way, one session may be all that there is.
    """
    info = make_conninfo(
        connection.info.dsn,
        password=connection.info.password or None,
        application_name=f"dbplatform {work}",
        options=" ".join(
            [
                str(conninfo_to_dict(connection.info.dsn).get("options") or ""),
                *(f"-c {k}={v}" for k, v in settings.items()),
            ]
        ).strip(),
    )
    return psycopg.connect(info, autocommit=True)


@contextmanager
def snapshot(connection: AutocommitConnection, *, of: str | None = None) -> Iterator[SnapshotConnection]:
    """One moment of the database: a read-only REPEATABLE READ transaction, ended with the block.

    ``of`` is the name that another session's ``pg_export_snapshot()`` gave: then both see the same moment. Takes
    no lock but ACCESS SHARE on what is read; holds back vacuum while it lasts.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        if of is not None:
            connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(of)))
        yield SnapshotConnection(connection)


@contextmanager
def watched(connection: AutocommitConnection) -> Iterator[None]:
    """Let the server notice within seconds that this client was killed, so that its statement and its locks end.

    It can from PostgreSQL 14 on, on Linux and some other systems.
    """
    setting = "client_connection_check_interval"
    before = connection.execute("select current_setting(%s, true)", (setting,)).fetchone()
    if before is None or before[0] is None:
        yield
        return
    try:
        connection.execute("select set_config(%s, '2s', false)", (setting,))
    except psycopg.errors.InvalidParameterValue:
        # The server's platform cannot do it.
        yield
        return
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select set_config(%s, %s, false)", (setting, before[0]))


def _interruption(error: BaseException | None) -> BaseException | None:
    """What stopped the work from outside (Ctrl-C, a run that is ended), where an error only followed from it."""
    while error is not None and isinstance(error, Exception):
        error = error.__context__
    return error


def in_words(target: str, error: psycopg.Error) -> WorkError:
    """An error of psycopg as one of the platform: ``SessionLost`` or ``ServerRefused`` name the target, ``OutOfMemory``
    is of this process."""
    if refused := out_of_memory(error):
        return refused
    reason = (error.diag.message_primary or str(error).strip().splitlines()[0]).rstrip(".")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate in (None, "57P01", "57P02", "57P03"):
        return SessionLost(target=target, reason=reason, hint="See the server's log, then run the command again.")
    rights = isinstance(error, psycopg.errors.InsufficientPrivilege)
    return ServerRefused(
        target=target,
        reason=reason,
        hint="Grant it to the user in the URL." if rights else error.diag.message_hint,
        sqlstate=error.sqlstate,
    )


def hang_up(pid: int, like: AnyConnection) -> None:
    """End the wait of this process for a backend of the server of ``like`` that does not answer and cannot be ended.

    May be called from another thread: whoever waits gets the error of a lost session.
    """
    for connection in list(_OPENED):
        here = not connection.closed and connection.info.backend_pid == pid
        if here and (connection.info.host, connection.info.port) == (like.info.host, like.info.port):
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)


def _open(target: Target, work: str) -> psycopg.Connection[TupleRow]:
    with _opening(target, work) as info:
        connection = psycopg.connect(info, autocommit=True)
    _OPENED.add(connection)
    return connection


@contextmanager
def _opening(target: Target, work: str) -> Iterator[str]:
    """What libpq is told; what goes wrong with it in the block becomes ``CannotConnect``."""
    try:
        parts = conninfo_to_dict(target.url)
    except psycopg.ProgrammingError:
        # libpq's words quote the URL, and with it the password.
        raise _cannot_connect(target, unreadable_url()) from None
    host, port = str(parts.get("host", "local socket")), str(parts.get("port", 5432))
    if "@" in host or ("user" not in parts and "@" in str(parts.get("dbname"))):
        # The password holds an @ or a slash that is not written in percent signs.
        raise _cannot_connect(target, unreadable_url())
    try:
        yield make_conninfo(
            target.url,
            application_name=f"dbplatform {work}",
            connect_timeout=parts.get("connect_timeout", 10),
            client_encoding="UTF8",
        )
    except psycopg.OperationalError as error:
        refusal = explain(error, host=host, port=port)
        raise _cannot_connect(target, refusal) from (None if refusal.stage == "URL" else error)
    except (psycopg.Error, UnicodeError):
        raise _cannot_connect(target, unreadable_url()) from None


def _cannot_connect(target: Target, refusal: Refusal) -> CannotConnect:
    place = target.name if refusal.stage == "URL" else target.place
    return CannotConnect(target=place, reason=refusal.reason, hint=refusal.hint, stage=refusal.stage)


def sqlalchemy_url(target: Target) -> URL:
    """The same target for SQLAlchemy with psycopg 3; settings such as ``sslmode`` stay."""
    from sqlalchemy import URL

    parts = {key: str(value) for key, value in conninfo_to_dict(target.url).items() if value is not None}
    return URL.create(
        "postgresql+psycopg",
        username=parts.pop("user", None),
        password=parts.pop("password", None),
        host=parts.pop("host", None),
        port=int(parts.pop("port", "5432")),
        database=parts.pop("dbname", None),
        query=parts,
    )
