"""What the tests of archiving share, such as an archive or a restore that kills itself at a named point."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform import progress
from dbplatform.archiving import export
from dbplatform.archiving.apply import ArchiveReport, apply_archive
from dbplatform.archiving.catalogue import ArchiveEntry, ArchiveVerification, list_archives, verify_archive
from dbplatform.archiving.erase import Chosen, ErasureReport, apply_erasure
from dbplatform.archiving.expire import ExpiryReport, apply_expiry
from dbplatform.archiving.pace import Throttle
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.archiving.restore import RestoreReport, restore_archive
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.storage.folder import FolderPlace
from dbplatform.storage.place import Place

NOW = datetime(2026, 7, 1, tzinfo=UTC)
#: When what was archived at NOW has become older than half a year.
LATER = datetime(2027, 2, 1, tzinfo=UTC)
DATABASE = "shop"
QUICK = Throttle(batch_rows=70, pause_s=0, lock_timeout_ms=200, tries=4)

#: 1000 rows, 700 of them older than a month at NOW, in several types.
ORDERS = """
    create table orders (
        id bigint generated always as identity primary key,
        at timestamptz not null,
        amount numeric,
        note text,
        doubled numeric generated always as (amount * 2) stored
    );
    insert into orders (at, amount, note)
    select timestamptz '2026-01-01' + i * interval '5 hours', i / 7.0, nullif('note ' || i % 13, 'note 0')
    from generate_series(1, 700) i;
    insert into orders (at, amount) select timestamptz '2026-06-20' + i * interval '1 minute', i
    from generate_series(1, 300) i;
"""


def fill(target: Target, script: str) -> None:
    with psycopg.connect(target.url) as session:
        session.execute(script.encode())


def ask(target: Target, query: str) -> Any:
    """The single row of a query, its single value alone."""
    with psycopg.connect(target.url) as session:
        row = session.execute(query.encode()).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def content(target: Target, table: str = "orders") -> str:
    """The content hash of a table."""
    with connect(target, work="look") as connection:
        return catalog.content_hash(connection, Relation.parse(table))


def prove(target: Target) -> ProvenSnapshot:
    """A proof as a backup taken at this moment would give it."""
    snapshot, system, oid, now = ask(
        target,
        "select pg_current_snapshot()::text, (select system_identifier from pg_control_system()),"
        " (select oid::int8 from pg_database where datname = current_database()), now()",
    )
    return ProvenSnapshot(
        backup_id="backup-1", snapshot=snapshot, system_identifier=system, database_oid=oid, taken_at=now
    )


def policy(table: str = "orders", column: str = "at", **fields: Any) -> ArchivePolicy:
    return ArchivePolicy(**{"name": "old", "table": table, "column": column, "older_than": "1 month", **fields})


def archive(
    target: Target,
    ledger: Ledger,
    place: Path | Place,
    declared: ArchivePolicy | None = None,
    *,
    proof: ProvenSnapshot | None = None,
    **options: Any,
) -> ArchiveReport:
    """Archive behind a proof of this very moment, without pauses."""
    given = proof or prove(target)
    options = {"recheck": lambda: given, "throttle": QUICK, "sleep": lambda _: None, **options}
    with connect(target, work="test") as connection:
        return apply_archive(
            connection,
            declared or policy(),
            ledger,
            FolderPlace(place) if isinstance(place, Path) else place,
            database=DATABASE,
            proof=given,
            now=options.pop("now", NOW),
            **options,
        )


def restore(
    target: Target, ledger: Ledger, archive_id: str | uuid.UUID, into: str | None = None, **options: Any
) -> RestoreReport:
    with connect(target, work="test") as connection:
        return restore_archive(
            connection,
            ledger,
            str(archive_id),
            database=DATABASE,
            into=Relation.parse(into) if into else None,
            **options,
        )


#: Of the rows that an erasure is about.
NAMED = Chosen(where="name in ('Person 7', 'Person 90')")


def erase(
    target: Target, ledger: Ledger, work: Path, chosen: Chosen = NAMED, table: str = "orders", **options: Any
) -> list[ErasureReport]:
    with connect(target, work="test") as connection:
        return apply_erasure(
            connection,
            ledger,
            Relation.parse(table),
            chosen,
            database=DATABASE,
            now=datetime.now(UTC),
            work=work,
            sleep=lambda _: None,
            **options,
        )


def expire(target: Target, ledger: Ledger, work: Path, declared: ArchivePolicy, now: datetime = LATER) -> ExpiryReport:
    with connect(target, work="test") as connection:
        return apply_expiry(connection, ledger, declared, database=DATABASE, now=now, work=work, sleep=lambda _: None)


@contextmanager
def copies(target: Target) -> Iterator[Callable[[], Target]]:
    """Makes a copy of the database as it is, as a restored backup would be one; it goes with the block."""
    own = sql.Identifier(psycopg.conninfo.conninfo_to_dict(target.url)["dbname"])
    other = f"{own.as_string()[1:-1]}_copy"
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(other))

    def copy() -> Target:
        session.execute(drop)
        session.execute(sql.SQL("create database {} template {}").format(sql.Identifier(other), own))
        return replace(target, url=make_conninfo(target.url, dbname=other))

    with psycopg.connect(make_conninfo(target.url, dbname="postgres"), autocommit=True) as session:
        try:
            yield copy
        finally:
            session.execute(drop)


def only(ledger: Ledger) -> ArchiveEntry:
    """The one archive that there is."""
    (entry,) = list_archives(ledger, DATABASE)
    return entry


def verify(target: Target, ledger: Ledger, archive_id: str | uuid.UUID) -> ArchiveVerification:
    with connect(target, work="test") as connection:
        return verify_archive(ledger, DATABASE, archive_id, connection)


def flip(path: Path) -> None:
    """Change one bit in the middle of the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def at(point: str, action: Any, done: int = 0, task: str = "old") -> Any:
    """A listener that calls ``action`` the first time that the archive ``old`` comes to the point."""
    called: list[bool] = []

    def listen(fact: progress.Progress) -> None:
        if fact.task == f"archive {task} {point}" and fact.done >= done and not called:
            called.append(True)
            action()

    return progress.listening(listen)


