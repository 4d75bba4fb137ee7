"""A fault at a chosen moment of work on a database: before one of its requests is sent, or before its answer arrives.

Every statement, begin and commit of psycopg goes through one method, so each of them is a moment, whoever wrote it.
The requests of a run that nobody disturbs are counted first; the moments of a matrix are spread evenly over them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, TransactionStatus
from sqlalchemy.exc import DBAPIError

from dbplatform.errors import PlatformError
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer

#: So many moments of each work. At every second one it is the answer that is lost: the work was done, maybe committed.
MOMENTS = 16


class _Requests:
    """The requests of this thread to one database, in their order."""

    def __init__(self, database: Target, at: int | None, fault: Callable[[], None], *, answer_lost: bool) -> None:
        self._name = _name_of(database)
        self._at, self._fault, self._answer_lost = at, fault, answer_lost
        self.count = 0

    def wait(self, connection: psycopg.Connection[Any], work: Any, **options: Any) -> Any:
        """Do what ``psycopg.Connection.wait`` does, and the fault at its moment."""
        if not self._counts(connection):
            return _WAIT(connection, work, **options)
        self.count += 1
        if self.count != self._at:
            return _WAIT(connection, work, **options)
        if not self._answer_lost:
            self._fault()
            return _WAIT(connection, work, **options)
        _WAIT(connection, work, **options)
        self._fault()
        connection.pgconn.finish()
        raise psycopg.OperationalError("the answer did not arrive")

    def _counts(self, connection: psycopg.Connection[Any]) -> bool:
        link = connection.pgconn
        return (
            threading.current_thread() is threading.main_thread()
            and link.status == ConnStatus.OK
            and link.db == self._name.encode()
            # What goes on within one request (the rows of a COPY) is no other one.
            and link.transaction_status != TransactionStatus.ACTIVE
        )


def _name_of(database: Target) -> str:
    return str(conninfo_to_dict(database.url)["dbname"])


#: In the server's own words.
_NO_ROOM = """
    create function no_room() returns trigger language plpgsql as $$ begin
        raise 'could not extend file "base/1/2": No space left on device'
        using errcode = 'disk_full', hint = 'Check free disk space.';
    end $$
"""
_WAIT: Callable[..., Any] = psycopg.Connection.wait


@contextmanager
def _heard(requests: _Requests) -> Iterator[None]:
    psycopg.Connection.wait = lambda *given, **options: requests.wait(*given, **options)  # type: ignore[method-assign]
    try:
        yield
    finally:
        psycopg.Connection.wait = _WAIT  # type: ignore[method-assign]


def counted(database: Target, work: Callable[[], None]) -> int:
    """How many requests to the database the work makes when nothing breaks."""
    requests = _Requests(database, None, lambda: None, answer_lost=False)
    with _heard(requests):
        work()
    return requests.count


def broken(
    database: Target,
    work: Callable[[], None],
    fault: Callable[[], None],
    *,
    moment: int,
    of: int,
    moments: int = MOMENTS,
) -> bool:
    """Work with the fault at the moment, of ``of`` requests in all; whether the work told a failure.

    Any failure that is none of the platform or of a database (which the command line tells as one) comes through.
    """
    assert of >= moments, "too few requests for so many moments"
    at = of * (2 * moment + 1) // (2 * moments) + 1
    done: list[int] = []

    def once() -> None:
        done.append(at)
        fault()

    with _heard(_Requests(database, at, once, answer_lost=moment % 2 == 1)):
        try:
            work()
            failed = False
        except (PlatformError, psycopg.Error, DBAPIError):
            failed = True
    assert done, "the moment was not reached"
    return failed


def crash(server: EmbeddedServer) -> None:
    """End the postmaster without a word, and start the server again, at the same port."""
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.start()


def kill_session(database: Target) -> None:
    """End the process of one session of the platform, as Linux does when the machine is out of memory.

    The server ends every other session, too, and recovers; this returns when that has begun.
    """
    with closing(psycopg.connect(make_conninfo(database.url, dbname="postgres"), autocommit=True)) as bystander:
        [pid] = bystander.execute(
            "select pid from pg_stat_activity where datname = %s and application_name ~ '^dbplatform' limit 1",
            (_name_of(database),),
        ).fetchone() or [None]
        assert pid is not None, "it has no session"
        os.kill(pid, signal.SIGKILL)
        try:
            bystander.execute("select pg_sleep(600)")
        except psycopg.OperationalError:
            return
    raise AssertionError("its server did not notice")


def takes_sessions(database: Target) -> bool:
    """Whether the server lets somebody in; while it recovers it does not."""
    try:
        psycopg.connect(database.url).close()
    except psycopg.OperationalError:
        return False
    return True


def cut(database: Target) -> None:
    """End every session of the platform with the database, and of pg_dump, as a firewall does or an administrator."""
    name = _name_of(database)
    with psycopg.connect(make_conninfo(database.url, dbname="postgres"), autocommit=True) as administrator:
        administrator.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where datname = %s and application_name ~ '^(dbplatform|pg_dump)'",
            (name,),
        )


@contextmanager
def no_room(database: Target, *tables: str) -> Iterator[None]:
    """No new row finds room in these tables within the block, as on a full disk; those there can be changed."""
    with psycopg.connect(database.url, autocommit=True) as administrator:
        administrator.execute(_NO_ROOM)
        trigger = "create trigger no_room before insert on {} for each row execute function no_room()"
        for table in tables:
            administrator.execute(sql.SQL(trigger).format(sql.Identifier(*table.split("."))))
        try:
            yield
        finally:
            administrator.execute("drop function no_room() cascade")


@contextmanager
def unreachable(database: Target) -> Iterator[Callable[[], None]]:
    """What ends all sessions with the database and lets no other begin, until the block is over."""
    name = _name_of(database)
    with psycopg.connect(make_conninfo(database.url, dbname="postgres"), autocommit=True) as administrator:

        def allow(yes: bool) -> None:
            administrator.execute(
                sql.SQL("alter database {} allow_connections {}").format(sql.Identifier(name), sql.Literal(yes))
            )

        def close() -> None:
            allow(False)
            administrator.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = %s", (name,)
            )

        try:
            yield close
        finally:
            allow(True)
