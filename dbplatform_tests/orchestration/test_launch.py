"""Runs that must not hang: two at once, a pool that another run holds, Ctrl-C, a killed ``dev``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from dagster import DagsterRun

from dbplatform.orchestration.instance import process_tags
from dbplatform.orchestration.runs import is_dead
from dbplatform_tests.installation import Installation, free_port, small_project

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 1}
  quality:
    - {table: item, checks: [{row_count: {min: 0}}]}
"""
_MIGRATION = """\
create table item (id int primary key);
create table sale (at timestamptz not null) partition by range (at);
"""
_SECONDS = 300


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A small project of its own, its main job run once."""
    with small_project(tmp_path_factory.mktemp("shop"), _DECLARATION, _MIGRATION) as installation:
        dry = installation.json("run", "shop", "--dry-run")
        assert dry["verdict"] is None
        assert "does not exist" not in str(dry)
        assert {step: found["plan"] for step, found in dry["steps"].items() if "plan" in found} == {
            "shop/migrations": "shop is not made yet: a run would make it.",
            "shop/partitions/sale": "Its partitions would be made, one per 1 month, 1 ahead.",
            "shop/tables/item": "1 of its checks would run.",
            "shop/tables/sale": "Its rows would be counted.",
            "shop/quality_report": "A report would be written.",
            "shop/alerts": "Nobody would be told.",
        }
        with installation.connect("shop") as connection:
            assert connection.execute("select to_regclass('item'), to_regclass('sale')").fetchone() == (None, None)
        assert installation.json("run", "shop")["verdict"] == "passed"
        yield installation


@pytest.fixture
def started(shop: Installation) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command of the shop; it is gone after the test."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dbplatform.cli.main", *arguments],
            cwd=shop.folder,
            env=shop.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=hear_ctrl_c,
        )
        processes.append((process, threading.Timer(_SECONDS, process.kill)))
        processes[-1][1].start()
        return process

    yield start
    for process, timer in processes:
        timer.cancel()
        process.kill()
        process.communicate()


def hear_ctrl_c() -> None:
    """A shell starts what runs in its background deaf to SIGINT, and its children after it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(process: subprocess.Popen[str], words: str) -> str:
    """Everything that the process says up to the line with these words."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return "".join(said)
    raise AssertionError(f"{words!r} was not said: {''.join(said)}")


def hold(shop: Installation, holder: str | None) -> None:
    """Give the pool's only place to a run, or free it."""
    with shop.connect("dagster") as connection:
        changed = connection.execute(
            "update concurrency_slots set run_id = %s, step_key = %s where concurrency_key = 'shop_writer'",
            (holder, holder and "some_step"),
        )
        assert changed.rowcount == 1


def test_two_runs_at_once_both_end_well(started: Callable[..., subprocess.Popen[str]]) -> None:
    first, second = started("run", "shop"), started("run", "shop")
    printed = [process.communicate(timeout=_SECONDS)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], printed


def test_a_run_that_waits_says_for_whom_and_can_be_stopped(
    shop: Installation, started: Callable[..., subprocess.Popen[str]]
) -> None:
    hold(shop, "another-run")
    try:
        for how in (signal.SIGINT, signal.SIGTERM):
            process = started("run", "shop", "--job", "shop_migrate")
            assert "waiting for run another-run, which has the pool shop_writer" in until(process, "waiting for run")
            process.send_signal(how)
            said, _ = process.communicate(timeout=_SECONDS)
            assert process.returncode == 3
            assert "stopped" in said
    finally:
        hold(shop, None)
    assert shop.command("run", "shop", "--job", "shop_migrate").returncode == 0


def test_a_waiting_run_goes_on_when_the_place_is_free(
    shop: Installation, started: Callable[..., subprocess.Popen[str]]
) -> None:
    hold(shop, "another-run")
    process = started("run", "shop", "--job", "shop_migrate")
    until(process, "waiting for run")
    hold(shop, None)
    process.communicate(timeout=_SECONDS)
    assert process.returncode == 0


def test_ctrl_c_in_a_statement_ends_the_statement_too(
    shop: Installation, started: Callable[..., subprocess.Popen[str]]
) -> None:
    script = shop.folder / "defs" / "shop" / "migrations" / "V2__slow.sql"
    script.write_text("select pg_sleep(600);\n")
    try:
        process = started("migrate", "apply", "shop")
        with shop.connect("postgres") as connection:
            wait_for(connection, _SLEEPING, 1)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=_SECONDS)
            assert process.returncode == 3
            assert "stopped." in said
            assert "lost" not in said
            wait_for(connection, _SLEEPING, 0)
    finally:
        script.unlink()


_SLEEPING = "select count(*) from pg_stat_activity where query ~ 'pg_sleep.600' and pid <> pg_backend_pid()"


