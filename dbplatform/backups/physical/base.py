"""Takes a base backup: the whole server by pg_basebackup, read again by pg_verifybackup, packed, described.

It belongs to the server, so that one serves all databases on it. An incremental one holds the blocks that changed since
its parent (from PostgreSQL 17 on, where the server summarizes its WAL). The WAL from its start to its end is inside, so
that it can be recovered even where no WAL is archived. No table is locked; the checkpoint at its start is a fast one,
and reading all data costs the server disk and network.

Like a dump it counts when its manifest, which is written last, is at its destination.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from dbplatform import progress
from dbplatform.backups import catalogue
from dbplatform.backups.catalogue import Backup, list_backups, mark_damaged, new_attempt, reading
from dbplatform.backups.destination import Destination
from dbplatform.backups.errors import BackupDamaged, NotRestorable
from dbplatform.backups.files import Problem, check_files, describe_files, require_room, size_of
from dbplatform.backups.holding import held, unhurried
from dbplatform.backups.leftovers import adopted, application, end_sessions, remove_attempt
from dbplatform.backups.manifest import MANIFEST, FileEntry, write_manifest
from dbplatform.backups.physical.errors import BaseBackupFailed, BaseBackupRunning
from dbplatform.backups.physical.known import databases_on, remember
from dbplatform.backups.physical.manifest import (
    BACKUP_MANIFEST,
    PACKED,
    PhysicalManifest,
    ServerSource,
    load_physical,
)
from dbplatform.backups.physical.packing import pack
from dbplatform.backups.physical.server import Server, read_server
from dbplatform.backups.physical.tablespaces import bring_in, created_in, mappings
from dbplatform.backups.physical.wal import parse_lsn
from dbplatform.backups.physical.witness import testify
from dbplatform.backups.programs import same_major
from dbplatform.backups.publishing import publish
from dbplatform.backups.sealing import seal_files
from dbplatform.backups.verify import Verification
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import Login, ProgramFailed, login, run
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.programs import Programs
from dbplatform.postgres.standbys import answered
from dbplatform.storage.place import StorageFailed

DATA = "data"
TABLESPACES = "tablespaces"
_INCREMENTAL_SINCE = 17
_TIMELINE = re.compile(r"^START TIMELINE: (\d+)$", re.MULTILINE)
_START = re.compile(r"^START WAL LOCATION: (\S+)", re.MULTILINE)


def plan_base(target: Target, ledger: Ledger, *, programs: Programs, incremental: int) -> tuple[Server, Backup | None]:
    """Look whether a base backup can be taken; the server, and the parent where it would be incremental. Only reads.

    Raises ``ReplicationForbidden``, ``NotPrimary``, ``NoSameProgram``.
    """
    with connect(target, work="base backup plan") as connection:
        server = _ready(connection, target, programs)
    return server, _parent(ledger, server, incremental)


def create_base(
    target: Target,
    destination: Destination,
    ledger: Ledger,
    *,
    database: str,
    programs: Programs,
    incremental: int,
    encrypt_to: Sequence[str] = (),
    run_id: str | None = None,
    begins: Callable[[], None] = lambda: None,
) -> Backup:
    """Take a base backup of the server of ``target`` into ``destination``; as the ledger has it.

    ``incremental`` is how many incremental ones may follow a full one; where one fails because the server has no
    summaries of its WAL, a full one is taken instead and the manifest says why. The ledger says ``running`` from the
    first moment, then ``complete`` or ``failed``; a failed attempt leaves no file. Before and behind it a witness is
    committed; the first tells what is in the tables of ``database``.

    ``begins`` is called when no other one is being taken, before the server is asked for its copy. Reports ``base
    backup <server>`` in bytes and the facts ``base backup <server>: started, witnessed, copied,
    verified, packed, described, published, recorded``. Raises what ``plan_base`` raises, ``BaseBackupRunning``,
    ``NoRoom``, ``WalNotLookedThrough``, ``StandbyDoesNotAnswer`` and ``BaseBackupFailed`` with pg_basebackup's own
    words.
    """
    with answered(target), connect(target, work="base backup") as connection:
        unhurried(connection)
        server = _ready(connection, target, programs)
        remember(ledger, database, system=server.system, on_server=connection.info.dbname)
        with held(ledger, taking(server.system)) as mine:
            if not mine:
                raise BaseBackupRunning(server=server.place, hint="Wait for it: it serves every database there.")
            _clear_killed(connection, ledger, server, destination)
            backup = replace(new_attempt(server.key, destination.root), kind="physical")
            made = destination.made(backup, sealed=bool(encrypt_to))
            with held(ledger, backup.lock):
                catalogue.register(ledger, backup, run_id=run_id)
                _step(server, "started")
                try:
                    begins()
                    testify(connection, ledger, system=server.system, database=database, hashes=True)
                    _step(server, "witnessed")
                    manifest, sha256 = _make(
                        connection, target, backup, made, server, ledger, programs, incremental, encrypt_to
                    )
                    publish(made, backup, destination, manifest.files)
                    _step(server, "published")
                except BaseException as error:
                    with suppress(OSError, StorageFailed):
                        remove_attempt(backup, destination)
                    with suppress(SQLAlchemyError):
                        catalogue.fail(ledger, backup.id, str(error) or type(error).__name__)
                    if isinstance(error, OSError):
                        raise _failed(server, f"{error.strerror or error}: {error.filename}") from error
                    raise
                catalogue.complete(ledger, backup.id, manifest, sha256)
                _step(server, "recorded")
            testify(connection, ledger, system=server.system, database=database, hashes=False)
    return next(made for made in list_backups(ledger, server.key) if made.id == backup.id)


def taking(system: str) -> str:
    """The lock of whoever takes a base backup of a server: one at a time."""
    return f"base backup {system}"


def chain_of(ledger: Ledger, backup: Backup) -> tuple[tuple[Backup, PhysicalManifest], ...]:
    """The backup with all that it rests on, the full one first; raises ``BackupDamaged`` where one is gone."""
    manifest = load_physical(backup)
    links = [(backup, manifest)]
    known = {other.id: other for other in list_backups(ledger, backup.database, pruned=True)}
    while links[-1][1].parent is not None:
        parent = known.get(links[-1][1].parent or "")
        if parent is None or parent.status != "complete":
            raise catalogue.damaged(backup, f"the backup {links[-1][1].parent} on which it rests is gone")
        links.append((parent, load_physical(parent)))
    return tuple(reversed(links))


@contextmanager
def reading_chain(ledger: Ledger, backups: Iterable[Backup]) -> Iterator[None]:
    """Keep backups from being pruned for the block. Raises ``BackupInUse`` while one is."""
    with ExitStack() as holds:
        for backup in backups:
            holds.enter_context(reading(ledger, backup))
        yield


def verify_base(backup: Backup, ledger: Ledger) -> Verification:
    """Compare every file of a complete base backup, and of those on which it rests, with the manifests.

    pg_verifybackup has read its data before it was packed; that it can be recovered is shown by a drill alone. Raises
    ``NotRestorable``, ``BackupUnreadable`` and ``BackupInUse`` where it could not look.
    """
    if backup.status != "complete":
        raise NotRestorable(id=backup.id, status=backup.status, hint="Choose a complete one.")
    problems: list[Problem] = []
    files = size = 0
    try:
        for link, manifest in chain_of(ledger, backup):
            with reading(ledger, link):
                found = check_files(link, manifest)
            if found:
                mark_damaged(ledger, link.id, [str(problem) for problem in found])
            problems += found
            files, size = files + len(manifest.files) + 1, size + manifest.bytes
    except BackupDamaged as error:
        problems.append(Problem(file=MANIFEST, what=str(error.fields["problems"]).removeprefix(f"{MANIFEST} ")))
    if problems:
        mark_damaged(ledger, backup.id, [str(problem) for problem in problems])
    return Verification(backup_id=backup.id, files=files, bytes=size, problems=tuple(problems))


def _ready(connection: AutocommitConnection, target: Target, programs: Programs) -> Server:
    server = read_server(connection, target)
    if server.refusal is not None:
        raise server.refusal
    for name in ("pg_basebackup", "pg_verifybackup", "pg_waldump"):
        same_major(programs, name, major=server.major)
    return server


def _parent(ledger: Ledger, server: Server, incremental: int) -> Backup | None:
    """The newest complete backup, when another incremental one may follow it."""
    if server.major < _INCREMENTAL_SINCE or not server.summarizes_wal:
        return None
    for backup in list_backups(ledger, server.key):
        if backup.status == "complete" and backup.damage is None:
            try:
                return backup if len(chain_of(ledger, backup)) <= incremental else None
            except BackupDamaged:
                return None
    return None


def _clear_killed(connection: AutocommitConnection, ledger: Ledger, server: Server, destination: Destination) -> None:
    """Bring ledger and disk in order after attempts on this server that were killed; the caller holds its lock.

    One that lies at its destination, with every file right, becomes complete. Of any other the files go.
    """
    for backup in list_backups(ledger, server.key, pruned=True, left=True):
        if backup.status == "running":
            end_sessions(connection, backup)
            if adopted(ledger, backup, load_physical):
                continue
            catalogue.fail(ledger, backup.id, "its process was ended before it had finished")
        remove_attempt(backup, destination)
        catalogue.mark_removed(ledger, backup.id)


def _make(
    connection: AutocommitConnection,
    target: Target,
    backup: Backup,
    made: Path,
    server: Server,
    ledger: Ledger,
    programs: Programs,
    incremental: int,
    encrypt_to: Sequence[str],
) -> tuple[PhysicalManifest, str]:
    """The finished files in the folder ``made``; their manifest and that one's SHA-256."""
    program = same_major(programs, "pg_basebackup", major=server.major)
    made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parent = _parent(ledger, server, incremental)
    if parent is None:
        require_room(made.parent, server.bytes, work=f"a base backup of {server.place}")
    made.mkdir(mode=0o700)
    data = made / DATA
    access = login(target, work=application(backup.id), server_of=connection)
    parent, warnings = _copy(program, access, data, server, parent, backup)
    if strangers := bring_in(data, made.absolute() / TABLESPACES):
        raise _failed(
            server,
            f"a tablespace was created meanwhile; remove its copy, where that is not the server's: {strangers[0]}",
        )
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    data_bytes = size_of(data)
    _step(server, "copied")
    try:
        run([program.path("pg_verifybackup"), "--quiet", data], poll=lambda: None)
    except ProgramFailed as error:
        raise _failed(server, f"pg_verifybackup says {error}") from error
    _step(server, "verified")
    source = _source(server, data, row[0])
    _require_no_creation(server, data, source, program)
    listed = (data / BACKUP_MANIFEST).read_bytes()
    task = f"pack base backup {server.place}"
    pack(data, made / PACKED, poll=lambda n: progress.report(task, done=n, total=data_bytes, unit="bytes"))
    shutil.rmtree(data)
    task = f"sum base backup {server.place}"
    files = seal_files(made, encrypt_to, task=task) if encrypt_to else describe_files(made, task=task)
    # The next incremental backup reads it, on a host that may have no key; it holds names and sums alone.
    write_synced(made / BACKUP_MANIFEST, listed)
    files += (FileEntry(name=BACKUP_MANIFEST, bytes=len(listed), sha256=hashlib.sha256(listed).hexdigest()),)
    _step(server, "packed")
    manifest = PhysicalManifest(
        id=backup.id,
        database=server.key,
        declared=databases_on(ledger, server.system),
        started_at=backup.started_at,
        finished_at=datetime.now(UTC),
        source=source,
        parent=parent.id if parent is not None else None,
        program=program.version,
        program_major=program.major,
        warnings=warnings,
        data_bytes=data_bytes,
        encrypted_to=tuple(encrypt_to),
        files=files,
    )
    sha256 = write_manifest(manifest, made)
    _step(server, "described")
    return manifest, sha256


