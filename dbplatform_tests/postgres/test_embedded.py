"""The embedded server as one process sees it: start, status, stop, secrets, ports, settings, users, places.

One module, because all of it is the life of one server.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbplatform.errors import ServerError, UsageError
from dbplatform.home import Home
from dbplatform.postgres.embedded import account, launch, place
from dbplatform.postgres.embedded.account import account_for, readable_programs
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.postgres.embedded_support import IS_ROOT, as_user, embedded, open_folder


@pytest.fixture(autouse=True)
def no_port_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBPLATFORM_PG_PORT", raising=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture
def shared_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for /var/lib/dbplatform."""
    with open_folder() as path:
        for module in (account, place):
            monkeypatch.setattr(module, "SHARED_ROOT", path / "dbplatform")
        yield path / "dbplatform"


@pytest.fixture(scope="module")
def made_once() -> Iterator[Home]:
    """A home whose data directory is made by the first test that starts its server."""
    with open_folder() as path, embedded(path / "home"):
        yield Home(root=path / "home")


@pytest.fixture
def server(made_once: Home) -> Iterator[EmbeddedServer]:
    """A server that is stopped before and after the test."""
    server = EmbeddedServer(made_once)
    yield server
    server.stop()


@pytest.fixture
def held_port() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        yield holder.getsockname()[1]


