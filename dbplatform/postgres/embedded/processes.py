"""What the operating system knows of a server: its postmaster, what it left behind, who holds a port.

``postmaster.pid`` alone proves nothing: after a kill it names a dead process, after a reboot perhaps a living stranger.
Where there is a ``/proc`` (Linux) a process counts as the server's when its working folder is the data directory, as
PostgreSQL sets it; where that is hidden (root in a container, without CAP_SYS_PTRACE) its command line is asked, which
shows the ``cluster_name``. Elsewhere only the file and the process's existence are asked, and the server's own
interlock (it refuses to start while old processes hold its shared memory) does the rest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PROC = Path("/proc")
_TCP_LISTEN = "0A"
_POSTGRESQL_PROCESSES = ("postgres", "initdb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """A living postmaster, as its ``postmaster.pid`` describes it (port 0: not yet written)."""

    pid: int
    port: int
    started_at: datetime


def postmaster_of(data_directory: Path) -> Postmaster | None:
    """The postmaster that serves ``data_directory``, or None; raises PermissionError when it may not be read.

    Source: https://www.postgresql.org/docs/current/storage-file-layout.html (postmaster.pid).
    """
    try:
        lines = (data_directory / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    if len(lines) < 3 or not lines[0].strip().isdigit():
        return None
    pid = int(lines[0])
    if not _is_alive(pid) or (_can_see_folders() and not _works_in(pid, data_directory)):
        return None
    port = int(lines[3]) if len(lines) > 3 and lines[3].strip().isdigit() else 0
    return Postmaster(pid=pid, port=port, started_at=datetime.fromtimestamp(int(lines[2]), tz=UTC))


def cluster_name(data_directory: Path) -> str:
    """What each process of the server on ``data_directory`` shows of itself in ``ps``."""
    return f"dbplatform-{hashlib.sha256(bytes(data_directory)).hexdigest()[:12]}"


def forget_dead_postmaster(data_directory: Path) -> None:
    """Remove a ``postmaster.pid`` that would keep PostgreSQL from starting although its postmaster is dead.

    PostgreSQL refuses when the number in it belongs to any process of its user: to a stranger, as after the restart of
    a container, or to the dead postmaster itself, whose end nobody has asked for. A number that no process has is left
    to PostgreSQL.
    """
    file = data_directory / "postmaster.pid"
    with suppress(OSError, ValueError):
        pid = int(file.read_text().split("\n", 1)[0])
        stranger = _can_see_folders() and not _works_in(pid, data_directory)
        if _exists(pid) and (_is_zombie(pid) or stranger):
            file.unlink()


def end_processes_in(folder: Path, *, signals: tuple[signal.Signals, ...], patience_s: float = 10) -> None:
    """End PostgreSQL's processes that work in ``folder`` or below it, and wait until they are gone.

    For what a killed server or a killed initdb left behind. The signals are sent in turn, the next one when the
    processes are still there after ``patience_s``. What they had committed is safe in the WAL. A person's shell in
    that folder is left alone. Does nothing where there is no ``/proc``.
    """
    for sign in signals:
        deadline = time.monotonic() + patience_s
        for pid in _processes_in(folder):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sign)
        while _processes_in(folder) and time.monotonic() < deadline:
            time.sleep(0.02)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def holder_of_port(port: int) -> str | None:
    """``nginx (process 812)``: who listens on ``port``, or None where that cannot be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return None
    for pid in _all_processes():
        with suppress(OSError):
            for descriptor in (_PROC / str(pid) / "fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        return f"{_name_of(pid)} (process {pid})"
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _TCP_LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    yield fields[9]


def _is_alive(pid: int) -> bool:
    return _exists(pid) and not _is_zombie(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_zombie(pid: int) -> bool:
    """Dead, but nobody has asked for its end: common in a container without an init process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def _can_see_folders() -> bool:
    return (_PROC / "self" / "cwd").is_symlink()


def _works_in(pid: int, folder: Path) -> bool:
    """Whether the process works in ``folder`` or below it."""
    try:
        return (_PROC / str(pid) / "cwd").readlink().is_relative_to(folder.resolve())
    except PermissionError:
        with suppress(OSError):
            command = (_PROC / str(pid) / "cmdline").read_bytes()
            return bytes(folder) in command or cluster_name(folder).encode() in command
        return True
    except OSError:
        return False


def _processes_in(folder: Path) -> list[int]:
    return [
        pid
        for pid in _all_processes()
        if _name_of(pid) in _POSTGRESQL_PROCESSES and _works_in(pid, folder) and not _is_zombie(pid)
    ]


def _name_of(pid: int) -> str | None:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return None


def _all_processes() -> list[int]:
    try:
        return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []
