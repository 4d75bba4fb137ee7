"""A step on a worker and its run: neither is taken for dead while it works, and the step does not outlive the run."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from redis import Redis

from dbplatform.ledger.ledger import Ledger
from dbplatform.orchestration.workers import HELD_SECONDS, LOOK_SECONDS, LOOKS
from dbplatform.postgres.connection import Target
from dbplatform_tests.installation import free_port
from dbplatform_tests.workers import (
    Said,
    begun,
    execute,
    execute_command,
    newest_run,
    redis_server,
    shop_project,
    spread_environment,
    worker_command,
)

pytestmark = pytest.mark.drill

#: A migration that goes on until nobody else has this lock of its database.
_GATED = "do $$ begin while not pg_try_advisory_xact_lock(4711) loop perform pg_sleep(0.05); end loop; end $$;"
_AT_THE_GATE = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"


@dataclass(frozen=True)
class Shop:
    """A project whose migrations workers apply, and a session that keeps them in their statement."""

    folder: Path
    environment: dict[str, Any]
    redis: Redis
    instance: dg.DagsterInstance
    gate: psycopg.Connection[Any]

    @contextmanager
    def run(self) -> Iterator[subprocess.Popen[str]]:
        with begun(execute_command("shop_migrate"), cwd=self.folder, environment=self.environment) as process:
            yield process

    @contextmanager
    def worker(self, name: str) -> Iterator[tuple[subprocess.Popen[str], Said]]:
        with begun(worker_command(name), cwd=self.folder, environment=self.environment) as process:
            yield process, Said(process)

    def runs(self, verb: str, run_id: str) -> None:
        """``dbplatform runs VERB ID``; it succeeds."""
        command = [sys.executable, "-m", "dbplatform.cli.main", "runs", verb, run_id]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=600)

    def at_the_gate(self) -> int:
        """How many sessions are in the statement of the migration."""
        row = self.gate.execute(_AT_THE_GATE).fetchone()
        assert row is not None
        return int(row[0])

    def open(self) -> None:
        self.gate.execute("select pg_advisory_unlock(4711)")

    def until(self, true: Callable[[], bool]) -> None:
        """Until it is so, looked at several times a second; bounded."""
        for _ in range(6_000):
            if true():
                return
            self.gate.execute("select pg_sleep(0.1)")
        raise AssertionError("it never was")

    def places(self) -> set[str]:
        """The runs that hold the place of the writer."""
        return set(self.instance.event_log_storage.get_concurrency_info("shop_writer").active_run_ids)

    def waiting(self) -> list[bytes]:
        """The lists of steps that wait for a worker."""
        return [key for key in self.redis.scan_iter() if self.redis.type(key) == b"list"]


@pytest.fixture
def shop(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    project = shop_project(tmp_path, monkeypatch)
    (project.root / "defs" / "shop" / "migrations" / "V2__gated.sql").write_text(_GATED)
    with ExitStack() as opened:
        broker = opened.enter_context(redis_server(free_port()))
        environment = spread_environment(project, database, ledger, broker)
        monkeypatch.setenv("DBPLATFORM_DAGSTER_URL", environment["DBPLATFORM_DAGSTER_URL"])
        gate = opened.enter_context(psycopg.connect(database.url, autocommit=True))
        gate.execute("select pg_advisory_lock(4711)")
        redis = opened.enter_context(Redis.from_url(broker))
        instance = opened.enter_context(dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]))
        yield Shop(project.root, environment, redis, instance, gate)


def test_a_run_waits_for_a_worker_that_was_told_to_stop_and_ends_its_step_first(shop: Shop) -> None:
    def looks() -> int:
        return int(shop.redis.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])

    with shop.worker("one") as (worker, said), shop.run() as run:
        shop.until(lambda: shop.at_the_gate() == 1)
        worker.terminate()
        said.wait_for("Warm shutdown")
        enough = looks() + LOOKS + int(HELD_SECONDS // LOOK_SECONDS) + 1
        shop.until(lambda: looks() >= enough)
        shop.open()
        assert worker.wait(timeout=600) == 0, "".join(said.lines)
        with shop.worker("two"):
            printed, _ = run.communicate(timeout=600)
        assert run.returncode == 0, printed
    ended, taken = newest_run(shop.instance)
    assert ended.status == dg.DagsterRunStatus.SUCCESS
    assert taken == {"shop/migrations": "one", "shop/schema_checks": "two"}


@pytest.mark.parametrize("how", ["cancelled", "killed", "too long"])
def test_a_step_is_interrupted_with_its_statement_when_its_run_is_over(how: str, shop: Shop, ledger: Ledger) -> None:
    with shop.worker("one") as (worker, said):
        with shop.run() as run:
            shop.until(lambda: shop.at_the_gate() == 1)
            its, _ = newest_run(shop.instance)
            if how == "cancelled":
                shop.runs("cancel", its.run_id)
            elif how == "killed":
                run.kill()
                run.wait()
                shop.runs("free", its.run_id)
            else:  # as Dagster's daemon does by runs.end_after: it marks the run, whatever its process says
                run.send_signal(signal.SIGINT)
                shop.instance.report_run_failed(its, "Exceeded maximum runtime of 60 seconds.")
            shop.until(lambda: shop.at_the_gate() == 0)
            said.wait_for("is over: its step was interrupted")
            run.communicate(timeout=600)
        ended, _ = newest_run(shop.instance)
        expected = dg.DagsterRunStatus.CANCELED if how == "cancelled" else dg.DagsterRunStatus.FAILURE
        assert ended.status == expected
        assert shop.places() == set()

        # The worker goes on, and so does the work.
        shop.open()
        answer = execute("shop_migrate", cwd=shop.folder, environment=shop.environment)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert worker.poll() is None
    with psycopg.connect(ledger.target.url) as session:
        kept = session.execute("select status, count(*) from ledger.operation group by 1 order by 1").fetchall()
    assert kept == [("failed", 1), ("succeeded", 1)]


def test_a_run_that_is_cancelled_where_no_worker_is_ends_and_leaves_no_step_for_the_one_that_comes(shop: Shop) -> None:
    with shop.run() as run:
        shop.until(lambda: len(shop.waiting()) == 1)
        its, _ = newest_run(shop.instance)
        shop.runs("cancel", its.run_id)
        run.communicate(timeout=600)
    ended, taken = newest_run(shop.instance)
    assert (ended.run_id, ended.status, taken) == (its.run_id, dg.DagsterRunStatus.CANCELED, {})
    assert shop.waiting() == []
    assert shop.places() == set()
