"""One table out of a logical backup: back in its place when it is gone, aside from it, or into a database of its own.

The rows are restored into a scratch database on the server of the database first, where everything that the table needs
is there without a row, and compared with the manifest. Only then the table goes where it is wanted, in one transaction.
Its foreign keys are added behind that, one by one: what they point at may be gone, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, load_manifest, reading
from dbplatform.backups.clone import clone_schema
from dbplatform.backups.contents import read_content, ready_to_read
from dbplatform.backups.destination import default_work, temporary_folder
from dbplatform.backups.errors import RestoreFailed, TableExists, TableNotInBackup
from dbplatform.backups.files import require_key, unpacked
from dbplatform.backups.loading import check_server, listed, load
from dbplatform.backups.manifest import DUMP, Manifest, TableContent
from dbplatform.backups.programs import dump_program, restore_program, unknown_timeout
from dbplatform.backups.restore import marking, may_become, rename
from dbplatform.backups.scope import pattern, with_partitions
from dbplatform.backups.scratch import Scratch, maintained, scratch_database
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import ProgramFailed, login, run
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import Programs

#: Entries behind the data that read other tables, or would listen to what is done with this one.
_NOT_WANTED = (" MATERIALIZED VIEW DATA ", " EVENT TRIGGER ")
_DROP_KEY = sql.SQL("alter table {0} drop constraint {1}")
_DROP_TRIGGER = sql.SQL("drop trigger {1} on {0}")
_IN_THE_WAY = """
    select conname, 'f' from pg_constraint
    where conrelid = %(table)s::regclass and contype = 'f' and conparentid = 0
    union all
    select tgname, 't' from pg_trigger
    where tgrelid = %(table)s::regclass and not tgisinternal and tgparentid = 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """What was brought back: the rows that the backup's snapshot held but for the erased ones, and no others."""

    backup_id: str
    table: str
    restored: str
    """What it is called now, in ``database``."""
    database: str
    rows: int
    hash: str
    seconds: float
    notes: tuple[str, ...]
    """What could not be brought back beside the rows: a sentence for each foreign key."""
    erased_again: dict[str, int]
    """Rows by table that the backup held and that were erased on purpose since."""

    def as_json(self) -> dict[str, Any]:
        """The document of ``restore --table --json``."""
        return {
            "backup_id": self.backup_id,
            "table": self.table,
            "restored": self.restored,
            "database": self.database,
            "rows": self.rows,
            "hash": self.hash,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "erased_again": self.erased_again,
        }


def check_table(
    backup: Backup, live: Target, table: Relation, *, aside: str | None = None, into: str | None = None
) -> Manifest:
    """What is looked at before a table is restored; only reads: the manifest, the key, and the server.

    Raises ``TableNotInBackup``, ``TableExists``, ``DatabaseExists``, ``ServerTooOld``, ``ServerLacks``, and what the
    manifest and the key raise.
    """
    manifest = load_manifest(backup)
    _expected(backup, manifest, table)
    require_key(backup, manifest)
    with connect(live, work="restore plan") as connection:
        if into is not None:
            may_become(connection, live, into, None)
        elif aside is not None:
            schema = connection.execute("select from pg_namespace where nspname = %s", (aside,)).fetchone()
            if schema is not None:
                raise TableExists(
                    what=f"The schema {aside}", database=live.name, hint="Name another schema, which is made."
                )
        elif _exists(connection, table):
            raise TableExists(
                what=f"The table {table}",
                database=live.name,
                hint=f"Bring it back beside it, into a new schema: --aside restored_{table.name}",
            )
        check_server(connection, live, backup, manifest, roles=True, room=None)
    return manifest


