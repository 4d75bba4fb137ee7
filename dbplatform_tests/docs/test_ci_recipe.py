"""The workflow that users copy: each of its commands runs on a throw-away PostgreSQL, and finds what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target

REPOSITORY = Path(__file__).parents[2]
WORKFLOW = REPOSITORY / "deploy" / "ci" / "github-actions.yml"

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  migrations: {}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    migrations = tmp_path / "defs" / "shop" / "migrations"
    migrations.mkdir(parents=True)
    (migrations.parent / "defs.yaml").write_text(DECLARATION)
    (migrations / "V1__item.sql").write_text("create table item (id int primary key);")
    (migrations / "U1__item.sql").write_text("drop table item;")
    (migrations / "V2__price.sql").write_text("alter table item add column price int;")
    (migrations / "U2__price.sql").write_text("alter table item drop column price;")
    return tmp_path


def job() -> dict[str, Any]:
    (found,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    return dict(found)


def run_steps(project: Path, database: Target, ledger: Ledger) -> list[tuple[str, int]]:
    """The name and exit code of each step, as GitHub runs them: by ``bash -e``, until one fails."""
    bin_ = project / "bin"
    bin_.mkdir()
    for name, arguments in (("dbplatform", "-m dbplatform.cli.main"), ("python", "")):
        (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (bin_ / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "DATABASE": job()["env"]["DATABASE"],
        "SHOP_URL": database.url,
        "DBPLATFORM_LEDGER_URL": ledger.target.url,
    }
    codes = []
    for step in job()["steps"]:
        if "run" not in step or step["name"] == "Install":
            continue
        command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, check=False)
        codes.append((step["name"], done.returncode))
        if done.returncode:
            break
    return codes


def test_every_step_passes_where_the_undo_files_undo(project: Path, database: Target, ledger: Ledger) -> None:
    assert run_steps(project, database, ledger) == [
        ("Lint", 0),
        ("Migrate from nothing", 0),
        ("Verify that every undo file undoes", 0),
        ("Undo the newest version", 0),
        ("Apply it again", 0),
        ("Nothing is left to do", 0),
    ]


def test_the_job_fails_where_an_undo_file_does_not_undo(project: Path, database: Target, ledger: Ledger) -> None:
    (project / "defs" / "shop" / "migrations" / "U2__price.sql").write_text("select 1;")
    assert run_steps(project, database, ledger)[-1] == ("Verify that every undo file undoes", 1)


def test_the_job_fails_where_a_migration_does_not_run(project: Path, database: Target, ledger: Ledger) -> None:
    (project / "defs" / "shop" / "migrations" / "V2__price.sql").write_text("alter table nowhere add column a int;")
    assert run_steps(project, database, ledger) == [("Lint", 0), ("Migrate from nothing", 3)]


def test_the_job_fails_where_lint_finds_what_blocks_traffic(project: Path, database: Target, ledger: Ledger) -> None:
    (project / "defs" / "shop" / "migrations" / "V2__price.sql").write_text("create index item_id on item (id);")
    assert run_steps(project, database, ledger) == [("Lint", 1)]


def test_the_job_installs_the_wheel_of_this_version_and_its_lock() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    [install] = [step["run"] for step in job()["steps"] if step.get("name") == "Install"]
    files = [Path(word).name for word in install.split() if word.startswith("vendor/")]
    assert files == ["requirements.lock", f"dbplatform-{version}-py3-none-any.whl"]
    assert (REPOSITORY / "deploy" / "requirements.lock").is_file()


def test_the_workflow_declares_its_variable_and_a_throw_away_server() -> None:
    assert set(job()["env"]) == {"DATABASE", "SHOP_URL"}
    assert job()["services"]["postgres"]["image"].startswith("postgres:")
