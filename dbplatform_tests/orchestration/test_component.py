"""The Dagster layer as Dagster's own tools see it: it loads without a server, and one broken file hides no other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dbplatform.declaration.project import PACKAGE
from dbplatform_tests.installation import REPOSITORY

DG = str(Path(sys.executable).with_name("dg"))

_NAMES = """
import json, sys
from dagster import AssetKey
from dbplatform.definitions import definitions
repository = definitions().get_repository_def()
print(json.dumps({
    "assets": sorted("/".join(k.path) for k in repository.assets_defs_by_key),
    "jobs": sorted(j.name for j in repository.get_all_jobs() if not j.name.startswith("__")),
    "schedules": sorted(s.name for s in repository.schedule_defs),
    "checks": sum(k.asset_key.path[:2] == ["flights", "tables"] for k in repository.asset_graph.asset_check_keys),
    "alert checks": sum(k.asset_key.path == ["flights", "alerts"] for k in repository.asset_graph.asset_check_keys),
    "sensors": [s.name for s in repository.sensor_defs],
    "before the archive": sorted(
        "/".join(k.path)
        for k in repository.asset_graph.get(AssetKey(["flights", "archive", "old_flights"])).parent_keys
    ),
    "pools": sorted({p for d in repository.assets_defs_by_key.values() for p in d.op.pool and [d.op.pool] or []}),
}))
"""


def loaded(environment: dict[str, str]) -> dict[str, list[str]]:
    """What a fresh interpreter finds in the code location, with no server and no secret at hand."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DBPLATFORM_", "DAGSTER_"))}
    result = subprocess.run(
        [sys.executable, "-c", _NAMES],
        cwd=REPOSITORY,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project elsewhere that holds the flights database."""
    shutil.copytree(PACKAGE / "defs" / "flights", tmp_path / "defs" / "flights")
    return tmp_path


def test_the_code_location_loads_without_a_server(tmp_path: Path) -> None:
    found = loaded({"DBPLATFORM_HOME": str(tmp_path / "home")})
    assert {
        "flights/migrations",
        "flights/partitions/flights",
        "flights/partitions/weather",
        "flights/seed",
        "flights/tables/flights",
        "flights/quality_report",
        "flights/backup",
        "flights/restore_drill",
        "flights/backup_retention",
        "flights/archive/old_flights",
        "flights/retirement/flights",
    } <= set(found["assets"])
    assert {"flights", "flights_migrate", "flights_quality", "flights_backup", "flights_drill"} <= set(found["jobs"])
    assert {"flights_daily", "flights_backup_schedule", "flights_drill_schedule"} <= set(found["schedules"])
    # Rows leave behind a proven backup, and after the checks have seen them.
    assert found["before the archive"] == ["flights/quality_report", "flights/restore_drill"]
    assert found["checks"] == 38
    assert found["alert checks"] > 10
    assert sorted(found["sensors"]) == ["dbplatform_automation", "dbplatform_watch"], "each for all databases"
    assert "flights_writer" in found["pools"]
    assert not (tmp_path / "home").exists(), "loading must write nothing"


def test_a_broken_declaration_becomes_an_asset_that_says_why_and_the_others_load(project: Path) -> None:
    (project / "defs" / "empty").mkdir()
    (project / "defs" / "empty" / "defs.yaml").write_text("")
    found = loaded({"DBPLATFORM_PROJECT": str(project)})
    assert "empty/declaration" in found["assets"]
    assert "flights/tables/flights" in found["assets"]
    assert "flights" in found["jobs"]


def test_dg_checks_the_yaml_of_every_database() -> None:
    result = subprocess.run([DG, "check", "yaml"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "validated successfully" in result.stdout


def test_dg_scaffolds_a_declaration_that_loads_and_passes_its_check(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(".git", ".venv", ".dbplatform", "__pycache__", ".*_cache")
    shutil.copytree(REPOSITORY, clone, ignore=ignored, symlinks=True)
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    for arguments in (["scaffold", "defs", "dbplatform.ManagedDatabase", "my_db"], ["check", "yaml"]):
        result = subprocess.run(
            [DG, *arguments], cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "dbplatform.cli.main", "list", "--json"],
        cwd=clone,
        env={**environment, "DBPLATFORM_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert "my_db" in [database["name"] for database in json.loads(listed.stdout)["databases"]]
