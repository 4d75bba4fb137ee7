"""The embedded PostgreSQL of one project: start it, stop it, ask for it.

It serves the demo, tests and scratch restores; production is the user's own server. The server is nobody's child: it
outlives whoever started it, and ends only by ``stop``. Nothing counts its users. Any number of processes may start and
stop it at once, and one that is killed meanwhile leaves nothing that the next start does not mend.

What belongs here is what others call. How it is done: ``place`` (where), ``account`` (as whom),
``cluster`` (initdb), ``settings``, ``launch`` (pg_ctl), ``processes`` (who lives).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from dbplatform.errors import ServerError
from dbplatform.home import Home
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.embedded.account import account_for, readable_programs
from dbplatform.postgres.embedded.cluster import SUPERUSER, remove_leftovers
from dbplatform.postgres.embedded.files import read_word, working_in
from dbplatform.postgres.embedded.launch import HOST, launch, password_of, prepare, start_failure
from dbplatform.postgres.embedded.lock import locked
from dbplatform.postgres.embedded.place import Place, choose_place
from dbplatform.postgres.embedded.processes import Postmaster, postmaster_of
from dbplatform.postgres.programs import Programs, find_programs, programs_in

_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What is known of the server at one moment; ``running`` means that it accepts connections.

    A server that does not run has no port, pid, version, start and programs.
    """

    running: bool
    host: str
    port: int | None
    pid: int | None
    version: str | None
    started_at: datetime | None
    data_directory: Path
    log_file: Path | None
    bin_dir: Path | None

    def as_json(self) -> dict[str, Any]:
        """For ``dbplatform server status --json``; holds no secret."""
        return {
            "running": self.running,
            "host": self.host,
            "port": self.port,
            "pid": self.pid,
            "version": self.version,
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "data_directory": str(self.data_directory),
            "log_file": str(self.log_file) if self.log_file else None,
            "bin_dir": str(self.bin_dir) if self.bin_dir else None,
        }


