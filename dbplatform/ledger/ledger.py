"""The ledger as the rest of the platform sees it: a pool on its database, sessions, and the record of operations.

SQLAlchemy is imported by whoever opens a session: the record of an operation, which every short command writes, is two
plain statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from dbplatform.ledger.acting import current
from dbplatform.postgres.connection import Target, connect, sqlalchemy_url
from dbplatform.postgres.standbys import answered

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

_BEGUN = """
    insert into ledger.operation (id, database, kind, run_id, actor, origin, status)
    values (%s, %s, %s, %s, %s, %s, 'running')
"""
_ENDED = "update ledger.operation set status = %s, summary = %s, finished_at = now() where id = %s"
_ENDED_OF_RUN = """
    update ledger.operation set status = 'failed', summary = summary || %s, finished_at = now()
    where run_id = %s and status = 'running'
"""
_AT_WORK = "select distinct run_id from ledger.operation where status = 'running' and run_id is not null"

#: A ledger whose machine is gone is noticed within half a minute, not after the kernel's quarter of an hour.
_CONNECTING = {
    "application_name": "dbplatform ledger",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


@dataclass(frozen=True)
class Ledger:
    """The ledger's database. Its schema is applied by ``operations.prepare``, before the first use."""

    target: Target

    @cached_property
    def engine(self) -> Engine:
        """A small pool; connections are checked before use, because the server may have restarted."""
        from sqlalchemy import create_engine

        return create_engine(
            sqlalchemy_url(self.target), pool_size=3, max_overflow=5, pool_pre_ping=True, connect_args=_CONNECTING
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction, committed at the end of the block, rolled back by an error in it.

        Raises ``StandbyDoesNotAnswer`` where the commit waits for a standby that is gone.
        """
        from sqlalchemy.orm import Session

        with answered(self.target), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def operation(self, database: str, kind: str, *, run_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Record a change: ``running`` before it starts, ``succeeded`` or ``failed`` after.

        ``run_id``: by default the Dagster run in which it is made, if it is made in one. Yields the summary, to be
        filled by whoever makes the change. Each record is a transaction of its own, so none is held open while the
        work goes on.
        """
        id_ = uuid4()
        with answered(self.target), connect(self.target, work="ledger") as connection:
            actor = current()
            run_id = run_id or actor.run_id
            name = "dagster" if run_id else actor.name
            connection.execute(_BEGUN, (id_, database, kind, run_id, name, actor.origin))
        summary: dict[str, Any] = {}
        try:
            yield summary
        except BaseException as error:
            self._end(id_, "failed", {**summary, "error": str(error) or type(error).__name__})
            raise
        self._end(id_, "succeeded", summary)

    def end_operations(self, run_id: str, reason: str) -> None:
        """What a run that is no more has begun and not ended has failed, and why; one statement."""
        with connect(self.target, work="ledger") as connection:
            connection.execute(_ENDED_OF_RUN, (Jsonb({"error": reason}), run_id))

    def runs_at_work(self) -> list[str]:
        """The runs that have begun something and not ended it; one statement."""
        with connect(self.target, work="ledger") as connection:
            return [row[0] for row in connection.execute(_AT_WORK)]

    def _end(self, id_: UUID, status: str, summary: dict[str, Any]) -> None:
        with answered(self.target), connect(self.target, work="ledger") as connection:
            connection.execute(_ENDED, (status, Jsonb(summary), id_))
