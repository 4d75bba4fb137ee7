"""A second PostgreSQL, not the platform's own: version 15 of Debian's package, with passwords (SCRAM) for everybody.

A test module asks for it by ``pytest_plugins = ("dbplatform_tests.second_server",)``; all modules share one server.
Import the type for type checkers only: pytest must be the first to import a plugin.
The cluster that Debian's package made is neither started nor touched: this one lies in a temporary folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.processes import free_port
from dbplatform_tests.postgres.embedded_support import open_folder

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
SUPERUSER, PASSWORD = "postgres", "only for tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondServer:
    """The running server; it listens on 127.0.0.1 alone, without TLS."""

    port: int
    data_directory: Path
    bin_dir: Path = PROGRAMS

    def url(self, database: str, *, user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """The URL of a database for a user; neither need exist."""
        return f"postgresql://{quote(user, '')}:{quote(password, '')}@127.0.0.1:{self.port}/{quote(database, '')}"

    def superuser_url(self, database: str = "postgres") -> str:
        """The URL of a database for the superuser."""
        return self.url(database)

    def run(self, *statements: str | sql.Composed, database: str = "postgres") -> None:
        """Run statements as the superuser, each by itself: ``CREATE DATABASE`` and ``CREATE ROLE`` work too."""
        with psycopg.connect(self.superuser_url(database), autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode() if isinstance(statement, str) else statement)


@pytest.fixture(scope="session")
def second_server() -> Iterator[SecondServer]:
    """The server, for all tests of the run; databases and roles that a test makes are its own to drop."""
    assert (PROGRAMS / "postgres").is_file(), f"{PROGRAMS} has no PostgreSQL: see dbplatform_tests/debian.sh"
    with open_folder() as folder:
        account = account_for(folder)
        account.own(folder)
        data, log, port = folder / "data", folder / "log", free_port()
        password = folder / "password"
        password.write_text(PASSWORD)
        account.own(password)

        def run(program: str, *arguments: str) -> None:
            answer = account.run([PROGRAMS / program, f"--pgdata={data}", *arguments], cwd=folder, new_session=True)
            assert answer.returncode == 0, answer.stderr + (log.read_text() if log.exists() else "")

        run(
            "initdb",
            *(f"--username={SUPERUSER}", f"--pwfile={password}", "--auth=scram-sha-256"),
            *("--locale=C", "--encoding=UTF8", "--no-sync"),
        )
        options = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c shared_buffers=16MB"
        )
        run("pg_ctl", "start", "--wait", f"--log={log}", f"--options={options}")
        try:
            yield SecondServer(port=port, data_directory=data)
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