class EmbeddedServer:
    """The one embedded server of a home; any number of these objects, in any process, mean the same server."""

    def __init__(
        self,
        home: Home,
        *,
        settings: Mapping[str, str] | None = None,
        archive_wal: Callable[[], bool] = bool,
        timeout_s: float = 120,
    ) -> None:
        """``settings`` are added to the platform's own, and win, when this object is the one that starts the server.

        ``archive_wal`` is asked then whether the server is to put its finished WAL into ``wal_spool``. ``timeout_s``
        bounds each wait: for the lock, for the server to be ready, for it to end.
        """
        self._home = home
        self._settings = dict(settings or {})
        self._archive_wal = archive_wal
        self._timeout_s = timeout_s

    def start(self) -> ServerStatus:
        """Make the server run and accept connections; the status of the running one when it does already.

        Reads ``DBPLATFORM_PG_BIN`` and ``DBPLATFORM_PG_PORT``. Safe at any time from any number of processes. Raises
        ServerError with the end of the server's log, or with the folder that cannot be used.
        """
        status = self.status()
        if not status.running:
            with locked(self._home.server, timeout_s=self._timeout_s):
                status = self._start_locked()
        with working_in(self._home.server):
            self._place.log.prune()
        return status

    def stop(self) -> None:
        """End the server: sessions are cut off, committed work is kept. Nothing to do when it does not run."""
        if self._home.server.is_dir():
            with locked(self._home.server, timeout_s=self._timeout_s):
                self._stop_locked()

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its data and its files lie, as far as they are there: what ``remove`` deletes or empties."""
        return tuple(dict.fromkeys(path for path in (self._home.server, self._place.folder) if path.is_dir()))

    def remove(self) -> None:
        """Stop the server and delete its data, log, password and port, wherever they lie. Cannot be undone."""
        if not self._home.server.is_dir():
            return
        with locked(self._home.server, timeout_s=self._timeout_s), working_in(self._home.server):
            self._stop_locked()
            place = self._place
            remove_leftovers(place.folder)
            for folder in (place.data_directory, place.log.path, place.wal_spool):
                if folder.exists():
                    shutil.rmtree(folder)
            for file in (place.password_file, place.port_file, place.record, place.archiver):
                file.unlink(missing_ok=True)
            if place.folder != place.state:
                shutil.rmtree(place.folder)

    def status(self) -> ServerStatus:
        """Look at the server; changes nothing. Its answer counts, not only its files."""
        with working_in(self._home.server):
            place = self._place
            account_for(place.data_directory)  # refuses another user's server
            postmaster = postmaster_of(place.data_directory)
            log_file = place.log.newest()
            programs = _programs_of(place) if postmaster else None
        running = postmaster is not None and programs is not None and self._answers(postmaster)
        return ServerStatus(
            running=running,
            host=HOST,
            port=postmaster.port if running and postmaster else None,
            pid=postmaster.pid if running and postmaster else None,
            version=programs.version if running and programs else None,
            started_at=postmaster.started_at if running and postmaster else None,
            data_directory=place.data_directory,
            log_file=log_file,
            bin_dir=programs.bin_dir if running and programs else None,
        )

    def url(self, database: str = "postgres") -> str:
        """The URL of a database, with the superuser's password: a secret. Raises ServerError when nothing runs."""
        status = self.status()
        if not status.running:
            raise ServerError(
                f"The embedded server of {self._home.root} does not run.",
                hint="Start it: dbplatform server start",
            )
        with working_in(self._home.server):
            password = quote(password_of(self._place), safe="")
        return f"postgresql://{SUPERUSER}:{password}@{HOST}:{status.port}/{quote(database, safe='')}"

    @property
    def wal_spool(self) -> Path:
        """The folder of WAL that waits for the archive; there when the server was ever started with ``archive_wal``."""
        return self._place.wal_spool

    @property
    def keeps_wal(self) -> bool:
        """Whether finished WAL stays in ``wal_spool``, where the server archives at all."""
        with working_in(self._home.server):
            return not self._place.wal_let_go.exists()

    def keep_wal(self) -> None:
        """Let finished WAL stay in ``wal_spool`` from now on: a base backup that begins after this can use it.

        Before the first one nothing can, and a server that begins to archive lets it go.
        """
        with working_in(self._home.server):
            self._place.wal_let_go.unlink(missing_ok=True)

    def let_wal_go(self) -> None:
        """Keep no finished WAL any more, and remove what waits in ``wal_spool``: no base backup is there to use it."""
        with working_in(self._home.server):
            mark = self._place.wal_let_go
            mark.touch()
            for path in mark.parent.iterdir():
                if path != mark:
                    path.unlink(missing_ok=True)

    def has_database(self, name: str) -> bool:
        """Whether the running server has such a database."""
        with connect(Target(name="postgres", url=self.url()), work="server") as connection:
            return _has_database(connection, name)

    def ensure_database(self, name: str) -> None:
        """Create the database when it is missing; two callers at once are both content."""
        with connect(Target(name="postgres", url=self.url()), work="server") as connection:
            if _has_database(connection, name):
                return
            statement = sql.SQL("create database {} template template0").format(sql.Identifier(name))
            try:
                connection.execute(statement)
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return
            except psycopg.Error as error:
                raise ServerError(
                    f"The database {name!r} could not be created: {str(error).strip()}",
                    hint=f"See the server's log: {self._place.log.newest()}",
                ) from error

    @property
    def _place(self) -> Place:
        return Place.of(self._home)

    def _start_locked(self) -> ServerStatus:
        """A server that another process has brought half way is waited for; one that ends meanwhile is replaced."""
        if postmaster_of(self._place.data_directory) is not None:
            status = self._wait_until_ready()
            if status is not None:
                return status
        with working_in(self._home.server):
            account = account_for(self._place.data_directory)
            programs = readable_programs(find_programs(), account)
            place = choose_place(self._place, account)
        with working_in(place.folder):
            prepare(place, programs, account, self._settings, archive_wal=self._archive_wal())
            launch(place, programs, account, timeout_s=self._timeout_s)
        status = self._wait_until_ready()
        if status is None:
            raise start_failure(place, "The embedded server ended while it was starting.")
        return status

    def _wait_until_ready(self) -> ServerStatus | None:
        """Ask the server until it answers; None when its postmaster ends first."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            status = self.status()
            if status.running:
                return status
            if postmaster_of(status.data_directory) is None:
                return None
            if time.monotonic() > deadline:
                raise start_failure(self._place, f"The embedded server was not ready after {self._timeout_s:.0f} s.")
            time.sleep(_POLL_S)

    def _answers(self, postmaster: Postmaster) -> bool:
        """Whether the server accepts connections; one that says nothing for 3 s does not.

        Asked by libpq in this process, as ``pg_isready`` does: the looks come often, also from Dagster's server of
        code, whose threads make a fork a gamble.
        """
        if not postmaster.port:
            return False
        timeout = min(3, max(1, round(self._timeout_s)))
        where = make_conninfo(
            host=HOST, port=postmaster.port, dbname="postgres", user=SUPERUSER, sslmode="disable", gssencmode="disable",
            connect_timeout=timeout,
        )  # fmt: skip
        return PGconn.ping(where.encode()) == Ping.OK

    def _stop_locked(self) -> None:
        with working_in(self._home.server):
            place = self._place
            account = account_for(place.data_directory)
            if postmaster_of(place.data_directory) is None:
                return
            programs = readable_programs(_programs_of(place), account)
        answer = account.run(
            [
                programs.path("pg_ctl"),
                "stop",
                f"--pgdata={place.data_directory}",
                "--mode=fast",
                "--wait",
                f"--timeout={max(1, round(self._timeout_s))}",
            ],
            programs=programs,
            new_session=True,
        )
        if answer.returncode != 0 and postmaster_of(place.data_directory) is not None:
            raise ServerError(
                f"The embedded server did not stop: {' '.join(answer.stderr.split())}",
                hint=f"See its log: {place.log.newest()}",
            )


def _has_database(connection: AutocommitConnection, name: str) -> bool:
    return connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone() is not None


def _programs_of(place: Place) -> Programs:
    """The programs that the server was started with, or those of today when they are gone."""
    command = read_word(place.data_directory / "postmaster.opts") or ""
    program = Path(command.split(' "', 1)[0])
    return programs_in(program.parent) if program.is_file() else find_programs()
