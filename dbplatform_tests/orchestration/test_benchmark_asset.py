"""The asset of benchmarks: the first run becomes the baseline, later ones are compared, what cannot be run fails it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from dbplatform.benchmarking import record
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.maintenance.policy import MaintenancePolicy
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.benchmarks import NONE_IS_WORSE, benchmark_assets
from dbplatform.orchestration.jobs import jobs_of
from dbplatform.orchestration.resources import Options
from dbplatform.postgres.connection import Target
from dbplatform.postgres.daily_window import Window

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  benchmarks:
    seconds: 500 ms
    queries: [{name: how_many, sql: select count(*) from orders}]
"""


@pytest.fixture
def platform(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Platform:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create table orders (id int)")
    return Platform(Project.at(tmp_path))


def materialize(platform: Platform, **options: bool) -> dg.ExecuteInProcessResult:
    assets = benchmark_assets(platform, platform.declarations.get("shop"))
    return dg.materialize(assets, resources={"options": Options(**options)}, raise_on_error=False)


def run(platform: Platform, **options: bool) -> tuple[bool, dict[str, object]]:
    """Whether the asset was materialised, and its metadata."""
    done = materialize(platform, **options)
    [materialized] = done.asset_materializations_for_node("shop__benchmarks") or [None]
    metadata = {} if materialized is None else {name: one.value for name, one in materialized.metadata.items()}
    return done.success, metadata


def test_the_first_run_becomes_the_baseline_and_the_next_is_compared_with_it(platform: Platform) -> None:
    assert run(platform, dry_run=True)[1]["plan"] == "measure as it is"
    success, first = run(platform)
    assert success
    assert first["baseline"] == "baseline"
    assert isinstance(first["how_many ms"], float)
    success, second = run(platform)
    assert success
    assert "baseline" not in second
    assert second["worse"] in (0, 1)
    assert Path(str(second["report"])).is_file()


def test_what_cannot_be_run_fails_the_step(platform: Platform, database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("drop table orders")
    assert run(platform) == (False, {})


def test_what_misses_its_target_is_a_warning_and_a_dry_run_says_nothing_of_it(
    platform: Platform, tmp_path: Path
) -> None:
    slow = DECLARATION.replace("select count(*) from orders", "select pg_sleep(0.02), target: 1 ms")
    (tmp_path / "defs" / "shop" / "defs.yaml").write_text(slow)
    again = Platform(Project.at(tmp_path))
    assert materialize(again, dry_run=True).get_asset_check_evaluations() == []
    done = materialize(again)
    assert done.success
    [check] = done.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.severity) == (NONE_IS_WORSE, False, dg.AssetCheckSeverity.WARN)
    assert check.description == "1 benchmark: 1 target missed."
    assert check.metadata["worse or slower than their target"].value == "how_many"


def test_what_could_not_be_run_is_no_pass_of_the_check(platform: Platform, database: Target) -> None:
    [check] = materialize(platform).get_asset_check_evaluations()
    assert check.passed
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("drop table orders")
    failed = materialize(platform)
    assert not failed.success
    [check] = failed.get_asset_check_evaluations()
    assert (check.passed, check.description) == (False, "1 benchmark: 1 could not be run.")


@pytest.mark.parametrize("window", ["", "    window: {}\n"])
def test_a_production_server_outside_its_window_is_not_measured_and_nothing_fails(
    platform: Platform, tmp_path: Path, window: str
) -> None:
    now = datetime.now(UTC)
    closed = f"{now + timedelta(hours=6):%H:%M}-{now + timedelta(hours=7):%H:%M}"
    declaration = DECLARATION.replace("environment: test", "environment: production")
    (tmp_path / "defs" / "shop" / "defs.yaml").write_text(declaration + window.format(closed))
    for dry_run in (True, False):
        done = materialize(Platform(Project.at(tmp_path)), dry_run=dry_run)
        assert done.success
        [event] = done.get_asset_materialization_events()
        assert "shop is a production database, and it" in str(event.materialization.metadata["not measured"].value)
        assert done.get_asset_check_evaluations() == []
    assert record.newest(platform.ledger, "shop") == []


def test_the_quarterly_hour_lies_in_the_window_that_the_documents_show() -> None:
    minute, hour, *_ = str(MaintenancePolicy().quarterly).split()
    at = datetime(2026, 10, 1, int(hour), int(minute), tzinfo=UTC)
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "benchmarks.md").read_text()
    [shown] = re.findall(r"^    window: (\S+)", text, re.M)
    assert Window.parse(shown).is_open(at)


def test_it_has_a_job_of_its_own_and_is_no_part_of_the_whole_graph(platform: Platform) -> None:
    declared = platform.declarations.get("shop")
    assets = benchmark_assets(platform, declared)
    jobs = {job.name: job for job in jobs_of(declared, assets)}
    assert "shop_benchmarks" in jobs
    graph = dg.Definitions(assets=assets, resources={"options": Options()}).resolve_asset_graph()
    assert keys.benchmarks("shop") in jobs["shop_benchmarks"].selection.resolve(graph)
    assert keys.benchmarks("shop") not in jobs["shop"].selection.resolve(graph)
