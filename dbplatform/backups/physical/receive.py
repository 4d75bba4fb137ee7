"""Receives the WAL of a server that the platform does not run: pg_receivewal under supervision, into the spool.

A replication slot makes the server keep what was not received yet, so that nothing is missing after a pause. What it
keeps is watched, because a slot that nobody reads fills the server's disk.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dbplatform import progress
from dbplatform.backups.holding import held
from dbplatform.backups.physical.archive import WalArchive
from dbplatform.backups.physical.errors import NotPrimary, ReceiveFailed
from dbplatform.backups.physical.server import Server, read_server
from dbplatform.backups.physical.slot import read_slot, slot_name
from dbplatform.backups.physical.spool import ship
from dbplatform.backups.programs import same_major
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import login
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.programs import Programs

_SHIP_S = 1.0
_WATCH_S = 15.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"


@dataclass(slots=True, kw_only=True)
class Receiver:
    """The service for one server; one process at a time, held by a lock in the ledger."""

    target: Target
    spool: Path
    archive: WalArchive
    ledger: Ledger
    programs: Programs
    limit_bytes: int
    """How much WAL the slot may keep before that is told."""
    tell: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _told: str | None = None

    def run(self) -> None:
        """Receive until interrupted; whatever ends pg_receivewal is told, and it begins again after a pause.

        The pause doubles up to a minute, and is short again once the program has run that long. Reports the facts
        ``receive <server>: receiving, shipped``. Raises ``ReplicationForbidden``, ``NoSameProgram``, and
        ``ReceiveFailed`` where another process receives already or the server is another one than before.
        """
        server = self._look()
        with held(self.ledger, f"receive {server.system}") as mine:
            if not mine:
                raise ReceiveFailed(
                    server=server.place, reason="another process receives it", hint="One is enough: end the other."
                )
            pause = _FIRST_PAUSE_S
            while True:
                begun = self.clock()
                try:
                    self._receive(self._look())
                except ReceiveFailed as error:
                    self._say(error.message)
                except WorkError as error:
                    self._say(f"{error.message} {error.hint or ''}".strip())
                if self.clock() - begun > _LONGEST_PAUSE_S:
                    pause = _FIRST_PAUSE_S
                self.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _look(self) -> Server:
        """The server, fit to be received from, with its slot."""
        with connect(self.target, work="receive") as connection:
            server = read_server(connection, self.target)
            if server.system != self.archive.system:
                raise ReceiveFailed(
                    server=server.place,
                    reason=f"its system identifier is {server.system}, not {self.archive.system}",
                    hint="A new server needs a base backup of its own; start wal receive anew.",
                )
            # A standby has all the WAL, too.
            if server.refusal is not None and not isinstance(server.refusal, NotPrimary):
                raise server.refusal
            same_major(self.programs, "pg_receivewal", major=server.major)
            # pg_receivewal outlives a process that was killed, and holds the slot; we hold the lock.
            connection.execute(_END_SESSIONS, (f"dbplatform {_application(server)}",))
            if read_slot(connection, server.system) is None:
                connection.execute("select pg_create_physical_replication_slot(%s, true)", (slot_name(server.system),))
        return server

    def _receive(self, server: Server) -> None:
        """Run pg_receivewal until it ends, which it never does by itself; raises ``ReceiveFailed`` with its words."""
        self.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile() as said, self._program(server, said.fileno()) as process:
            _fact(server, "receiving")
            watched = self.clock()
            while process.poll() is None:
                self._ship(server)
                if self.clock() - watched >= _WATCH_S:
                    watched = self.clock()
                    self._watch(server)
                self.sleep(_SHIP_S)
            self._ship(server)
            said.seek(0)
            words = " ".join(said.read().decode(errors="replace").replace("pg_receivewal: ", "").split())
        raise ReceiveFailed(
            server=server.place,
            reason=words[-400:].rstrip(".") or f"pg_receivewal ended with code {process.returncode}",
            hint="It is tried again.",
        )

    @contextmanager
    def _program(self, server: Server, said: int) -> Iterator[subprocess.Popen[bytes]]:
        access = login(self.target, work=_application(server))
        program = same_major(self.programs, "pg_receivewal", major=server.major).path("pg_receivewal")
        command: list[str | Path] = [
            program,
            f"--directory={self.spool}",
            f"--slot={slot_name(server.system)}",
            "--no-loop",
            "--no-password",
            f"--dbname={access.dbname}",
        ]
        with subprocess.Popen(
            command, env=access.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def _ship(self, server: Server) -> None:
        """What cannot be shipped now stays in the spool; the server's WAL still comes."""
        try:
            if ship(self.spool, self.archive):
                _fact(server, "shipped")
        except WorkError as error:
            self._say(f"{error.message} {error.hint or ''}".strip())

    def _watch(self, server: Server) -> None:
        with connect(self.target, work="receive") as connection:
            slot = read_slot(connection, server.system)
        if slot is not None and (finding := slot.finding(self.limit_bytes)):
            self._say(finding)

    def _say(self, words: str) -> None:
        """A sentence is told once, until another one is."""
        if words != self._told:
            self._told = words
            self.tell(words)


def _application(server: Server) -> str:
    return f"receives {server.system}"


def _fact(server: Server, fact: str) -> None:
    progress.report(f"receive {server.place}: {fact}", done=1, total=1, unit="step")
