"""Capacity as a person types it: sizes of each day, limits and growth over a made history, the report of a quarter."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, update

from dbplatform.capacity import sizes
from dbplatform.capacity.sizes import Sizes, kept_sizes
from dbplatform.ledger.capacity import CapacityDay, PeriodReport
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import MetricHistory
from dbplatform.monitoring import forgetting
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.typed import Type, typist

SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  migrations: {}
  partitioned_tables:
    - {table: public.sale, column: at, interval: 1 month, premake: 2, start: 1 month}
  capacity: {disk: 100GB}
"""
MIGRATION = """
create table item (id int generated always as identity primary key, name text);
create table sale (at timestamptz not null, item int) partition by range (at);
create index sale_item on sale (item);
"""
GB = 1 << 30


@pytest.fixture
def type_(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Type:
    folder = tmp_path / "defs" / "shop"
    (folder / "migrations").mkdir(parents=True)
    (folder / "defs.yaml").write_text(SHOP)
    (folder / "migrations" / "V1__items.sql").write_text(MIGRATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    typed = typist(tmp_path, capsys)
    assert typed("migrate", "apply", "shop").code == 0
    assert typed("partition", "apply", "shop").code == 0
    with psycopg.connect(database.url) as connection:
        connection.execute("insert into item (name) select 'n' || n from generate_series(1, 5000) n")
        connection.execute("insert into sale select now(), n from generate_series(1, 5000) n")
    return typed


def past(ledger: Ledger, make: Callable[[int], dict[str, Any]], days: int = 60) -> None:
    """Days of sizes before today: what ``make`` says of a day so long ago, and the rest as of now."""
    with ledger.session() as session:
        now = session.scalars(select(CapacityDay)).one()
        for ago in range(1, days + 1):
            at = now.at - timedelta(days=ago)
            measured = {**now.measured, **make(ago)}
            session.add(CapacityDay(database="shop", day=at.date(), at=at, measured=measured))


def limit(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in document["limits"] if one["limit"] == name]
    return found


def test_sizes_of_partitions_are_those_of_their_table_and_the_whole_is_what_the_server_says(
    type_: Type, database: Target
) -> None:
    with connect(database, work="test") as connection:
        found = sizes.read_sizes(connection, at=datetime.now(UTC))
        told = connection.execute(
            "select pg_table_size('item'), (select sum(pg_table_size(relid)) from pg_partition_tree('sale')),"
            " (select sum(pg_relation_size(relid)) from pg_partition_tree('sale_item')), pg_relation_size('item_pkey'),"
            " (select sum(pg_database_size(oid)) from pg_database), pg_current_xact_id()::text::bigint"
        ).fetchone()
    assert told is not None
    assert set(found.tables) >= {"public.item", "public.sale"}
    assert not [name for name in found.tables if name.startswith("public.sale_")]
    parts = (found.tables["public.item"], found.tables["public.sale"], found.indexes["public.sale_item"])
    assert (*parts, found.indexes["public.item_pkey"]) == told[:4]
    assert found.server_bytes == pytest.approx(int(told[4]), rel=0.05)
    assert 0 <= told[5] - found.xid[0] < 1_000


def test_the_watch_keeps_the_sizes_of_a_day_once(type_: Type, ledger: Ledger) -> None:
    for _ in range(2):
        assert type_("metrics", "shop", "--json").code == 0
    (day,) = kept_sizes(ledger, "shop", since=datetime.now(UTC) - timedelta(days=1))
    assert day.sequences["public.item_id_seq"] == (5_000, 2**31 - 1)
    assert day.disk is not None
    assert day.disk[1] == 100 * GB
    assert type_("capacity", "shop", "--json").code == 0
    assert len(kept_sizes(ledger, "shop", since=datetime.now(UTC) - timedelta(days=1))) == 1


def test_sizes_go_after_three_years_and_with_a_database_that_nobody_declares(type_: Type, ledger: Ledger) -> None:
    assert type_("metrics", "shop", "--json").code == 0
    past(ledger, lambda _: {}, days=3)
    with ledger.session() as session:
        session.execute(
            update(CapacityDay).where(CapacityDay.at < datetime.now(UTC) - timedelta(days=2.5)).values(
                day=(datetime.now(UTC) - timedelta(days=1_200)).date()
            )
        )  # fmt: skip
    now = Sizes(at=datetime.now(UTC) + timedelta(days=1), tables={}, indexes={}, xid=(1, 1, 1), server_bytes=None)
    sizes.keep(ledger, "shop", now)
    with ledger.session() as session:
        assert len(session.scalars(select(CapacityDay.day)).all()) == 4
    assert forgetting.kept(ledger, "shop")["days of sizes"] == 4
    forgetting.forget(ledger, "shop")
    assert forgetting.kept(ledger, "shop") == {}


def test_without_a_history_each_limit_says_what_is_missing_and_nothing_is_made_up(type_: Type) -> None:
    shown = type_("capacity", "shop", "--json")
    assert shown.code == 0
    for name in ("disk", "sequence", "transaction_ids", "connections"):
        found = limit(shown.json, name)
        assert (found["days"], found["reason"]) == (None, "it needs 14 days of history and has 0")
    horizon = limit(shown.json, "partitions")
    assert horizon["days"]["low"] == horizon["days"]["high"]
    assert 55 < horizon["days"]["low"] < 100
    assert {one["reason"] for one in shown.json["growth"]} == {"it needs 14 days of history and has 0"}


@pytest.fixture
def filled(type_: Type, ledger: Ledger, database: Target) -> Type:
    """Sixty days in which the disk filled by half a gigabyte a day, up to what is used now."""
    assert type_("capacity", "shop", "--json").code == 0
    with ledger.session() as session:
        used = session.scalars(select(CapacityDay)).one().measured["disk"][0]
    past(ledger, lambda ago: {"disk": [used - ago * GB // 2 + ago * 7 % 5 * GB // 50, 100 * GB]})
    return type_


def test_a_disk_that_fills_within_the_declared_time_is_a_finding(filled: Type, tmp_path: Path) -> None:
    far = filled("capacity", "shop", "--json")
    disk = limit(far.json, "disk")
    assert disk["growth"]["per_day_low"] < GB / 2 < disk["growth"]["per_day_high"]
    assert disk["days"]["low"] <= 200 <= (disk["days"]["high"] or 1e9)
    assert far.code == 0
    declared = tmp_path / "defs" / "shop" / "defs.yaml"
    declared.write_text(SHOP.replace("100GB", "100GB, warn_within: 300 days"))
    near = filled("capacity", "shop")
    assert near.code == 1
    assert "Disk: may be used up between" in near.out


def test_until_the_disk_has_a_history_of_its_own_that_of_the_database_counts(type_: Type, ledger: Ledger) -> None:
    size = type_("metrics", "shop", "--json").json["metrics"]["database_bytes"]["value"]
    now = datetime.now(UTC)
    with ledger.session() as session:
        for hours in range(60, 40 * 24, 6):
            value = size - hours / 24 * 10 * (1 << 20) + hours * 7 % 5 * (1 << 18)
            session.add(
                MetricHistory(
                    database="shop", step_s=3600, at=now - timedelta(hours=hours),
                    measured={"database_bytes": [value, value, value, 1]},
                )
            )  # fmt: skip
    disk = limit(type_("capacity", "shop", "--json").json, "disk")
    assert disk["subject"] == "the server's disk, as this database grows"
    assert disk["growth"]["per_day"] == pytest.approx(10 * (1 << 20), rel=0.1)
    assert disk["days"]["horizon"] == 4 * disk["growth"]["history_days"]


def test_the_report_of_the_quarter_is_kept_with_its_json_and_reviewed(filled: Type, ledger: Ledger) -> None:
    written = filled("report", "capacity", "shop", "--json").json
    page = Path(written["report"]).read_text()
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "Sequence public.item_id_seq" in page
    beside = json.loads(Path(written["report"]).with_suffix(".json").read_text())
    assert limit(beside, "disk") == limit(written, "disk")
    (listed,) = filled("report", "list", "--kind", "capacity", "--json").json["reports"]
    assert (listed["id"], listed["reviews"]) == (written["id"], [])
    reviewed = filled("report", "review", written["id"], "--comment", "A disk is ordered.", "--by", "Ada", "--json")
    assert reviewed.json["reviews"][0]["by"] == "Ada"
    (listed,) = filled("report", "list", "--kind", "capacity", "--json").json["reports"]
    assert listed["reviews"][0]["current"] is True
    with ledger.session() as session:
        session.execute(update(PeriodReport).values(sha256="0" * 64))
    (listed,) = filled("report", "list", "--kind", "capacity", "--json").json["reports"]
    assert listed["reviews"][0]["current"] is False, "it was written anew"