def _copy(
    program: Programs, access: Login, data: Path, server: Server, parent: Backup | None, backup: Backup
) -> tuple[Backup | None, tuple[str, ...]]:
    """Run pg_basebackup; the parent that it rests on, and its warnings."""
    command: list[str | Path] = [
        program.path("pg_basebackup"),
        f"--pgdata={data}",
        "--format=plain",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--manifest-checksums=SHA256",
        # What is kept is the packed file, which is synced.
        "--no-sync",
        f"--label=dbplatform {backup.id}",
        "--no-password",
        f"--dbname={access.dbname}",
        *mappings(server.tablespaces, data.parent.absolute() / TABLESPACES),
    ]
    task = f"base backup {server.place}"

    def poll() -> None:
        progress.report(task, done=size_of(data.parent), total=server.bytes if parent is None else None, unit="bytes")

    if parent is not None:
        try:
            with tempfile.TemporaryDirectory(prefix="dbplatform-base-") as folder:
                based_on = Path(folder) / BACKUP_MANIFEST
                with parent.store.reading(BACKUP_MANIFEST) as file:
                    based_on.write_bytes(file.read())
                return parent, run([*command, f"--incremental={based_on}"], login=access, poll=poll)
        except ProgramFailed as error:
            if "summar" not in str(error):
                raise _failed(server, str(error)) from error
            shutil.rmtree(data, ignore_errors=True)
            shutil.rmtree(data.parent / TABLESPACES, ignore_errors=True)
            why = f"no incremental backup could be taken, so this is a full one: {error}"
    try:
        warnings = run(command, login=access, poll=poll)
    except ProgramFailed as error:
        raise _failed(server, str(error)) from error
    return None, (*warnings, *((why,) if parent is not None else ()))


