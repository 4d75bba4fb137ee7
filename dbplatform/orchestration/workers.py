"""Where the steps of a run are executed: in the process of the run, or by workers on other machines.

A worker is Dagster's over Celery: ``dagster-celery`` hands each step to whichever worker is free and waits for its
events. What is added here: which of the two it is, by the environment; the tag of the process that waits; what a
cancelled run takes back; and the end of a wait for a worker that is gone, which Celery never tells. What a worker does
is in ``worker``. docs/adr/0018-steps-on-several-machines.md.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.execution.plan.objects import StepFailureData
from dagster_shared.error import SerializableErrorInfo

from dbplatform import machines
from dbplatform.errors import UsageError
from dbplatform.orchestration.instance import tag_with_process

#: The name of the executor, by which a step knows where it is.
CELERY = "celery"
QUEUE = "dagster"

#: How often it is looked which steps somebody has, and after how many looks without a step it is lost: a worker has
#: taken it from the queue a moment before it says so.
LOOK_SECONDS = 15.0
LOOKS = 2
#: How long it holds what the process that executes a step says of itself; it says so again long before.
HELD_SECONDS = 45
_GONE = (
    "The worker that had this step is gone: it was killed, or its machine is lost. What the step had committed stays; "
    "the next run goes on where it stood."
)
#: A step that a worker has taken and not begun is given to another one after this time. It is long, because nothing is
#: taken before it can begin (``worker_disable_prefetch``), and a step must not be executed twice.
_TAKEN_SECONDS = 24 * 3600

_SETTINGS: Mapping[str, Any] = {
    "broker_transport_options": {"visibility_timeout": _TAKEN_SECONDS},
    "broker_connection_retry_on_startup": True,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # A step that began is never begun again by the broker: the next run goes on where it stood.
    "task_acks_late": False,
    "task_track_started": False,
    "redis_socket_keepalive": True,
}


class NoBroker(UsageError):
    """No broker is named: DBPLATFORM_CELERY_URL is not set."""


class CeleryMissing(UsageError):
    """Celery is not installed, which DBPLATFORM_CELERY_URL asks for."""


def step_executor() -> dg.ExecutorDefinition:
    """What executes the steps of every job: the process of the run, or workers where a broker is named.

    Reads the environment, and nothing else: it is called while definitions are loaded.
    """
    return celery_workers if machines.broker() is not None else dg.in_process_executor


def on_a_worker(job: dg.JobDefinition) -> bool:
    """Whether a step of this job works in a process that does not execute its run."""
    return job.executor_def.name == CELERY


@dg.executor(name=CELERY, requirements=dg.multiple_process_executor_requirements())
def celery_workers(init_context: dg.InitExecutorContext) -> dg.Executor:
    """Each step on whichever worker is free; steps that do not wait for each other run at the same time."""
    return _executor()  # type: ignore[no-any-return]


def require_workers() -> None:
    """Raise ``NoBroker`` or ``CeleryMissing`` where no worker could be had."""
    _executor()


def application() -> Any:
    """Celery with our settings, as a run and its workers have it; raises ``NoBroker`` and ``CeleryMissing``."""
    executor = _executor()
    from dagster_celery.make_app import make_app

    return make_app(executor.app_args())


def _executor() -> Any:
    """Dagster's executor with our settings; raises ``NoBroker`` and ``CeleryMissing``."""
    url = machines.broker()
    if url is None:
        raise NoBroker(hint=f"export {machines.BROKER}=redis://:password@host:6379/0")
    try:
        from dagster._core.execution.retries import RetryMode
        from dagster_celery.core_execution_loop import core_celery_execution_loop
        from dagster_celery.executor import CeleryExecutor, _submit_task
    except ImportError as error:
        raise CeleryMissing(hint="pip install 'dbplatform[celery]'") from error

    class Workers(CeleryExecutor):  # type: ignore[misc]
        """The same, which makes known who waits, and waits for nobody who is gone."""

        def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
            tag_with_process(plan_context.instance, plan_context.dagster_run)
            holders: Holders | None = None

            def submit(app: Any, plan: Any, step: Any, *more: Any) -> Awaited:
                nonlocal holders
                holders = holders or Holders(partial(_held, app))
                given = _submit_task(app, plan, step, *more)
                return Awaited(given, holders, partial(_failed, plan, step), partial(_take_back, app, given.id))

            try:
                yield from core_celery_execution_loop(plan_context, execution_plan, step_execution_fn=submit)
            finally:
                # Dagster frees the place of a step that has ended, and not of one that was taken back.
                storage = plan_context.instance.event_log_storage
                storage.free_concurrency_slots_for_run(plan_context.dagster_run.run_id)

    return Workers(retries=RetryMode.ENABLED, broker=url, backend=url, config_source=dict(_SETTINGS))


