"""A worker: it executes steps of runs that were begun elsewhere (``workers``), and none whose run is over.

That a step goes on, the process that executes it says itself, in Redis. The worker above it could not: from SIGTERM on,
while it waits for its steps, Celery answers no question. Needs Celery, so that only who is a worker imports it.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from celery import Task
from celery.exceptions import TaskRevokedError
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import unpack_value
from dagster_celery.tasks import create_task

from dbplatform.orchestration.workers import HELD_SECONDS, QUEUE, application, held_key

#: How often it is said that a step goes on.
SAY_SECONDS = 10.0

_log = logging.getLogger(__name__)


def work(*, steps: int, name: str) -> int:
    """Be a worker, until SIGTERM (the steps that it has are ended first) or SIGQUIT (they are cut off)."""
    app = application()
    create_task(app, base=Step)
    # It would say each event of a step that has succeeded; the run has them.
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    said = ["worker", "--queues", QUEUE, "--concurrency", str(steps), "--hostname", f"{name}@%h"]
    return int(app.worker_main([*said, "--loglevel", "INFO", "--without-gossip", "--without-mingle"]) or 0)


class Step(Task):  # type: ignore[misc]
    """Dagster's task of one step, but for a run that is over: its step may have waited for days for a worker.

    Such a step is taken back, as Celery calls it, and nothing is executed.
    """

    #: No error of ours, so that Celery says no traceback of it.
    throws = (TaskRevokedError,)

    def __call__(self, execute_step_args_packed: Any, executable_dict: Any) -> Any:
        asked = unpack_value(execute_step_args_packed, as_type=ExecuteStepArgs)
        with dg.DagsterInstance.from_ref(asked.instance_ref) as instance, _going_on(self.app, self.request.id):
            if is_over(instance, asked.run_id):
                _log.warning("the run %s is over: its step is not begun", asked.run_id)
                raise TaskRevokedError("its run is over")
            return self.run(execute_step_args_packed, executable_dict)


@contextmanager
def _going_on(app: Any, task: str) -> Iterator[None]:
    """For the block, say every 10 s that this task goes on, whatever its worker does."""
    ended = threading.Event()

    def say() -> None:
        while not ended.is_set():
            try:
                app.backend.client.set(held_key(task), "", ex=HELD_SECONDS)
            except Exception as error:  # whatever it is, the next time is another try
                _log.warning("Redis does not hear that a step goes on: %s: %s", type(error).__name__, error)
            ended.wait(SAY_SECONDS)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run has ended, is being cancelled, or is not there any more; one statement."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished or run.status == dg.DagsterRunStatus.CANCELING
