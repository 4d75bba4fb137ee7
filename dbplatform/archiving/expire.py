"""Removes archives whose every row is older than they are to be kept, by what the file itself says.

A file goes when it is whole, was read to its end, and the newest time among its rows is before the declared age; the
files of rows that left along go with it. The ledger keeps what it was, and its rows go onto the replay list, with the
age: a backup from before would bring them back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import sql

from dbplatform.archiving import catalogue, erasures, records
from dbplatform.archiving.apply import LOCK
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.archiving.content import be_exact
from dbplatform.archiving.erase import finish
from dbplatform.archiving.erasures import Erasure
from dbplatform.archiving.errors import ArchiveDamaged, CutoffOutOfCalendar
from dbplatform.archiving.kept import reading
from dbplatform.archiving.points import reached
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.staging import staging_of
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.locks import advisory_lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """What reading one archive has shown: the newest time among its rows, and whether it may go."""

    entry: ArchiveEntry
    along: tuple[ArchiveEntry, ...]
    """The archives of rows that left along; they go with it."""
    newest: datetime | None
    due: bool
    problem: str | None
    """Why nobody can say how old it is; then it stays."""

    def as_json(self) -> dict[str, Any]:
        return {
            "id": str(self.entry.id),
            "name": self.entry.name,
            "table": self.entry.table,
            "rows": self.entry.rows,
            "bytes": self.entry.bytes,
            "location": self.entry.location,
            "along": [str(one.id) for one in self.along],
            "newest": self.newest.isoformat() if self.newest else None,
            "due": self.due,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryReport:
    """The archives of one policy, each as it was judged; those that are ``due`` go, or went."""

    name: str
    before: datetime
    archives: tuple[Age, ...]

    @property
    def due(self) -> tuple[Age, ...]:
        return tuple(one for one in self.archives if one.due)

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(one.problem for one in self.archives if one.problem is not None)

    def as_json(self) -> dict[str, Any]:
        """One policy of ``archive expire --json``."""
        return {
            "name": self.name,
            "before": self.before.isoformat(),
            "archives": [one.as_json() for one in self.archives],
        }


def plan_expiry(
    connection: AutocommitConnection, ledger: Ledger, policy: ArchivePolicy, *, database: str, now: datetime
) -> ExpiryReport:
    """Which archives of a policy that says ``keep`` are due at ``now`` (aware); only reads, every file of them.

    Archives whose rows are back in their table, or have not all left it, are no subject of it.
    """
    assert policy.keep is not None, "asked for policies that say keep"
    try:
        before = now.astimezone(UTC) - policy.keep.relativedelta
    except (ValueError, OverflowError) as error:
        raise CutoffOutOfCalendar(
            older_than=str(policy.keep), now=now.isoformat(), hint="Write a shorter keep."
        ) from error
    entries = [
        entry
        for entry in catalogue.list_archives(ledger, database)
        if (entry.name, entry.status, entry.parent_id) == (policy.name, "deleted", None) and entry.column is not None
    ]
    return ExpiryReport(
        name=policy.name,
        before=before,
        archives=tuple(_judged(connection, ledger, entry, before) for entry in entries),
    )


def apply_expiry(
    connection: AutocommitConnection,
    ledger: Ledger,
    policy: ArchivePolicy,
    *,
    database: str,
    now: datetime,
    work: Path,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
) -> ExpiryReport:
    """Remove what is due, each file judged again. Under the advisory lock ``archive``; can be run again.

    An archive is first listed as removed and its rows put onto the replay list, in one transaction; then its files go.
    Raises ``StorageFailed``: then the next run removes them.
    """
    with advisory_lock(connection, LOCK, wait_ms=wait_ms, sleep=sleep):
        records.ensure_records(connection)
        finish(connection, ledger, database, work=work)
        report = plan_expiry(connection, ledger, policy, database=database, now=now)
        for age in report.due:
            _decide(connection, ledger, age, report.before, now)
            reached(policy.name, "decided", age.entry.rows, age.entry.rows)
            finish(connection, ledger, database, work=work)
        return report


def _judged(connection: AutocommitConnection, ledger: Ledger, entry: ArchiveEntry, before: datetime) -> Age:
    along = tuple(catalogue.along(ledger, entry))
    newest, problem = None, None
    try:
        newest = _newest(connection, entry)
        if newest is not None and newest < before:
            for one in (entry, *along):
                catalogue.require_whole(one, connection)
    except ArchiveDamaged as error:
        problem = error.message
    due = problem is None and newest is not None and newest < before
    return Age(entry=entry, along=along, newest=newest, due=due, problem=problem)


def _newest(connection: AutocommitConnection, entry: ArchiveEntry) -> datetime | None:
    """The newest time among the rows of the file, of a date its end; None where one has none of the calendar."""
    assert entry.column is not None
    newest: datetime | None = None
    with (
        reading(entry.location, entry.sha256, connection) as reader,
        staging_of(connection, reader.metadata.columns) as stage,
    ):
        is_date = any(one.name == entry.column and one.type == "date" for one in reader.metadata.columns)
        statement = sql.SQL(
            "select bool_or(x.{column} is null or x.{column} > '9999-12-30'),"
            " max(x.{column}::timestamptz + {day}) filter (where x.{column} between '0001-01-02' and '9999-12-30')"
            " from {stage} as x"
        ).format(
            column=sql.Identifier(entry.column),
            day=sql.SQL("interval {}").format(sql.Literal("1 day" if is_date else "0")),
            stage=stage.table,
        )
        for block in reader.blocks():
            stage.replace(block)
            row = connection.execute(statement).fetchone()
            assert row is not None
            out_of_calendar, here = row
            if out_of_calendar:
                return None
            newest = max((one for one in (newest, here) if one is not None), default=None)
    return newest


def _decide(connection: AutocommitConnection, ledger: Ledger, age: Age, before: datetime, now: datetime) -> None:
    """List the archives as removed, and the rows that had left by them on the replay list."""
    entry = age.entry
    salt = erasures.salt_of(ledger, entry.database, entry.table)
    hashes: set[bytes] = set()
    with reading(entry.location, entry.sha256, connection) as reader:
        key = reader.metadata.key
        with staging_of(connection, reader.metadata.columns) as stage:
            for block in reader.blocks():
                stage.replace(block)
                with connection.transaction():
                    be_exact(connection)
                    rows = connection.execute(
                        sql.SQL("select {} from {} as x where {}").format(
                            erasures.key_hash(salt, key, "x"),
                            stage.table,
                            records.not_kept(connection, entry.id, stage.ordinal),
                        )
                    )
                    hashes.update(bytes(row[0]) for row in rows)
    erasure = Erasure(
        id=uuid.uuid4(),
        database=entry.database,
        table=entry.table,
        cause="expired",
        key=key,
        salt=salt,
        rows=len(hashes),
        column=entry.column,
        before=before,
        decided_at=now,
    )
    erasures.decide(
        ledger,
        erasure,
        sorted(hashes),
        removed=[
            catalogue.removed(one, erasure=erasure.id, newest=age.newest if one is entry else None)
            for one in (entry, *age.along)
        ],
    )