def restore_table(
    backup: Backup,
    live: Target,
    table: Relation,
    ledger: Ledger,
    *,
    programs: Programs,
    jobs: int = 2,
    aside: str | None = None,
    into: str | None = None,
    work: Path | None = None,
    before_named: Callable[[Target], Mapping[str, int]] = lambda restored: {},
) -> TableReport:
    """Restore one table, with its partitions, into the database ``live``, or into the new database ``into``.

    In its own place when neither ``aside`` nor ``into`` is given, and then it must not exist; ``aside`` is a schema
    that is made for it. Indexes, constraints, triggers, grants and owned sequences come with it; views on it, foreign
    keys of other tables that pointed at it, and its place in publications do not. A backup of rows alone has none of
    them: they are those of the live table, without its triggers. The user must be allowed to create databases. Killed
    at any point, nothing half-restored is seen: what is left on the server goes with the next restore. ``before_named``
    is called with the scratch database, as for ``restore_backup``.

    Reports the facts ``restore <table>: started, loaded, compared, moved, done``. Raises what ``check_table`` raises,
    ``BackupDamaged`` and ``RestoreFailed``.
    """
    started = time.monotonic()
    _step(table, "started")
    with reading(ledger, backup), marking(ledger, backup):
        manifest = check_table(backup, live, table, aside=aside, into=into)
        expected = _expected(backup, manifest, table)
        with (
            unpacked(backup, manifest, work=work or default_work()) as folder,
            maintained(live) as (connection, token),
            scratch_database(connection, token, live, manifest.source.locale, purpose="restore") as scratch,
        ):
            dump = folder / DUMP
            tree = _fill(backup, manifest, dump, live, scratch, table, programs=programs, jobs=jobs)
            _step(table, "loaded")
            _require_same(backup, scratch.target, table, expected, f"{table} in the scratch database")
            _step(table, "compared")
            erased_again = dict(before_named(scratch.target))
            if erased_again:
                expected = _content(scratch.target, table)
            notes: tuple[str, ...] = ()
            now = table
            if into is not None:
                rename(connection, scratch, live, into, replace=None, sleep=time.sleep)
            else:
                now = Relation(aside, table.name) if aside is not None else table
                _move(backup, scratch, live, tree, aside, programs=programs, work=work or default_work())
                _step(table, "moved")
                _require_same(backup, live, now, expected, f"{now}, unless others have written to it already,")
                if aside is None:
                    notes = _foreign_keys(backup, manifest, dump, live, tree, programs=programs)
    _step(table, "done")
    return TableReport(
        backup_id=backup.id,
        table=str(table),
        restored=str(now),
        database=into or live.name,
        rows=expected.rows,
        hash=expected.hash,
        seconds=time.monotonic() - started,
        notes=notes,
        erased_again=erased_again,
    )


def _expected(backup: Backup, manifest: Manifest, table: Relation) -> TableContent:
    for content in manifest.tables:
        if content.table == str(table) and manifest.scope.what != "schema":
            return content
    raise TableNotInBackup(
        id=backup.id,
        table=table,
        hint="It holds no rows, only the schema."
        if manifest.scope.what == "schema"
        else f"Its manifest names what it holds: {backup.location}/manifest.json (a partition by its parent).",
    )


def _fill(
    backup: Backup,
    manifest: Manifest,
    dump: Path,
    live: Target,
    scratch: Scratch,
    table: Relation,
    *,
    programs: Programs,
    jobs: int,
) -> tuple[Relation, ...]:
    """The table with its rows, and all else without any, in the scratch database; its name and those of its partitions.

    What a backup of rows or of tables alone lacks is taken from the live database, as it is now.
    """
    if not manifest.scope.whole:
        clone_schema(live, scratch, programs=programs, policies=True)

    def part(section: str, keep: Callable[[str], bool] | None) -> None:
        load(
            backup,
            manifest,
            dump,
            scratch,
            programs=programs,
            jobs=jobs,
            roles=True,
            options=[f"--section={section}"],
            keep=keep,
            task=f"restore {table}",
        )

    if manifest.scope.what == "tables":
        with connect(scratch.target, work="makes room for a table") as connection:
            for chosen in manifest.scope.tables:
                name = Relation.parse(chosen).identifier
                connection.execute(sql.SQL("drop table if exists {} cascade").format(name))
    if manifest.scope.what != "data":
        part("pre-data", None)
    with connect(scratch.target, work="restores a table") as connection:
        tree = with_partitions(connection, table)
        if manifest.scope.what == "data":
            _let_rows_in(connection, tree)
    rows, foreign_keys = _entries("TABLE DATA", tree), _entries("FK CONSTRAINT", tree)
    part("data", lambda entry: rows(entry) or " SEQUENCE SET " in entry)
    if manifest.scope.what != "data":
        part("post-data", lambda entry: not foreign_keys(entry) and not any(kind in entry for kind in _NOT_WANTED))
    return tree


def _let_rows_in(connection: AutocommitConnection, tree: Iterable[Relation]) -> None:
    """Drop the foreign keys of a copied schema, whose other side has no rows, and the triggers that rows would fire."""
    for relation in tree:
        for name, kind in connection.execute(_IN_THE_WAY, {"table": str(relation)}).fetchall():
            words = _DROP_KEY if kind == "f" else _DROP_TRIGGER
            connection.execute(words.format(relation.identifier, sql.Identifier(name)))