@pytest.fixture
def full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where initdb runs out of space: a disk of 8 MB, which takes root's rights to mount.

    An ordinary user meets an initdb that says what it says on a full disk.
    """
    small = folder / "small"
    small.mkdir()
    if not IS_ROOT:
        programs = folder / "programs"
        programs.mkdir()
        for program in find_programs().bin_dir.iterdir():
            (programs / program.name).symlink_to(program)
        (programs / "initdb").unlink()
        (programs / "initdb").write_text(
            "#!/bin/sh\necho x > /dev/full || { echo No space left on device >&2; exit 1; }\n"
        )
        (programs / "initdb").chmod(0o755)
        monkeypatch.setenv("DBPLATFORM_PG_BIN", str(programs))
        yield small
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", small], check=True)
    yield small
    subprocess.run(["umount", small], check=True)


def value(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def test_start_is_idempotent_and_stop_ends_it(server: EmbeddedServer) -> None:
    first = server.start()
    assert first.running
    assert server.start() == first
    assert server.status() == first
    assert first.version is not None
    assert str(value(server.url(), "show server_version")).startswith(first.version)
    server.stop()
    assert not server.status().running
    server.stop()


def test_before_the_first_start_there_is_a_status_but_no_url(folder: Path) -> None:
    server = EmbeddedServer(Home(root=folder / "home"))
    server.stop()
    assert not server.status().running
    with pytest.raises(ServerError) as caught:
        server.url()
    assert caught.value.hint is not None
    assert "dbplatform server start" in caught.value.hint
    assert not (folder / "home").exists()


def test_data_outlives_a_stop_and_the_port_is_remembered(server: EmbeddedServer) -> None:
    before = server.start()
    server.ensure_database("kept")
    server.stop()
    after = server.start()
    assert (after.port, after.data_directory) == (before.port, before.data_directory)
    assert after.pid != before.pid
    assert value(server.url("kept"), "select current_database()") == "kept"


def test_the_server_has_the_declared_properties(server: EmbeddedServer) -> None:
    server.start()
    expected = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_preload_libraries": "pg_stat_statements",
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "TimeZone": "UTC",
        "log_timezone": "UTC",
        "wal_level": "replica",
        "track_io_timing": "on",
        "track_commit_timestamp": "on",
        "max_wal_size": "2GB",
    }
    with psycopg.connect(server.url()) as connection:
        rows = connection.execute(
            "select name, reset_val from pg_settings where name = any(%s)", ([*expected],)
        ).fetchall()
        assert len(rows) == len(expected)
        shown = {name: connection.execute(f"show {name}".encode()).fetchone() for name in expected}
    assert shown == {name: (setting,) for name, setting in expected.items()}


def test_settings_of_the_caller_win_and_are_written_anew_at_each_start(server: EmbeddedServer, made_once: Home) -> None:
    EmbeddedServer(made_once, settings={"work_mem": "7MB", "log_line_prefix": "it's"}).start()
    assert value(server.url(), "show work_mem") == "7MB"
    assert value(server.url(), "show log_line_prefix") == "it's"
    server.stop()
    server.start()
    assert value(server.url(), "show work_mem") == "4MB"


def test_a_home_with_quotes_spaces_and_percent_signs_serves(folder: Path) -> None:
    with embedded(folder / 'it\'s a "home" of 100 % & $HOME ü') as server:
        server.start()
        assert value(server.url(), "select 1") == 1
        assert server.status().log_file is not None


def test_the_password_is_private_and_shown_nowhere(server: EmbeddedServer) -> None:
    status = server.start()
    place = status.data_directory.parent
    file = place / "password"
    password = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(password) >= 32
    assert f":{password}@" in server.url()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url().replace(password, "wrong"))
    processes = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
    logs = "".join(log.read_text() for log in (place / "log").iterdir())
    settings = (status.data_directory / "conf.d" / "dbplatform.conf").read_text()
    assert f"--log_directory={place}/log" in processes
    assert "wrong" not in logs
    for shown in (json.dumps(status.as_json()), processes, logs, settings, repr(server), repr(status)):
        assert password not in shown


def test_the_server_gets_none_of_its_starters_secrets(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_URL", "slack://a-secret")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    status = server.start()
    environment = subprocess.run(["ps", "eww", str(status.pid)], capture_output=True, text=True, check=True).stdout
    assert "LC_ALL=C" in environment
    assert "a-secret" not in environment


def test_a_declared_port_that_is_held_is_an_error_that_names_its_holder(
    server: EmbeddedServer, held_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBPLATFORM_PG_PORT", str(held_port))
    with pytest.raises(ServerError, match=f"Port {held_port} .* is held by .*process {os.getpid()}"):
        server.start()
    assert not server.status().running


def test_a_declared_port_that_is_free_is_used(
    server: EmbeddedServer, held_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("DBPLATFORM_PG_PORT", str(port))
    assert server.start().port == port


@pytest.mark.parametrize("declared", ["80", "65536", "x", "-1"])
def test_a_declared_port_that_is_no_port_is_refused(
    server: EmbeddedServer, declared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBPLATFORM_PG_PORT", declared)
    with pytest.raises(UsageError, match="DBPLATFORM_PG_PORT"):
        server.start()


def test_another_port_is_taken_when_the_remembered_one_is_held(server: EmbeddedServer, held_port: int) -> None:
    status = server.start()
    server.stop()
    (status.data_directory.parent / "port").write_text(str(held_port))
    assert server.start().port != held_port


def test_a_port_that_is_taken_after_it_was_found_free_is_given_up(
    server: EmbeddedServer, held_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = server.start()
    server.stop()
    (status.data_directory.parent / "port").write_text(str(held_port))
    monkeypatch.setattr(launch, "port_is_free", lambda port: port == held_port)
    status = server.start()
    assert status.running
    assert status.port != held_port
    assert (status.data_directory.parent / "port").read_text() == str(status.port)


def test_data_of_another_major_version_is_refused_with_the_way_out(server: EmbeddedServer) -> None:
    status = server.start()
    server.stop()
    version_file = status.data_directory / "PG_VERSION"
    mine = version_file.read_text()
    version_file.write_text("12\n")
    with pytest.raises(ServerError, match="was made by PostgreSQL 12") as caught:
        server.start()
    assert caught.value.hint is not None
    assert "DBPLATFORM_PG_BIN" in caught.value.hint
    version_file.write_text(mine)
    assert server.start().running


def test_a_setting_that_the_server_refuses_shows_the_end_of_its_log(server: EmbeddedServer, made_once: Home) -> None:
    with pytest.raises(ServerError, match="invalid value for parameter") as caught:
        EmbeddedServer(made_once, settings={"work_mem": "a lot"}).start()
    assert caught.value.hint is not None
    assert "log" in caught.value.hint
    assert not server.status().running


def test_a_setting_that_is_no_name_is_refused(server: EmbeddedServer, made_once: Home) -> None:
    with pytest.raises(UsageError, match="not the name of a PostgreSQL setting"):
        EmbeddedServer(made_once, settings={"work_mem = 1\nport": "1"}).start()
    assert not server.status().running


def test_a_lost_password_is_an_error_not_a_new_password(server: EmbeddedServer) -> None:
    status = server.start()
    password_file = status.data_directory.parent / "password"
    lost = password_file.rename(password_file.with_name("lost"))
    with pytest.raises(ServerError, match="password of the embedded server is missing"):
        server.url()
    server.stop()
    with pytest.raises(ServerError, match="password of the embedded server is missing"):
        server.start()
    lost.rename(password_file)
    server.start()
    assert value(server.url(), "select 1") == 1


def test_remove_leaves_nothing_but_the_lock(server: EmbeddedServer) -> None:
    status = server.start()
    server.remove()
    assert [path.name for path in status.data_directory.parent.iterdir()] == ["lock"]
    assert not server.status().running


def test_old_logs_are_removed(server: EmbeddedServer) -> None:
    status = server.start()
    log = status.data_directory.parent / "log"
    for day in range(10, 20):
        (log / f"postgresql-200001{day}-000000.log").write_text("old\n")
    server.start()
    kept = sorted(file.name for file in log.glob("postgresql-*.log"))
    assert len(kept) == 5
    assert status.log_file is not None
    assert kept[-1] == status.log_file.name


def test_the_server_never_runs_as_root(server: EmbeddedServer) -> None:
    status = server.start()
    user = subprocess.run(
        ["ps", "-o", "user:32=", "-p", str(status.pid)], capture_output=True, text=True, check=True
    ).stdout.strip()
    expected = account_for(status.data_directory).name
    assert user == expected
    assert user != "root"
    assert status.data_directory.stat().st_uid == pwd.getpwnam(user).pw_uid
    assert (status.data_directory.parent / "password").stat().st_uid == os.geteuid()


def test_an_ordinary_user_starts_asks_and_stops(
    folder: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder / "home"
    root.mkdir(mode=0o700)
    if IS_ROOT:
        os.chown(root, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    programs = readable_programs(find_programs(), account_for(root))
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(programs.bin_dir))

    def life() -> tuple[int, object, bool]:
        mine = EmbeddedServer(Home(root=root))
        status = mine.start()
        mine.ensure_database("mine")
        answer = value(mine.url("mine"), "select current_database()")
        mine.stop()
        return status.data_directory.stat().st_uid, answer, mine.status().running

    with embedded(root) as server:
        outcome = as_user("nobody", life)
        assert outcome == (root.stat().st_uid, "mine", False)
        # Root may look after it too, and the data stays its owner's.
        assert server.start().data_directory.stat().st_uid == root.stat().st_uid
        assert value(server.url("mine"), "select 1") == 1


def test_below_a_private_folder_the_server_serves_and_the_folder_stays_private(folder: Path, shared_root: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    with embedded(private / "home") as server:
        status = server.start()
        assert value(server.url(), "select 1") == 1
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        expected = shared_root if IS_ROOT else private
        assert status.data_directory.is_relative_to(expected)
        server.stop()
        again = EmbeddedServer(Home(root=private / "home")).start()
        assert again.data_directory == status.data_directory
    assert not status.data_directory.exists()


def test_a_new_home_at_the_path_of_a_deleted_one_begins_empty_and_ends_the_old_server(
    folder: Path, shared_root: Path
) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    with embedded(private / "home") as server:
        old = server.start()
        server.ensure_database("old")
        (private / "home").rename(private / "gone")
        new = server.start()
        assert new.pid != old.pid
        assert value(server.url(), "select count(*) from pg_database where datname = 'old'") == 0
        assert old.data_directory.exists() or not IS_ROOT
        EmbeddedServer(Home(root=private / "gone")).remove()


def test_programs_in_a_private_folder_serve_by_a_copy(
    folder: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    installation = find_programs().bin_dir.parent
    # As a wheel lays it out: a folder in a package, and perhaps <package>.libs beside the package.
    package = private / installation.parent.name
    package.mkdir()
    subprocess.run(["cp", "-a", installation, package / "pg"], check=True)
    libraries = installation.parents[1] / f"{package.name}.libs"
    if libraries.is_dir():
        subprocess.run(["cp", "-a", libraries, private], check=True)
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(package / "pg" / "bin"))
    with embedded(folder / "home") as server:
        status = server.start()
        assert status.bin_dir is not None
        assert status.bin_dir.is_relative_to(shared_root if IS_ROOT else private)
        server.stop()
        assert server.start().bin_dir == status.bin_dir
        assert len(list(shared_root.glob("programs-*"))) == (1 if IS_ROOT else 0)


def test_a_recorded_place_that_is_gone_is_an_error(folder: Path) -> None:
    state = folder / "home" / "server"
    state.mkdir(parents=True)
    (state / "place").write_text(str(folder / "nowhere"))
    with pytest.raises(ServerError, match="nowhere, which is gone"):
        EmbeddedServer(Home(root=folder / "home")).start()


def test_another_users_server_is_refused_by_name(folder: Path, shared_root: Path) -> None:
    with embedded(folder / "home") as server:
        status = server.start()
        if not IS_ROOT:
            assert status.data_directory.stat().st_uid == os.geteuid()
            return
        error = as_user("nobody", EmbeddedServer(Home(root=folder / "home")).url)
        assert isinstance(error, ServerError)
        assert "belongs to user postgres" in error.message


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o555)
    error = as_user("nobody", EmbeddedServer(Home(root=closed / "home")).start)
    assert isinstance(error, ServerError)
    assert str(closed) in error.message
    assert "Permission denied" in error.message


def test_a_full_disk_is_named_and_left_clean(folder: Path, full_disk: Path) -> None:
    with pytest.raises(ServerError, match="is full") as caught:
        EmbeddedServer(Home(root=full_disk / "home")).start()
    assert str(full_disk / "home" / "server") in caught.value.message
    assert not list((full_disk / "home" / "server").glob("data*"))
