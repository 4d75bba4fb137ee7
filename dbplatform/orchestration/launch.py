"""Executes a job in this process, recorded in the instance, without a way to hang.

Dagster's in-process executor waits for a taken pool slot without a bound and without hearing Ctrl-C. A watch beside it
frees what dead processes hold, says who is waited for, and ends the run when it is told to, or when it waited too long.
"""

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import is_reserved_asset_job_name
from sqlalchemy.exc import DBAPIError

from dbplatform import progress
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError, WorkError
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import instance as instances
from dbplatform.orchestration import keys, runs
from dbplatform.orchestration.location import definitions_of_one
from dbplatform.orchestration.steps import STEP, FailedStep, failed_step, step_words

#: How long a run may wait for the pool before it gives up, how long a stopped one has for its clean-up.
WAIT_SECONDS = 600.0
_STOP_SECONDS = 10.0
_TELL_SECONDS = 5.0


class UnknownJob(UsageError):
    """The database {database} has no job {job!r}."""


class BadRunConfig(UsageError):
    """The run configuration does not fit the job {job}: {reason}"""


class NoSuchPartition(UsageError):
    """The job {job} cannot run for {chosen}: {reason}."""


class RunStopped(WorkError):
    """The run of {job} was stopped."""


class RunTooLong(WorkError):
    """The run of {job} lasted longer than {limit}, and was ended."""


class RunNotRecorded(WorkError):
    """The run of {job} ended, because the database of Dagster's runs refused to record it: {reason}."""


class RunFailed(WorkError):
    """The run of {job} failed in {step}: {reason}"""

    def __init__(self, *, run_id: str, exit_code: int, **fields: Any) -> None:
        super().__init__(**fields)
        self.run_id = run_id
        self.exit_code = exit_code  # type: ignore[misc]

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "run_id": self.run_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaCheck:
    """What one check of the migrations found (``schema_checks``)."""

    name: str
    passed: bool
    severity: str
    """``warn``, or ``error``: it could not run."""
    message: str

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "passed": self.passed, "severity": self.severity, "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A run whose every step succeeded; ``steps`` has what each published, by its name as people read it."""

    run_id: str
    steps: Mapping[str, Mapping[str, Any]]
    schema: Sequence[SchemaCheck]


def find_job(platform: Platform, declared: Declared, name: str) -> dg.JobDefinition:
    """A job of the database; raises ``UnknownJob``."""
    repository = definitions_of_one(platform, declared).get_repository_def()
    names = [job for job in repository.job_names if not is_reserved_asset_job_name(job)]
    if name not in names:
        raise UnknownJob(database=declared.name, job=name, hint=f"It has: {', '.join(sorted(names))}.")
    return repository.get_job(name)


def launch(
    platform: Platform,
    declared: Declared,
    job: dg.JobDefinition,
    config: Mapping[str, Any],
    *,
    partition: str | None = None,
    tell: Callable[[str], None],
    look: str,
) -> Launched:
    """Execute the job, as ``prepare_instance`` has set the instance. ``tell`` hears of waiting;
    ``look`` says where a failed run can be seen.

    ``partition`` is the key that a job of periods needs. Raises ``BadRunConfig`` and ``NoSuchPartition`` before
    anything runs, ``RunFailed``, ``RunStopped`` and ``RunTooLong``.
    """
    run_id = str(uuid.uuid4())
    # Dagster's console logger would print every event between the bars; the instance keeps them all.
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **config}
    with _recorded(job.name), dg.DagsterInstance.get() as instance:
        _require_partition(job, partition, instance)
        for dead in runs.end_dead_runs(instance, platform):
            tell(f"the process of run {dead} was gone: its run is ended, its place in the pool freed")
        ends = runs.policy_of(declared).end_after
        watch = _Watch(
            instance,
            run_id,
            platform,
            pool=keys.pool(declared.name),
            limit_s=ends.timedelta.total_seconds() if ends is not None and runs.MAX_RUNTIME in job.tags else None,
            tell=tell,
        )
        with watch.watching(), progress.listening(watch.hear):
            try:
                result = job.execute_in_process(
                    instance=instance,
                    run_config=quiet,
                    partition_key=partition,
                    run_id=run_id,
                    raise_on_error=False,
                    tags={**instances.process_tags(run_id), ".dagster/repository": "__repository__@dbplatform"},
                )
            except dg.DagsterInvalidConfigError as error:
                reason = "; ".join(e.message for e in error.errors)
                raise BadRunConfig(job=job.name, reason=reason, hint="Copy it from the Launchpad.") from error
        if watch.too_long and not result.success:
            run = instance.get_run_by_id(run_id)
            if run is not None:  # Dagster knows that it was interrupted, and not why
                instance.report_run_failed(run, f"The run lasted longer than {ends} (runs.end_after), and was ended.")
            hint = "See where it stood, and why; runs.end_after says how long it may take. The next run goes on there."
            raise RunTooLong(job=job.name, limit=str(ends), hint=hint)
        if watch.told_to_stop:
            raise RunStopped(job=job.name, hint="Start it again: it goes on where it stood.")
        if not result.success:
            raise _failure(job.name, result, look)
        return Launched(run_id=run_id, steps=_published(result), schema=_schema(result, declared))


@contextmanager
def _recorded(job: str) -> Iterator[None]:
    """What Dagster's storage refuses within the block, in words; its driver is not the platform's."""
    try:
        yield
    except DBAPIError as error:
        raise RunNotRecorded(
            job=job,
            reason=(str(error.orig).strip().splitlines() or [type(error).__name__])[0].rstrip("."),
            hint="Mend it (the server's log and its disk tell more), then run it again: it goes on where it stood.",
        ) from error