class Holders:
    """Whether somebody still has each of our tasks: it is looked for all at once, every 15 s."""

    def __init__(
        self, held: Callable[[Collection[str]], Collection[str]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._held, self._clock = held, clock
        self._missed: dict[str, int] = {}
        self._next = clock() + LOOK_SECONDS

    def expect(self, task: str) -> None:
        self._missed[task] = 0

    def forget(self, task: str) -> None:
        self._missed.pop(task, None)

    def is_lost(self, task: str) -> bool:
        """Whether it was missed so often that nobody can have it."""
        if self._clock() >= self._next:
            held = self._held(self._missed)
            self._missed = {one: 0 if one in held else missed + 1 for one, missed in self._missed.items()}
            self._next = self._clock() + LOOK_SECONDS
        return self._missed.get(task, 0) >= LOOKS


class Awaited:
    """A step that was given away: Celery's result of it, which is ready, too, when nobody has the step any more.

    A step that brings no events has failed, by ``failed``: to Dagster's loop an error of Celery is the end of all
    steps, and where some of them are not given away yet, it would never come to that end. ``take_back`` takes it from
    those that wait for a worker, and says whether it was among them.
    """

    def __init__(
        self, result: Any, holders: Holders, failed: Callable[[str], list[str]], take_back: Callable[[], bool]
    ) -> None:
        self._result, self._holders, self._failed, self._take_back = result, holders, failed, take_back
        self._taken_back = False
        holders.expect(result.id)

    def ready(self) -> bool:
        return self._taken_back or bool(self._result.ready()) or self._holders.is_lost(self._result.id)

    def get(self) -> list[str]:
        """The events of the step. Raises ``TaskRevokedError`` for one that was taken back."""
        from celery.exceptions import TaskRevokedError

        self._holders.forget(self._result.id)
        if self._taken_back:
            raise TaskRevokedError("it was taken back before a worker had it")
        if not self._result.ready():
            return self._failed(_GONE)
        try:
            return self._result.get()  # type: ignore[no-any-return]
        except TaskRevokedError:
            raise
        except Exception as error:
            return self._failed(f"The worker could not execute this step: {type(error).__name__}: {error}")

    def revoke(self) -> None:
        """Take the step back, if it waits. Celery would only tell the workers that there are now to leave it."""
        self._taken_back = self._take_back()


def _failed(plan: Any, step: Any, words: str) -> list[str]:
    """The one event of a step that no worker ends, recorded and as a worker would send it."""
    error = SerializableErrorInfo(message=words, stack=[], cls_name=None)
    data = StepFailureData(error=error, user_failure_data=None)  # type: ignore[no-untyped-call]
    return [dg.serialize_value(dg.DagsterEvent.step_failure_event(plan.for_step(step), data))]


def held_key(task: str) -> str:
    """The key in Redis that stands while a process executes this task."""
    return f"dbplatform/held/{task}"


def _held(app: Any, tasks: Collection[str]) -> set[str]:
    """Those of the tasks that wait in the queue for a worker, or that a process executes.

    It says so itself: its worker answers nobody any more from the moment at which it is told to stop.
    """
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        waiting = b"".join(message for _, message in _waiting(channel))
        executed = channel.client.mget([held_key(task) for task in tasks])
    return {task for task, held in zip(tasks, executed, strict=True) if held is not None or task.encode() in waiting}


def _take_back(app: Any, task: str) -> bool:
    """Take a task out of the queue; whether it was there: if it was not, a worker has it, or has ended it."""
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        mine = ((name, message) for name, message in _waiting(channel) if task.encode() in message)
        return any(channel.client.lrem(name, 1, message) for name, message in mine)


def _waiting(channel: Any) -> Iterator[tuple[str, bytes]]:
    """The messages that wait for a worker, each with its list in Redis: every priority has one of its own."""
    for priority in channel.priority_steps:
        name = channel._q_for_pri(QUEUE, priority)
        for message in channel.client.lrange(name, 0, -1):
            yield name, message
