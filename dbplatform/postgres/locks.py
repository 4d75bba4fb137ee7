"""Advisory locks: one writer per database, whether it came from Dagster or from a person's command line.

A lock belongs to the session that took it and goes with it: a killed process leaves nothing behind. It is polled
without an open transaction, because a waiting transaction would block ``CREATE INDEX CONCURRENTLY`` (flyway#1654).
Session locks need a direct connection: PgBouncer in transaction mode breaks them.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg.pq import TransactionStatus

from dbplatform.errors import LockNotAcquired
from dbplatform.postgres.connection import AutocommitConnection

WRITER = "writer"

_HOLDER = """
    select a.pid, a.application_name, extract(epoch from now() - a.backend_start)::int
    from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_database where datname = current_database())
      and (l.classid::bigint << 32 | l.objid::bigint) = %s
"""


def lock_key(name: str) -> int:
    """The 63-bit advisory key of a lock's name; the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"dbplatform/{name}".encode()).digest()[:8], "big") >> 1


@contextmanager
def advisory_lock(
    connection: AutocommitConnection,
    name: str = WRITER,
    *,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Hold the session lock ``name`` of the connected database for the block.

    Polls with jitter from 50 ms up to 1 s between tries. Raises ``LockNotAcquired``, naming the holder, after
    ``wait_ms``.
    """
    _take(connection, name, wait_ms, sleep, clock)
    try:
        yield
    finally:
        # A session that is broken, or was interrupted in a statement, is about to end, and its locks with it.
        if not connection.closed and connection.info.transaction_status != TransactionStatus.ACTIVE:
            _release(connection, name)


@contextmanager
def lent(
    connection: AutocommitConnection,
    name: str = WRITER,
    *,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Let others have a lock that is held, for the block, and take it again behind it.

    What was read under it may be untrue by then. Raises ``LockNotAcquired`` where it is not had again in ``wait_ms``.
    """
    _release(connection, name)
    yield
    _take(connection, name, wait_ms, sleep, clock)


def _take(
    connection: AutocommitConnection,
    name: str,
    wait_ms: int,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    key = lock_key(name)
    started, pause = clock(), 0.05
    while not _try(connection, key):
        waited_ms = round((clock() - started) * 1000)
        if waited_ms >= wait_ms:
            raise LockNotAcquired(
                lock=f"the {name} lock of this database",
                waited_ms=waited_ms,
                hint=_holder(connection, key),
            )
        sleep(pause * random.uniform(0.8, 1.2))
        pause = min(pause * 2, 1.0)


def _release(connection: AutocommitConnection, name: str) -> None:
    connection.execute("select pg_advisory_unlock(%s)", (lock_key(name),))


def _try(connection: AutocommitConnection, key: int) -> bool:
    row = connection.execute("select pg_try_advisory_lock(%s)", (key,)).fetchone()
    return row is not None and bool(row[0])


def _holder(connection: AutocommitConnection, key: int) -> str:
    row = connection.execute(_HOLDER, (key,)).fetchone()
    if row is None:
        return "It has just been released: try again."
    pid, application, seconds = row
    who = application or "no application name"
    return f"Backend {pid} ({who}, connected for {seconds} s) holds it: wait for it, or end it."