def _require_partition(job: dg.JobDefinition, key: str | None, instance: dg.DagsterInstance) -> None:
    """Raise ``NoSuchPartition`` unless the key is one of those that the job has."""
    known = None
    if job.partitions_def is not None:
        known = job.partitions_def.get_partition_keys(dynamic_partitions_store=instance)
    if known is None and key is not None:
        raise NoSuchPartition(job=job.name, chosen=key, reason="it has no periods", hint="Leave --partition out.")
    if known is not None and key not in known:
        ends = f"It has those from {known[0]} to {known[-1]}." if known else "Run the database's main job first."
        chosen, reason = ("all", "it works on one period at a time") if key is None else (key, "it has no such period")
        raise NoSuchPartition(job=job.name, chosen=chosen, reason=reason, hint=f"{ends} Write --partition KEY.")


def _failure(job: str, result: dg.ExecuteInProcessResult, look: str) -> RunFailed:
    found = failed_step(result.all_events) or FailedStep(step="Dagster", reason="see its log.", exit_code=3)
    return RunFailed(
        run_id=result.run_id,
        exit_code=found.exit_code,
        job=job,
        step=found.step,
        reason=found.reason,
        hint=f"Run {result.run_id}: {look}/runs/{result.run_id}",
    )


def _published(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    found = {}
    for event in result.all_events:
        if event.is_step_materialization and event.asset_key is not None:
            metadata = event.step_materialization_data.materialization.metadata
            found["/".join(event.asset_key.path)] = {key: _plain(value) for key, value in metadata.items()}
        elif event.is_successful_output and event.step_output_data.metadata and event.step_key is not None:
            metadata = event.step_output_data.metadata
            found.setdefault(step_words(event.step_key), {key: _plain(value) for key, value in metadata.items()})
    return found


def _schema(result: dg.ExecuteInProcessResult, declared: Declared) -> tuple[SchemaCheck, ...]:
    return tuple(
        SchemaCheck(
            name=found.check_name,
            passed=found.passed,
            severity=found.severity.value.lower(),
            message=found.description or "",
        )
        for found in result.get_asset_check_evaluations()
        if found.asset_key == keys.migrations(declared.name)
    )


def _plain(value: dg.MetadataValue[Any]) -> Any:
    """What the command line can print of a published value: tables as lists of mappings."""
    if isinstance(value, dg.TableMetadataValue):
        return [dict(record.data) for record in value.records]
    if isinstance(value, dg.TableSchemaMetadataValue):
        return {column.name: column.type for column in value.schema.columns}
    return value.value if isinstance(value.value, str | int | float | bool) else str(value.value)


class _Watch:
    """A thread beside the executor: hears signals that Dagster keeps to itself, and knows when no step runs."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        platform: Platform,
        *,
        pool: str,
        limit_s: float | None,
        tell: Callable[[str], None],
    ) -> None:
        self.instance, self.run_id, self.platform, self.pool, self.tell = instance, run_id, platform, pool, tell
        self.end_by = time.monotonic() + limit_s if limit_s is not None else None
        self.told_to_stop = self.too_long = False
        self._idle_since: float | None = time.monotonic()
        self._ended = threading.Event()

    def hear(self, fact: progress.Progress) -> None:
        """A step began or ended."""
        if fact.task.startswith(STEP):
            self._idle_since = None if fact.done == 0 else time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs. Only the main thread can hear signals; elsewhere only waiting is watched."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        main = threading.current_thread() is threading.main_thread()
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False) if main else -1
        thread = threading.Thread(target=self._watch, args=(reader,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            if main:
                signal.set_wakeup_fd(before)
            writer.close()
            thread.join()
            reader.close()

    def _watch(self, reader: socket.socket) -> None:
        reader.settimeout(0.5)
        stop_by: float | None = None
        told_at = 0.0
        while not self._ended.is_set():
            try:
                heard = reader.recv(64)
            except TimeoutError:
                heard = b""
            now = time.monotonic()
            if self.end_by is not None and now > self.end_by and not self.too_long:
                # As by Ctrl-C: the step is interrupted, and its statement with it.
                self.too_long = True
                os.kill(os.getpid(), signal.SIGINT)
            if {signal.SIGINT, signal.SIGTERM} & set(heard):
                self.told_to_stop = True
                stop_by = stop_by or now + _STOP_SECONDS
            if stop_by is not None and (now > stop_by or self._idle_since is not None):
                why = "it lasted longer than runs.end_after" if self.too_long else "it was stopped while it waited"
                self._give_up(why, canceled=not self.too_long)
            idle = now - self._idle_since if self._idle_since is not None else 0.0
            if idle > _TELL_SECONDS and now - told_at > _TELL_SECONDS:
                runs.end_dead_runs(self.instance, self.platform)
                holders = self.instance.event_log_storage.get_concurrency_info(self.pool).active_run_ids
                if holders - {self.run_id} and told_at == 0.0:
                    self.tell(f"waiting for run {', '.join(sorted(holders))}, which has the pool {self.pool}")
                told_at = now
            if idle > WAIT_SECONDS:
                self._give_up(f"it waited {WAIT_SECONDS:.0f} s for the pool {self.pool}", canceled=False)

    def _give_up(self, why: str, *, canceled: bool) -> None:
        """End the run from outside: nothing runs, and the executor's loop cannot be left in another way."""
        if self._ended.is_set():
            return
        run = self.instance.get_run_by_id(self.run_id)
        if run is not None and not run.is_finished:
            report = self.instance.report_run_canceled if canceled else self.instance.report_run_failed
            report(run, f"The run gave up: {why}.")
            self.instance.event_log_storage.free_concurrency_slots_for_run(self.run_id)
        self.tell(f"the run gave up: {why}")
        os._exit(3)
