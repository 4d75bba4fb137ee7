"""The command line in a home of its own: what the acceptance tests share."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
from psycopg import sql
from pyarrow import csv, parquet

from dbplatform.cli import main
from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer

TABLES = ("airlines", "airports", "planes", "weather", "flights")
REPOSITORY = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True)
class Installation:
    """One home with its embedded server: the flights project as a person has it, apart from every other."""

    home: Home
    service_port: int = field(default_factory=free_port)
    """Where the status service of this installation answers, so that links in its runs can be followed."""
    folder: Path = REPOSITORY
    variables: dict[str, str] = field(default_factory=dict)
    """What its environment holds besides."""

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DBPLATFORM_", "DAGSTER_"))}
        service = f"http://127.0.0.1:{self.service_port}"
        own = {"DBPLATFORM_HOME": str(self.home.root), "DBPLATFORM_SERVICE_URL": service}
        return {**kept, **own, **self.variables}

    @property
    def server(self) -> EmbeddedServer:
        return EmbeddedServer(self.home)

    def command(self, *arguments: str, module: str = "dbplatform.cli.main") -> subprocess.CompletedProcess[str]:
        """Type a command; its output and exit code."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        """Type a command with ``--json``; its document, after its exit code was as expected."""
        result = self.command(*arguments, "--json")
        assert result.returncode == exit_code, result.stderr + result.stdout
        return json.loads(result.stdout)

    def here(self, *arguments: str, exit_code: int = 0) -> Any:
        """Like ``json``, in this process: where a process of its own is not the point, its imports need not be paid."""
        printed = io.StringIO()
        with mock.patch.dict(os.environ, self.environment, clear=True), chdir(self.folder), redirect_stdout(printed):
            code = main.run([*arguments, "--json"])
        assert code == exit_code, printed.getvalue()
        return json.loads(printed.getvalue())

    def connect(self, database: str = "flights") -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.url(database), autocommit=True, options="-c timezone=UTC")

    def forget(self) -> None:
        """Drop the database: the next run begins from nothing. Dagster and the ledger remember the runs before."""
        with self.connect("postgres") as connection:
            connection.execute("drop database if exists flights with (force)")

    def shift(self) -> timedelta:
        """By how much the year was moved."""
        with self.connect() as connection:
            row = connection.execute("select by_days * steps, by_microseconds from dbplatform.seed_shift").fetchone()
        assert row is not None
        assert row[1] == 0
        return timedelta(days=row[0])

    def archived(self) -> list[Path]:
        """The files that hold rows of flights which have left the table and are not back."""
        with self.connect() as connection:
            ids = [row[0] for row in connection.execute("select archive_id from dbplatform.archive_progress")]
        with self.connect("dbplatform_ledger") as connection:
            found = connection.execute(
                "select location, kept from ledger.archive where status = 'deleted' and id = any(%s) order by 1",
                (ids,),
            ).fetchall()
        assert all(kept == {} for _, kept in found)
        return [Path(location) for location, _ in found]

    def hashes(self) -> dict[str, tuple[int, str]]:
        """Rows and content hash of each table together with what was archived of it, as in the year of the source: the
        same whatever the week of the test, and however many rows have grown old enough."""
        shift = self.shift()
        found = {}
        files = self.archived()
        with self.connect() as connection:
            connection.execute("create temporary table archived (like flights)")
            for file in files:
                rows = io.BytesIO()
                csv.write_csv(parquet.read_table(file), rows)
                with (
                    connection.cursor() as cursor,
                    cursor.copy("copy archived from stdin (format csv, header)") as copy,
                ):
                    copy.write(rows.getvalue())
            connection.execute("create temporary view all_flights as table flights union all table archived")
            for table in TABLES:
                names = [
                    row[0]
                    for row in connection.execute(
                        "select column_name from information_schema.columns "
                        "where table_schema = 'public' and table_name = %s order by 1",
                        (table,),
                    )
                ]
                values = [
                    sql.SQL("time_hour - {}").format(shift) if name == "time_hour" else sql.Identifier(name)
                    for name in names
                ]
                row = connection.execute(
                    sql.SQL(
                        "select count(*), coalesce(sum(hashtextextended(t, 0)), 0)::text from "
                        "(select row({})::text from {}) as r(t)"
                    ).format(sql.SQL(", ").join(values), sql.Identifier("all_flights" if table == "flights" else table))
                ).fetchone()
                assert row is not None
                found[table] = (row[0], row[1])
        return found


@contextmanager
def small_project(folder: Path, declaration: str, migration: str) -> Iterator[Installation]:
    """A project elsewhere with one database ``shop`` on an embedded server of its own, which is removed at the end."""
    migrations = folder / "defs" / "shop" / "migrations"
    migrations.mkdir(parents=True)
    (migrations.parent / "defs.yaml").write_text(declaration)
    (migrations / "V1__first.sql").write_text(migration)
    installation = Installation(Home(root=folder / "home"), folder=folder)
    try:
        yield installation
    finally:
        installation.server.remove()
