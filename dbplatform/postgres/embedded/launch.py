"""From a place on disk to a living postmaster: the data directory made ready, a port found, pg_ctl run.

Everything here is done under the server's lock, and repairs what a killed predecessor left.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from secrets import token_urlsafe

from dbplatform.errors import ServerError, UsageError
from dbplatform.postgres.embedded.account import Account
from dbplatform.postgres.embedded.cluster import create_cluster, refuse_other_version, remove_leftovers
from dbplatform.postgres.embedded.files import NO_SPACE, disk_full, read_word, write_private
from dbplatform.postgres.embedded.log import tail
from dbplatform.postgres.embedded.place import Place
from dbplatform.postgres.embedded.processes import (
    end_processes_in,
    forget_dead_postmaster,
    free_port,
    holder_of_port,
    port_is_free,
    postmaster_of,
)
from dbplatform.postgres.embedded.settings import (
    archive_settings,
    default_settings,
    place_settings,
    write_settings,
)
from dbplatform.postgres.programs import Programs

HOST = "127.0.0.1"
PREFERRED_PORT = 54329
_TRIED_PORTS = 20
_POLL_S = 0.1
_PORT_TAKEN = re.compile(r"could not bind IPv4 address|could not create any TCP/IP sockets")
_OLD_PROCESSES = "pre-existing shared memory block"


def prepare(
    place: Place, programs: Programs, account: Account, settings: Mapping[str, str], *, archive_wal: bool
) -> None:
    """Everything but the process: log folder, password, data directory, settings; leftovers are ended.

    Raises ServerError when the data directory was made by another major version or its password is lost.
    """
    account.make_folder(place.log.path)
    remove_leftovers(place.folder)
    if not place.data_directory.is_dir():
        if read_word(place.password_file) is None:
            write_private(place.password_file, token_urlsafe(24))
        create_cluster(place.data_directory, programs=programs, account=account, password=password_of(place))
    password_of(place)
    refuse_other_version(place.data_directory, programs)
    end_processes_in(place.data_directory, signals=(signal.SIGQUIT, signal.SIGKILL))
    forget_dead_postmaster(place.data_directory)
    archiving = _archiving(place, programs, account) if archive_wal else dict[str, str]()
    write_settings(place.data_directory, default_settings() | archiving | dict(settings), account)


def _archiving(place: Place, programs: Programs, account: Account) -> dict[str, str]:
    """The spool and the program that fills it, written anew; the settings that make the server use them.

    Where none was ever archived nothing is kept yet; else there may be a base backup, whatever became of the spool.
    """
    if not place.wal_spool.is_dir():
        account.make_folder(place.wal_spool)
    if not place.archiver.exists():
        place.wal_let_go.touch()
    script = Path(__file__).with_name("archive_wal.sh").read_text()
    write_private(place.archiver, script)
    account.own(place.archiver)
    return archive_settings(place.archiver, major=programs.major)


def launch(place: Place, programs: Programs, account: Account, *, timeout_s: float) -> None:
    """Start a postmaster on the first port that it can have, and remember that port.

    The postmaster is in a session of its own: neither ctrl-C nor the end of the caller's process group reaches it.
    ``DBPLATFORM_PG_PORT`` is the only port when it is set; else the remembered one, 54329, any free one.
    """
    deadline = time.monotonic() + timeout_s
    for port in _ports(place):
        said = _launch_on(port, place, programs, account, timeout_s)
        while said is not None and _OLD_PROCESSES in said and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            said = _launch_on(port, place, programs, account, timeout_s)
        if said is None:
            write_private(place.port_file, str(port))
            return
        if not _PORT_TAKEN.search(said):
            raise start_failure(place, "The embedded server did not start.", said)
    raise ServerError(f"The embedded server found no free port on {HOST} in {_TRIED_PORTS} tries.")


def password_of(place: Place) -> str:
    """The superuser's password: a secret. Raises ServerError when its file is gone."""
    password = read_word(place.password_file)
    if password is None:
        raise ServerError(
            f"The password of the embedded server is missing: {place.password_file}.",
            hint=f"Put the file back; or stop the server, and begin with an empty one: move {place.folder} away.",
        )
    return password


def start_failure(place: Place, sentence: str, said: str | None = None) -> ServerError:
    """The error of a start, with the end of what the server ``said`` (by default of its newest log)."""
    text = place.log.end() if said is None else said
    if NO_SPACE in text:
        return disk_full(place.folder)
    return ServerError(
        f"{sentence} The end of its log:{tail(text)}",
        hint=f"The whole log: {place.log.newest() or place.log.startup}",
    )


def _launch_on(port: int, place: Place, programs: Programs, account: Account, timeout_s: float) -> str | None:
    """One try; None when a postmaster lives now, else what the server said."""
    place.log.startup.unlink(missing_ok=True)
    before = place.log.sizes()
    options = place_settings(port=port, data_directory=place.data_directory, log_directory=place.log.path)
    answer = account.run(
        [
            programs.path("pg_ctl"),
            "start",
            # pg_ctl hands both to a shell in double quotes, so a home with a quote or a dollar sign is kept from it.
            f"--pgdata={place.data_directory.relative_to(place.folder)}",
            f"--log={place.log.startup.relative_to(place.folder)}",
            "--wait",
            f"--timeout={max(1, round(timeout_s))}",
            "--options=" + shlex.join(f"--{name}={value}" for name, value in options.items()),
        ],
        programs=programs,
        cwd=place.folder,
        new_session=True,
    )
    if answer.returncode == 0 or postmaster_of(place.data_directory) is not None:
        return None
    return place.log.since(before) or answer.stderr


def _ports(place: Place) -> Iterator[int]:
    """The ports to try, each free a moment ago."""
    declared = os.environ.get("DBPLATFORM_PG_PORT")
    if declared:
        port = _checked_port(declared)
        if port_is_free(port):
            yield port
        raise _port_is_held(port)
    remembered = read_word(place.port_file) or ""
    first = int(remembered) if remembered.isdecimal() else PREFERRED_PORT
    for port in dict.fromkeys((first, PREFERRED_PORT)):
        if port_is_free(port):
            yield port
    for _ in range(_TRIED_PORTS):
        yield free_port()


def _checked_port(declared: str) -> int:
    if not declared.isdecimal() or not 1024 <= int(declared) <= 65535:
        raise UsageError(
            f"DBPLATFORM_PG_PORT is {declared!r}, which is not a port between 1024 and 65535.",
            hint="Correct it, or unset it: then a free port is found.",
        )
    return int(declared)


def _port_is_held(port: int) -> ServerError:
    holder = holder_of_port(port)
    who = f"is held by {holder}" if holder else "is in use"
    return ServerError(
        f"Port {port} of {HOST}, which DBPLATFORM_PG_PORT names, {who}.",
        hint=f"End that program (see it: ss -ltnp 'sport = :{port}'), name another port, or unset the variable.",
    )
