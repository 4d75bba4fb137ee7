"""Commits that wait for a synchronous standby which is gone: PostgreSQL gives such a wait no end, so it is given one.

Where ``synchronous_standby_names`` is set, a commit returns when a standby has its WAL, too. While none answers, each
session that has written waits, with all of its locks; neither ``statement_timeout`` nor a client that is gone ends
that. Whoever ends it finds the transaction committed on the primary, and maybe on no standby. Source: PostgreSQL
manual, "Synchronous Replication".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from dbplatform.errors import WorkError
from dbplatform.postgres.connection import AutocommitConnection, Target, connect, hang_up

#: A standby that was only restarted is back by then.
LIMIT_S = 60.0
#: Work that is done sooner costs nothing.
LOOK_S = 5.0

_NAMES = "select current_setting('synchronous_standby_names')"
_WAITING = """
    select pid, query_start from pg_stat_activity
    where wait_event = 'SyncRep' and usename = session_user and application_name like 'dbplatform %'
"""


class StandbyDoesNotAnswer(WorkError):
    """On the server of {target} a commit has waited {seconds:g} s for a synchronous standby ({names}); none answers."""


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What the watching thread saw."""

    target: Target
    names: str = ""
    ended: bool = False
    """A session that waited was ended."""
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look until the block is left; on a server without synchronous standbys once."""
        if self.done.wait(LOOK_S):
            return
        # A server that cannot be asked ends the work itself.
        with suppress(WorkError, psycopg.Error), connect(self.target, work="standbys") as session:
            self._look(session)

    def _look(self, session: AutocommitConnection) -> None:
        since: dict[tuple[int, datetime], float] = {}
        while names := _one(session):
            now = time.monotonic()
            waiting: list[tuple[int, datetime]] = session.execute(_WAITING).fetchall()
            since = {wait: since.get(wait, now) for wait in waiting}
            for pid, _ in [wait for wait in waiting if now - since[wait] >= LIMIT_S]:
                self.names, self.ended = names, True
                session.execute("select pg_terminate_backend(%s)", (pid,))
                # One with temporary tables drops them at its end, and waits again for the commit of that.
                hang_up(pid, session)
            if self.done.wait(LOOK_S):
                return


@contextmanager
def answered(target: Target) -> Iterator[None]:
    """Within the block, end the sessions of the platform on this server that wait for a lost standby for a minute.

    What they had committed is committed; whatever they hold is free, but for the session locks of one with temporary
    tables, which PostgreSQL ends when a standby is back. The error that follows is raised as
    ``StandbyDoesNotAnswer``. Opens a session of its own where the block lasts longer than a few seconds, which stays
    only where the server has synchronous standbys. Needs no rights beyond those of the target's user.
    """
    watch = _Watch(target=target)
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        if not watch.ended:
            raise
        raise StandbyDoesNotAnswer(
            target=target.name,
            seconds=LIMIT_S,
            names=watch.names,
            hint="What was committed is on the primary, and maybe on no standby. Start the standby (see "
            "pg_stat_replication), or take it out of synchronous_standby_names; then run the command again.",
        ) from error
    finally:
        watch.done.set()
        thread.join()


def _one(session: AutocommitConnection) -> str:
    row = session.execute(_NAMES).fetchone()
    assert row is not None
    return str(row[0])