def _source(server: Server, data: Path, taken_at: datetime) -> ServerSource:
    """Where in the WAL the copy begins and ends, from the files that the server itself put into it."""
    label = (data / "backup_label").read_text()
    timeline, start = _TIMELINE.search(label), _START.search(label)
    described: dict[str, Any] = json.loads((data / BACKUP_MANIFEST).read_bytes())
    ranges: Sequence[dict[str, Any]] = described["WAL-Ranges"]
    if timeline is None or start is None or not ranges:
        raise _failed(server, "it does not tell its place in the WAL")
    return ServerSource(
        system_identifier=server.system,
        server_version=server.version,
        server_major=server.major,
        segment_bytes=server.segment_bytes,
        timeline_id=int(timeline[1]),
        start_lsn=start[1],
        stop_lsn=ranges[-1]["End-LSN"],
        taken_at=taken_at,
        superuser=server.superuser,
        databases=server.databases,
        server_bytes=server.bytes,
    )


def _require_no_creation(server: Server, data: Path, source: ServerSource, program: Programs) -> None:
    """Fail where the WAL of the copy itself creates a tablespace: no recovery could get past it."""
    created = created_in(
        data / "pg_wal",
        program.path("pg_waldump"),
        timeline=source.timeline_id,
        start=parse_lsn(source.start_lsn),
        end=parse_lsn(source.stop_lsn),
    )
    if created is not None:
        raise _failed(server, f"the tablespace in {created.location} was created meanwhile")


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file, on disk for sure."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _failed(server: Server, reason: str) -> WorkError:
    hint = "Nothing was kept of it. Mend the cause and run it again."
    if "no pg_hba.conf entry for replication" in reason:
        hint = "Allow the user the connection in pg_hba.conf: host replication USER ADDRESS scram-sha-256; then reload."
    return BaseBackupFailed(server=server.place, reason=reason.rstrip("."), hint=hint)


def _step(server: Server, fact: str) -> None:
    progress.report(f"base backup {server.place}: {fact}", done=1, total=1, unit="step")
