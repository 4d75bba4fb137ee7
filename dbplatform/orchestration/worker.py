"""A worker: it executes steps of runs that were begun elsewhere (``workers``), and none whose run is over.

Needs Celery, so that only who is a worker imports it.
"""

import logging
from typing import Any

import dagster as dg
from celery import Task
from celery.exceptions import TaskRevokedError
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import unpack_value
from dagster_celery.tasks import create_task

from dbplatform.orchestration.workers import QUEUE, application

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
        with dg.DagsterInstance.from_ref(asked.instance_ref) as instance:
            if is_over(instance, asked.run_id):
                _log.warning("the run %s is over: its step is not begun", asked.run_id)
                raise TaskRevokedError("its run is over")
            return self.run(execute_step_args_packed, executable_dict)


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run has ended, is being cancelled, or is not there any more; one statement."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished or run.status == dg.DagsterRunStatus.CANCELING
