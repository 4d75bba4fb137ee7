"""Capacity and the maintenance report in Dagster: what an asset shows, and that a dry run writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.capacity import planning_assets
from dbplatform.orchestration.resources import Options
from dbplatform.postgres.connection import Target, connect

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  capacity: {disk: 100GB}
"""


@pytest.fixture
def project(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    with connect(database, work="test") as connection:
        connection.execute("create table item (id int generated always as identity primary key)")
    return tmp_path


def materialized(project: Path, *, dry_run: bool = False) -> dict[str, dict[str, Any]]:
    """The metadata of both, by the last part of their keys."""
    platform = Platform(Project.at(project))
    assets = planning_assets(platform, platform.declarations.get("shop"))
    done = dg.materialize(assets, resources={"options": Options(dry_run=dry_run)})
    return {
        event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in done.get_asset_materialization_events()
        if event.asset_key is not None
    }


def test_both_write_their_report_and_a_dry_run_writes_none(project: Path) -> None:
    planned = materialized(project, dry_run=True)
    assert not (project / "home" / "reports").exists()
    assert planned["capacity"]["limits that are near"] == 0

    found = materialized(project)
    assert found["capacity"]["in one sentence"].startswith("There is too little history yet")
    assert Path(found["capacity"]["report"]).is_file()
    assert Path(found["report"]["report"]).is_file()
    assert found["report"]["number of decisions"] == 1, "no maintenance ran"
    assert set(found) == {keys.capacity("shop").path[-1], keys.maintenance("shop", "report").path[-1]}
