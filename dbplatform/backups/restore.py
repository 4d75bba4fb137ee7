"""Brings a database back from a backup: into a database of another name first, renamed when all of it is there.

Everything that can be known beforehand is looked at before anything starts. A restored database is isolated: it has no
subscriptions. A killed restore leaves a database of our own naming, which the next one on that server drops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, load_manifest, mark_damaged, reading
from dbplatform.backups.compare import TableProof, compare
from dbplatform.backups.destination import default_work
from dbplatform.backups.errors import BackupDamaged, DatabaseExists, NotWhole, ReplaceMismatch, RestoreFailed
from dbplatform.backups.files import require_files, require_key, unpacked
from dbplatform.backups.kept import drop_proof
from dbplatform.backups.loading import check_server, load
from dbplatform.backups.manifest import DUMP, Manifest
from dbplatform.backups.scratch import Scratch, drop, maintained, scratch_database
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.programs import Programs

RENAME_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What was restored, and that every table of it holds what the backup's snapshot held."""

    backup_id: str
    name: str
    replaced: bool
    seconds: float
    tables: tuple[TableProof, ...]
    erased_again: dict[str, int]
    """Rows by table that the backup held and that were erased on purpose since."""

    def as_json(self) -> dict[str, Any]:
        """The document of ``restore --json``."""
        return {
            "backup_id": self.backup_id,
            "name": self.name,
            "replaced": self.replaced,
            "seconds": self.seconds,
            "tables": [table.as_json() for table in self.tables],
            "erased_again": self.erased_again,
        }


def check_restore(
    backup: Backup,
    server: Target,
    name: str,
    ledger: Ledger,
    *,
    replace: str | None = None,
    owners: bool = True,
    room: Path | None = None,
    compare_files: bool = True,
) -> Manifest:
    """All that is looked at before a restore; what it is about to restore. Only reads, all files of the backup too.

    Without ``compare_files`` only its manifest and its key: for whoever compares them next. Raises ``DatabaseExists``,
    ``ReplaceMismatch``, ``NotWhole``, ``ServerTooOld``, ``ServerLacks``, ``NoRoom``, ``KeyMissing``, ``WrongKey``,
    ``BackupDamaged`` (then the ledger marks the backup), ``BackupUnreadable`` or ``StorageFailed``.
    """
    with connect(server, work="restore plan") as connection:
        may_become(connection, server, name, replace)
        with marking(ledger, backup):
            manifest = load_manifest(backup)
            require_key(backup, manifest)
            if compare_files:
                require_files(backup, manifest)
        if manifest.scope.what in ("data", "tables"):
            raise NotWhole(
                id=backup.id,
                scope=manifest.scope,
                hint="Bring tables of it back into a database that has their types: dbplatform restore "
                f"{backup.database} --backup {backup.id} --table NAME",
            )
        check_server(connection, server, backup, manifest, roles=owners, room=room)
    return manifest


def restore_backup(
    backup: Backup,
    server: Target,
    name: str,
    ledger: Ledger,
    *,
    programs: Programs,
    jobs: int = 2,
    replace: str | None = None,
    owners: bool = True,
    room: Path | None = None,
    work: Path | None = None,
    before_named: Callable[[Target], Mapping[str, int]] = lambda restored: {},
    before_renamed: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> RestoreReport:
    """Restore a complete backup into the new database ``name`` on the server that ``server`` connects to.

    ``server`` is any database there but ``name``. Restores under a name of ours, compares every table with the
    manifest, and renames it then. A database ``name`` that exists is refused unless ``replace`` repeats its name: then
    its sessions are ended and it is dropped, after the new one has its name. Without ``owners`` everything belongs to
    the user of ``server``, and nothing is granted. What does not lie plain in a folder is unpacked below ``work``.
    ``before_named`` is called with the restored database once it is compared, to erase what must not come back (rows by
    table); nobody has seen it, and it vanishes with an error. ``before_renamed`` is called last of all, and may raise.

    Reports ``restore <name>`` in bytes and the facts ``restore <name>: started, created, loaded, compared, ready,
    renamed, done``. Raises what ``check_restore`` raises, before anything is changed, and ``RestoreFailed``.
    """
    started = time.monotonic()
    _step(name, "started")
    with reading(ledger, backup):
        manifest = check_restore(
            backup, server, name, ledger, replace=replace, owners=owners, room=room, compare_files=False
        )
        with (
            marking(ledger, backup),
            unpacked(backup, manifest, work=work or default_work()) as folder,
            maintained(server) as (connection, token),
            scratch_database(connection, token, server, manifest.source.locale, purpose="restore") as scratch,
        ):
            _step(name, "created")
            dump = folder / DUMP
            load(backup, manifest, dump, scratch, programs=programs, jobs=jobs, roles=owners, task=f"restore {name}")
            _step(name, "loaded")
            tables = compare(scratch.target, manifest, jobs=jobs, task=f"compare {name}")
            if differences := [table.difference for table in tables if table.difference]:
                raise RestoreFailed(
                    id=backup.id, name=name, reason="; ".join(differences), hint="Restore another backup."
                )
            _step(name, "compared")
            erased_again = before_named(scratch.target)
            finish(scratch, manifest, owners=owners)
            _step(name, "ready")
            before_renamed()
            replaced = rename(connection, scratch, server, name, replace=replace, sleep=sleep)
            _step(name, "renamed")
            if replaced is not None:
                drop(connection, replaced)
    _step(name, "done")
    return RestoreReport(
        backup_id=backup.id,
        name=name,
        replaced=replaced is not None,
        seconds=time.monotonic() - started,
        tables=tables,
        erased_again=dict(erased_again),
    )


@contextmanager
def marking(ledger: Ledger, backup: Backup) -> Iterator[None]:
    """Let the ledger know of damage that is found in the block."""
    try:
        yield
    except BackupDamaged as error:
        mark_damaged(ledger, backup.id, [str(error.fields["problems"])])
        drop_proof(backup)
        raise


def may_become(connection: AutocommitConnection, server: Target, name: str, replace: str | None) -> bool:
    """Whether a database of that name exists and may be replaced; raises where it may not."""
    if replace is not None and replace != name:
        raise ReplaceMismatch(name=name, replace=replace, hint="Repeat the name of the database to be replaced.")
    exists = connection.execute("select from pg_database where datname = %s", (name,)).fetchone() is not None
    if exists and replace is None:
        raise DatabaseExists(
            name=name,
            server=server.place,
            hint=f"Restore into another name, or repeat this one to replace it: --replace {name}",
        )
    if exists and connection.info.dbname == name:
        raise DatabaseExists(
            name=name, server=server.place, hint="To replace it, connect to another database of that server."
        )
    return exists


def finish(scratch: Scratch, manifest: Manifest, *, owners: bool) -> None:
    """What pg_restore leaves out: statistics, settings of the database, its owner."""
    with connect(scratch.target, work="finishes a restore") as connection:
        connection.execute("analyze")
        for setting, value in manifest.source.settings.items():
            # FROM CURRENT takes lists such as search_path apart as they were.
            connection.execute("select set_config(%s, %s, false)", (setting, value))
            parts = sql.SQL(".").join(map(sql.Identifier, setting.split(".")))
            connection.execute(
                sql.SQL("alter database {} set {} from current").format(sql.Identifier(scratch.name), parts)
            )
    if owners:
        scratch.maintenance.execute(
            sql.SQL("alter database {} owner to {}").format(
                sql.Identifier(scratch.name), sql.Identifier(manifest.source.owner)
            )
        )


def rename(
    connection: AutocommitConnection,
    scratch: Scratch,
    server: Target,
    name: str,
    *,
    replace: str | None,
    sleep: Callable[[float], None],
) -> str | None:
    """Give the restored database its name, in one transaction with the old one's; how the old one is called now."""
    aside = f"dbplatform_replaced_{scratch.token}"
    for last in (*[False] * (RENAME_TRIES - 1), True):
        exists = may_become(connection, server, name, replace)
        if exists:
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        try:
            with connection.transaction():
                if exists:
                    _rename_database(connection, name, aside)
                _rename_database(connection, scratch.name, name)
        except psycopg.errors.ObjectInUse as error:
            if last:
                raise RestoreFailed(
                    id=scratch.name,
                    name=name,
                    reason=f"sessions come back to {name} faster than they can be ended",
                    hint="Stop the clients of the database and restore again.",
                ) from error
            sleep(0.2)
        else:
            return aside if exists else None
    raise AssertionError


def _rename_database(connection: AutocommitConnection, old: str, new: str) -> None:
    connection.execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(old), sql.Identifier(new)))


def _step(name: str, fact: str) -> None:
    progress.report(f"restore {name}: {fact}", done=1, total=1, unit="step")
