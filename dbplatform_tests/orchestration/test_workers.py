"""Steps on workers: the environment says so, a folder of one machine is refused, and a step that is lost is noticed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from celery.exceptions import TaskRevokedError
from dagster._core.execution.retries import RetryMode
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import pack_value
from dagster_celery.tasks import create_task

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
from dbplatform_tests.installation import free_port
from dbplatform_tests.workers import (
    PASSWORD,
    SHOP,
    Said,
    begun,
    declare,
    execute,
    newest_run,
    redis_server,
    shop_project,
    spread_environment,
    worker_command,
)

_KEPT_HERE = """\
  backups: {}
  archives: [{name: old, table: public.item, column: at, older_than: 1 month}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return shop_project(tmp_path, monkeypatch)


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
    declare(project.root, SHOP.replace("{url_env: SHOP_URL}", "{}") + _KEPT_HERE)
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
    declare(project.root, SHOP + _KEPT_HERE)
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
        del mine, another, task  # each takes leave of Redis


def test_a_step_that_goes_on_says_so_itself_and_again_before_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.01)
    with redis_server(free_port()) as broker:
        monkeypatch.setenv("DBPLATFORM_CELERY_URL", broker)
        app = application()
        with _going_on(app, "task", lambda: False) as interrupted:
            for _ in range(2):
                _until(lambda: _held(app, ["task", "another"]) == {"task"})
                assert 0 < app.backend.client.ttl(held_key("task")) <= HELD_SECONDS
                app.backend.client.delete(held_key("task"))
        app.backend.client.delete(held_key("task"))
        assert _held(app, ["task"]) == set()
        assert not interrupted.is_set()


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


def test_a_step_that_comes_to_a_worker_when_its_run_is_over_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    with redis_server(free_port()) as broker, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        monkeypatch.setenv("DBPLATFORM_CELERY_URL", broker)
        step = create_task(application(), base=Step)
        ends: list[Callable[[dg.DagsterRun], object]] = [
            instance.report_run_canceling,
            instance.report_run_canceled,
            instance.report_run_failed,
            lambda run: instance.delete_run(run.run_id),
        ]
        for end in ends:
            run = instance.create_run_for_job(marking, status=dg.DagsterRunStatus.STARTED)
            end(run)
            refused = step.apply(kwargs=_given(instance, marking, run))
            assert isinstance(refused.result, TaskRevokedError)
            assert not mark.exists()
        run = instance.create_run_for_job(marking, status=dg.DagsterRunStatus.STARTED)
        assert step.apply(kwargs=_given(instance, marking, run)).state == "SUCCESS"
        assert mark.exists()


@dg.op
def waits_for_ever() -> None:
    Path(os.environ["MARK"]).touch()
    while True:
        threading.Event().wait(1)


@dg.job
def endless() -> None:
    waits_for_ever()


@pytest.fixture
def as_celerys_process() -> Iterator[None]:
    """Deaf to Ctrl-C, as Celery has the processes in which it executes tasks."""
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.usefixtures("as_celerys_process")
def test_a_step_is_interrupted_when_its_run_has_ended_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.05)
    with redis_server(free_port()) as broker, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        monkeypatch.setenv("DBPLATFORM_CELERY_URL", broker)
        run = instance.create_run_for_job(endless, status=dg.DagsterRunStatus.STARTED)

        def over(looked: dg.DagsterInstance, run_id: str) -> bool:
            if mark.exists() and not run_is_finished(looked, run_id):
                looked.report_run_failed(run, "Exceeded maximum runtime of 60 seconds.")  # as Dagster's daemon does
            return run_is_finished(looked, run_id)

        run_is_finished = worker.is_over
        monkeypatch.setattr(worker, "is_over", over)
        ended = create_task(application(), base=Step).apply(kwargs=_given(instance, endless, run))
        failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert isinstance(ended.result, TaskRevokedError)
    assert "is over: its step was interrupted" in str(ended.result)
    assert len(failures) == 1


def test_the_steps_of_a_run_are_executed_by_a_worker_and_the_run_stays_with_who_waits(
    project: Project, database: Target, ledger: Ledger, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(free_port()) as broker:
        environment = spread_environment(project, database, ledger, broker)
        with begun(worker_command("one"), cwd=project.root, environment=environment) as worker_:
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
