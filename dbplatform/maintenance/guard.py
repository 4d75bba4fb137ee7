"""Someone who watches while a statement runs: once others wait for it too long it is cancelled, whoever was first.

VACUUM, ANALYZE and what is concurrent hold locks that no reader and no writer needs. Who changes the schema meanwhile
waits for them, and readers and writers queue up behind that: such a queue is what this ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.pressure import longest_wait_for

_LOOK_S = 0.2


@dataclass(slots=True)
class Guard:
    """What the watcher saw."""

    gave_way: bool = False
    lost: bool = False
    """Its session was lost, and the statement cancelled: nobody would have seen who waits for it."""
    done: threading.Event = field(default_factory=threading.Event)


@contextmanager
def guarded(watcher: AutocommitConnection, working: AutocommitConnection, *, limit_ms: int) -> Iterator[Guard]:
    """Cancel the statement of ``working`` within the block when others have waited for it half of the limit.

    ``watcher`` is a session of its own, which nobody else uses meanwhile; where it is lost, the statement is cancelled.
    The limit is what they may wait in all: half of it is left for the statement to end.
    """
    guard = Guard()
    thread = threading.Thread(target=_watch, args=(watcher, working, limit_ms / 2000, guard), daemon=True)
    thread.start()
    try:
        yield guard
    finally:
        guard.done.set()
        thread.join()


def waits_beyond(watcher: AutocommitConnection, pids: Callable[[], list[int]], *, limit_ms: int) -> bool:
    """Whether somebody has waited for one of these backends for half of the limit."""
    found = pids()
    return bool(found) and longest_wait_for(watcher, *found) > limit_ms / 2000


def _watch(watcher: AutocommitConnection, working: AutocommitConnection, limit_s: float, guard: Guard) -> None:
    pid = working.info.backend_pid
    try:
        while not guard.done.wait(min(_LOOK_S, limit_s)):
            if longest_wait_for(watcher, pid) > limit_s and not guard.done.is_set():
                guard.gave_way = True
                watcher.execute("select pg_cancel_backend(%s)", (pid,))
    except psycopg.Error:
        if not guard.done.is_set():
            guard.lost = True
            with suppress(psycopg.Error):
                working.cancel_safe(timeout=5)
