"""Runs that nobody executes any more: ended once, with all that they hold; what is alive is left alone."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import grpc
import psycopg
import pytest
from dagster import DagsterRun, DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.utils import FuturesAwareThreadPoolExecutor
from dagster._grpc.__generated__.dagster_api_pb2_grpc import add_DagsterApiServicer_to_server
from dagster._grpc.server import DagsterApiServer
from dagster_shared.record import copy

from dbplatform.backups.holding import held
from dbplatform.cli import runs as command
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import alerts
from dbplatform.operations.observations import Runs, StuckRun
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import instance as instances
from dbplatform.orchestration import run_ends, runs
from dbplatform.orchestration.instance import _machine, _started, process_of, process_tags
from dbplatform.orchestration.sensors import _queue_stands_still
from dbplatform.orchestration.steps import failed_step, step
from dbplatform.postgres.connection import Target
from dbplatform_tests.installation import free_port
from dbplatform_tests.typed import typist

_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
"""
_POOL = "shop_writer"

#: Record a run as started, executed by a process of this or another machine, with a place in the pool.
Start = Callable[..., DagsterRun]


@pytest.fixture
def platform(database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_SHOP)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return Platform(Project.at(tmp_path))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.event_log_storage.set_concurrency_slots(_POOL, 1)
        yield instance


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that executes a run, as far as anybody can tell; it is deaf to Ctrl-C."""
    process = subprocess.Popen(["sleep", "600"], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def start(instance: dg.DagsterInstance, worker: subprocess.Popen[bytes]) -> Start:
    def start(
        run_id: str = "run-1", *, machine: str | None = None, status: DagsterRunStatus = DagsterRunStatus.STARTED
    ) -> DagsterRun:
        tags = {
            "dbplatform/database": "shop",
            "dbplatform/process": f"{run_id}/{machine or _machine()}/{worker.pid}/{_started(worker.pid)}",
        }
        run = DagsterRun(job_name="shop_migrate", run_id=run_id, status=status, tags=tags)
        instance.add_run(run)
        claimed = instance.event_log_storage.claim_concurrency_slot(_POOL, run_id, "shop__migrations")
        assert claimed.is_claimed
        return run

    return start


def kill(worker: subprocess.Popen[bytes]) -> None:
    """It is dead, but stays in the table of processes: nobody asks for its end."""
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)


def holders(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.event_log_storage.get_concurrency_info(_POOL).active_run_ids)


def failures(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    return [entry.dagster_event.message or "" for entry in entries if entry.dagster_event is not None]


def declare(platform: Platform, more: str) -> Platform:
    """The project again, its declaration with more in it."""
    (platform.project.root / "defs" / "shop" / "defs.yaml").write_text(_SHOP + more)
    return Platform(platform.project)


def test_a_run_whose_process_was_killed_has_failed_in_one_sentence_and_holds_nothing(
    platform: Platform, instance: dg.DagsterInstance, start: Start, worker: subprocess.Popen[bytes]
) -> None:
    start()
    with psycopg.connect(platform.ledger.target.url, autocommit=True) as ledger:
        ledger.execute(
            "insert into ledger.operation (id, database, kind, run_id, actor, status) "
            "select gen_random_uuid(), 'shop', 'migrate', id, 'dagster', 'running' "
            "from unnest('{run-1,run-2}'::text[]) id"
        )
        kill(worker)

        assert runs.end_dead_runs(instance, platform) == ["run-1"]
        operations = ledger.execute(
            "select run_id, status, summary ->> 'error' from ledger.operation order by run_id"
        ).fetchall()

    ended = instance.get_run_by_id("run-1")
    assert ended is not None
    assert ended.status == DagsterRunStatus.FAILURE
    assert holders(instance) == set()
    assert failures(instance, "run-1") == [
        f"The process {worker.pid} of this run is gone: it was killed, or its machine was restarted. "
        "Its places in pools are free again; the next run goes on where it stood."
    ]
    assert operations == [("run-1", "failed", "its process was killed"), ("run-2", "running", None)]
    assert runs.end_dead_runs(instance, platform) == [], "once"
    assert len(failures(instance, "run-1")) == 1


def test_what_a_lost_worker_had_begun_is_ended_when_its_run_has_ended_and_nobody_works_on_it(
    platform: Platform, instance: dg.DagsterInstance, start: Start, worker: subprocess.Popen[bytes]
) -> None:
    start(status=DagsterRunStatus.FAILURE)
    instance.event_log_storage.free_concurrency_slots_for_run("run-1")
    start("run-2")
    with psycopg.connect(platform.ledger.target.url, autocommit=True) as ledger:
        ledger.execute(
            "insert into ledger.operation (id, database, kind, run_id, actor, status) "
            "select gen_random_uuid(), 'shop', 'backup', id, 'dagster', 'running' "
            "from unnest('{run-1,run-2}'::text[]) id"
        )
        asked = "select run_id, status, summary ->> 'error' from ledger.operation order by run_id"
        runs.end_dead_runs(instance, platform)
        assert [row[1] for row in ledger.execute(asked)] == ["running", "running"]
        instance.add_run_tags("run-1", {"dbplatform/process": "run-1/another/1/1"})
        runs.end_dead_runs(instance, platform)
        assert ledger.execute(asked).fetchall() == [
            ("run-1", "failed", "its worker was killed"),
            ("run-2", "running", None),
        ]


def test_a_run_that_is_slow_or_of_another_machine_is_left_alone(
    platform: Platform, instance: dg.DagsterInstance, start: Start, worker: subprocess.Popen[bytes]
) -> None:
    start()
    assert runs.end_dead_runs(instance, platform) == []
    assert holders(instance) == {"run-1"}
    with pytest.raises(runs.RunGoesOn, match="run-1 has not ended"):
        runs.free_run(instance, platform.ledger, "run-1")

    instance.event_log_storage.free_concurrency_slots_for_run("run-1")
    # Another machine, and a container of this one's name: its pids are others.
    start("run-2", machine=f"another:{_machine().rpartition(':')[2]}")
    instance.event_log_storage.free_concurrency_slots_for_run("run-2")
    start("run-3", machine=f"{socket.gethostname()}:1")
    instance.event_log_storage.free_concurrency_slots_for_run("run-3")
    start("run-4", machine=socket.gethostname())  # of an earlier release, which knew no namespaces
    kill(worker)
    assert runs.end_dead_runs(instance, platform) == ["run-1"]
    assert holders(instance) == {"run-4"}
    assert [one.process for one in runs.list_runs(instance, limit=3)] == ["unknown"] * 3
    with pytest.raises(runs.RunGoesOn) as refused:
        runs.free_run(instance, platform.ledger, "run-2")
    assert "dbplatform runs cancel run-2" in (refused.value.hint or "")


@pytest.fixture
def code_location() -> Iterator[tuple[str, dict[str, Any]]]:
    """The server of a code location without code: where it is reached, as Dagster tags a run, and its runs."""
    ended = threading.Event()
    threads = FuturesAwareThreadPoolExecutor(max_workers=4)
    location = DagsterApiServer(ended, logging.getLogger(__name__), threads)
    server = grpc.server(threads)
    add_DagsterApiServicer_to_server(location, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield json.dumps({"host": "127.0.0.1", "port": port}), location._executions
    server.stop(None)
    ended.set()


def test_a_run_of_another_container_is_dead_when_the_code_location_that_began_it_has_it_no_more(
    platform: Platform,
    instance: dg.DagsterInstance,
    start: Start,
    code_location: tuple[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, has = code_location
    start(machine="the-container-before:1")
    instance.add_run_tags("run-1", {GRPC_INFO_TAG: where})
    assert runs.end_dead_runs(instance, platform) == [], "127.0.0.1 may be another machine's"

    monkeypatch.setattr(instances, "_means_here", lambda host: False)
    has["run-1"] = (threading.current_thread(), None)
    assert runs.end_dead_runs(instance, platform) == []
    with pytest.raises(runs.RunGoesOn):
        runs.free_run(instance, platform.ledger, "run-1")

    del has["run-1"]
    assert [one.process for one in runs.list_runs(instance, limit=1)] == ["gone"]
    assert runs.end_dead_runs(instance, platform) == ["run-1"]
    assert holders(instance) == set()
    assert failures(instance, "run-1") == [
        "The process of this run is gone with its container: the code location that began it has it no more. "
        "Its places in pools are free again; the next run goes on where it stood."
    ]


@pytest.mark.parametrize("status", [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED])
def test_a_run_that_is_being_begun_or_whose_code_location_does_not_answer_is_left_alone(
    status: DagsterRunStatus,
    platform: Platform,
    instance: dg.DagsterInstance,
    start: Start,
    code_location: tuple[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, _ = code_location
    monkeypatch.setattr(instances, "_means_here", lambda host: False)
    silent = json.dumps({"host": "127.0.0.1", "port": free_port()})
    start(machine="another:1", status=status)
    instance.add_run_tags("run-1", {GRPC_INFO_TAG: where if status == DagsterRunStatus.STARTING else silent})
    assert runs.end_dead_runs(instance, platform) == []
    assert holders(instance) == {"run-1"}


def test_an_address_that_is_every_machines_own_tells_nothing_of_another_one() -> None:
    found = {
        host: instances._means_here(host) for host in ("code", "10.0.0.7", "127.0.0.1", "::1", "localhost", "0.0.0.0")
    }
    assert [host for host, here in found.items() if not here] == ["code", "10.0.0.7"]


def test_a_process_whose_start_cannot_be_read_is_not_gone(
    start: Start, worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    read = Path.read_text

    def refused(path: Path, *args: Any, **more: Any) -> str:
        if path.name == "stat":
            raise PermissionError("hidden (hidepid), or too many open files")
        return read(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refused)
        assert not runs.is_dead(run)
        tagged = DagsterRun(job_name="shop", run_id="mine", tags=process_tags("mine"))
    assert not runs.is_dead(tagged), "what could not be read when it began"
    worker.kill()
    worker.wait()
    assert runs.is_dead(run)


def test_a_run_that_lives_when_it_is_looked_at_under_the_lock_is_not_ended(
    platform: Platform, instance: dg.DagsterInstance, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    monkeypatch.setattr(runs, "is_dead", lambda run: True)  # as it was a moment ago
    assert runs.end_dead_runs(instance, platform) == []
    assert (holders(instance), failures(instance, "run-1")) == ({"run-1"}, [])


def test_a_run_that_another_process_is_ending_is_left_to_it(
    platform: Platform, instance: dg.DagsterInstance, start: Start, worker: subprocess.Popen[bytes]
) -> None:
    start()
    kill(worker)
    with held(platform.ledger, "end of run run-1") as mine:
        assert mine
        assert runs.end_dead_runs(instance, platform) == []
        assert failures(instance, "run-1") == []
    assert runs.end_dead_runs(instance, platform) == ["run-1"]


def test_a_run_whose_process_is_told_to_stop_ends_as_cancelled_and_not_as_failed(
    platform: Platform, instance: dg.DagsterInstance, start: Start, worker: subprocess.Popen[bytes]
) -> None:
    start()
    for _ in range(2):
        assert runs.cancel_run(instance, platform.ledger, "run-1") == "alive"
        told = instance.get_run_by_id("run-1")
        assert told is not None
        assert told.status == DagsterRunStatus.CANCELING
    kill(worker)
    assert runs.end_dead_runs(instance, platform) == ["run-1"]
    ended = instance.get_run_by_id("run-1")
    assert ended is not None
    assert (ended.status, failures(instance, "run-1")) == (DagsterRunStatus.CANCELED, [])


def test_of_a_cancelled_run_of_another_machine_the_truth_is_said(
    platform: Platform,
    instance: dg.DagsterInstance,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start(machine="another-machine:1")
    monkeypatch.setattr(command, "_instance", lambda _: nullcontext((platform, instance)))
    typed = typist(platform.project.root, capsys)
    marked = (
        "marked as cancelled, its places in pools freed; no process of it can be seen from here: "
        "if it works on another machine, end it there"
    )
    assert f"would be {marked}" in typed("runs", "cancel", "run-1", "--dry-run").out
    assert holders(instance) == {"run-1"}
    assert f"is {marked}" in typed("runs", "cancel", "run-1").out
    assert holders(instance) == set()
    assert typed("runs", "cancel", "run-1", "--json").json["process"] is None


def test_a_place_that_an_ended_run_holds_is_freed_but_not_while_its_process_works_on(
    platform: Platform, instance: dg.DagsterInstance, start: Start, worker: subprocess.Popen[bytes]
) -> None:
    start(status=DagsterRunStatus.CANCELED)  # somebody has said in the UI that it is cancelled
    assert runs.end_dead_runs(instance, platform) == []
    assert holders(instance) == {"run-1"}
    with pytest.raises(runs.StillAtWork, match=f"{worker.pid} still works"):
        runs.free_run(instance, platform.ledger, "run-1")

    kill(worker)
    assert runs.end_dead_runs(instance, platform) == []
    assert holders(instance) == set()
    assert failures(instance, "run-1") == []


def test_where_that_is_declared_a_dead_run_is_told_and_freed_by_a_person(
    platform: Platform, instance: dg.DagsterInstance, start: Start, worker: subprocess.Popen[bytes]
) -> None:
    platform = declare(platform, "  runs: {free_dead: false}\n")
    databases = platform.declarations.databases
    start()
    now = datetime.now(UTC)
    assert run_ends.stuck_runs(instance, databases, now=now) == {"shop": []}

    kill(worker)
    assert runs.end_dead_runs(instance, platform) == []
    assert holders(instance) == {"run-1"}
    [[stuck]] = run_ends.stuck_runs(instance, databases, now=now).values()
    assert (stuck.job, stuck.run_id, stuck.dead) == ("shop_migrate", "run-1", True)
    assert runs.list_runs(instance, limit=1)[0].process == "gone"

    planned = runs.free_run(instance, platform.ledger, "run-1", dry_run=True)
    assert (planned.ended, planned.pools, holders(instance)) == (True, (_POOL,), {"run-1"})
    assert runs.free_run(instance, platform.ledger, "run-1").ended
    assert holders(instance) == set()
    assert len(failures(instance, "run-1")) == 1
    assert not runs.free_run(instance, platform.ledger, "run-1").ended
    with pytest.raises(runs.UnknownRun):
        runs.free_run(instance, platform.ledger, "no-such-run")


def test_a_stuck_run_is_an_alert_until_it_has_ended(platform: Platform) -> None:
    [shop] = platform.declarations.databases
    now = datetime.now(UTC)

    def firing(minute: int, *stuck: StuckRun) -> list[tuple[str, str]]:
        runs = Runs(jobs={"shop_migrate"}, stuck=stuck)
        looked = alerts.watch(platform, shop, now=now + timedelta(minutes=minute), runs=runs)
        return [(alert.key, alert.severity) for alert in looked.firing if alert.key.startswith("stuck")]

    slow = StuckRun(job="shop_migrate", run_id="run-1", dead=False, words="the run run-1 goes on since yesterday")
    dead = StuckRun(job="shop_migrate", run_id="run-1", dead=True, words="the process of the run run-1 is gone")
    assert firing(0) == []
    assert firing(1, slow) == [("stuck:shop_migrate", "warning")]
    assert firing(2, slow, dead) == [("stuck:shop_migrate", "critical")]
    assert firing(3) == []


def test_runs_of_chosen_assets_are_known_by_the_assets_that_failed_until_some_run_has_made_them(
    instance: dg.DagsterInstance,
) -> None:
    broken = {"seed"}

    @dg.asset(key=["shop", "migrations"])
    def migrations() -> None: ...

    @dg.asset(key=["shop", "seed"], deps=[migrations])
    def seed() -> None:
        if broken:
            raise dg.Failure("the file is gone")

    job = dg.define_asset_job("shop", selection=[migrations, seed], tags={"dbplatform/database": "shop"})
    repository = dg.Definitions(assets=[migrations, seed], jobs=[job]).get_repository_def()
    jobs = run_ends.watched_jobs(repository, ["shop"])
    assert jobs == {"shop": {"shop", "materialize migrations", "materialize seed"}}
    began = datetime.now(UTC) - timedelta(minutes=1)

    def ends(job: dg.JobDefinition) -> list[tuple[str, bool, str]]:
        seen = {end.job for end in run_ends.ended_runs(instance, repository, jobs, since={"shop": began})["shop"]}
        job.execute_in_process(instance=instance, raise_on_error=False)
        found = run_ends.ended_runs(instance, repository, jobs, since={"shop": began})["shop"]
        assert seen <= {end.job for end in found}
        last = {end.job: end for end in found}
        return sorted((end.job, end.succeeded, end.reason) for end in last.values())

    by_hand = repository.get_implicit_asset_job_names()[0]
    chosen = repository.get_job(by_hand).get_subset(asset_selection={seed.key, migrations.key})
    assert ends(chosen) == [("materialize seed", False, "in shop/seed: the file is gone")]
    broken.clear()
    assert ends(repository.get_job("shop")) == [
        ("materialize migrations", True, ""),
        ("materialize seed", True, ""),
        ("shop", True, ""),
    ]


def test_a_step_that_is_refused_memory_fails_with_the_next_step_and_the_next_run_does_it(
    instance: dg.DagsterInstance,
) -> None:
    hunger = [MemoryError()]

    @dg.asset(key=["shop", "seed"], pool=_POOL)
    def seed() -> None:
        with step(dg.AssetExecutionContext.get(), "shop/seed"):
            if hunger:
                raise hunger.pop()

    job = dg.Definitions(assets=[seed], jobs=[dg.define_asset_job("shop", [seed])]).resolve_job_def("shop")
    refused = job.execute_in_process(instance=instance, raise_on_error=False)
    failed = failed_step(refused.all_events)
    assert (refused.success, failed and failed.step, failed and failed.exit_code) == (False, "shop/seed", 3)
    assert failed is not None
    assert "This process was refused memory" in failed.reason
    assert holders(instance) == set()
    assert job.execute_in_process(instance=instance).success


def test_no_failed_run_is_missed_and_each_database_has_its_own_time(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_ends, "_MOST_RUNS", 2)
    began = datetime.now(UTC) - timedelta(minutes=1)
    for number, database in enumerate(["shop", "shop", "ops", "shop", "ops"]):
        instance.add_run(
            DagsterRun(
                job_name=f"{database}_daily",
                run_id=f"run-{number}",
                status=DagsterRunStatus.FAILURE,
                tags={"dbplatform/database": database},
            )
        )
    jobs = {"shop": {"shop_daily"}, "ops": {"ops_daily"}}
    repository = dg.Definitions().get_repository_def()
    both = run_ends.ended_runs(instance, repository, jobs, since={"shop": began, "ops": began})
    assert {name: len(ended) for name, ended in both.items()} == {"shop": 3, "ops": 2}
    later = began + timedelta(hours=1)
    one = run_ends.ended_runs(instance, repository, jobs, since={"shop": later, "ops": began})
    assert {name: len(ended) for name, ended in one.items()} == {"shop": 0, "ops": 2}


@pytest.mark.parametrize(
    ("most", "began_ago", "stands"), [(2, 30, False), (2, 61, True), (3, 30, True), (-1, 30, True)]
)
def test_a_full_queue_that_moves_does_not_stand_still(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, most: int, began_ago: int, stands: bool
) -> None:
    monkeypatch.setattr(
        instance, "get_concurrency_config", lambda: mock.Mock(run_queue_config=mock.Mock(max_concurrent_runs=most))
    )
    now = datetime.now(UTC)
    of = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("dbplatform"), "__repository__")
    for name, status in (("a", "STARTED"), ("b", "STARTED"), ("c", "QUEUED")):
        run = DagsterRun(
            job_name=f"{name}_daily",
            run_id=f"run-{name}",
            status=DagsterRunStatus[status],
            remote_job_origin=RemoteJobOrigin(of, f"{name}_daily"),
            tags={"dbplatform/database": name},
        )
        instance.add_run(run)
    records = instance.get_run_records

    def old(*given: Any, **options: Any) -> list[dg.RunRecord]:
        begun = {"a": now - timedelta(hours=9), "b": now - timedelta(minutes=began_ago)}
        return [
            copy(
                one,
                create_timestamp=now - timedelta(hours=1),
                start_time=begun.get(one.dagster_run.job_name[0], now).timestamp(),
            )
            for one in records(*given, **options)
        ]

    monkeypatch.setattr(instance, "get_run_records", old)
    assert _queue_stands_still(instance, now) is stands


#: A step that works for ever. What a shell starts in its background is deaf to SIGINT, and so are its children.
_ENDLESS = """
import signal
import threading

from dbplatform.orchestration.launch import _Watch
from dbplatform.progress import Progress

signal.signal(signal.SIGINT, signal.default_int_handler)
watch = _Watch(None, "run-1", None, pool="shop_writer", limit_s=0.0, tell=print)
watch.hear(Progress(task="step shop/migrations", done=0, total=1, unit=""))
try:
    with watch.watching():
        while True:
            threading.Event().wait(1)
except KeyboardInterrupt:
    print("interrupted, too long:", watch.too_long)
"""


def test_a_run_beyond_its_limit_is_interrupted_as_by_ctrl_c_while_its_step_works() -> None:
    ended = subprocess.run([sys.executable, "-c", _ENDLESS], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted, too long: True\n"), ended.stderr


def test_the_process_of_this_test_is_alive(instance: dg.DagsterInstance) -> None:
    run = DagsterRun(job_name="shop", run_id="mine", tags=process_tags("mine"))
    assert not runs.is_dead(run)
    assert process_of(run) is not None
    assert not runs.is_dead(DagsterRun(job_name="shop", run_id="unknown"))
