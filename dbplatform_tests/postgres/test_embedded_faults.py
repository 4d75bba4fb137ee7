"""The embedded server under crowds and kills: many starters at once, any process killed at any moment."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from dbplatform.errors import ServerError
from dbplatform.home import Home
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.lock import locked
from dbplatform.postgres.embedded.processes import postmaster_of
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.drills.breaking import broken, cut
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.embedded_support import (
    embedded,
    in_children,
    open_folder,
    spawn,
    wait_until,
)


@pytest.fixture(autouse=True)
def no_port_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBPLATFORM_PG_PORT", raising=False)


@pytest.fixture
def new_home() -> Iterator[Home]:
    """A home without a server; what is started there is removed."""
    with open_folder() as folder, embedded(folder / "home"):
        yield Home(root=folder / "home")


@pytest.fixture(scope="module")
def made_once() -> Iterator[Home]:
    """A home whose data directory is made by the first test that starts its server."""
    with open_folder() as folder, embedded(folder / "home"):
        yield Home(root=folder / "home")


@pytest.fixture
def home(made_once: Home) -> Iterator[Home]:
    """A home whose server is stopped before and after the test."""
    yield made_once
    EmbeddedServer(made_once).stop()


@pytest.fixture
def server(home: Home) -> EmbeddedServer:
    return EmbeddedServer(home)


def test_eight_processes_that_start_at_once_get_one_server(
    new_home: Home,
) -> None:
    answers = in_children(8, EmbeddedServer(new_home).start)
    status = EmbeddedServer(new_home).status()
    assert status.running
    assert [(answer.pid, answer.port) for answer in answers] == [(status.pid, status.port)] * 8


# The moments of a first start, as its files show them.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "lock": lambda folder: (folder / "lock").exists(),
    "initdb": lambda folder: any(folder.glob("data.new-*/data/base")),
    "data directory": lambda folder: (folder / "data").exists(),
    "postmaster": lambda folder: (folder / "data" / "postmaster.pid").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_starter_killed_at_any_moment_is_mended_by_the_next(new_home: Home, moment: str) -> None:
    server = EmbeddedServer(new_home)
    starter = spawn(server.start)
    wait_until(lambda: MOMENTS[moment](new_home.server))
    assert starter.pid is not None
    os.kill(starter.pid, signal.SIGKILL)
    starter.join()
    assert starter.exitcode == -signal.SIGKILL
    status = server.start()
    assert status.running
    assert not list(new_home.server.glob("data.new-*"))
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_the_server_outlives_its_starters_process_group(home: Home, server: EmbeddedServer) -> None:
    go_on = threading.Event()

    def start_and_stay() -> None:
        EmbeddedServer(home).start()
        (home.root / "started").touch()
        go_on.wait()

    starter = spawn(start_and_stay)
    wait_until((home.root / "started").exists)
    before = server.status()
    assert starter.pid is not None
    assert before.pid is not None
    assert os.getsid(before.pid) != os.getsid(starter.pid)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.join()
    assert server.status() == before
    assert before.running


def test_the_server_does_not_hold_the_lock(home: Home, server: EmbeddedServer) -> None:
    assert server.start().running
    with (home.server / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)


def test_a_start_behind_a_held_lock_gives_up_with_the_way_to_see_who(home: Home) -> None:
    with locked(home.server, timeout_s=1), pytest.raises(ServerError, match="Another process") as caught:
        EmbeddedServer(home, timeout_s=0.1).start()
    assert caught.value.hint is not None
    assert "fuser" in caught.value.hint


def test_a_killed_postmaster_with_a_busy_orphan_is_replaced_and_its_data_is_intact(
    server: EmbeddedServer,
) -> None:
    killed = server.start()
    assert killed.pid is not None
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("create table kept as select g from generate_series(1, 1000) g")
    busy = psycopg.connect(server.url(), autocommit=True)
    orphan = busy.info.backend_pid
    with ThreadPoolExecutor(1) as pool:
        # It never looks whether its postmaster lives.
        endless = pool.submit(busy.execute, "select count(*) from generate_series(1, 1e12)")
        with psycopg.connect(server.url(), autocommit=True) as other:
            wait_until(
                lambda: other.execute(
                    "select 1 from pg_stat_activity where pid = %s and state = 'active'", (orphan,)
                ).fetchone()
            )
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: postmaster_of(killed.data_directory) is None)
        assert not server.status().running
        with pytest.raises(ServerError, match="does not run"):
            server.url()
        os.kill(orphan, 0)
        status = server.start()
        assert status.pid != killed.pid
        assert isinstance(endless.exception(), psycopg.OperationalError)
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (1000,)
    busy.close()


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(server: EmbeddedServer) -> None:
    status = server.start()
    pid_file = status.data_directory / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert not server.status().running
    server.stop()
    assert server.start().running


def _emptied(data: Path) -> None:
    _pid_file(data, b"")


def _other_bytes(data: Path) -> None:
    _pid_file(data, bytes(64))


def _pid_file(data: Path, content: bytes) -> None:
    file = data / "postmaster.pid"
    file.write_bytes(content)
    os.chown(file, data.stat().st_uid, data.stat().st_gid)


def _without_version(data: Path) -> None:
    (data / "PG_VERSION").rename(data.parent / "aside")


def _control_file(data: Path) -> None:
    _flip(data / "global" / "pg_control")


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[64] ^= 1
    file.write_bytes(content)


def _version_back(data: Path) -> None:
    (data.parent / "aside").rename(data / "PG_VERSION")


def _no_pid_file(data: Path) -> None:
    (data / "postmaster.pid").unlink()


@pytest.mark.parametrize(
    ("damage", "said", "mend"),
    cases(
        (_emptied, "postmaster.pid", _no_pid_file),
        (_other_bytes, "postmaster.pid", _no_pid_file),
        (_without_version, "is not a database cluster directory", _version_back),
        (_control_file, "pg_control|control file", _control_file),
        sample=(_emptied,),
    ),
)
def test_a_damaged_data_folder_is_told_and_left_as_it_is_and_serves_once_it_is_mended(
    server: EmbeddedServer, damage: Callable[[Path], None], said: str, mend: Callable[[Path], None]
) -> None:
    data = server.start().data_directory
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("create table if not exists there as select g from generate_series(1, 1000) g")
    server.stop()
    damage(data)
    with pytest.raises(ServerError, match=said):
        server.start()
    assert not server.status().running
    mend(data)
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("select count(*), sum(g) from there").fetchone() == (1000, 500500)


@pytest.mark.parametrize("moment", cases(*range(3), sample=(2,)))
def test_a_database_whose_making_loses_its_session_is_made_by_the_next(server: EmbeddedServer, moment: int) -> None:
    server.start()
    postgres, name = Target("the server", server.url("postgres")), f"cut {moment}"
    failed = broken(
        postgres, lambda: server.ensure_database(name), lambda: cut(postgres), moment=moment, of=3, moments=3
    )
    assert failed
    server.ensure_database(name)
    assert server.has_database(name)


def test_a_server_that_is_up_but_does_not_answer_is_not_running(home: Home, server: EmbeddedServer) -> None:
    status = server.start()
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    try:
        assert not EmbeddedServer(home, timeout_s=1).status().running
        with pytest.raises(ServerError, match="was not ready after"):
            EmbeddedServer(home, timeout_s=0.1).start()
    finally:
        os.kill(status.pid, signal.SIGCONT)
    assert server.start().pid == status.pid


def test_starts_and_stops_that_race_leave_a_server_that_starts(home: Home, server: EmbeddedServer) -> None:
    def start_or_stop() -> None:
        one = EmbeddedServer(home)
        one.start()
        one.stop()

    assert in_children(4, start_or_stop) == [None] * 4
    assert not server.status().running
    assert server.start().running


def test_a_database_that_two_create_at_once_exists_once(server: EmbeddedServer) -> None:
    server.start()
    barrier = threading.Barrier(2)

    def ensure(name: str) -> None:
        barrier.wait()
        server.ensure_database(name)

    names = [f"race {number}" for number in range(3)]
    with ThreadPoolExecutor(2) as pool:
        for name in names:
            list(pool.map(ensure, [name, name]))
    assert server.has_database(names[0])
    assert not server.has_database("race")
    with psycopg.connect(server.url()) as connection:
        rows = connection.execute("select datname from pg_database where datname like 'race%'")
        assert sorted(name for (name,) in rows) == names
