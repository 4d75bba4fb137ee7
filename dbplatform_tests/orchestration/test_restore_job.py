"""The job that restores, as the Launchpad starts it: what it takes, refuses, brings back and publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import backups
from dbplatform.operations.platform import Platform
from dbplatform.operations.restores import Request
from dbplatform.orchestration import keys
from dbplatform.orchestration.component import ManagedDatabase
from dbplatform.orchestration.restore import RestoreConfig
from dbplatform.orchestration.sensors import runs_of
from dbplatform.orchestration.steps import failed_step
from dbplatform.postgres.connection import Target
from dbplatform_tests.postgres.backups_support import named_database, new_name

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test, scratch_url_env: SHOP_URL}
  backups: {}
"""

Restore = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def declared(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> tuple[Platform, Any]:
    """A declared database of two tables, and its backup."""
    folder = tmp_path / "defs" / "shop"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(_DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    with psycopg.connect(database.url) as connection:
        connection.execute("create table item as select g as id from generate_series(1, 10) g")
        connection.execute("create table word as select 'w' || g as word from generate_series(1, 3) g")
    platform = Platform(Project.at(tmp_path))
    shop = platform.declarations.get("shop")
    backups.take(platform, shop)
    return platform, shop


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as one:
        yield one


@pytest.fixture
def restore(declared: tuple[Platform, Any], instance: dg.DagsterInstance) -> Restore:
    """Runs the job with a configuration as the Launchpad gives it."""
    job = ManagedDatabase(*declared).build_defs().resolve_job_def("shop_restore")

    def run(*, dry_run: bool = False, **config: str) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            run_config={
                "ops": {"shop__restore": {"config": config}},
                "resources": {"options": {"config": {"dry_run": dry_run}}},
            },
            instance=instance,
            raise_on_error=False,
        )

    return run


@pytest.fixture
def aside(server_url: str) -> Iterator[Target]:
    """A name to restore to; dropped at the end."""
    with named_database(server_url, new_name()) as target:
        yield target


def published(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the step that succeeded."""
    assert result.success, failed_step(result.all_events)
    [output] = [event for event in result.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    return {name: getattr(value, "records", value.value) for name, value in metadata.items()}


def refusal(result: dg.ExecuteInProcessResult) -> str:
    """Why the run failed: one sentence and the next step; with the exit code of a mistake."""
    found = failed_step(result.all_events)
    assert found is not None
    assert (found.step, found.exit_code) == ("shop/restore", 2)
    return found.reason


def count(target: Target, table: str) -> int:
    with psycopg.connect(target.url) as connection:
        name = sql.Identifier(*table.split("."))
        [found] = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchall()
        return int(found[0])


def test_a_database_comes_back_beside_it_with_rows_hashes_and_seconds(
    restore: Restore, aside: Target, ledger: Ledger
) -> None:
    result = restore(backup="newest", into=aside.name)
    found = published(result)
    assert count(aside, "item") == 10
    assert (found["database"], found["rows"], found["rows erased again"]) == (aside.name, 13, 0)
    assert found["seconds"] > 0
    tables = {record.data["table"]: record.data for record in found["tables"]}
    assert (tables["public.item"]["rows"], len(str(tables["public.item"]["hash"]))) == (10, 32)
    with psycopg.connect(ledger.target.url) as connection:
        recorded = connection.execute("select status, run_id from ledger.operation where kind = 'restore'").fetchall()
    assert recorded == [("succeeded", result.run_id)]


def test_a_dry_run_tells_the_plan_and_makes_no_database(restore: Restore, aside: Target, server_url: str) -> None:
    found = published(restore(dry_run=True, backup="newest", into=aside.name))
    assert f"into the database {aside.name}" in found["plan"]
    with psycopg.connect(server_url) as connection:
        assert connection.execute("select from pg_database where datname = %s", (aside.name,)).fetchone() is None


def test_one_table_comes_back_in_its_place(restore: Restore, database: Target) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("drop table word")
    found = published(restore(backup="newest", table="word"))
    assert (found["rows"], count(database, "word")) == (3, 3)
    found = published(restore(backup="newest", table="word", aside="before"))
    assert "the new schema before" in found["restored"]
    assert count(database, "before.word") == 3


def test_the_database_is_replaced_when_its_name_is_repeated_and_no_other_run_works_on_it(
    restore: Restore, declared: tuple[Platform, Any], instance: dg.DagsterInstance, database: Target
) -> None:
    backup_job = ManagedDatabase(*declared).build_defs().resolve_job_def("shop_backup")
    other = instance.create_run_for_job(backup_job, tags=backup_job.tags, status=dg.DagsterRunStatus.STARTED)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("delete from item")
    refused = failed_step(restore(backup="newest", replace=database.name).all_events)
    assert refused is not None
    assert f"shop_backup ({other.run_id})" in refused.reason
    instance.report_run_canceled(other)
    assert published(restore(backup="newest", replace=database.name))["rows"] == 13
    assert count(database, "item") == 10


def asset_run(*path: str, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTING) -> dg.DagsterRun:
    """A run of a chosen asset, as the graph's button starts it: without the tag of a job of ours."""
    return dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=frozenset({dg.AssetKey(path)}), status=status)


def test_a_run_of_chosen_assets_that_begins_keeps_the_database_from_being_replaced(
    restore: Restore, instance: dg.DagsterInstance, database: Target
) -> None:
    other, elsewhere = asset_run("shop", "quality_report"), asset_run("another", "quality_report")
    instance.add_run(elsewhere)
    instance.add_run(other)
    refused = failed_step(restore(backup="newest", replace=database.name).all_events)
    assert refused is not None
    assert f"__ASSET_JOB ({other.run_id})" in refused.reason
    assert elsewhere.run_id not in refused.reason


def test_a_run_that_begins_while_the_database_is_restored_keeps_it_from_being_replaced(
    restore: Restore, instance: dg.DagsterInstance, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("delete from item where id > 4")
    erase = backups.erase_again

    def meanwhile(*given: Any) -> Any:
        instance.add_run(asset_run("shop", "tables", "item"))
        return erase(*given)

    monkeypatch.setattr(backups, "erase_again", meanwhile)
    refused = failed_step(restore(backup="newest", replace=database.name).all_events)
    assert refused is not None
    assert "not replaced while other runs work on it" in refused.reason
    assert count(database, "item") == 4


_REFUSED: list[tuple[dict[str, str], str]] = [
    ({"into": "x"}, "restore needs to know what of."),
    ({"backup": "newest"}, "restore needs to know where to."),
    ({"backup": "newest", "time": "latest", "into": "x"}, "--time and --backup name two moments."),
    ({"backup": "newest", "into": "postgres"}, "exists"),
    ({"backup": "newest", "into": "x", "replace": "shop"}, "Repeat the name"),
    ({"backup": "never", "into": "x"}, "never"),
    ({"time": "yesterday", "into": "x"}, "'yesterday' is no time."),
    ({"time": "2026-01-31T12:00:00", "into": "x"}, "has no offset from UTC."),
    ({"lsn": "here", "into": "x"}, "here"),
    ({"restore_point": "before", "into": "x"}, "no undamaged physical backup"),
    ({"time": "latest", "into": "x", "table": "item"}, "One table comes back out of a dump"),
    ({"backup": "newest", "table": "item"}, "exists in the database shop"),
    ({"backup": "newest", "aside": "before", "into": "x"}, "--aside is for one table."),
]


def test_what_does_not_fit_is_refused_in_one_sentence_before_anything_starts(restore: Restore, ledger: Ledger) -> None:
    for config, words in _REFUSED:
        assert words in refusal(restore(**config)), config
    with psycopg.connect(ledger.target.url) as connection:
        assert connection.execute("select from ledger.operation where kind like 'restore%'").fetchall() == []


def test_every_field_is_described_and_none_has_to_be_given() -> None:
    fields = RestoreConfig.model_fields
    assert all(field.description and field.default == "" for field in fields.values()), "what the Launchpad shows"
    assert RestoreConfig().request == Request()
    assert list(fields)[:4] == ["backup", "time", "lsn", "restore_point"]


def test_a_restore_waits_for_the_writers_and_is_no_alarm(declared: tuple[Platform, Any]) -> None:
    platform, shop = declared
    defs = ManagedDatabase(platform, shop).build_defs()
    job = defs.resolve_job_def("shop_restore")
    assert job.graph.node_named("shop__restore").definition.pools == {keys.pool("shop")}
    context = dg.build_sensor_context(repository_def=defs.get_repository_def(), instance=dg.DagsterInstance.ephemeral())
    jobs = runs_of(context, platform, [shop], datetime.now(UTC))["shop"].jobs
    assert "shop_backup" in jobs
    assert "shop_restore" not in jobs
