"""Which installation dumps and restores, what it is told, and what is never on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.backups import programs as module
from dbplatform.backups.errors import NoFittingProgram
from dbplatform.backups.programs import compression_for, dump_program, restore_program, stops_at_once, unknown_timeout
from dbplatform.postgres.client_programs import ProgramFailed, SecretOnCommandLine, login, run
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import Programs


def installation(folder: Path, version: str) -> Programs:
    """Client programs that only tell their version."""
    folder.mkdir(parents=True)
    for name in ("pg_dump", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return Programs(bin_dir=folder, version=version, major=int(version.split(".")[0]))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Version 17 given, 15 and 18 installed as on Debian."""
    monkeypatch.setattr(module, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    installation(tmp_path / "debian" / "15" / "bin", "15.8")
    installation(tmp_path / "debian" / "18" / "bin", "18.1")
    return installation(tmp_path / "given", "17.10")


def script(folder: Path, text: str) -> Path:
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("server", "chosen"), [(14, "15.8"), (15, "15.8"), (16, "17.10"), (17, "17.10"), (18, "18.1")])
def test_the_nearest_pg_dump_that_is_not_older_dumps(machine: Programs, server: int, chosen: str) -> None:
    assert dump_program(machine, server_major=server).version == chosen


def test_no_fitting_pg_dump_is_one_sentence_with_what_there_is(machine: Programs) -> None:
    with pytest.raises(NoFittingProgram, match=r"No pg_dump of PostgreSQL 19 or newer .* there is 17\.10 in") as caught:
        dump_program(machine, server_major=19)
    assert "DBPLATFORM_PG_BIN" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("dump", "server", "chosen"), [(15, 15, "15.8"), (15, 17, "17.10"), (17, 15, "17.10"), (18, 18, "18.1")]
)
def test_pg_restore_reads_the_dump_and_is_near_the_server(
    machine: Programs, dump: int, server: int, chosen: str
) -> None:
    assert restore_program(machine, dump_major=dump, server_major=server).version == chosen


def test_a_newer_pg_restore_is_forgiven_the_setting_that_the_server_does_not_know(machine: Programs) -> None:
    line = 'pg_restore: error: could not execute query: unrecognized configuration parameter "transaction_timeout"'
    assert unknown_timeout(machine, server_major=16)(line)
    assert not unknown_timeout(machine, server_major=17)(line)
    assert not unknown_timeout(machine, server_major=16)("pg_restore: error: another")
    assert (stops_at_once(machine, server_major=17), stops_at_once(machine, server_major=16)) == (True, False)


@pytest.mark.parametrize(
    ("wanted", "told", "called"), [("zstd:3", "1", "gzip:1"), ("gzip:6", "6", "gzip:6"), ("none", "0", "none")]
)
def test_before_version_16_there_is_gzip_alone(tmp_path: Path, wanted: str, told: str, called: str) -> None:
    old = Programs(bin_dir=tmp_path, version="15.8", major=15)
    assert compression_for(old, wanted) == (told, called)


def test_a_login_keeps_every_secret_off_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("SLACK_URL", "https://secret")
    access = login(
        Target("x", "postgresql://me:s3cret@db.example:5433/my%20db?sslmode=require&keepalives_idle=7"), work="backup 1"
    )
    assert access.environment["PGPASSWORD"] == "s3cret"
    assert access.environment["PGAPPNAME"] == "dbplatform backup 1"
    assert access.environment["PGSSLMODE"] == "require"
    assert access.environment["PGHOST"] == "db.example"
    assert access.dbname == "dbname='my db' keepalives_idle=7"
    assert "PGCLIENTENCODING" not in access.environment
    assert "SLACK_URL" not in access.environment
    assert "s3cret" not in repr(access)


def test_a_secret_without_a_variable_is_refused() -> None:
    with pytest.raises(SecretOnCommandLine, match="The URL of x holds sslpassword"):
        login(Target("x", "postgresql://me@db/x?sslpassword=s3cret"), work="backup 1")


def test_what_a_program_says_is_told_without_secrets(tmp_path: Path) -> None:
    access = login(Target("x", "postgresql://me:s3cret@db/x"), work="test")
    program = script(tmp_path, 'echo "pg_dump: error: no, $PGPASSWORD is wrong" >&2; exit 1')
    with pytest.raises(ProgramFailed) as caught:
        run([program], login=access)
    assert str(caught.value) == "no, *** is wrong"


def test_an_error_counts_although_the_code_is_0(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="it broke; the disk"):
        run([script(tmp_path, 'echo "pg_dump: error: it broke" >&2; echo "pg_dump: detail: the disk" >&2')])


def test_warnings_are_given_back(tmp_path: Path) -> None:
    program = script(tmp_path, 'echo "pg_dump: warning: there are circular foreign keys" >&2')
    assert run([program]) == ("pg_dump: warning: there are circular foreign keys",)


def test_tolerated_errors_excuse_the_code_and_no_others(tmp_path: Path) -> None:
    program = script(tmp_path, 'echo "x: error: known" >&2; echo "x: error: $1" >&2; exit 1')
    assert run([program, "known"], tolerated=lambda line: "known" in line) == ()
    with pytest.raises(ProgramFailed, match="new"):
        run([program, "new"], tolerated=lambda line: "known" in line)


def test_output_comes_in_pieces_and_an_error_in_it_ends_the_program(tmp_path: Path) -> None:
    pieces: list[bytes] = []
    run([script(tmp_path, "echo one; echo two")], output=pieces.append)
    assert b"".join(pieces) == b"one\ntwo\n"

    def refuse(piece: bytes) -> None:
        raise ValueError(piece)

    with pytest.raises(ValueError, match="endless"):
        run([script(tmp_path, "echo endless; exec sleep 1000")], output=refuse)
