"""The runs of an instance: which hold a place in a pool, which have lost their process, and the end of those.

A killed process leaves its run as started and its place in a pool taken: the next run would wait for ever. A run is
dead when the process in its tag (``instance.process_tags``) is gone from this machine, or when the code location that
began it elsewhere has it no more. One that is slow, or of which nobody here can tell, is never freed.
"""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES, IN_PROGRESS_RUN_STATUSES, DagsterRun

from dbplatform.backups.holding import held
from dbplatform.declaration.loading import Declared
from dbplatform.declaration.runs import RunPolicy
from dbplatform.errors import UsageError
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.instance import lives, process_of

#: What has not ended: the daemon ends only those that it launched itself.
GOING_ON = [*IN_PROGRESS_RUN_STATUSES, dg.DagsterRunStatus.CANCELING]
_DATABASE = "dbplatform/database"
#: Dagster ends a run that lasts longer than its tag says.
MAX_RUNTIME = "dagster/max_runtime"


class UnknownRun(UsageError):
    """There is no run {run_id}."""


class RunGoesOn(UsageError):
    """The run {run_id} has not ended."""


class StillAtWork(UsageError):
    """The process {pid} still works on the run {run_id}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One run as the instance has it; ``holds`` are the pools in which it has a place."""

    run_id: str
    job: str
    database: str | None
    status: str
    process: str
    """``alive``, ``gone``, or ``unknown``: nobody here can tell, or no step has begun."""
    started_at: datetime | None
    finished_at: datetime | None
    holds: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "job": self.job,
            "database": self.database,
            "status": self.status,
            "process": self.process,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "holds": list(self.holds),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A run that was ended, or would be, and the pools in which it held a place."""

    run_id: str
    ended: bool
    """Whether it had not ended before."""
    pools: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "ended": self.ended, "pools": list(self.pools)}


def policy_of(declared: Declared) -> RunPolicy:
    """What is declared of the runs of a database, or holds by default."""
    return declared.database.runs or RunPolicy()


def database_of(run: DagsterRun) -> str | None:
    """The database that a run works on: by its job's tag, or by its assets and checks, whose keys begin with it."""
    named = run.tags.get(_DATABASE)
    if named is not None:
        return named
    chosen = [*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())]
    first = {key.path[0] for key in chosen}
    return first.pop() if len(first) == 1 else None


def end_dead_runs(instance: dg.DagsterInstance, platform: Platform) -> list[str]:
    """End the runs whose process is gone, and free the places in pools that dead runs hold; the ids of those ended.

    Operations of runs that have ended without them are ended, too.

    Those of a database that declares ``free_dead: false`` are left. Two who notice at once end a run once: it is done
    under its lock in the ledger. Can be run again, and killed anywhere.
    """
    ended = [
        run.run_id
        for run in instance.get_runs(dg.RunsFilter(statuses=GOING_ON))
        if is_dead(run) and _may_be_freed(platform, run) and _end(instance, platform.ledger, run.run_id)
    ]
    holding = instance.event_log_storage.get_concurrency_run_ids()
    if holding:
        for run in instance.get_runs(dg.RunsFilter(run_ids=list(holding), statuses=FINISHED_STATUSES)):
            if is_dead(run) and _may_be_freed(platform, run):
                instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    _end_what_workers_left(instance, platform.ledger)
    return ended