def killed(
    verb: str,
    target: Target,
    ledger: Ledger,
    place: Path | Place,
    proof: ProvenSnapshot,
    point: str,
    done: int,
    archive_id: str = "",
    declared: ArchivePolicy | None = None,
) -> None:
    """Run the work in a process of its own that dies by SIGKILL at the point, of the archive ``old``.

    ``public.lines verify`` is the point of rows along, ``erase decided`` one of the erasure of ``NAMED``.
    """
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])  # the imports are paid for once
    # The server of forks keeps the environment that it began with.
    storage = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    arguments = (verb, target.url, ledger.target.url, place, proof, point, done, archive_id, declared, storage)
    process = processes.Process(target=_die_at, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the point was not reached"
    for _ in _until_gone(target):
        pass


def finished_after_a_kill(
    target: Target, ledger: Ledger, place: Place, point: str, done: int, listed: list[str], debris: Callable[[], object]
) -> None:
    """Archive ``ORDERS`` into a place, killed at the point: the next run ends right, and a restore brings all back.

    ``listed``: the archives that the ledger knows after the kill, by their status; ``debris``: what must not be left.
    """
    fill(target, ORDERS)
    before, proof = content(target), prove(target)
    killed("archive", target, ledger, place, proof, point, done)
    assert [entry.status for entry in list_archives(ledger, DATABASE)] == listed
    archive(target, ledger, place, proof=proof)
    entry = only(ledger)
    assert (entry.status, entry.deleted_rows) == ("deleted", 700)
    assert not debris()
    assert restore(target, ledger, entry.id).restored == 700
    assert content(target) == before


def _until_gone(target: Target) -> Iterator[None]:
    """The server notices by itself that the client is dead; what it had begun is rolled back then."""
    with psycopg.connect(target.url, autocommit=True) as session:
        while session.execute(
            "select 1 from pg_stat_activity where datname = current_database() and application_name = 'dbplatform test'"
        ).fetchone():
            yield


def _die_at(
    verb: str,
    url: str,
    ledger_url: str,
    place: Path | Place,
    proof: ProvenSnapshot,
    point: str,
    done: int,
    archive_id: str,
    declared: ArchivePolicy | None,
    storage: dict[str, str],
) -> None:
    os.environ.update(storage)
    export.BLOCK_ROWS = 300
    target, ledger = Target(DATABASE, url), Ledger(Target("ledger", ledger_url))

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    task, _, point = point.rpartition(" ") if point.startswith(("public.", "erase ")) else ("", "", point)
    with at(point, die, done, task=f"old/{task}" if task.startswith("public.") else task or "old"):
        if verb == "archive":
            archive(target, ledger, place, declared, proof=proof)
        elif verb == "erase":
            assert isinstance(place, Path)
            erase(target, ledger, place)
        elif verb == "expire":
            assert isinstance(place, Path)
            assert declared is not None
            expire(target, ledger, place, declared)
        else:
            restore(target, ledger, archive_id)
