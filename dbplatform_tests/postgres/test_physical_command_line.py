"""Physical backups as a person types them, on the embedded server, and as the graph runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from unittest import mock

import pytest

from dbplatform.declaration.project import Project
from dbplatform.operations import recovery
from dbplatform.operations.platform import Platform
from dbplatform_tests.installation import Installation, small_project

_DECLARATION = """
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {directory: migrations}
  backups:
    physical: {wal_archive: true, schedule: "0 3 * * 0"}
  quality:
    - {table: item, checks: [{not_null: word}]}
"""
_MIGRATION = "create table item (id int primary key, word text);"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with small_project(tmp_path_factory.mktemp("shop"), _DECLARATION, _MIGRATION) as installation:
        installation.here("migrate", "apply", "shop")
        yield installation


def insert(shop: Installation, start: int, end: int) -> None:
    with shop.connect("shop") as connection:
        connection.execute("insert into item select g, 'word' from generate_series(%s::int, %s::int) g", (start, end))


def test_before_the_first_base_backup_the_way_is_pointed_out(shop: Installation) -> None:
    told = shop.here("wal", "status", "shop", exit_code=1)
    assert told["archiving"] == "on"
    assert told["windows"] == []
    assert "no undamaged physical backup" in told["findings"][0]
    refused = shop.here("restore", "shop", "--time", "2026-01-01T00:00:00Z", "--into", "x", exit_code=2)
    assert refused["error"]["kind"] == "no_physical_backup"
    assert "--kind physical" in refused["error"]["hint"]


def test_a_mistake_is_undone_by_a_restore_point_and_the_way_there_is_told_first(shop: Installation) -> None:
    plan = shop.here("backup", "create", "shop", "--kind", "physical", "--dry-run")
    assert (plan["parent"], "shop" in plan["databases"]) == (None, True)
    backup = shop.here("backup", "create", "shop", "--kind", "physical")
    assert (backup["kind"], backup["status"]) == ("physical", "complete")
    insert(shop, 1, 100)
    point = shop.here("backup", "restore-point", "shop", "before")
    with shop.connect("shop") as connection:
        connection.execute("delete from item")
    # Nothing is changed by looking, so the newest WAL is not archived for it.
    looked = shop.here("restore", "shop", "--restore-point", "before", "--into", "aside", "--dry-run", exit_code=2)
    assert "--dry-run" in looked["error"]["hint"]
    restored = shop.here("restore", "shop", "--restore-point", "before", "--replace", "shop", "--yes")
    assert restored["replaced"] is True
    with shop.connect("shop") as connection:
        assert connection.execute("select count(*) from item").fetchone() == (100,)
    told = shop.here("wal", "status", "shop")
    assert [one["name"] for one in told["restore_points"]] == ["before"]
    assert told["restore_points"][0]["lsn"] == point["lsn"]
    assert [window["missing"] for window in told["windows"]] == [None]
    assert told["findings"] == []


def test_any_moment_until_now_can_be_restored_and_none_that_is_to_come(shop: Installation) -> None:
    insert(shop, 101, 110)
    with shop.connect("shop") as connection:
        row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    insert(shop, 111, 120)
    restored = shop.here("restore", "shop", "--time", row[0].isoformat(), "--into", "as_of_then")
    assert {table["table"]: table["rows"] for table in restored["tables"]}["public.item"] == 110
    for moment, kind in (
        (("--time", "2999-01-01T00:00:00Z"), "target_outside"),
        (("--time", "2001-01-01T00:00:00+01:00"), "target_outside"),
        (("--lsn", "FFFF/0"), "target_outside"),
        (("--restore-point", "never"), "unknown_restore_point"),
        (("--time", datetime.now(UTC).replace(tzinfo=None).isoformat()), "usage_error"),
        (("--time", "yesterday"), "usage_error"),
        (("--lsn", "here"), "usage_error"),
        (("--lsn", "0/1", "--restore-point", "before"), "usage_error"),
    ):
        assert shop.here("restore", "shop", *moment, "--into", "x", exit_code=2)["error"]["kind"] == kind
    refused = shop.here("restore", "shop", "--time", row[0].isoformat(), "--into", "as_of_then", exit_code=2)
    assert refused["error"]["kind"] == "database_exists"


def test_the_job_restores_to_a_moment_by_the_configuration_of_a_file(shop: Installation) -> None:
    file = shop.folder / "restore.yaml"
    file.write_text("ops: {shop__restore: {config: {time: latest, into: by_the_job}}}")
    found = shop.json("run", "shop", "--job", "shop_restore", "--config", str(file))["steps"]["shop/restore"]
    with shop.connect("by_the_job") as connection:
        [rows] = connection.execute("select count(*) from item").fetchall()
    assert {table["table"]: table["rows"] for table in found["tables"]}["public.item"] == rows[0]
    assert found["database"] == "by_the_job"
    assert datetime.fromisoformat(found["moment reached"]).tzinfo is not None


def test_the_backups_of_the_server_stand_beside_those_of_the_database(shop: Installation) -> None:
    shop.here("backup", "create", "shop")
    found = {backup["kind"]: backup for backup in shop.here("backup", "list", "shop")["backups"]}
    assert set(found) == {"logical", "physical"}
    assert shop.here("backup", "verify", "shop", found["physical"]["id"])["passed"] is True
    restored = shop.here("restore", "shop", "--backup", found["physical"]["id"], "--into", "as_backed_up")
    assert {table["table"]: table["rows"] for table in restored["tables"]}["public.item"] == 0


def test_the_graph_takes_a_base_backup_that_serves_others_and_proves_it(shop: Installation) -> None:
    steps = shop.json("run", "shop", "--job", "shop_physical")["steps"]
    assert steps["shop/recovery_drill"]["proven"] is True
    assert steps["shop/recovery_drill"]["RTO seconds"] > 0
    assert steps["shop/recovery_drill"]["checks on the copy"] == "1 passed"
    assert steps["shop/physical_backup"]["findings"] == "none"
    assert steps["shop/physical_retention"]["kept"] >= 1
    with mock.patch.dict(os.environ, shop.environment, clear=True):
        platform = Platform(Project.at(shop.folder))
        shared = recovery.take_shared(platform, platform.declarations.get("shop"))
    assert shared.id == steps["shop/physical_backup"]["backup"]
    assert shop.here("drill", "shop", "--kind", "physical", "--dry-run")["backup_id"] == shared.id
    pruned = shop.here("backup", "prune", "shop", "--kind", "physical", "--yes")
    assert (pruned["refusal"], pruned["prune"]) == (None, [])
