"""The maintenance report of a month: what the ledger holds becomes facts, and facts become decisions with commands."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.advice import AdviceRecord
from dbplatform.ledger.backups import BackupRecord, DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.maintenance import MaintenanceItem, MaintenanceRun
from dbplatform.ledger.monitoring import Alert, MetricHistory, StatementText, StatementWindow
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.reporting import periods
from dbplatform.reporting.maintenance import gather, render_maintenance
from dbplatform_tests.typed import Type, typist

SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  backups: {destination: backups}
"""
NOW = datetime.now(UTC)
#: The last whole month, and its beginning.
BEGIN = (NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)).replace(day=1)
MONTH = f"{BEGIN:%Y-%m}"


@pytest.fixture
def type_(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Type:
    folder = tmp_path / "defs" / "shop"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(SHOP)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    with psycopg.connect(database.url) as connection:
        connection.execute("create table item (id int primary key)")
    return typist(tmp_path, capsys)


def keep(ledger: Ledger, *rows: Any) -> None:
    with ledger.session() as session:
        for row in rows:
            session.add(row)
            session.flush()


def maintained(
    ledger: Ledger, day: int, *items: MaintenanceItem, not_possible: tuple[dict[str, str], ...] = ()
) -> None:
    """A run of maintenance as it is recorded."""
    at = BEGIN + timedelta(days=day, hours=2)
    run = MaintenanceRun(
        id=uuid.uuid4(), database="shop", mode="full", started_at=at, finished_at=at + timedelta(minutes=3),
        report={"not_possible": list(not_possible)},
    )  # fmt: skip
    for one in items:
        one.maintenance_id = run.id
    keep(ledger, run, *items)


def item(kind: str, subject: str, state: str = "done", **more: Any) -> MaintenanceItem:
    about: dict[str, Any] = {"words": "", "before": {}, "after": {}, "reason": "it is bloated", **more}
    return MaintenanceItem(
        kind=kind, verb=kind, subject=subject, priority=50, state=state, bytes=0, seconds=2.5,
        statement=f"REINDEX INDEX CONCURRENTLY {subject}", **about,
    )  # fmt: skip


def backup(day: int, *, proven: bool = True, status: str = "complete") -> BackupRecord:
    at = BEGIN + timedelta(days=day, hours=3)
    return BackupRecord(
        id=f"b{day}", database="shop", kind="logical", status=status, scope="everything", location="/b", started_at=at,
        taken_at=at, finished_at=at, bytes=1 << 20, sha256="0" * 64,
        proven_at=at + timedelta(hours=1) if proven else None,
    )  # fmt: skip


def drill(day: int, status: str = "proven", rto: float = 12.0) -> DrillRecord:
    at = BEGIN + timedelta(days=day, hours=4)
    return DrillRecord(
        backup_id=f"b{day}", database="shop", status=status, started_at=at, finished_at=at,
        rto_seconds=rto if status == "proven" else None, rpo_seconds=3_600.0 if status == "proven" else None,
    )  # fmt: skip


def report(type_: Type, *arguments: str) -> dict[str, Any]:
    found = type_("report", "maintenance", "shop", "--month", MONTH, "--json", *arguments)
    assert found.code == 0, found.out
    document: dict[str, Any] = found.json
    return document


def decided(document: dict[str, Any]) -> dict[str, str]:
    """The urgency of each decision, by its command."""
    return {one["command"]: one["urgency"] for one in document["decisions"]}


def test_a_month_without_anything_says_so_and_asks_for_the_first_backup_and_maintenance(type_: Type) -> None:
    document = report(type_)
    assert decided(document) == {
        "dbplatform backup create shop": "now",
        "dbplatform optimize health shop": "this week",
    }
    assert document["backups"]["days_without"] >= 28
    assert document["maintenance"]["runs"] == 0


def test_care_shows_what_it_gained_and_what_was_done_later_is_not_skipped(type_: Type, ledger: Ledger) -> None:
    reindex = "public.item_at"
    maintained(ledger, 3, item("reindex", "public.item_name", "left", words="the budget was spent"))
    maintained(ledger, 4, item("reindex", "public.item_name", before={"bytes": 9 << 20}, after={"bytes": 4 << 20}))
    maintained(
        ledger,
        10,
        item("reindex", reindex, "left", words="the load was too high"),
        not_possible=({"kind": "repack", "subject": "public.item", "reason": "no pg_repack", "hint": ""},),
    )
    maintained(ledger, 11, item("reindex", reindex, "left", words="the load was too high"))
    maintained(ledger, 40, item("vacuum", "public.of_another_month"))
    document = report(type_)
    care = document["maintenance"]
    assert (care["runs"], care["done"], care["gained_bytes"]) == (4, 1, 5 << 20)
    assert [(one["kind"], one["subject"], one["times"]) for one in care["skipped"]] == [
        ("reindex", "public.item_at", 2),
        ("repack", "public.item", 1),
    ]
    (one,) = [one for one in document["decisions"] if one["command"] == "dbplatform optimize full shop"]
    told = {f"{one['title']}. {one['why']}", *one["also"]}
    assert told == {
        "Reindex of public.item_at was not done. The load was too high. It was due 2 times.",
        "Repack of public.item was not done. No pg_repack.",
    }


def test_a_real_run_of_maintenance_is_in_the_report_of_this_month(type_: Type, database: Target) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("insert into item select generate_series(1, 5000)")
    assert type_("optimize", "quick", "shop", "--json").code == 0
    this = type_("report", "maintenance", "shop", "--month", f"{NOW:%Y-%m}", "--json").json
    done = {one["subject"]: one for one in this["maintenance"]["items"] if one["kind"] == "analyze"}
    assert done["public.item"]["state"] == "done"
    assert this["maintenance"]["runs"] == 1
    assert "dbplatform optimize health shop" not in decided(this)


def test_backups_are_told_with_their_proof_and_a_drill_that_failed_is_for_now(type_: Type, ledger: Ledger) -> None:
    keep(ledger, *(backup(day, proven=day < 19) for day in range(20)), backup(21, status="failed", proven=False))
    keep(ledger, drill(5, rto=10.0), drill(12, rto=30.0), drill(19, status="not proven"))
    document = report(type_)
    found = document["backups"]
    assert (found["complete"], found["failed"], found["drills"], found["drills_failed"]) == (20, 1, 3, 1)
    assert (found["rto_seconds"], found["rpo_seconds"]) == ([10.0, 30.0], 3_600.0)
    assert found["days_without"] in (8, 9, 10, 11)
    assert decided(document)["dbplatform drill shop"] == "now", "the newest proof is of the day before"
    keep(ledger, backup(27), drill(27))
    assert "dbplatform drill shop" not in decided(report(type_)), "a later one was proven"


def test_an_open_critical_alert_comes_before_all_that_can_wait(type_: Type, ledger: Ledger) -> None:
    at = BEGIN + timedelta(days=20)
    common = {"database": "shop", "labels": {}, "change": 1, "seen_at": at, "limit_words": "> 10%", "told": "critical"}
    keep(
        ledger,
        Alert(key="d", metric="dead_tuple_ratio", state="firing", severity="critical", since=at, fired_at=at,
              cause="public.item has 2,000,000 dead rows", advice="VACUUM it.", **common),
        Alert(key="c", metric="cache_hit_ratio", state="resolved", severity="warning", since=at, fired_at=at,
              resolved_at=at + timedelta(hours=2), cause="many reads", **common),
        AdviceRecord(id="a1b2c3", database="shop", kind="missing_index", subject="public.item (name)",
                     severity="warning", reason="5,000 calls read the whole table", evidence={}, lock="", cost="",
                     confidence="proven", document="", sql="create index", undo_sql=None, action={"do": 1},
                     undo=None, statements=[], table_name=None, state="open", first_seen_at=at,
                     seen_at=at, changed_at=at),
        backup(27), drill(27),
    )  # fmt: skip
    document = report(type_)
    assert [one["metric"] for one in document["alerts"]] == ["dead_tuple_ratio", "cache_hit_ratio"]
    assert document["alerts"][1]["seconds"] == 7_200
    urgencies = decided(document)
    assert urgencies["dbplatform optimize quick shop"] == "now"
    assert urgencies["dbplatform advise apply a1b2c3"] == "this month"
    order = ["now", "this week", "this month"]
    assert [one["urgency"] for one in document["decisions"]] == sorted(urgencies.values(), key=order.index)


def test_metrics_and_statements_are_followed_over_the_month(type_: Type, ledger: Ledger) -> None:
    size = [(day, 1_000_000.0 + 10_000 * day) for day in range(28)]
    keep(
        ledger,
        *(
            MetricHistory(database="shop", step_s=3600, at=BEGIN + timedelta(days=day, hours=5),
                          measured={"database_bytes": [value, value - 5, value + 5, 60]})
            for day, value in size
        ),
        StatementText(database="shop", queryid=7, text="select slow from item where id = $1"),
        *(
            StatementWindow(database="shop", step_s=3600, at=BEGIN + timedelta(days=day, hours=5), queryid=7, calls=100,
                            ms=100.0 * (10 if day < 14 else 40), rows=100, hit=1, read=0, temp=0)
            for day in range(28)
        ),
    )  # fmt: skip
    document = report(type_)
    assert document["metrics"]["database_bytes"] == {
        "first": 1_000_000.0, "last": 1_270_000.0, "least": 999_995.0, "greatest": 1_270_005.0,
    }  # fmt: skip
    (statement,) = document["statements"]
    assert statement["mean_seconds_last_week"] == pytest.approx(0.04)
    assert statement["share"] == 1.0


def test_the_page_and_its_json_are_kept_and_reviewed_and_what_cannot_be_is_refused(
    type_: Type, ledger: Ledger, tmp_path: Path
) -> None:
    document = report(type_)
    path = Path(document["report"])
    assert path == tmp_path / "home" / "reports" / "shop" / f"maintenance-{MONTH}.html"
    page = path.read_text()
    assert "dbplatform backup create shop" in page
    assert "<script" not in page
    assert json.loads(path.with_suffix(".json").read_text())["decisions"] == document["decisions"]
    waiting = type_("report", "list", "shop", "--kind", "maintenance", "--unreviewed", "--json")
    assert (waiting.code, waiting.json["reports"][0]["id"]) == (1, f"shop-maintenance-{MONTH}")
    assert type_("report", "review", document["id"], "--comment", "Backups begin today.").code == 0
    assert type_("report", "list", "shop", "--kind", "maintenance", "--unreviewed").code == 0
    for month, words in (("october", "is no month"), ("2999-01", "has not begun")):
        refused = type_("report", "maintenance", "shop", "--month", month)
        assert (refused.code, words in refused.err) == (2, True)


def test_a_page_without_decisions_says_what_is_not_known(
    type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", "postgresql://nobody@127.0.0.1:1/none")
    platform = Platform(Project.at(tmp_path))
    found = gather(platform, platform.declarations.get("shop"), periods.month(MONTH, now=NOW), now=NOW)
    page = render_maintenance(replace(found, decisions=()))
    assert "Nothing waits for a decision; of capacity nothing is known; no backup is proven." in page


def test_the_report_is_written_when_the_database_is_gone(
    type_: Type, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    maintained(ledger, 3, item("vacuum", "public.item"))
    monkeypatch.setenv("SHOP_URL", "postgresql://nobody@127.0.0.1:1/none")
    document = report(type_)
    assert document["capacity"] is None
    assert document["maintenance"]["done"] == 1
    assert "Not known: " in Path(document["report"]).read_text()
