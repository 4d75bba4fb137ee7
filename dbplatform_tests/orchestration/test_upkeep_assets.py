"""Maintenance in Dagster: one asset per kind, before and after as numbers, one budget for the assets of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.maintenance.model import KINDS
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.upkeep import upkeep_assets
from dbplatform.postgres.connection import Target, connect

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  maintenance:
    due: {min_size: 64kB}
"""


@pytest.fixture
def project(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    with connect(database, work="test") as connection:
        connection.execute("create table item (a int primary key, b text) with (autovacuum_enabled = off)")
        connection.execute("insert into item select i, md5(i::text) from generate_series(1, 50000) i")
        connection.execute("delete from item where a % 5 <> 0")
        connection.execute("select pg_stat_force_next_flush()")
    return tmp_path


def materialized(project: Path, *kinds: str, dry_run: bool = False) -> dict[str, dict[str, Any]]:
    """The metadata of each kind, of one run."""
    platform = Platform(Project.at(project))
    assets = upkeep_assets(platform, platform.declarations.get("shop"))
    wanted = [keys.maintenance("shop", kind) for kind in kinds]
    done = dg.materialize(assets, selection=wanted, resources={"options": Options(dry_run=dry_run)})
    return {
        event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in done.get_asset_materialization_events()
        if event.asset_key is not None
    }


def test_every_kind_is_an_asset_and_metadata_hold_what_was_gained(project: Path) -> None:
    platform = Platform(Project.at(project))
    assets = upkeep_assets(platform, platform.declarations.get("shop"))
    assert {asset.key for asset in assets} == {keys.maintenance("shop", kind) for kind in KINDS}

    planned = materialized(project, "vacuum", dry_run=True)["vacuum"]
    assert (planned["dry run"], planned["due"]) == (True, 1)
    found = materialized(project, "analyze", "vacuum", "reindex")

    assert (found["vacuum"]["dead rows before"], found["vacuum"]["dead rows after"]) == (40_000, 0)
    assert found["reindex"]["bytes before"] > 3 * found["reindex"]["bytes after"] > 0
    [row] = found["reindex"]["items"].records
    assert row.data["state"] == "done"
    assert "bloat 0.78" in row.data["changes"]
    assert materialized(project, "vacuum")["vacuum"]["done"] == 0


def test_the_assets_of_one_run_share_its_budget(project: Path) -> None:
    (project / "defs" / "shop" / "defs.yaml").write_text(DECLARATION + "    budget: {size: 8kB}\n")
    found = materialized(project, "analyze", "vacuum")
    assert sorted((one["done"], one["left"]) for one in found.values()) == [(0, 1), (1, 0)]
    assert "the budget of 8,192 bytes is spent" in {one.get("stopped") for one in found.values()}
