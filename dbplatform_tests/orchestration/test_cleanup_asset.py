"""The clean-up in a run: what is gone is metadata, what is for a person a failed check, what is unknown a failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from dbplatform.backups.physical import cluster
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import schema
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.cleanup import NOTHING_FOR_A_PERSON, cleanup_assets
from dbplatform.orchestration.resources import Options
from dbplatform.postgres.connection import Target

_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, scratch_url_env: SHOP_URL}
  migrations: {}
"""
Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def platform(database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    folder = tmp_path / "defs" / "shop"
    (folder / "migrations").mkdir(parents=True)
    (folder / "defs.yaml").write_text(_SHOP)
    (folder / "migrations" / "V1__item.sql").write_text("create table item (id int primary key, name text);\n")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cluster, "SHARED_ROOT", tmp_path / "shared")  # nothing of others on this machine is touched
    platform = Platform(Project.at(tmp_path))
    schema.apply(platform, platform.declarations.get("shop"))
    return platform


@pytest.fixture
def run(platform: Platform) -> Run:
    [asset] = cleanup_assets(platform, platform.declarations.get("shop"))

    def run(*, dry_run: bool = False) -> dg.ExecuteInProcessResult:
        return dg.materialize([asset], resources={"options": Options(dry_run=dry_run)}, raise_on_error=False)

    return run


def published(result: dg.ExecuteInProcessResult) -> tuple[dict[str, object], dg.AssetCheckEvaluation]:
    assert result.success
    [event] = result.get_asset_materialization_events()
    [check] = result.get_asset_check_evaluations()
    assert check.check_name == NOTHING_FOR_A_PERSON
    return {name: value.value for name, value in event.materialization.metadata.items()}, check


def test_a_run_removes_tells_and_fails_where_it_cannot_look(run: Run, database: Target, platform: Platform) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("insert into item values (1, 'pen'), (2, 'pen')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            session.execute("create unique index concurrently item_name on item (name)")
        invalid = "select count(*) from pg_index where not indisvalid"

        planned, _ = published(run(dry_run=True))
        assert (planned["dry run"], planned["would be removed"]) == (True, 1)
        assert session.execute(invalid).fetchone() == (1,)

        done, check = published(run())
        assert (done["removed"], check.passed) == (1, True)
        assert session.execute(invalid).fetchone() == (0,)

        session.execute("update pg_index set indisvalid = false where indexrelid = 'item_pkey'::regclass")
        done, check = published(run())
        assert (done["removed"], done["for a person"], check.passed) == (0, 1, False)
        assert check.severity == dg.AssetCheckSeverity.WARN
        assert "reindex index concurrently public.item_pkey" in (check.description or "")

    (platform.project.root / "defs" / "shop" / "migrations" / "V1__item.sql").write_text("create table other ();\n")
    for dry_run, what in ((True, "looked at"), (False, "cleared")):
        unknown = run(dry_run=dry_run)
        assert not unknown.success
        assert unknown.get_asset_check_evaluations() == []
        [failure] = [event for event in unknown.all_events if event.is_step_failure]
        said = failure.step_failure_data.user_failure_data
        assert said is not None
        assert f"Not all could be {what}: invalid index: " in (said.description or "")
