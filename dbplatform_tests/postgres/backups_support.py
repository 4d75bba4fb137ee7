"""What the tests of backups share: a database with everything in it, failing programs, and processes that die.

As a program (``VERB FACT``) it is such a process: it works like the capability does, and kills itself by SIGKILL when
its own progress reports ``FACT``. What it works on comes by the environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform import progress
from dbplatform.backups.catalogue import EVERYTHING, Backup, find_backup, list_backups
from dbplatform.backups.create import create_backup
from dbplatform.backups.destination import Destination
from dbplatform.backups.drill import drill
from dbplatform.backups.manifest import Scope
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.prune import apply_prune, plan_prune
from dbplatform.backups.restore import restore_backup
from dbplatform.backups.table import restore_table
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import Programs, find_programs

#: The name of the database in its declaration.
NAME = "shop"

_EVERYTHING = """
    create table plain (id bigint generated always as identity primary key, word text, doubled bigint
        generated always as (length(word) * 2) stored, seen timestamptz default now(), price numeric, cash money);
    insert into plain (word, price, cash) select 'word ' || g, g / 7.0, g::money from generate_series(1, 2000) g;
    create table "Odd ""name"" too" ("a ""b" int, "semi;colon" text);
    insert into "Odd ""name"" too" values (1, 'x'), (2, null), (2, null);
    create schema "other place";
    create table "other place".child (id int references public.plain_key default null);
    create table events (at timestamptz not null, what text) partition by range (at);
    create table events_1 partition of events for values from ('2026-01-01') to ('2026-02-01');
    create table events_2 partition of events for values from ('2026-02-01') to ('2026-03-01');
    insert into events select '2026-01-01'::timestamptz + g * interval '1 hour', g from generate_series(0, 1000) g;
    create table no_columns ();
    insert into no_columns default values;
    create table empty_one (id int);
    create view words as select word from plain;
    create materialized view counted as select count(*) from plain;
    create sequence numbers start 42;
    select nextval('numbers');
    select lo_from_bytea(0, 'a large object'::bytea), lo_from_bytea(0, convert_to(repeat('x', 100000), 'UTF8'));
"""


def fill(database: Target) -> None:
    """Everything that a dump must bring back."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create table plain_key (id int primary key)")
        connection.execute(_EVERYTHING)


def hashes(database: Target) -> dict[str, str]:
    """The content hash of each table, read by the test's own query of the catalog."""
    with connect(database, work="test") as connection:
        names = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        return {f"{schema}.{name}": content_hash(connection, Relation(schema, name)) for schema, name in names}


def databases(server_url: str, pattern: str = "^dbplatform_(restore|drill|replaced)_") -> list[str]:
    """The names of the server's databases that match; by default those that restores make."""
    with psycopg.connect(server_url) as connection:
        rows = connection.execute("select datname from pg_database where datname ~ %s order by 1", (pattern,))
        return [name for (name,) in rows.fetchall()]


