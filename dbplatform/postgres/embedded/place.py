"""Where the parts of the embedded server lie.

Password, port and lock lie in ``Home.server``. Data and log lie beside them, except when the server's user cannot enter
the project's folder: then ``place`` in ``Home.server`` names a folder of ``/var/lib/dbplatform``. Its name is a digest
of the home's path, so that a person can tell whose it is, and a random part, so that a new home at an old path begins
empty.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from dbplatform.errors import ServerError
from dbplatform.home import Home
from dbplatform.postgres.embedded.account import SHARED_ROOT, Account, shared_root_locked
from dbplatform.postgres.embedded.files import read_word, working_in, write_private
from dbplatform.postgres.embedded.log import LogFolder
from dbplatform.postgres.embedded.processes import end_processes_in, postmaster_of


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one home's server; ``folder`` holds data, log and spooled WAL, ``state`` the rest."""

    state: Path
    folder: Path

    @classmethod
    def of(cls, home: Home) -> Place:
        """The place of a home's server, as an earlier start recorded it; touches nothing."""
        recorded = read_word(home.server / "place")
        return cls(state=home.server, folder=Path(recorded) if recorded else home.server)

    @property
    def data_directory(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> LogFolder:
        return LogFolder(self.folder / "log")

    @property
    def wal_spool(self) -> Path:
        """Where finished WAL waits to be brought into the archive, when the server archives."""
        return self.folder / "wal"

    @property
    def wal_let_go(self) -> Path:
        """A file that is there while the server lets its finished WAL go instead."""
        return self.wal_spool / ".let_go"

    @property
    def archiver(self) -> Path:
        """The program that puts it there."""
        return self.folder / "archive_wal.sh"

    @property
    def password_file(self) -> Path:
        return self.state / "password"

    @property
    def port_file(self) -> Path:
        return self.state / "port"

    @property
    def record(self) -> Path:
        return self.state / "place"


def choose_place(place: Place, account: Account) -> Place:
    """The same place, or a new one outside the home when ``account`` cannot enter the home; its folder exists.

    Raises ServerError when the recorded folder is gone, or when data lies where ``account`` cannot go. The caller holds
    the server's lock.
    """
    if place.folder != place.state:
        if not place.folder.is_dir():
            raise ServerError(
                f"The embedded server's data was in {place.folder}, which is gone.",
                hint=f"Bring that folder back; or begin with an empty server: rm {place.record}",
            )
        return place
    if account.can_enter(place.state):
        return place
    if place.data_directory.exists():
        raise ServerError(
            f"The embedded server runs as user {account.name}, who cannot enter {place.state} any more.",
            hint="Give that user the right to enter the folder and its parents: chmod a+x.",
        )
    return _new_place(place)


def forgotten_servers() -> list[Path]:
    """The folders of ``/var/lib/dbplatform`` whose home is gone, or has begun anew elsewhere; only reads."""
    return [folder for folder in sorted(SHARED_ROOT.glob("*-*")) if _is_forgotten(folder)]


def _is_forgotten(folder: Path) -> bool:
    home = read_word(folder / "home")
    if home is None:
        return False
    # One without a record is just being made.
    recorded = read_word(Path(home) / "place")
    return not Path(home).exists() or recorded not in (None, str(folder))


def remove_forgotten(folder: Path) -> bool:
    """Stop the server of such a folder and delete it; whether it still was one. Raises ``OSError``."""
    with shared_root_locked(), working_in(SHARED_ROOT):
        if not _is_forgotten(folder):
            return False
        end_processes_in(folder, signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
        shutil.rmtree(folder)
    return True


def _new_place(place: Place) -> Place:
    digest = hashlib.sha256(bytes(place.state)).hexdigest()[:8]
    folder = SHARED_ROOT / f"{digest}-{token_hex(4)}"
    with shared_root_locked(), working_in(SHARED_ROOT):
        for forgotten in SHARED_ROOT.glob(f"{digest}-*"):
            _stop_forgotten(forgotten)
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "home").write_text(f"{place.state}\n")
    write_private(place.record, str(folder))
    return Place(state=place.state, folder=folder)


def _stop_forgotten(folder: Path) -> None:
    """Ask the server of a home that has been deleted to end (a fast shutdown); its data is left alone."""
    postmaster = postmaster_of(folder / "data")
    if postmaster is not None:
        with suppress(ProcessLookupError):
            os.kill(postmaster.pid, signal.SIGINT)
