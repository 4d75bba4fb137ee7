"""A connection pooler, such as PgBouncer, between here and the server: found, and tried, without a setting of ours.

A server names its own process in the key for cancel requests; a pooler invents a key. Whether a session stays with one
process of the server is tried: by asking again, and by whether a second session gets the same process while the first
goes on. Sources: manual, "Message Formats", BackendKeyData; PgBouncer's manual, "Pooling modes".
"""

from __future__ import annotations

import select
import time
from typing import Any

import psycopg
from psycopg.pq import ExecStatus

from dbplatform.postgres.connection import Target, connect_plainly

#: How long a pooler may take to give a session.
_PATIENCE_S = 5.0
_TRIES = 3


def is_direct(session: psycopg.Connection[Any]) -> bool:
    """Whether the session of ``connect_plainly`` ends at the server itself. Raises TimeoutError."""
    return backend(session) == session.info.backend_pid


def keeps_together(session: psycopg.Connection[Any], target: Target, *, work: str) -> bool:
    """Whether a pooler leaves each session with its own process, so that its locks and settings are its own.

    Opens a second session for the moment. Raises TimeoutError where the pooler has none to give.
    """
    first = backend(session)
    if any(backend(session) != first for _ in range(_TRIES)):
        return False
    with connect_plainly(target, work=work) as second:
        try:
            # It holds what it gets until the first session was asked again.
            taken = backend(second, b"begin read only; select pg_backend_pid()")
        except psycopg.OperationalError:
            # Statement mode refuses transactions.
            return False
        kept = taken != first and backend(session) == first
        second.rollback()
        return kept


def backend(session: psycopg.Connection[Any], query: bytes = b"select pg_backend_pid()") -> int:
    """The server's process that answers; raises TimeoutError where a pooler has none to give."""
    pgconn, answer = session.pgconn, None
    pgconn.send_query(query)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        while pgconn.is_busy():
            if not select.select([pgconn.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                session.close()
                raise TimeoutError(f"the pooler had no session to give within {_PATIENCE_S:.0f} s")
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        if result.status == ExecStatus.TUPLES_OK:
            answer = result.get_value(0, 0)
        elif result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace").strip())
    if answer is None:
        raise psycopg.OperationalError("the server gave no answer")
    return int(answer)
