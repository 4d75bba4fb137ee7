"""Makes a logical backup: one snapshot, dumped by pg_dump and counted and hashed side by side.

The snapshot is exported by a session of ours that stays in its transaction until both are done, so that what the
manifest says of each table is what the dump holds of it. The work takes ACCESS SHARE on every table and holds back
vacuum while it lasts; a waiting ALTER TABLE or TRUNCATE makes pg_dump give up (manual: "pg_dump", option --jobs).

A backup is made under a hidden name, or in a folder on this host, and published when its manifest is on disk.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from dbplatform import progress
from dbplatform.backups import catalogue
from dbplatform.backups.ahead import Ahead, working_ahead
from dbplatform.backups.catalogue import EVERYTHING, Backup, find_backup, list_backups, new_attempt
from dbplatform.backups.contents import held_against, lock_tables, read_content, read_source, ready_to_read
from dbplatform.backups.destination import Destination
from dbplatform.backups.errors import BackupFailed
from dbplatform.backups.files import require_room, size_of
from dbplatform.backups.holding import held
from dbplatform.backups.leftovers import application, clear_leftovers, remove_attempt
from dbplatform.backups.manifest import DUMP, GLOBALS, Manifest, Scope, TableContent, write_manifest
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.programs import compression_for, dump_program
from dbplatform.backups.publishing import publish
from dbplatform.backups.roles import dump_globals
from dbplatform.backups.scope import in_scope
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import ProgramFailed, login, run
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, Target, connect, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import Programs
from dbplatform.storage.place import StorageFailed

LOCK_WAIT_S = 300
#: A dump holds no indexes and is packed; a table's text form is at times longer than the table.
_ROOM_OF_LAST = 2

_DATA_BYTES = """
    select coalesce(sum(pg_table_size(c.oid)), 0)::bigint from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where (c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast'))
       or c.oid = 'pg_largeobject'::regclass
"""


def create_backup(
    target: Target,
    destination: Destination,
    policy: BackupPolicy,
    ledger: Ledger,
    *,
    database: str,
    programs: Programs,
    scope: Scope = EVERYTHING,
    run_id: str | None = None,
) -> Backup:
    """Back up ``target`` into ``destination``; the complete backup as the ledger has it.

    First clears what killed attempts on this database left, and goes on with an upload that failed. The ledger says
    ``running`` from the first moment, then ``complete`` or ``failed``; a failed attempt leaves no file, but where the
    storage failed: then the finished files wait on this host. Two at once do not disturb each other.

    Reports ``backup <database>`` in bytes written, ``upload <database>`` in bytes, and the facts ``backup <database>:
    started, exported, dumping, dumped, counted, summed, described, published, recorded``. Raises ``BackupFailed`` with
    pg_dump's own words, ``LockNotAcquired`` where a table cannot be read for five minutes, ``StorageFailed``,
    ``NoFittingProgram``, ``NoRoom``, ``TableMissing``, and what a connection raises.
    """
    backup = new_attempt(database, destination.root, scope=scope)
    made = destination.made(backup, sealed=bool(policy.encrypt_to))
    finished = False
    with held(ledger, backup.lock):
        catalogue.register(ledger, backup, run_id=run_id)
        _step(database, "started")
        try:
            with working_ahead(made, backup, destination, policy.encrypt_to, jobs=policy.logical.jobs) as ahead:
                manifest, sha256 = _make(backup, made, target, destination, policy, ledger, programs, scope, ahead)
                finished = True
                publish(made, backup, destination, manifest.files, sent=ahead.sent())
            _step(database, "published")
        except BaseException as error:
            waits = finished and isinstance(error, StorageFailed)
            if not waits:
                with suppress(OSError, StorageFailed):
                    remove_attempt(backup, destination)
            with suppress(SQLAlchemyError):
                catalogue.fail(ledger, backup.id, str(error) or type(error).__name__)
            if waits:
                raise _not_stored(database, made, error) from error
            if isinstance(error, OSError):
                raise _failed(database, f"{error.strerror or error}: {error.filename}") from error
            raise
        catalogue.complete(ledger, backup.id, manifest, sha256)
        _step(database, "recorded")
    return find_backup(ledger, database, backup.id)


def _make(
    backup: Backup,
    made: Path,
    target: Target,
    destination: Destination,
    policy: BackupPolicy,
    ledger: Ledger,
    programs: Programs,
    scope: Scope,
    ahead: Ahead,
) -> tuple[Manifest, str]:
    """The finished files in the folder ``made``; their manifest and that one's SHA-256."""
    database = backup.database
    with (
        connect(target, work=f"reads for backup {backup.id}", lock_timeout_ms=LOCK_WAIT_S * 1000) as connection,
        _naming_who_locks(connection),
    ):
        ready_to_read(connection)
        clear_leftovers(connection, ledger, database, destination)
        program = dump_program(programs, server_major=connection.info.server_version // 10000)
        told, compression = compression_for(program, policy.logical.compression)
        made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_room(made.parent, _room(connection, ledger, database), work=f"a backup of {database}")
        made.mkdir(mode=0o700)
        with snapshot(connection) as exporter:
            name = _exported(exporter)
            source = read_source(exporter)
            tables = in_scope(exporter, scope)
            lock_tables(exporter, tables.locked)
            _step(database, "exported")
            command: list[str | Path] = [
                program.path("pg_dump"),
                "--format=directory",
                f"--file={made / DUMP}",
                f"--jobs={policy.logical.jobs}",
                f"--compress={told}",
                f"--snapshot={name}",
                f"--lock-wait-timeout={LOCK_WAIT_S}s",
                "--no-password",
                # Each file is synced when it is described.
                "--no-sync",
                *tables.options,
            ]
            contents, warnings = _dump_and_count(backup, made, target, exporter, command, name, tables.counted, ahead)
            if scope.whole:
                warnings += dump_globals(program, target, exporter, made / GLOBALS, passwords=bool(policy.encrypt_to))
    _step(database, "counted")
    files = ahead.rest(task=f"sum backup {database}")
    _step(database, "summed")
    manifest = Manifest(
        id=backup.id,
        database=database,
        scope=scope,
        started_at=backup.started_at,
        finished_at=datetime.now(UTC),
        source=source,
        program=program.version,
        program_major=program.major,
        compression=compression,
        warnings=warnings,
        encrypted_to=tuple(policy.encrypt_to),
        tables=(*contents, *tables.empty),
        files=files,
    )
    sha256 = write_manifest(manifest, made)
    _step(database, "described")
    return manifest, sha256


def _dump_and_count(
    backup: Backup,
    made: Path,
    target: Target,
    exporter: SnapshotConnection,
    command: Sequence[str | Path],
    name: str,
    relations: Sequence[Relation],
    ahead: Ahead,
) -> tuple[tuple[TableContent, ...], tuple[str, ...]]:
    """Run pg_dump, and count and hash in a thread meanwhile; what fails first ends the other."""
    database = backup.database
    access = login(target, work=application(backup.id), server_of=exporter)
    with (
        connect(target, work=f"counts for backup {backup.id}", lock_timeout_ms=LOCK_WAIT_S * 1000) as reader,
        _counting(reader, name, relations, database) as counting,
    ):

        def poll() -> None:
            progress.report(f"backup {database}", done=size_of(made), unit="bytes")
            ahead.look()
            if counting.done() and counting.exception() is not None:
                counting.result()

        _step(database, "dumping")
        try:
            warnings = run([*command, f"--dbname={access.dbname}"], login=access, poll=poll)
        except ProgramFailed as error:
            raise _failed(database, str(error)) from error
        written = size_of(made)
        progress.report(f"backup {database}", done=written, total=written, unit="bytes")
        _step(database, "dumped")
        return counting.result(), warnings


@contextmanager
def _counting(
    reader: AutocommitConnection, name: str, relations: Sequence[Relation], database: str
) -> Iterator[Future[tuple[TableContent, ...]]]:
    """Count and hash in a thread; an error in the block cancels the query that runs, and all after it."""
    stopped = False

    def count() -> tuple[TableContent, ...]:
        ready_to_read(reader)
        contents = []
        for done, relation in enumerate(relations):
            if stopped:
                break
            progress.report(f"count {database}", done=done, total=len(relations), unit="tables")
            # A transaction for each table: its lock is given back, and the exporter holds one anyway.
            with snapshot(reader, of=name) as moment:
                contents.append(read_content(moment, relation))
        progress.report(f"count {database}", done=len(relations), total=len(relations), unit="tables")
        return tuple(contents)

    with ThreadPoolExecutor(1, thread_name_prefix="backup-count") as pool:
        future = pool.submit(contextvars.copy_context().run, count)
        try:
            yield future
        except BaseException:
            stopped = True
            while not future.done():
                reader.cancel_safe()
                with suppress(TimeoutError):
                    future.exception(timeout=0.2)
            raise


@contextmanager
def _naming_who_locks(connection: AutocommitConnection) -> Iterator[None]:
    """Say which session lets nobody read a table, where one of ours has waited for it in vain."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise held_against(connection, waited_ms=LOCK_WAIT_S * 1000) from error


def _exported(exporter: SnapshotConnection) -> str:
    row = exporter.execute("select pg_export_snapshot()").fetchone()
    assert row is not None
    return str(row[0])


def _room(connection: AutocommitConnection, ledger: Ledger, database: str) -> int:
    """How many bytes a dump may take: the tables' size, or twice the last backup where that is less."""
    row = connection.execute(_DATA_BYTES).fetchone()
    assert row is not None
    sizes = [backup.bytes for backup in list_backups(ledger, database) if backup.bytes]
    return min(int(row[0]), _ROOM_OF_LAST * sizes[0]) if sizes else int(row[0])


def _failed(database: str, reason: str) -> WorkError:
    return BackupFailed(
        database=database, reason=reason.rstrip("."), hint="Nothing was kept of it. Mend the cause and run it again."
    )


def _not_stored(database: str, made: Path, error: BaseException) -> WorkError:
    reason = error.message if isinstance(error, StorageFailed) else str(error)
    return BackupFailed(
        database=database,
        reason=reason.rstrip("."),
        hint=f"Its files wait in {made}; the next backup of {database} goes on with their upload first.",
    )


def _step(database: str, fact: str) -> None:
    progress.report(f"backup {database}: {fact}", done=1, total=1, unit="step")
