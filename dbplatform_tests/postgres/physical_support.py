"""What the tests of physical backups share: a server that archives, a history to come back to, processes that die.

As a program (``VERB FACT``) it is a process that works like the capability does, and kills itself by SIGKILL when its
own progress reports ``FACT``. What it works on comes by the environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from dbplatform import progress
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.destination import Destination
from dbplatform.backups.physical.archive import WalArchive
from dbplatform.backups.physical.base import create_base
from dbplatform.backups.physical.recover import RecoveryReport, recover_database
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.spool import ship
from dbplatform.backups.physical.targets import RecoveryPlan, plan_recovery
from dbplatform.backups.physical.witness import Witness, testify
from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.postgres.backups_support import new_name
from dbplatform_tests.postgres.embedded_support import open_folder

#: The declared database, and its name on the server.
NAME = "shop"
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Archiving:
    """A server that archives its WAL, with one database, and the places of its backups."""

    root: Path
    shop: Target
    server: Target
    """Another database of the same server."""
    spool: Path
    ledger: Ledger
    bucket: str | None = None
    """``s3://bucket/prefix``, where the backups do not lie in a folder."""
    encrypt_to: tuple[str, ...] = ()

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def destination(self) -> Destination:
        return Destination(root=self.bucket or str(self.backups), work=self.root / "work")

    @property
    def place(self) -> Path:
        """Where servers are recovered."""
        return self.root / "recoveries"

    def archive(self, system: str) -> WalArchive:
        return WalArchive(system, self.destination.store(key_of(system), "wal"), self.encrypt_to)

    def wal(self, system: str) -> Path:
        """The folder of the archive."""
        return self.backups / key_of(system) / "wal"

    @property
    def system(self) -> str:
        with psycopg.connect(self.shop.url) as connection:
            row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
        assert row is not None
        return str(row[0])

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement in the database; its rows."""
        with psycopg.connect(self.shop.url, autocommit=True, options="-c timezone=UTC") as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def base(self, *, incremental: int = 0) -> Backup:
        return create_base(
            self.shop,
            self.destination,
            self.ledger,
            database=NAME,
            programs=find_programs(),
            incremental=incremental,
            encrypt_to=self.encrypt_to,
        )

    def switch(self) -> str:
        """Begin a new segment, wait until the old one is in the spool, and ship it; its name."""
        [(name,)] = self.run("select pg_walfile_name(pg_switch_wal())")
        until(lambda: (self.spool / name).exists())
        ship(self.spool, self.archive(self.system))
        return str(name)

    def witness(self) -> Witness:
        with connect(self.shop, work="test") as connection:
            return testify(connection, self.ledger, system=self.system, database=NAME, hashes=False)

    def plan(self, **moment: Any) -> RecoveryPlan:
        return plan_recovery(self.ledger, NAME, self.archive, programs=find_programs(), **moment)

    def recover(self, name: str, **moment: Any) -> RecoveryReport:
        plan = self.plan(**moment)
        return recover_database(plan, self.server, name, self.ledger, place=self.place, programs=find_programs())

    def recovered(self, **moment: Any) -> set[int]:
        """The numbers in the database as it was at a moment; the restored database is dropped again."""
        name = new_name()
        self.recover(name, **moment)
        try:
            with psycopg.connect(make_conninfo(self.server.url, dbname=name)) as connection:
                return {number for (number,) in connection.execute("select number from numbered").fetchall()}
        finally:
            with psycopg.connect(self.server.url, autocommit=True) as connection:
                connection.execute(f'drop database "{name}" with (force)'.encode())

    def write(self, count: int, *, seconds: float = 0) -> None:
        """One writer commits numbered rows, each by itself: so many, or as many as it can in so many seconds."""
        with psycopg.connect(self.shop.url, autocommit=True) as connection:
            deadline = time.monotonic() + seconds
            while count > 0 or time.monotonic() < deadline:
                connection.execute("insert into numbered (at) values (clock_timestamp())")
                count -= 1

    def committed_before(self, moment: datetime) -> set[int]:
        rows = self.run("select number from numbered where pg_xact_commit_timestamp(xmin) < %s", moment)
        return {number for (number,) in rows}

    def commit_times(self) -> list[datetime]:
        return [at for (at,) in self.run("select pg_xact_commit_timestamp(xmin) from numbered order by 1")]


@contextmanager
def archiving(ledger: Ledger) -> Iterator[Archiving]:
    """A server of our own that archives, with an empty table of numbers; removed at the end."""
    with open_folder() as root:
        home = Home(root=root / "home")
        embedded = EmbeddedServer(home, settings={"fsync": "off", "shared_buffers": "16MB"}, archive_wal=lambda: True)
        embedded.start()
        embedded.keep_wal()
        try:
            embedded.ensure_database(NAME)
            server = Target("the server", embedded.url())
            made = Archiving(
                root=root,
                shop=Target(NAME, embedded.url(NAME)),
                server=server,
                spool=embedded.wal_spool,
                ledger=ledger,
            )
            made.run("create table numbered (number bigint generated always as identity primary key, at timestamptz)")
            made.run("create table quiet as select g as id, md5(g::text) as word from generate_series(1, 1000) g")
            yield made
        finally:
            embedded.remove()


@contextmanager
def ledger_of(server_url: str, template: str) -> Iterator[Ledger]:
    """A ledger for longer than one test."""
    name = f"ledger_{new_name()}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}".encode())
        ledger = Ledger(Target(name, make_conninfo(server_url, dbname=name)))
        try:
            yield ledger
        finally:
            ledger.engine.dispose()
            connection.execute(f"drop database {name} with (force)".encode())


def until(condition: Any) -> None:
    """Wait for what another process is about to do."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def killed_at(verb: str, fact: str, server: Archiving, *, into: str = "", time: datetime | None = None) -> None:
    """Run this module as a process that works and dies at the fact; fails when the fact did not come."""
    given = {
        "root": str(server.root),
        "shop": server.shop.url,
        "server": server.server.url,
        "spool": str(server.spool),
        "ledger": server.ledger.target.url,
        "into": into,
        "time": time.isoformat() if time else "",
    }
    process = subprocess.run(
        [sys.executable, "-m", __name__, verb, fact],
        env={**os.environ, "GIVEN": json.dumps(given)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == -signal.SIGKILL, f"{fact} was not reported: {process.stdout}{process.stderr}"


def _work(verb: str, given: dict[str, Any]) -> None:
    server = Archiving(
        root=Path(given["root"]),
        shop=Target(NAME, given["shop"]),
        server=Target("the server", given["server"]),
        spool=Path(given["spool"]),
        ledger=Ledger(Target("ledger", given["ledger"])),
    )
    if verb == "base":
        server.base()
    elif verb == "ship":
        server.switch()
    elif verb == "recover":
        server.recover(given["into"], time=datetime.fromisoformat(given["time"]))


def _die_at(verb: str, fact: str) -> None:
    def listener(heard: progress.Progress) -> None:
        if heard.task == fact or heard.task.endswith(f": {fact}"):
            os.kill(os.getpid(), signal.SIGKILL)

    with progress.listening(listener):
        _work(verb, json.loads(os.environ["GIVEN"]))


if __name__ == "__main__":
    _die_at(sys.argv[1], sys.argv[2])
