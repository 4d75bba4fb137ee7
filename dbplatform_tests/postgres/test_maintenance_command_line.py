"""``optimize`` as a person types it, and what the ledger keeps of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.maintenance import MaintenanceItem, MaintenanceRun
from dbplatform.ledger.models import Operation
from dbplatform.maintenance.apply import Run
from dbplatform.maintenance.model import Report
from dbplatform.postgres.connection import Target
from dbplatform_tests.typed import Type, typist

SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  maintenance:
    due: {min_size: 64kB}
    queries: [{name: an_item, sql: "select * from item where a = 5"}]
"""


@pytest.fixture
def project(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(SHOP)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    return tmp_path


@pytest.fixture
def type_(project: Path, database: Target, capsys: pytest.CaptureFixture[str]) -> Type:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("create table item (a int primary key, b text) with (autovacuum_enabled = off)")
        session.execute("insert into item select i, md5(i::text) from generate_series(1, 50000) i")
        session.execute("delete from item where a % 5 <> 0")
        session.execute("select pg_stat_force_next_flush()")
    return typist(project, capsys)


def test_no_time_limit_of_the_database_ends_the_sessions_of_a_run_while_they_pause(
    type_: Type, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(
            sql.SQL("alter database {} set idle_session_timeout = '1h'").format(sql.Identifier(database.name))
        )
    found = []

    def looked_at(run: Run) -> Report:
        for one in (run.connection, run.watcher):
            found.append(one.execute("select current_setting('idle_session_timeout')").fetchone())
        return to_the_end(run)

    to_the_end = Run.to_the_end
    monkeypatch.setattr(Run, "to_the_end", looked_at)
    assert type_("optimize", "quick", "shop", "--json").code == 0
    assert found == [("0",), ("0",)]


def test_quick_analyzes_and_vacuums_and_full_rebuilds_too(type_: Type, ledger: Ledger) -> None:
    looked = type_("optimize", "health", "shop", "--json")
    assert looked.code == 1
    assert {"score", "grade", "deductions", "items", "not_possible"} <= looked.json.keys()
    dry = type_("optimize", "quick", "shop", "--dry-run", "--json")
    assert (dry.code, {one["kind"] for one in dry.json["items"]}) == (0, {"analyze", "vacuum"})
    with ledger.session() as session:
        assert session.scalars(select(MaintenanceRun)).all() == [], "a look or a plan is no run"

    quick = type_("optimize", "quick", "shop", "--json")
    assert (quick.code, quick.json["left"], quick.json["failed"]) == (0, 0, 0)
    assert {one["kind"] for one in quick.json["items"]} == {"analyze", "vacuum"}
    full = type_("optimize", "full", "shop")
    assert full.code == 0
    assert "done  reindex  public.item_pkey" in full.out
    assert "bloat 0.78" in full.out
    assert "query an_item: " in full.out
    assert "not possible: repack public.item: " in full.out

    again = type_("optimize", "full", "shop", "--json").json
    assert (again["items"], again["stopped"]) == ([], None)
    with ledger.session() as session:
        runs = session.scalars(select(MaintenanceRun).order_by(MaintenanceRun.started_at)).all()
        assert [(run.mode, run.finished_at is not None) for run in runs] == [
            ("quick", True),
            ("full", True),
            ("full", True),
        ]
        [kept] = session.scalars(select(MaintenanceItem).where(MaintenanceItem.kind == "reindex")).all()
        assert (kept.subject, kept.state, kept.maintenance_id) == ("public.item_pkey", "done", runs[1].id)
        assert kept.before["bloat"] > 0.7 > 0.1 > kept.after["bloat"]
        assert [one.kind for one in session.scalars(select(Operation)).all()] == ["optimize"] * 3


def test_what_is_left_is_exit_1_and_now_goes_outside_the_window(type_: Type, project: Path) -> None:
    # Closed but for one minute of the day: it opens in half a day.
    opens = datetime.now(UTC) + timedelta(hours=12)
    window = f"{opens:%H:%M}-{opens + timedelta(minutes=1):%H:%M}"
    (project / "defs" / "shop" / "defs.yaml").write_text(SHOP + f'    window: "{window}"\n')
    left = type_("optimize", "quick", "shop", "--json")
    assert left.code == 1
    assert left.json["stopped"].startswith("it is outside the window")
    assert {one["state"] for one in left.json["items"]} == {"left"}
    assert type_("optimize", "quick", "shop", "--now", "--json").code == 0


def test_one_table_alone_is_maintained(type_: Type) -> None:
    found = type_("optimize", "full", "shop", "--table", "item", "--dry-run", "--json").json
    assert {one["table"] for one in found["items"]} == {"public.item"}
    missing = type_("optimize", "full", "shop", "--table", "nowhere", "--json")
    assert (missing.code, missing.json["error"]["kind"]) == (2, "table_missing")
