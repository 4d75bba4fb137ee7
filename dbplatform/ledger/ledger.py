"""The ledger as the rest of the platform sees it: a pool on its database, sessions, and the record of operations."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Engine, create_engine, func
from sqlalchemy.orm import Session

from dbplatform.ledger.models import Operation
from dbplatform.postgres.connection import Target


@dataclass(frozen=True)
class Ledger:
    """The ledger's database. Its schema is applied by ``operations.prepare``, before the first use."""

    target: Target

    @cached_property
    def engine(self) -> Engine:
        """A small pool; connections are checked before use, because the server may have restarted."""
        return create_engine(sqlalchemy_url(self.target), pool_size=3, max_overflow=5, pool_pre_ping=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction, committed at the end of the block, rolled back by an error in it."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def operation(self, database: str, kind: str, *, run_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Record a change: ``running`` before it starts, ``succeeded`` or ``failed`` after.

        Yields the summary, to be filled by whoever makes the change. Each record is a transaction of its own, so
        none is held open while the work goes on.
        """
        with self.session() as session:
            record = Operation(
                database=database,
                kind=kind,
                run_id=run_id,
                actor="dagster" if run_id else getpass.getuser(),
                status="running",
                summary={},
            )
            session.add(record)
        summary: dict[str, Any] = {}
        try:
            yield summary
        except BaseException as error:
            self._finish(record, "failed", {**summary, "error": str(error)})
            raise
        self._finish(record, "succeeded", summary)

    def _finish(self, record: Operation, status: str, summary: dict[str, Any]) -> None:
        with self.session() as session:
            stored = session.get_one(Operation, record.id)
            stored.status, stored.summary, stored.finished_at = status, summary, func.now()


def sqlalchemy_url(target: Target) -> URL:
    """The same target for SQLAlchemy with psycopg 3; settings such as ``sslmode`` stay."""
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
