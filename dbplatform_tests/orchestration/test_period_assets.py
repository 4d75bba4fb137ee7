"""Periods of partitioned tables as Dagster shows them: which can be chosen, and what one run of one does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from psycopg import sql

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import archives, partitions, retirement
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.assets import writing_assets
from dbplatform.orchestration.periods import partitions_of, period_assets
from dbplatform.orchestration.resources import Options
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.postgres.archiving_support import ask, fill, prove

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 1, start: 2020-01-01, retain: 60 months}
    - {table: visit, column: id, interval: 100, premake: 1}
  backups: {}
  archives:
    - {name: old, table: sale, by: partition}
  quality:
    - table: sale
      checks: [{not_null: amount}, {row_count: {min: 1000000}}]
"""
TABLES = """
    create table sale (id int not null, at timestamptz not null, amount numeric, primary key (id, at))
        partition by range (at);
    create table visit (id bigint primary key) partition by range (id);
"""


@pytest.fixture
def platform(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A declared database with two partitioned tables that have no partition yet."""
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setattr(archives, "proof_of", lambda *_: prove(database))
    fill(database, TABLES)
    return Platform(Project.at(tmp_path))


def materialized(
    platform: Platform, key: str, *, table: int = 0, dry_run: bool = False, instance: dg.DagsterInstance | None = None
) -> dict[str, Any]:
    """What a run of one period publishes."""
    asset = period_assets(platform, platform.declarations.get("shop"))[table]
    done = dg.materialize(
        [asset], partition_key=key, resources={"options": Options(dry_run=dry_run)}, instance=instance
    )
    [event] = done.get_asset_materialization_events()
    assert event.partition == key
    metadata = event.materialization.metadata
    return {n: v.records if isinstance(v, dg.TableMetadataValue) else v.value for n, v in metadata.items()}


def policy(**fields: Any) -> PartitionPolicy:
    return PartitionPolicy.model_validate({"table": "t", "column": "at", "start": "2026-01-01", **fields})


@pytest.mark.parametrize(
    ("interval", "first", "last", "count"),
    [
        ("1 month", "2026-01", "2026-03", 3),
        ("3 months", "2026-01", "2026-01", 1),
        ("12 months", "2026", "2026", 1),
        ("1 day", "2026-01-01", "2026-03-15", 74),
        ("1 week", "2025-12-29", "2026-03-09", 11),
        ("6 hours", "2026-01-01-00:00", "2026-03-15-12:00", 295),
        ("30 minutes", "2026-01-01-00:00", "2026-03-15-12:00", 3529),
    ],
)
def test_a_regular_grid_is_time_windows_up_to_the_one_that_covers_now(
    interval: str, first: str, last: str, count: int
) -> None:
    keys = partitions_of("shop", policy(interval=interval), now=NOW).get_partition_keys(current_time=NOW)
    assert (keys[0], keys[-1], len(keys)) == (first, last, count)


def test_a_month_of_berlin_begins_at_its_midnight() -> None:
    windows = partitions_of("shop", policy(interval="1 month", time_zone="Europe/Berlin"), now=NOW)
    assert isinstance(windows, dg.TimeWindowPartitionsDefinition)
    window = windows.time_window_for_partition_key("2026-02")
    assert (window.start.astimezone(UTC), window.end.astimezone(UTC)) == (
        datetime(2026, 1, 31, 23, tzinfo=UTC),
        datetime(2026, 2, 28, 23, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"interval": 100, "start": 0},
        {"interval": "10 days"},
        {"interval": "5 months"},
        {"interval": "24 months"},
        {"interval": "90 minutes"},
        {"interval": "1 month", "start": "auto"},
    ],
)
def test_what_no_calendar_says_is_told_by_the_partitions_that_there_are(fields: dict[str, Any]) -> None:
    assert isinstance(partitions_of("shop", policy(**fields), now=NOW), dg.DynamicPartitionsDefinition)


def test_a_month_that_is_missing_is_made_alone_and_measured(platform: Platform, database: Target) -> None:
    found = materialized(platform, "2024-03")
    assert (found["state"], found["dagster/row_count"], found["partitions"]) == ("made", 0, "public.sale_p2024_03")
    assert (found["from"], found["to"]) == ("2024-03-01T00:00:00+00:00", "2024-04-01T00:00:00+00:00")
    assert ask(database, "select count(*) from pg_inherits where inhparent = 'sale'::regclass") == 1
    fill(database, "insert into sale values (1, '2024-03-05', 1), (2, '2024-03-06', null)")
    again = materialized(platform, "2024-03")
    with connect(database, work="test") as connection:
        assert again["content hash"] == catalog.content_hash(connection, Relation("public", "sale_p2024_03"))
    assert (again["state"], again["dagster/row_count"], again["failed checks"]) == ("attached", 2, 1)
    [check] = again["checks"]
    assert (check.data["name"], check.data["status"], check.data["failed_rows"]) == ("not_null_amount", "failed", 1)


def test_a_dry_run_makes_nothing(platform: Platform, database: Target) -> None:
    assert materialized(platform, "2024-03", dry_run=True)["state"] == "missing"
    assert ask(database, "select count(*) from pg_inherits where inhparent = 'sale'::regclass") == 0


def test_rows_of_the_month_come_out_of_the_default_partition(platform: Platform, database: Target) -> None:
    fill(database, "create table rest partition of sale default")
    fill(database, "insert into sale values (1, '2024-03-05'), (2, '2024-04-05')")
    assert materialized(platform, "2024-03")["dagster/row_count"] == 1
    assert ask(database, "select count(*) from rest") == 1


def test_a_wider_partition_holds_the_month_and_only_its_rows_count(platform: Platform, database: Target) -> None:
    fill(database, "create table wide partition of sale for values from ('2024-01-01') to ('2024-07-01')")
    fill(database, "insert into sale values (1, '2024-03-05'), (2, '2024-04-05')")
    found = materialized(platform, "2024-03")
    assert (found["state"], found["partitions"], found["dagster/row_count"]) == ("attached", "public.wide", 1)
    assert "checks" not in found


def test_a_month_that_is_due_is_archived_and_known_after_it_has_left(platform: Platform, database: Target) -> None:
    materialized(platform, "2020-02")
    fill(database, "insert into sale select i, '2020-02-10', i from generate_series(1, 50) i")
    found = materialized(platform, "2020-02")
    assert found["archive"] == "50 rows written by old, 0 not proven stayed out"
    assert (found["rows in archives"], found["dagster/row_count"]) == (50, 50)
    retirement.apply(platform, platform.declarations.get("shop"))
    gone = materialized(platform, "2020-02")
    assert (gone["state"], gone["dagster/row_count"], gone["rows in archives"]) == ("retired", 0, 50)
    assert ask(database, "select to_regclass('sale_p2020_02') is null"), "what was retired is not made again"


def test_without_a_proven_backup_a_month_that_is_due_says_why_it_is_not_archived(
    platform: Platform, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "proof_of", lambda *_: None)
    materialized(platform, "2020-02")
    fill(database, "insert into sale values (1, '2020-02-10', 1)")
    found = materialized(platform, "2020-02")
    assert "no backup that holds them is proven" in found["archive"]
    assert found["rows in archives"] == 0


def test_numbers_can_be_chosen_once_their_partitions_are_told(platform: Platform, database: Target) -> None:
    fill(database, "create table visit_first partition of visit for values from (0) to (100)")
    fill(database, "insert into visit select generate_series(1, 40)")
    declared = platform.declarations.get("shop")
    [step] = [a for a in writing_assets(platform, declared) if a.key.path == ["shop", "partitions", "visit"]]
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([step], resources={"options": Options()}, instance=instance).success
        assert instance.get_dynamic_partitions("shop_periods_visit") == ["0", "100"]
        found = materialized(platform, "0", table=1, instance=instance)
    assert (found["state"], found["dagster/row_count"], found["from"]) == ("attached", 40, "0")


def test_a_back_fill_is_one_run_that_tells_of_each_month(platform: Platform, database: Target) -> None:
    [sale, _] = period_assets(platform, platform.declarations.get("shop"))
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [sale],
            resources={"options": Options()},
            instance=instance,
            tags={"dagster/asset_partition_range_start": "2025-01", "dagster/asset_partition_range_end": "2025-12"},
        )
        events = {e.partition: e.materialization.metadata for e in done.get_asset_materialization_events()}
        assert instance.get_materialized_partitions(sale.key) == set(events)
    assert sorted(events) == [f"2025-{month:02}" for month in range(1, 13)]
    assert [events[f"2025-{month:02}"]["partitions"].value for month in (1, 12)] == [
        "public.sale_p2025_01",
        "public.sale_p2025_12",
    ]
    assert ask(database, "select count(*) from pg_inherits where inhparent = 'sale'::regclass") == 12


def test_the_rest_of_the_history_is_still_made_by_the_partitions_themselves(
    platform: Platform, database: Target
) -> None:
    materialized(platform, "2025-06")
    made = partitions.apply(platform, platform.declarations.get("shop"), only=Relation("public", "sale"))
    assert "sale_p2025_06" not in [one.relation.name for one in made.tables[0].created]
    rows = sql.SQL("select count(*) from pg_inherits where inhparent = 'sale'::regclass")
    with connect(database, work="test") as connection:
        assert connection.execute(rows).fetchone() == (made.created + 1,)