def wait_for(connection: psycopg.Connection[tuple[int]], query: str, count: int) -> None:
    """Ask until the server gives that number; the test's own time limit bounds it."""
    for _ in range(1000):
        row = connection.execute(query.encode()).fetchone()
        if row is not None and row[0] == count:
            return
        connection.execute("select pg_sleep(0.05)")
    raise AssertionError(f"{query} never gave {count}")


def test_a_re_executed_run_with_its_parents_tags_is_not_taken_for_dead() -> None:
    mine = process_tags("parent")
    gone = {key: value.replace(f"/{os.getpid()}/", "/999999999/") for key, value in mine.items()}
    assert not is_dead(DagsterRun(job_name="shop", run_id="parent", tags=mine))
    assert is_dead(DagsterRun(job_name="shop", run_id="parent", tags=gone))
    assert not is_dead(DagsterRun(job_name="shop", run_id="child", tags=gone))


def test_dagster_ends_with_a_dev_that_is_killed(
    shop: Installation, started: Callable[..., subprocess.Popen[str]]
) -> None:
    port = free_port()
    process = started("dev", "--port", str(port), "--service-port", str(free_port()))
    said = until(process, "Serving dagster-webserver")
    webserver = int(said.rsplit("in process ", 1)[1].split()[0].rstrip("\x1b[0m"))
    process.kill()
    process.wait()
    # The pipe that Dagster's processes write to ends with the last of them.
    assert process.stdout is not None
    process.stdout.read()
    with pytest.raises(ProcessLookupError):
        os.kill(webserver, 0)
    with socket.socket() as listening:
        assert listening.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resources: null\n", None),
        pytest.param("\xff\xfe", "cannot be read as YAML", marks=pytest.mark.drill),
        pytest.param("- a\n", "holds no mapping", marks=pytest.mark.drill),
        ("resources: {options: {config: {dri_run: true}}}\n", "dri_run"),
        ("ops: {shop__migrations: {config: {target: '99'}}}\n", "99"),
    ],
)
def test_a_wrong_run_configuration_is_one_sentence(shop: Installation, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode("latin-1"))
    result = shop.command("run", "shop", "--job", "shop_migrate", "--config", str(file), "--dry-run")
    assert result.returncode == (2 if says else 0), result.stderr
    assert (says or "") in result.stderr
    assert "Traceback" not in result.stderr


def test_what_cannot_be_judged_is_refused(shop: Installation) -> None:
    for arguments in (("--dry-run",), ("--job", "shop_migrate")):
        refused = shop.command("run", "shop", "--fail-on", "error", *arguments)
        assert refused.returncode == 2
        assert "writes no report" in refused.stderr


def test_a_period_is_chosen_by_its_key(shop: Installation) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    chosen = shop.here("run", "shop", "--job", "shop_periods_sale", "--partition", month)
    assert (chosen["status"], chosen["steps"]["shop/periods/sale"]["state"]) == ("succeeded", "attached")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--job", "shop_periods_sale"], "it works on one period at a time"),
        (["--job", "shop_periods_sale", "--partition", "1999-01"], "it has no such period"),
        (["--partition", "2026-03"], "it has no periods"),
    ],
)
def test_a_period_that_cannot_be_meant_is_refused(shop: Installation, arguments: list[str], says: str) -> None:
    error = shop.here("run", "shop", *arguments, exit_code=2)["error"]
    assert (error["kind"], says in error["message"]) == ("no_such_partition", True)
    assert "--partition" in error["hint"]


def test_runs_are_listed_cancelled_and_freed(shop: Installation, started: Callable[..., subprocess.Popen[str]]) -> None:
    hold(shop, "another-run")
    try:
        process = started("run", "shop", "--job", "shop_migrate")
        until(process, "waiting for run")
        [waiting] = [run for run in shop.here("runs", "list")["runs"] if run["status"] == "started"]
        assert (waiting["job"], waiting["database"]) == ("shop_migrate", "shop")
        going_on = shop.here("runs", "free", waiting["run_id"], exit_code=2)["error"]
        assert f"dbplatform runs cancel {waiting['run_id']}" in going_on["hint"]
        assert shop.here("runs", "cancel", waiting["run_id"], "--dry-run")["cancelled"] is False
        assert shop.here("runs", "cancel", waiting["run_id"])["cancelled"] is True
        process.communicate(timeout=_SECONDS)
        assert process.returncode == 3
    finally:
        hold(shop, None)

    ended = shop.here("runs", "list")["runs"][0]
    assert ended["status"] == "canceled"
    assert shop.here("runs", "cancel", ended["run_id"])["cancelled"] is False
    hold(shop, ended["run_id"])
    assert shop.here("runs", "list")["runs"][0]["holds"] == ["shop_writer"]
    assert shop.here("runs", "free", ended["run_id"])["freed"] is True
    assert shop.here("runs", "list")["runs"][0]["holds"] == []
    assert shop.here("runs", "free", "no-such-run", exit_code=2)["error"]["kind"] == "unknown_run"
