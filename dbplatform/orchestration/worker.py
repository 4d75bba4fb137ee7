"""A worker: it executes steps of runs that were begun elsewhere (``workers``), and none longer than its run goes on.

That a step goes on, the process that executes it says itself, in Redis. The worker above it could not: from SIGTERM on,
while it waits for its steps, Celery answers no question. And that process looks itself how its run is: who waits for
the step may have been killed. Needs Celery, so that only who is a worker imports it.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dagster as dg
from celery import Task
from celery.exceptions import TaskRevokedError
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import unpack_value
from dagster_celery.tasks import create_task

from dbplatform.orchestration.workers import HELD_SECONDS, QUEUE, application, held_key

#: How often it is said that a step goes on, and looked whether its run does.
LOOK_SECONDS = 10.0

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

    Such a step is taken back, as Celery calls it: it is not begun, or interrupted as by Ctrl-C, its statement with it.
    """

    #: No error of ours, so that Celery says no traceback of it.
    throws = (TaskRevokedError,)

    def __call__(self, execute_step_args_packed: Any, executable_dict: Any) -> Any:
        asked = unpack_value(execute_step_args_packed, as_type=ExecuteStepArgs)
        assert asked.instance_ref is not None
        with dg.DagsterInstance.from_ref(asked.instance_ref) as instance:
            over = partial(is_over, instance, asked.run_id)
            if over():
                raise _taken_back(f"the run {asked.run_id} is over: its step is not begun")
            with _going_on(self.app, self.request.id, over) as interrupted:
                try:
                    return self.run(execute_step_args_packed, executable_dict)
                except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                    if not interrupted.is_set():
                        raise
                    raise _taken_back(f"the run {asked.run_id} is over: its step was interrupted") from None


def _taken_back(words: str) -> TaskRevokedError:
    _log.warning("%s", words)
    return TaskRevokedError(words)


@contextmanager
def _going_on(app: Any, task: str, over: Callable[[], bool]) -> Iterator[threading.Event]:
    """For the block, say every 10 s that this task goes on, whatever its worker does, and interrupt it when it is over.

    Yields what is set when it was interrupted. The signal is sent again and again: Celery has its processes ignore it
    until Dagster listens.
    """
    interrupted, ended = threading.Event(), threading.Event()

    def look() -> None:
        while not ended.is_set():
            with _tried("say that a step goes on"):
                app.backend.client.set(held_key(task), "", ex=HELD_SECONDS)
            with _tried("look how its run is"):
                if over():
                    interrupted.set()
                    os.kill(os.getpid(), signal.SIGINT)
            ended.wait(LOOK_SECONDS)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield interrupted
    finally:
        ended.set()
        thread.join()


@contextmanager
def _tried(what: str) -> Iterator[None]:
    """Whatever goes wrong, the next time is another try."""
    try:
        yield
    except Exception as error:
        _log.warning("could not %s: %s: %s", what, type(error).__name__, error)


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run has ended, is being cancelled, or is not there any more; one statement."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished or run.status == dg.DagsterRunStatus.CANCELING
