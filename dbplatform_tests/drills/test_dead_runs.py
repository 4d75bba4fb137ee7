"""A real run, killed by SIGKILL in a statement that its server goes on with: noticed, told, freed once, made good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbplatform.postgres.connection import Target
from dbplatform_tests.drills.breaking import no_room
from dbplatform_tests.installation import Installation, small_project

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
"""
_MIGRATION = """\
create table item (id int primary key);
select pg_sleep(case when exists (select from pg_roles where rolname = 'ready') then 0 else 3600 end);
"""
#: A tick of the sensor, as the daemon makes one.
_TICK = """
import dagster as dg
from pathlib import Path
from dbplatform.declaration.project import Project
from dbplatform.definitions import definitions
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.instance import prepare_instance

prepare_instance(Platform(Project.at(Path.cwd())))
repository = definitions().get_repository_def()
[sensor] = [one for one in repository.sensor_defs if one.name == "dbplatform_watch"]
with dg.DagsterInstance.get() as instance:
    sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))
"""


@pytest.mark.drill
def test_a_run_killed_in_a_statement_is_noticed_by_two_ended_once_and_made_good_by_the_next(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as shop:
        shop.server.start()
        with shop.connect("postgres") as server:
            killed = in_its_statement(shop, server)
            killed.kill()
            killed.wait()
            [before] = shop.json("runs", "list")["runs"]
            assert (before["status"], before["process"], before["holds"]) == ("started", "gone", ["shop_writer"])

            ticks = [tick(shop) for _ in range(2)]
            assert [one.wait(timeout=300) for one in ticks] == [0, 0]
            [after] = shop.json("runs", "list")["runs"]
            assert (after["status"], after["holds"]) == ("failure", [])
            assert len(said(shop, after["run_id"])) == 1
            assert "of this run is gone: it was killed" in said(shop, after["run_id"])[0]
            [alert] = [a for a in shop.json("alerts", "list", exit_code=1)["alerts"] if a["state"] == "firing"]
            assert alert["metric"] == "run of shop_migrate"
            assert "is gone: it was killed" in alert["cause"]

            # The server ends the statement of a client that is gone, and the writer's lock with it.
            until(
                server,
                "select not exists (select from pg_locks l join pg_database d on d.oid = l.database "
                "where l.locktype = 'advisory' and d.datname = 'shop')",
            )
        with shop.connect("dbplatform_ledger") as ledger:
            operations = ledger.execute("select kind, status, summary ->> 'error' from ledger.operation").fetchall()
        assert operations == [("migrate", "failed", "its process was killed")]
        with shop.connect("shop") as connection:
            connection.execute("create role ready")  # seen in every database: the migrations are tried out, too
        assert shop.json("run", "shop", "--job", "shop_migrate")["status"] == "succeeded"
        tick(shop).wait(timeout=300)
        assert shop.json("alerts", "list")["alerts"] == []


@pytest.mark.drill
def test_a_run_cancelled_in_its_statement_has_ended_as_cancelled_and_is_no_alert(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as shop:
        shop.server.start()
        with shop.connect("postgres") as server:
            working = in_its_statement(shop, server)
            [run] = shop.json("runs", "list")["runs"]
            assert shop.json("runs", "cancel", run["run_id"])["process"] == "alive"
            assert working.wait(timeout=300) == 3
            until(server, "select not exists (select from pg_stat_activity where wait_event = 'PgSleep')")
        [ended] = shop.json("runs", "list")["runs"]
        assert (ended["status"], ended["holds"], said(shop, run["run_id"])) == ("canceled", [], [])
        assert tick(shop).wait(timeout=300) == 0
        assert shop.json("alerts", "list")["alerts"] == []


@pytest.mark.drill
def test_a_run_beyond_its_declared_time_is_ended_with_its_statement_and_has_failed(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION + "  runs: {end_after: 1 minute}\n", _MIGRATION) as shop:
        ended = shop.json("run", "shop", "--job", "shop_migrate", exit_code=3)
        assert ended["error"]["message"] == "The run of shop_migrate lasted longer than 60 seconds, and was ended."
        [run] = shop.json("runs", "list")["runs"]
        assert (run["status"], run["holds"]) == ("failure", [])
        assert "lasted longer than 60 seconds (runs.end_after)" in said(shop, run["run_id"])[-1]
        with shop.connect("postgres") as server:
            until(server, "select not exists (select from pg_stat_activity where wait_event = 'PgSleep')")


@pytest.mark.drill
def test_a_run_whose_record_finds_no_room_says_so_and_the_next_ends_right(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, "create table item (id int primary key);\n") as shop:
        shop.server.start()
        assert shop.json("runs", "list")["runs"] == []
        with no_room(Target("dagster", shop.server.url("dagster")), "event_logs"):
            failed = shop.command("run", "shop", "--job", "shop_migrate")
        assert failed.returncode == 3
        assert "No space left on device" in failed.stderr
        assert "mistake of dbplatform" not in failed.stderr
        assert shop.json("run", "shop", "--job", "shop_migrate")["status"] == "succeeded"
        with shop.connect("shop") as connection:
            assert connection.execute("select to_regclass('item') is not null").fetchone() == (True,)
        runs = shop.json("runs", "list")["runs"]
        assert [(run["status"], run["holds"]) for run in runs][:1] == [("success", [])]
        assert [run["status"] for run in runs].count("success") == 1
        assert not any(run["holds"] for run in runs)


def in_its_statement(shop: Installation, server: psycopg.Connection[Any]) -> subprocess.Popen[bytes]:
    """A run that has begun with its migration, which sleeps."""
    run = subprocess.Popen(
        [sys.executable, "-m", "dbplatform.cli.main", "run", "shop", "--job", "shop_migrate"],
        cwd=shop.folder,
        env=shop.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(server, "select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
    return run


def tick(shop: Installation) -> subprocess.Popen[bytes]:
    environment = {**shop.environment, "DBPLATFORM_PROJECT": str(shop.folder)}
    return subprocess.Popen([sys.executable, "-c", _TICK], cwd=shop.folder, env=environment)


def said(shop: Installation, run_id: str) -> list[str]:
    """The failures that are recorded of a run, in words."""
    with shop.connect("dagster") as connection:
        events = connection.execute(
            "select event from event_logs where run_id = %s and dagster_event_type = 'PIPELINE_FAILURE'", (run_id,)
        ).fetchall()
    return [json.loads(event)["dagster_event"]["message"] for (event,) in events]


def until(connection: psycopg.Connection[Any], question: str) -> None:
    """Ask until the server says yes; bounded."""
    for _ in range(1_200):
        row = connection.execute(question.encode()).fetchone()
        if row is not None and row[0]:
            return
        connection.execute("select pg_sleep(0.05)")
    raise AssertionError(f"never: {question}")
