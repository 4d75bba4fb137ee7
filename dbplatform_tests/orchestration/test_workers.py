"""Steps on workers: the environment says so, a folder of one machine is refused, and a step that is lost is noticed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import psycopg
import pytest
from celery.exceptions import TaskRevokedError
from dagster._core.execution.retries import RetryMode
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import pack_value
from dagster_celery.tasks import create_task
from psycopg.conninfo import conninfo_to_dict
from redis import Redis

from dbplatform.cli import main
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.machines import NotANumberOfMachines, OnOneMachine
from dbplatform.operations import archives, backups
from dbplatform.operations.diagnosis.examine import examine
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import worker
from dbplatform.orchestration.instance import prepare_instance
from dbplatform.orchestration.location import definitions_of
from dbplatform.orchestration.worker import Step, _going_on
from dbplatform.orchestration.workers import (
    HELD_SECONDS,
    LOOK_SECONDS,
    LOOKS,
    QUEUE,
    Awaited,
    Holders,
    _held,
    _take_back,
    application,
    held_key,
)
from dbplatform.postgres.connection import Target
from dbplatform.reporting import publish
from dbplatform_tests.installation import REPOSITORY, free_port
from dbplatform_tests.workers import PASSWORD, Said, execute, execute_command, newest_run, redis_server, worker_command

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  migrations: {}
  quality: [{table: public.item, checks: [{row_count: {min: 1}}]}]
"""
_KEPT_HERE = """\
  backups: {}
  archives: [{name: old, table: public.item, column: at, older_than: 1 month}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one database; nothing of the environment says where anything lies."""
    for name in [name for name in os.environ if name.startswith(("DBPLATFORM_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    monkeypatch.setenv("SHOP_URL", "postgresql://nobody@127.0.0.1:1/shop")
    declare(tmp_path, _DECLARATION)
    migrations = tmp_path / "defs" / "shop" / "migrations"
    migrations.mkdir()
    (migrations / "V1__item.sql").write_text("create table item (at timestamptz); insert into item values (now());")
    return Project.at(tmp_path)


def declare(folder: Path, text: str) -> None:
    file = folder / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def executors(project: Project) -> dict[str, str]:
    """The executor of each job, also of that for chosen assets."""
    return {job.name: job.executor_def.name for job in definitions_of(project).get_repository_def().get_all_jobs()}


def test_without_a_broker_every_job_runs_in_one_process(project: Project) -> None:
    assert set(executors(project).values()) == {"in_process"}


def test_a_broker_gives_the_steps_of_every_job_to_workers_but_not_of_a_review(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBPLATFORM_CELERY_URL", "redis://127.0.0.1:1/0")
    found = executors(project)
    assert found.pop("shop_review") == "in_process"
    assert set(found.values()) == {"celery"}
    assert {"shop", "shop_migrate", "shop_quality", "__ASSET_JOB"} <= set(found)


@pytest.mark.parametrize("variable", ["DBPLATFORM_CELERY_URL", "DBPLATFORM_MACHINES"])
def test_what_would_lie_on_one_machine_is_refused_in_one_sentence(
    project: Project, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(project.root, _DECLARATION.replace("{url_env: SHOP_URL}", "{}") + _KEPT_HERE)
    platform = Platform(project)
    [shop] = platform.declarations.databases
    [archive] = shop.database.archives
    monkeypatch.setenv(variable, "redis://127.0.0.1:1/0" if variable == "DBPLATFORM_CELERY_URL" else "several")
    for work, what, mend in (
        (lambda: platform.ledger, "The ledger", "DBPLATFORM_LEDGER_URL"),
        (lambda: platform.existing_ledger(), "The ledger", "DBPLATFORM_LEDGER_URL"),
        (lambda: prepare_instance(platform), "Dagster's record of runs", "DBPLATFORM_DAGSTER_URL"),
        (lambda: platform.target(shop), "The database shop", "url_env"),
        (lambda: backups.destination_of(platform, shop), "The backups of shop", "s3://"),
        (lambda: archives.destination_of(platform, archive), "The archive old", "s3://"),
        (lambda: publish.destination_of(platform, shop), "The reports of shop", "s3://"),
    ):
        with pytest.raises(OnOneMachine) as refused:
            work()
        assert refused.value.message.startswith(f"{what} would lie on one machine alone (")
        assert mend in str(refused.value.hint)
    assert not (project.root / "home" / "server").exists()
    monkeypatch.delenv(variable)
    assert backups.destination_of(platform, shop).location() == str(project.root / "home" / "backups")


def test_the_doctor_says_what_several_machines_would_not_share(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(project.root, _DECLARATION + _KEPT_HERE)
    monkeypatch.setenv("DBPLATFORM_CELERY_URL", f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    found = {one.probe: one for one in examine(Platform(project))}
    said = {probe: found[probe].message for probe in ("machines", "ledger", "backup folder", "folder of archive old")}
    assert {found[probe].status for probe in said} == {"error"}
    assert said["backup folder"].startswith("The backups of shop would lie on one machine alone")
    assert "the broker does not answer" in said["machines"]
    assert PASSWORD not in "".join(one.message + str(one.mend) for one in found.values())


def test_a_word_that_is_no_number_of_machines_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBPLATFORM_MACHINES", "2")
    with pytest.raises(NotANumberOfMachines):
        Platform(project).ledger  # noqa: B018


def test_a_worker_without_a_broker_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["-C", str(project.root), "worker"]) == 2
    assert "DBPLATFORM_CELERY_URL is not set" in capsys.readouterr().err


class Result:
    """Celery's result of one task, as far as it is asked."""

    id = "task"
    ended = False

    def ready(self) -> bool:
        return self.ended

    def get(self) -> list[str]:
        return ["events"]


def awaited(held: Collection[str]) -> tuple[Awaited, Result, list[float]]:
    """A task that those who are asked have, or have not, and the clock."""
    clock = [0.0]
    result = Result()
    holders = Holders(lambda _: held, clock=lambda: clock[0])
    return Awaited(result, holders, lambda words: [words], lambda: False), result, clock


def test_a_step_that_nobody_has_is_lost_after_some_looks_and_not_before() -> None:
    task, _, clock = awaited([])
    assert not task.ready()
    for look in range(1, LOOKS + 1):
        clock[0] += LOOK_SECONDS
        assert task.ready() == (look == LOOKS)
    [words] = task.get()
    assert words.startswith("The worker that had this step is gone")


def test_a_step_that_a_worker_has_is_waited_for_however_long_it_takes() -> None:
    task, result, clock = awaited(["task"])
    for _ in range(10 * LOOKS):
        clock[0] += LOOK_SECONDS
        assert not task.ready()
    result.ended = True
    assert task.ready()
    assert task.get() == ["events"]


def test_a_step_that_a_worker_could_not_execute_has_failed_and_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    task, result, _ = awaited(["task"])
    result.ended = True
    monkeypatch.setattr(result, "get", lambda: 1 / 0)
    assert task.ready()
    assert task.get() == ["The worker could not execute this step: ZeroDivisionError: division by zero"]


def test_a_step_whose_answer_comes_after_it_was_missed_has_ended() -> None:
    task, result, clock = awaited([])
    for _ in range(LOOKS):
        clock[0] += LOOK_SECONDS
        task.ready()
    result.ended = True
    assert task.ready()
    assert task.get() == ["events"]


def test_a_cancelled_run_takes_back_the_steps_that_wait_although_no_worker_is_there_to_hear_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with redis_server(free_port()) as broker:
        monkeypatch.setenv("DBPLATFORM_CELERY_URL", broker)
        app = application()
        step = create_task(app).si(execute_step_args_packed={}, executable_dict={})
        mine, another = (step.apply_async(priority=priority, queue=QUEUE) for priority in (7, 0))
        task = Awaited(mine, Holders(partial(_held, app)), lambda words: [words], partial(_take_back, app, mine.id))
        assert not task.ready()
        task.revoke()
        assert task.ready()
        with pytest.raises(TaskRevokedError):
            task.get()
        assert _held(app, [mine.id, another.id]) == {another.id}
        assert not _take_back(app, mine.id), "as where a worker has it"


def test_a_step_that_goes_on_says_so_itself_and_again_before_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SAY_SECONDS", 0.01)
    with redis_server(free_port()) as broker:
        monkeypatch.setenv("DBPLATFORM_CELERY_URL", broker)
        app = application()
        with _going_on(app, "task"):
            for _ in range(2):
                _until(lambda: _held(app, ["task", "another"]) == {"task"})
                assert 0 < app.backend.client.ttl(held_key("task")) <= HELD_SECONDS
                app.backend.client.delete(held_key("task"))
        app.backend.client.delete(held_key("task"))
        assert _held(app, ["task"]) == set()


def _until(true: Callable[[], bool]) -> None:
    """Ask until it is so; bounded by the number of questions."""
    assert any(true() for _ in range(10_000))


@dg.op
def leaves_a_mark() -> None:
    Path(os.environ["MARK"]).touch()


@dg.job
def marking() -> None:
    leaves_a_mark()


def _given(instance: dg.DagsterInstance, job: dg.JobDefinition, run: dg.DagsterRun) -> dict[str, Any]:
    """What a worker is given of a run with one step."""
    whole = dg.reconstructable(job)
    [step] = [node.name for node in job.nodes]
    asked = ExecuteStepArgs(
        job_origin=whole.get_python_origin(),
        run_id=run.run_id,
        step_keys_to_execute=[step],
        instance_ref=instance.get_ref(),
        retry_mode=RetryMode.DISABLED,
    )
    return {"execute_step_args_packed": pack_value(asked), "executable_dict": whole.to_dict()}


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda instance, run: None, "SUCCESS"),
        (lambda instance, run: instance.report_run_canceling(run), "FAILURE"),
        (lambda instance, run: instance.report_run_canceled(run), "FAILURE"),
        (lambda instance, run: instance.report_run_failed(run), "FAILURE"),
        (lambda instance, run: instance.delete_run(run.run_id), "FAILURE"),
    ],
    ids=["goes on", "is being cancelled", "was cancelled", "has failed", "was deleted"],
)
def test_a_step_that_comes_to_a_worker_when_its_run_is_over_is_not_executed(
    end: Callable[[dg.DagsterInstance, dg.DagsterRun], object],
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    with redis_server(free_port()) as broker, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        monkeypatch.setenv("DBPLATFORM_CELERY_URL", broker)
        run = instance.create_run_for_job(marking, status=dg.DagsterRunStatus.STARTED)
        given = _given(instance, marking, run)
        end(instance, run)
        ended = create_task(application(), base=Step).apply(kwargs=given)
    assert ended.state == state, ended.result
    assert (tmp_path / "mark").exists() == (state == "SUCCESS")
    if state != "SUCCESS":
        assert isinstance(ended.result, TaskRevokedError)


def test_the_steps_of_a_run_are_executed_by_a_worker_and_the_run_stays_with_who_waits(
    project: Project, database: Target, ledger: Ledger, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(free_port()) as broker:
        environment = _environment(project, database, ledger, broker)
        with _begun(worker_command("one"), project, environment) as worker_:
            said = Said(worker_)
            # Its step waits for the worker, which is not there yet.
            answer = execute("shop_migrate", cwd=project.root, environment=environment)
            assert answer.returncode == 0, answer.stdout + answer.stderr
            worker_.terminate()
            assert worker_.wait(timeout=120) == 0, "".join(said.lines)
    monkeypatch.setenv("DBPLATFORM_DAGSTER_URL", environment["DBPLATFORM_DAGSTER_URL"])
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        run, taken = newest_run(instance)
    assert (run.status, set(taken.values())) == (dg.DagsterRunStatus.SUCCESS, {"one"})
    _, _, pid, _ = run.tags["dbplatform/process"].split("/")
    [began] = [line for line in answer.stderr.splitlines() if " RUN_START " in line]
    assert f" - {pid} - " in began
    assert PASSWORD not in "".join(said.lines) + answer.stdout + answer.stderr


@contextmanager
def _begun(command: Sequence[str], project: Project, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process in the folder of the project, its output to be read; killed at the end, if it is still there."""
    with subprocess.Popen(
        command, cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


#: A migration that goes on until nobody else has this lock of its database.
_GATED = "do $$ begin while not pg_try_advisory_xact_lock(4711) loop perform pg_sleep(0.05); end loop; end $$;"
_AT_THE_GATE = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"


@pytest.fixture
def gate(project: Project, database: Target) -> Iterator[psycopg.Connection[Any]]:
    """A session that keeps the migrations of the project in their statement, until it lets them go on."""
    (project.root / "defs" / "shop" / "migrations" / "V2__gated.sql").write_text(_GATED)
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("select pg_advisory_lock(4711)")
        yield session


def _meanwhile(session: psycopg.Connection[Any], true: Callable[[], bool]) -> None:
    """Until it is so, looked at several times a second; bounded."""
    for _ in range(2_400):
        if true():
            return
        session.execute("select pg_sleep(0.1)")
    raise AssertionError("it never was")


@pytest.mark.drill
def test_the_run_waits_for_a_worker_that_was_told_to_stop_and_ends_its_step_first(
    project: Project,
    database: Target,
    ledger: Ledger,
    gate: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with redis_server(free_port()) as broker, Redis.from_url(broker) as redis:
        environment = _environment(project, database, ledger, broker)
        with (
            _begun(worker_command("one"), project, environment) as worker_,
            _begun(execute_command("shop_migrate"), project, environment) as run,
        ):
            said = Said(worker_)
            _meanwhile(gate, lambda: _at_the_gate(gate) == 1)
            worker_.terminate()
            said.wait_for("Warm shutdown")

            def looks() -> int:
                return int(redis.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])

            enough = looks() + LOOKS + int(HELD_SECONDS // LOOK_SECONDS) + 1
            _meanwhile(gate, lambda: looks() >= enough)
            gate.execute("select pg_advisory_unlock(4711)")
            printed, _ = run.communicate(timeout=240)
            assert run.returncode == 0, printed
            assert worker_.wait(timeout=240) == 0, "".join(said.lines)
    monkeypatch.setenv("DBPLATFORM_DAGSTER_URL", environment["DBPLATFORM_DAGSTER_URL"])
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        run_, taken = newest_run(instance)
    assert (run_.status, set(taken.values())) == (dg.DagsterRunStatus.SUCCESS, {"one"})


def _at_the_gate(session: psycopg.Connection[Any]) -> int:
    """How many sessions of this database are in the statement of the migration."""
    row = session.execute(_AT_THE_GATE).fetchone()
    assert row is not None
    return int(row[0])


def _environment(project: Project, database: Target, ledger: Ledger, broker: str) -> dict[str, Any]:
    """What the worker and the run share; Dagster's tables lie beside those of the test."""
    home = project.root / "home"
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text(
        (REPOSITORY / "dbplatform" / "orchestration" / "dagster.yaml").read_text()
    )
    there = conninfo_to_dict(ledger.target.url)
    who = f"{there['user']}:{quote(str(there['password']), '')}"
    url = f"{who}@{there['host']}:{there['port']}/{there['dbname']}"
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "SHOP_URL": database.url,
        "DBPLATFORM_LEDGER_URL": ledger.target.url,
        "DBPLATFORM_DAGSTER_URL": f"postgresql+psycopg2://{url}",
        "DBPLATFORM_CELERY_URL": broker,
        "DBPLATFORM_PROJECT": str(project.root),
        "DBPLATFORM_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
    }
