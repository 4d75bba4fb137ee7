"""pg_repack where a table is bloated: it is written anew beside the old one, while it is read and written.

Needed are the extension in the database and the program of the same version on this host; else one sentence says what
is missing. What a killed one leaves, a trigger that writes every change twice and its tables, the next run removes.
Source: pg_repack's manual (https://reorg.github.io/pg_repack/), which names the locks: ACCESS EXCLUSIVE for moments at
the beginning and the end, asked for in waits of up to one second.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psycopg import sql

from dbplatform.maintenance.catalog import Catalog, Table, Unused, unused_of
from dbplatform.maintenance.model import Item, NotPossible
from dbplatform.maintenance.policy import MaintenancePolicy
from dbplatform.postgres.client_programs import login, run
from dbplatform.postgres.connection import AutocommitConnection, Target

LOCK = "ACCESS EXCLUSIVE for moments at the beginning and the end, asked for in waits of up to 1 s"
#: How pg_repack's sessions call themselves: they leave each other alone by that name.
APPLICATION = "pg_repack"
#: So long in all it asks for a lock before it lets the table be.
WAIT_S = 60
#: The longest of its waits for a lock.
LONGEST_WAIT_MS = 1_000
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repacker:
    """Where pg_repack would run, and the program; none with the reason in ``why``."""

    target: Target
    program: Path | None
    why: str = ""
    hint: str = ""

    def command(self, table: Table) -> list[str]:
        """What is typed, without the login."""
        return [
            str(self.program),
            f"--table={table.relation.identifier.as_string()}",
            f"--wait-timeout={WAIT_S}",
            "--no-kill-backend",
        ]


def find_repacker(catalog: Catalog, target: Target, policy: MaintenancePolicy) -> Repacker:
    """The program that fits the extension. Runs ``pg_repack --version``; nothing where the extension is missing."""

    def without(why: str, hint: str) -> Repacker:
        return Repacker(target=target, program=None, why=why, hint=hint)

    if catalog.repack_version is None:
        hint = (
            "CREATE EXTENSION pg_repack"
            if catalog.repack_available
            else ("Install it on the server (Debian: postgresql-<version>-repack), then CREATE EXTENSION pg_repack")
        )
        return without("the extension pg_repack is not in this database", f"{hint}.")
    if not catalog.superuser:
        return without("pg_repack wants a superuser", "Connect as one for this maintenance.")
    if policy.limits.lock_timeout.milliseconds < LONGEST_WAIT_MS:
        return without(
            f"pg_repack waits up to 1 s for its lock, and limits.lock_timeout is {policy.limits.lock_timeout}",
            "Declare at least 1 second.",
        )
    found = dict(_programs())
    for version, program in found.items():
        if version == catalog.repack_version:
            return Repacker(target=target, program=program)
    there = ", ".join(found) or "none"
    return without(
        f"the extension pg_repack is version {catalog.repack_version}, and of its program this host has {there}",
        "Install the same version of the program, such as Debian's postgresql-<version>-repack.",
    )


def repack_items(
    connection: AutocommitConnection, catalog: Catalog, policy: MaintenancePolicy, repacker: Repacker
) -> Iterator[Item | NotPossible]:
    """What a killed pg_repack left, and the tables that are bloated. Only reads."""
    due = policy.due
    for table in catalog.tables.values():
        if table.repack_remains and not table.repacking and catalog.repack_version is not None:
            yield _clean(table)
        if table.kind == "p" or table.system or table.relation.schema == "repack" or table.bytes < due.min_size:
            continue
        unused = unused_of(connection, catalog, table, least=due.table_bloat)
        if unused is None or unused.share < due.table_bloat:
            continue
        why, hint = repacker.why, repacker.hint
        if table.kind == "m":
            why, hint = "it is a materialized view", "REFRESH MATERIALIZED VIEW CONCURRENTLY writes it anew."
        elif table.repacking:
            why, hint = "a pg_repack is at work on it", "Wait for it."
        elif repacker.program is not None and not table.has_key:
            why, hint = "pg_repack needs a primary key, or a unique one that is not null", "Add one by a migration."
        if why:
            share = f"{unused.share:.0%} of its {table.bytes / 2**20:,.1f} MB hold nothing ({unused.words})"
            yield NotPossible(kind="repack", subject=str(table.relation), reason=f"{share}, and {why}", hint=hint)
        else:
            yield _item(catalog, table, unused, repacker)


def table_facts(connection: AutocommitConnection, catalog: Catalog, table: Table) -> dict[str, Any]:
    """What is read before and after."""
    return _facts(catalog, table, unused_of(connection, catalog, table, least=0.0))


def repack(connection: AutocommitConnection, repacker: Repacker, table: Table, poll: Callable[[], None]) -> bool:
    """Run pg_repack on one table to its end; what ``poll`` raises ends it. Raises ``ProgramFailed``.

    False: it did not get its locks and let the table be, which it tells by no exit code. Then, as before, the table has
    the file that it had.
    """
    access = login(repacker.target, work="repack")
    database = connection.info.dbname
    file = _file_of(connection, table)
    run(
        repacker.command(table),
        login=replace(access, environment={**access.environment, "PGDATABASE": database, "PGAPPNAME": APPLICATION}),
        poll=poll,
        together=True,
    )
    return _file_of(connection, table) != file


def clean(connection: AutocommitConnection, table: Table) -> None:
    """Remove what a killed pg_repack left on a table, in one transaction with ACCESS EXCLUSIVE on it, for a moment."""
    with connection.transaction():
        connection.execute(_lock(table).as_string().encode())
        connection.execute(_drop(table).as_string().encode())


def _file_of(connection: AutocommitConnection, table: Table) -> int | None:
    row = connection.execute("select pg_relation_filenode(%s)", (table.oid,)).fetchone()
    return None if row is None else row[0]


def _programs() -> Iterator[tuple[str, Path]]:
    for folder in _folders():
        program = folder / "pg_repack"
        if os.access(program, os.X_OK):
            try:
                said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout
            except (OSError, subprocess.TimeoutExpired):
                continue
            if match := re.search(r"pg_repack (\S+)", said):
                yield match[1], program


def _folders() -> Iterable[Path]:
    if declared := os.environ.get("DBPLATFORM_PG_BIN"):
        yield Path(declared)
    yield from sorted(_DEBIAN.glob("*/bin"))
    if found := shutil.which("pg_repack"):
        yield Path(found).parent


def _item(catalog: Catalog, table: Table, unused: Unused, repacker: Repacker) -> Item:
    facts = _facts(catalog, table, unused)
    return Item(
        kind="repack",
        verb="repack",
        subject=table.relation,
        table=table.relation,
        table_oid=table.oid,
        subject_oid=table.oid,
        priority=round(30 + 30 * unused.share),
        reason=f"{unused.share:.0%} of its {table.bytes / 2**20:,.1f} MB hold nothing ({unused.words}).",
        evidence=facts,
        statements=(shlex.join(["pg_repack", *repacker.command(table)[1:]]),),
        lock=LOCK,
        bytes=table.bytes + facts["index_bytes"],
    )


def _clean(table: Table) -> Item:
    return Item(
        kind="repack",
        verb="clean",
        subject=table.relation,
        table=table.relation,
        table_oid=table.oid,
        subject_oid=table.oid,
        priority=95,
        reason="A pg_repack that was ended left its trigger: every change of the table is written twice.",
        evidence={"remains": True},
        statements=(_lock(table).as_string(), _drop(table).as_string()),
        lock="ACCESS EXCLUSIVE on the table for a moment",
        bytes=0,
    )


def _lock(table: Table) -> sql.Composed:
    return sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table.relation.identifier)


def _drop(table: Table) -> sql.Composed:
    # Four things at most: its log, the type of the key, the trigger, the copy.
    return sql.SQL("SELECT repack.repack_drop({}, 4)").format(sql.Literal(table.oid))


def _facts(catalog: Catalog, table: Table, unused: Unused | None) -> dict[str, Any]:
    return {
        "bytes": table.bytes,
        "index_bytes": sum(one.bytes for one in catalog.indexes.values() if one.table_oid == table.oid),
        "bloat": round(unused.share, 3) if unused else None,
        "counted": unused.exact if unused else None,
        "remains": table.repack_remains,
    }
