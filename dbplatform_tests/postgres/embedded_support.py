"""What the tests of the embedded server share: homes that any user can enter, children to kill, events to wait for."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from dbplatform.home import Home
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.processes import free_port
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.programs import Programs, programs_in

IS_ROOT = os.geteuid() == 0
# A child made by fork has everything imported: it also works as a user who cannot read this repository.
_FORK = multiprocessing.get_context("fork")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can enter; removed with all it holds."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def embedded(root: Path, **options: Any) -> Iterator[EmbeddedServer]:
    """A server of the home ``root``, stopped and deleted at the end, whoever started it."""
    server = EmbeddedServer(Home(root=root), **options)
    try:
        yield server
    finally:
        server.remove()


def become(user: str) -> None:
    """Give up root's rights for those of ``user``; an ordinary user stays what it is."""
    if IS_ROOT:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


def spawn(work: Callable[[], Any]) -> BaseProcess:
    """Run ``work`` in a child process with a session of its own."""

    def child() -> None:
        os.setsid()
        work()

    process = _FORK.Process(target=child)
    process.start()
    return process


def in_children(count: int, work: Callable[[], Any]) -> list[Any]:
    """Run ``work`` in that many processes at the same moment; what each returned or raised."""
    barrier = _FORK.Barrier(count)
    children = []
    for _ in range(count):
        receiver, sender = _FORK.Pipe(duplex=False)

        def child(sender: Connection = sender) -> None:
            barrier.wait()
            try:
                sender.send(work())
            except Exception as error:
                sender.send(error)

        children.append((spawn(child), receiver))
        # Ours is closed, so that a child that dies is an end of file and not an endless wait.
        sender.close()
    answers = [receiver.recv() for _, receiver in children]
    for process, _ in children:
        process.join()
    return answers


def as_user(user: str, work: Callable[[], Any]) -> Any:
    """What ``work`` returns or raises in a child process of ``user``."""

    def child() -> Any:
        become(user)
        return work()

    return in_children(1, child)[0]


def wait_until(happened: Callable[[], Any]) -> None:
    """Return at the event; fail when it has not come after a minute."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "the event never came"
        time.sleep(0.001)


def programs_of(server: EmbeddedServer) -> Programs:
    bin_dir = server.status().bin_dir
    assert bin_dir is not None
    return programs_in(bin_dir)


@contextmanager
def replica(server: EmbeddedServer) -> Iterator[Target]:
    """A streaming replica of the server, by a slot of its own; stopped at the end, its slot dropped."""
    programs, account = programs_of(server), account_for(server.status().data_directory)
    with open_folder() as folder:
        account.own(folder)
        data, port = folder / "data", free_port()
        copied = account.run(
            [
                programs.path("pg_basebackup"),
                f"--pgdata={data}",
                f"--dbname={server.url('postgres')}",
                *("--checkpoint=fast", "--write-recovery-conf", "--create-slot", "--slot=replica"),
            ],
            programs=programs,
            cwd=folder,
        )
        assert copied.returncode == 0, copied.stderr
        start = [
            programs.path("pg_ctl"),
            "start",
            "--wait",
            f"--pgdata={data}",
            f"--log={folder / 'log'}",
            f"--options=-p {port} -c listen_addresses=127.0.0.1 -c logging_collector=off "
            "-c unix_socket_directories= -c cluster_name=replica -c wal_receiver_status_interval=1s",
        ]
        try:
            started = account.run(start, programs=programs, cwd=folder, new_session=True)
            assert started.returncode == 0, (folder / "log").read_text()
            yield Target("replica", make_conninfo(server.url("postgres"), port=port))
        finally:
            stop = [programs.path("pg_ctl"), "stop", "--mode=immediate", f"--pgdata={data}"]
            account.run(stop, programs=programs, cwd=folder)