def _move(
    backup: Backup,
    scratch: Scratch,
    live: Target,
    tree: Iterable[Relation],
    aside: str | None,
    *,
    programs: Programs,
    work: Path,
) -> None:
    """Bring the table from the scratch database into the live one, in one transaction."""
    with connect(scratch.target, work="moves a table") as connection:
        if aside is not None:
            connection.execute(sql.SQL("create schema {}").format(sql.Identifier(aside)))
            for relation in tree:
                words = sql.SQL("alter table {} set schema {}")
                connection.execute(words.format(relation.identifier, sql.Identifier(aside)))
    major = scratch.maintenance.info.server_version // 10000
    dumping = dump_program(programs, server_major=major)
    what = [f"--schema={pattern_of(aside)}"] if aside else [f"--table={pattern(relation)}" for relation in tree]
    source = login(scratch.target, work=f"moves {scratch.token}", server_of=scratch.maintenance)
    target = login(live, work=f"moves {scratch.token}", server_of=scratch.maintenance)
    with temporary_folder(work) as folder:
        file = folder / "table"
        dump: list[str | Path] = [
            dumping.path("pg_dump"),
            "--format=custom",
            "--compress=1",
            "--no-password",
            *what,
            f"--file={file}",
            f"--dbname={source.dbname}",
        ]
        restoring = restore_program(programs, dump_major=dumping.major, server_major=major)
        into: list[str | Path] = [
            restoring.path("pg_restore"),
            "--no-password",
            f"--dbname={target.dbname}",
            "--single-transaction",
            file,
        ]
        try:
            run(dump, login=source)
            run(into, login=target)
        except ProgramFailed as error:
            raise RestoreFailed(
                id=backup.id,
                name=live.name,
                reason=str(error),
                hint="Nothing of it is there. Restore into a database of its own: --into NAME",
            ) from error


def _foreign_keys(
    backup: Backup, manifest: Manifest, dump: Path, live: Target, tree: Iterable[Relation], *, programs: Programs
) -> tuple[str, ...]:
    """Add the table's foreign keys again; a sentence for each that cannot be."""
    with connect(live, work="restores a table") as connection:
        major = connection.info.server_version // 10000
        program = restore_program(programs, dump_major=manifest.program_major, server_major=major)
        access = login(live, work=f"keys of {backup.id}", server_of=connection)
    wanted: list[str] = []
    is_ours = _entries("FK CONSTRAINT", tuple(tree))

    def collect(entry: str) -> bool:
        if is_ours(entry):
            wanted.append(entry)
        return False

    command: list[str | Path] = [program.path("pg_restore"), "--no-password", f"--dbname={access.dbname}"]
    notes = []
    with listed(command, dump, policies=True, user_mappings=True, keep=collect):
        pass
    for one in wanted:
        with listed(command, dump, policies=True, user_mappings=True, keep=one.__eq__) as complete:
            try:
                run([*complete, dump], login=access, tolerated=unknown_timeout(program, server_major=major))
            except ProgramFailed as error:
                notes.append(f"the foreign key {one.split(' FK CONSTRAINT ')[1].strip()} was not added: {error}")
    return tuple(notes)


def _entries(kind: str, tree: tuple[Relation, ...]) -> Callable[[str], bool]:
    """Whether a line of pg_restore's list is of that kind and of one of the tables; names there are not quoted."""
    starts = tuple(f" {kind} {relation.schema} {relation.name} " for relation in tree)
    return lambda entry: any(start in entry for start in starts)


def _require_same(backup: Backup, target: Target, table: Relation, expected: TableContent, what: str) -> None:
    found = _content(target, table)
    if (found.rows, found.hash) != (expected.rows, expected.hash):
        raise RestoreFailed(
            id=backup.id,
            name=target.name,
            reason=f"{what} has {found.rows} rows, not the {expected.rows} of the backup, or other content",
            hint="Look at it before you use it.",
        )


def _content(target: Target, table: Relation) -> TableContent:
    with connect(target, work="compares a table") as connection:
        ready_to_read(connection)
        return read_content(connection, table)


def _exists(connection: AutocommitConnection, table: Relation) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", (str(table),)).fetchone()
    return row is not None and bool(row[0])


def pattern_of(schema: str) -> str:
    """The name of a schema as pg_dump's pattern that matches it alone."""
    return '"' + schema.replace('"', '""') + '"'


def _step(table: Relation, fact: str) -> None:
    progress.report(f"restore {table}: {fact}", done=1, total=1, unit="step")
