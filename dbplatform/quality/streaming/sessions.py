"""Sessions that read a table side by side in one snapshot, as Arrow batches.

Each is a connection of its own (the ADBC driver: COPY BINARY, parsed outside of the interpreter) with the settings and
the role of the session that checks. A session takes one range of blocks after the other until none is left. The ranges
are conditions on ``ctid`` over the table as it was named, so that rights, row-level security, partitions and children
are exactly those of one query over it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.postgres.connection import SnapshotConnection

_BATCH_BYTES = 8 << 20
_LOOK_SECONDS = 0.2

_LOCK_TIMEOUT = "2s"
_PATIENT = [("idle_in_transaction_session_timeout", "0")]  # a session that has read all waits for the others

_SETTINGS = """
    select name, current_setting(name) from pg_settings
    where source = 'session' and context in ('user', 'superuser') and name !~ '^transaction_'
"""


class StreamRefused(Exception):
    """The server or the driver could not stream; the reason in its words."""


class Session:
    """A reader of the snapshot."""

    def __init__(
        self, connection: SnapshotConnection, snapshot: str, settings: Mapping[str, str], *, like: Session | None = None
    ) -> None:
        """``like`` is another one: what its driver has learned of the server's types need not be asked again."""
        self._text = connection
        with _translated():
            if like is None:
                self._connection = adbc.connect(_info(connection), autocommit=True)
            else:
                self._connection = like._connection.adbc_clone()
                self._connection.adbc_connection.set_autocommit(True)
            self._cursor = self._connection.cursor()
            self._execute(sql.SQL("begin isolation level repeatable read, read only"))
            self._execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
            calls = [
                sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
                for name, value in settings.items()
            ]
            self._execute(sql.SQL("select {}").format(sql.SQL(", ").join(calls)))
            self._cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})

    def batches(self, query: sql.Composable) -> Iterator[pa.RecordBatch]:
        """The rows of a query, some at a time."""
        with _translated():
            self._cursor.execute(query.as_string(self._text))
            yield from self._cursor.fetch_record_batch()

    def cancel(self) -> None:
        """Tell the server to end the query that runs now; may be called by another thread."""
        with contextlib.suppress(adbc_driver_manager.Error):
            self._cursor.adbc_cancel()

    def close(self) -> None:
        """End the session, and its transaction with it."""
        with contextlib.suppress(adbc_driver_manager.Error):
            self._cursor.close()
        with contextlib.suppress(adbc_driver_manager.Error):
            self._connection.close()

    def _execute(self, statement: sql.Composable) -> None:
        self._cursor.execute(statement.as_string(self._text))
        if self._cursor.description:
            self._cursor.fetchall()


@contextmanager
def sessions(connection: SnapshotConnection, number: int) -> Iterator[list[Session]]:
    """So many sessions in the snapshot of ``connection``, which must not be inside a savepoint."""
    for setting in _PATIENT:
        connection.execute("select set_config(%s, %s, true)", setting)
    row = connection.execute("select pg_export_snapshot()").fetchone()
    assert row is not None
    settings = _settings(connection)
    opened: list[Session] = []
    try:
        while len(opened) < number:
            opened.append(Session(connection, row[0], settings, like=opened[0] if opened else None))
        yield opened
    finally:
        for session in opened:
            session.close()


def read(
    sessions_: Sequence[Session],
    queries: Sequence[sql.Composable],
    take: Callable[[int, pa.RecordBatch], None],
    *,
    tell: Callable[[], None],
) -> None:
    """Give every batch of every query to ``take``, with the number of the session that read it, in its thread.

    Blocks until all is read; ``tell`` is called now and then. When one session fails, or this thread is interrupted,
    the others are cancelled on the server and waited for. Raises ``StreamRefused``, or what ``take`` raised.
    """
    waiting = deque(queries)
    failures: list[BaseException] = []
    stopped = threading.Event()

    def work(number: int) -> None:
        try:
            while not stopped.is_set():
                try:
                    query = waiting.popleft()
                except IndexError:
                    return
                for batch in sessions_[number].batches(query):
                    if stopped.is_set():
                        return
                    take(number, batch)
        except BaseException as error:
            failures.append(error)
            stopped.set()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(sessions_))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_LOOK_SECONDS)
                if stopped.is_set():
                    _cancel(sessions_, threads)
                tell()
    finally:
        stopped.set()
        _cancel(sessions_, threads)
    if failures:
        raise failures[0]


def _cancel(sessions_: Sequence[Session], threads: Sequence[threading.Thread]) -> None:
    """Cancel until each has ended: one that was between two queries would miss a single call."""
    for session, thread in zip(sessions_, threads, strict=True):
        while thread.is_alive():
            session.cancel()
            thread.join(_LOOK_SECONDS)


def _info(connection: SnapshotConnection) -> str:
    return make_conninfo(
        connection.info.dsn,
        password=connection.info.password or None,
        application_name="dbplatform check stream",
        client_encoding="UTF8",
    )


def _settings(connection: SnapshotConnection) -> dict[str, str]:
    """What the session of the checks has set, its role, and what reading beside it needs.

    The session of the checks has its lock already: these wait only behind one who waits for it to end, and would wait
    for ever. No parallel workers: the sessions are parallel already.
    """
    settings: dict[str, str] = dict(connection.execute(_SETTINGS).fetchall())
    role = connection.execute("select current_setting('role')").fetchone()
    settings |= {"lock_timeout": _LOCK_TIMEOUT, "max_parallel_workers_per_gather": "0", **dict(_PATIENT)}
    if role is not None and role[0] != "none":
        settings["role"] = role[0]  # the last: it may not be allowed to set the others
    return settings


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:  # OSError: in the middle of a stream
        raise StreamRefused(str(error).strip().splitlines()[0]) from error