def _end_what_workers_left(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    """End the operations of runs that have ended without them: the worker that had such a step was killed."""
    begun = ledger.runs_at_work()
    for run in instance.get_runs(dg.RunsFilter(run_ids=begun, statuses=FINISHED_STATUSES)) if begun else ():
        process = process_of(run)
        if process is None or not process.alive:
            ledger.end_operations(run.run_id, "its worker was killed")


def _may_be_freed(platform: Platform, run: DagsterRun) -> bool:
    """Whether its database leaves that to us; asked only of a dead run, because it reads every declaration."""
    declared = platform.declarations.by_name.get(database_of(run) or "")
    return declared is None or policy_of(declared).free_dead


def is_dead(run: DagsterRun) -> bool:
    """Whether it is known that the process of the run is gone."""
    return lives(run) is False


def _end(instance: dg.DagsterInstance, ledger: Ledger, run_id: str) -> bool:
    """Whether it was ended here: not by somebody else meanwhile."""
    with held(ledger, f"end of run {run_id}") as mine:
        run = instance.get_run_by_id(run_id) if mine else None
        if run is None or run.is_finished:
            return False
        if lives(run) is not False:  # looked at anew: another process may have taken the run up meanwhile
            return False
        process = process_of(run)
        gone = (
            f"The process {process.pid} of this run is gone: it was killed, or its machine was restarted."
            if process is not None
            else "The process of this run is gone with its container: the code location that began it has it no more."
        )
        words = f"{gone} Its places in pools are free again; the next run goes on where it stood."
        # First what it leaves behind: whoever is killed here finds the run again, as it has not ended yet.
        ledger.end_operations(run_id, "its process was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, words)
        else:
            instance.report_run_failed(run, words)
        return True


def list_runs(instance: dg.DagsterInstance, *, limit: int) -> list[RunState]:
    """The newest runs, with the pools that they hold."""
    held_by = _held(instance)
    return [
        RunState(
            run_id=record.dagster_run.run_id,
            job=record.dagster_run.job_name,
            database=database_of(record.dagster_run),
            status=record.dagster_run.status.value.lower(),
            process=_process_words(lives(record.dagster_run)),
            started_at=_moment(record.start_time),
            finished_at=_moment(record.end_time),
            holds=held_by.get(record.dagster_run.run_id, ()),
        )
        for record in instance.get_run_records(limit=limit)
    ]


def cancel_run(instance: dg.DagsterInstance, ledger: Ledger, run_id: str, *, dry_run: bool = False) -> str | None:
    """Tell the process of a run to stop; where it cannot be told from here, mark the run as cancelled.

    Returns how it stands with the process, as ``RunState.process`` says it; None when the run had ended.
    """
    run = _run(instance, run_id)
    if run.is_finished:
        return None
    process = process_of(run)
    here = _process_words(process.alive if process is not None else None)
    if dry_run:
        return here
    if process is not None and process.alive:
        if run.status != dg.DagsterRunStatus.CANCELING:
            # First, so that the run ends as cancelled: an interruption that nobody announced is a failure to Dagster.
            instance.report_run_canceling(run, "Cancelled by hand.")
        with suppress(ProcessLookupError):  # dead this moment: the run is ended as cancelled by who notices
            os.kill(process.pid, signal.SIGINT)
    else:
        ledger.end_operations(run_id, "it was cancelled by hand")
        instance.report_run_canceled(run, "Cancelled by hand.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return here


def free_run(instance: dg.DagsterInstance, ledger: Ledger, run_id: str, *, dry_run: bool = False) -> Freed:
    """Give back the places in pools that a run holds which has ended, or whose process is gone: then it is ended, too.

    Raises ``UnknownRun``, ``RunGoesOn``, and ``StillAtWork`` where its process works on although the run has ended.
    """
    pools = _held(instance).get(run_id, ())
    run = instance.get_run_by_id(run_id)
    if run is None and not pools:
        raise UnknownRun(run_id=run_id, hint="See which there are: dbplatform runs list")
    alive = lives(run) if run is not None else None
    if run is not None and alive:
        hint = f"Cancel it first: dbplatform runs cancel {run_id}"
        process = process_of(run)
        if not run.is_finished or process is None:
            raise RunGoesOn(run_id=run_id, hint=hint)
        raise StillAtWork(run_id=run_id, pid=process.pid, hint=f"Wait for it, or end it: kill -INT {process.pid}")
    ends = run is not None and not run.is_finished
    if ends and alive is None:
        hint = f"Nobody here can tell whether it works. If it does not: dbplatform runs cancel {run_id}"
        raise RunGoesOn(run_id=run_id, hint=hint)
    if not dry_run:
        if ends and not _end(instance, ledger, run_id):
            raise RunGoesOn(run_id=run_id, hint="Somebody else ends it, or has taken it up: dbplatform runs list")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return Freed(run_id=run_id, ended=ends, pools=pools)


def _held(instance: dg.DagsterInstance) -> dict[str, tuple[str, ...]]:
    """The pools in which each run has a place."""
    storage = instance.event_log_storage
    found: dict[str, tuple[str, ...]] = {}
    for key in sorted(storage.get_concurrency_keys()):
        for run_id in storage.get_concurrency_info(key).active_run_ids:
            found[run_id] = (*found.get(run_id, ()), key)
    return found


def _process_words(alive: bool | None) -> str:
    if alive is None:
        return "unknown"
    return "alive" if alive else "gone"


def _run(instance: dg.DagsterInstance, run_id: str) -> DagsterRun:
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise UnknownRun(run_id=run_id, hint="See which there are: dbplatform runs list")
    return run


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