@contextmanager
def named_database(server_url: str, name: str, *, create: bool = False) -> Iterator[Target]:
    """The database of that name, created first or to be created by the test; dropped at the end."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        if create:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield Target(name, make_conninfo(server_url, dbname=name))
        finally:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def new_name() -> str:
    """A name for a database that a test restores into."""
    return f"restored_{uuid.uuid4().hex[:10]}"


def server(server_url: str) -> Target:
    """Where tests restore to."""
    return Target("the test server", server_url)


def in_folder(folder: Path) -> Destination:
    """A destination with its working folder below it."""
    return Destination(root=str(folder), work=folder / ".work")


def back_up(
    database: Target,
    to: Path | Destination,
    ledger: Ledger,
    *,
    programs: Programs | None = None,
    scope: Scope = EVERYTHING,
    **policy: object,
) -> Backup:
    """A backup with the default policy, but for what is given."""
    return create_backup(
        database,
        in_folder(to) if isinstance(to, Path) else to,
        BackupPolicy.model_validate(policy),
        ledger,
        database=NAME,
        programs=programs or find_programs(),
        scope=scope,
    )


def prove(backup: Backup, ledger: Ledger, server_url: str) -> Backup:
    """The backup after a drill that must have proven it."""
    assert drill(backup, ledger, server(server_url), programs=find_programs()).proven
    return find_backup(ledger, NAME, backup.id)


def statuses(ledger: Ledger) -> list[str]:
    """Of all attempts, the oldest first."""
    return [backup.status for backup in reversed(list_backups(ledger, NAME, pruned=True))]


def visible(folder: Path) -> set[str]:
    """The names that look like backups."""
    return {path.name for path in (folder / NAME).iterdir() if not path.name.startswith(".")}


def hidden(folder: Path) -> set[str]:
    """The names of what is half-made or half-removed."""
    return {path.name for path in (folder / NAME).iterdir() if path.name.startswith(".")}


def flip_byte(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def programs_with(folder: Path, name: str, script: str) -> Programs:
    """The real programs, with a shell script in the place of one; ``$REAL`` in it is the folder of the real ones."""
    real = find_programs()
    folder.mkdir()
    for program in real.bin_dir.iterdir():
        if program.name != name:
            (folder / program.name).symlink_to(program)
    (folder / name).write_text(f"#!/bin/sh\nREAL='{real.bin_dir}'\n{script}\n")
    (folder / name).chmod(0o755)
    return Programs(bin_dir=folder, version=real.version, major=real.major)


def killed_at(
    verb: str,
    fact: str,
    *,
    database: Target,
    ledger: Ledger,
    folder: Path | Destination,
    server_url: str,
    name: str = "",
    **policy: object,
) -> None:
    """Run this module as a process that works and dies at the fact; fails when the fact did not come."""
    to = in_folder(folder) if isinstance(folder, Path) else folder
    given = {
        "database": database.url,
        "ledger": ledger.target.url,
        "root": to.root,
        "work": str(to.work),
        "policy": policy,
        "server": server_url,
        "name": name,
    }
    process = subprocess.run(
        [sys.executable, "-m", __name__, verb, fact],
        env={**os.environ, "GIVEN": json.dumps(given)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == -signal.SIGKILL, f"{fact} was not reported: {process.stdout}{process.stderr}"


def work(verb: str, given: dict[str, Any]) -> None:
    """What the process does: back up, or work with the newest complete backup."""
    ledger = Ledger(Target("ledger", given["ledger"]))
    target = server(given["server"])
    programs = find_programs()
    if verb == "create":
        to = Destination(root=given["root"], work=Path(given["work"]))
        back_up(Target(NAME, given["database"]), to, ledger, programs=programs, **given["policy"])
    elif verb == "drill":
        drill(find_backup(ledger, NAME), ledger, target, programs=programs, work=Path(given["work"]))
    elif verb == "restore":
        restore_backup(
            find_backup(ledger, NAME), target, given["name"], ledger, programs=programs, work=Path(given["work"])
        )
    elif verb == "table":
        live = Target(NAME, given["database"])
        restore_table(find_backup(ledger, NAME), live, Relation.parse(given["name"]), ledger, programs=programs)
    elif verb == "replace":
        restore_backup(
            find_backup(ledger, NAME), target, given["name"], ledger, programs=programs, replace=given["name"]
        )
    elif verb == "prune":
        now = datetime.now(UTC)
        apply_prune(ledger, plan_prune(ledger, NAME, KEEP_ONE, now=now), KEEP_ONE, now=now)


#: Keeps the newest backup of the newest day.
KEEP_ONE = BackupPolicy.model_validate({"retain": {"daily": 1, "weekly": 0, "monthly": 0}})


def die_at(verb: str, fact: str) -> None:
    """Work, and end without any clean-up when the fact comes."""

    def listener(heard: progress.Progress) -> None:
        if heard.task == fact:
            os.kill(os.getpid(), signal.SIGKILL)

    with progress.listening(listener):
        work(verb, json.loads(os.environ["GIVEN"]))


if __name__ == "__main__":
    die_at(sys.argv[1], sys.argv[2])
