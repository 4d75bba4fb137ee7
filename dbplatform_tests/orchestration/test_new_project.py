"""A project of ``dbplatform init`` at work: its first runs, and Dagster's own commands in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbplatform.home import Home
from dbplatform_tests.installation import Installation


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Installation]:
    """A new project, in a folder that is not there yet."""
    made = Installation(Home(root=tmp_path / "home")).command("init", str(tmp_path / "shop"))
    assert made.returncode == 0, made.stderr
    installation = Installation(Home(root=tmp_path / "home"), folder=tmp_path / "shop")
    try:
        yield installation
    finally:
        installation.server.remove()


def test_a_new_project_runs_green_from_backup_to_archive_and_again(project: Installation) -> None:
    first = project.json("run", "shop", "--fail-on", "warn")
    assert first["verdict"] == "passed"
    assert first["steps"]["shop/seed"]["rows loaded"] == 96
    assert first["steps"]["shop/restore_drill"]["proven"] is True
    archived = first["steps"]["shop/archive/old_orders"]["rows archived"]
    assert archived > 0
    again = project.json("run", "shop", "--fail-on", "warn")
    assert again["verdict"] == "passed"
    assert again["steps"]["shop/seed"]["rows loaded"] == 0, "archived rows do not come back"
    assert again["steps"]["shop/archive/old_orders"]["rows archived"] == 0
    [archive] = project.here("archive", "list", "shop")["archives"]
    project.here("archive", "restore", "shop", archive["id"], "--yes")
    with project.connect("shop") as connection:
        assert connection.execute("select count(*) from orders").fetchone() == (84,)


@pytest.mark.parametrize(
    "command",
    [
        ["dg", "check", "yaml"],
        ["dg", "list", "defs", "--json"],
        ["dagster", "definitions", "validate", "-w", "workspace.yaml"],
    ],
    ids=" ".join,
)
def test_dagster_loads_a_new_project_by_its_own_commands(project: Installation, command: list[str]) -> None:
    program = str(Path(sys.executable).with_name(command[0]))
    answer = subprocess.run(
        [program, *command[1:]],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "list" not in command or '"shop/archive/old_orders"' in answer.stdout
    assert not project.home.root.exists(), "loading must write nothing"
