"""The Dagster instance of a project: its home, its storage on PostgreSQL, the runs that dead processes left behind."""

import os
import signal
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES, DagsterRun

from dbplatform.errors import UsageError
from dbplatform.operations.platform import Platform

DAGSTER_DATABASE = "dagster"
URL_VARIABLE = "DBPLATFORM_DAGSTER_URL"
WORKSPACE = "workspace.yaml"
_OWNER_TAG = "dbplatform/process"


def prepare_instance(platform: Platform) -> None:
    """Set ``DAGSTER_HOME`` and the storage's URL for this process and its children, where they are not set yet."""
    # A child may work in another folder.
    os.environ["DBPLATFORM_HOME"] = str(platform.home.root)
    os.environ["DAGSTER_HOME"] = str(Path(os.environ.get("DAGSTER_HOME", platform.home.dagster)).absolute())
    if URL_VARIABLE not in os.environ:
        url = platform.embedded_url(DAGSTER_DATABASE)
        os.environ[URL_VARIABLE] = url.replace("postgresql://", "postgresql+psycopg2://", 1)
    own = platform.home.dagster
    own.mkdir(parents=True, exist_ok=True)
    _write_if_changed(own / WORKSPACE, (files(__package__) / WORKSPACE).read_text())
    if Path(os.environ["DAGSTER_HOME"]) == own:
        _write_if_changed(own / "dagster.yaml", (files(__package__) / "dagster.yaml").read_text())


def _write_if_changed(file: Path, text: str) -> None:
    """Replace a file in one step: another process may be reading it."""
    if file.exists() and file.read_text() == text:
        return
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(file)


def process_tags(run_id: str) -> dict[str, str]:
    """The tag of a run that this process executes. The run's id is in it: a re-execution inherits its parent's tags."""
    return {_OWNER_TAG: f"{run_id}/{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"}


def tag_with_process(instance: dg.DagsterInstance, run: DagsterRun) -> None:
    """Make known which process executes a run, whoever launched it: so that a killed one is recognised."""
    tags = process_tags(run.run_id)
    if run.tags.get(_OWNER_TAG) != tags[_OWNER_TAG]:
        instance.add_run_tags(run.run_id, tags)


def end_runs_of_dead_processes(instance: dg.DagsterInstance | None = None) -> list[str]:
    """End the runs whose process on this machine is gone, and free their pool slots; returns their ids.

    A killed process leaves its run as started, and its slot taken: the next run would wait for ever. By default of the
    instance that ``DAGSTER_HOME`` names.
    """
    if instance is None:
        with dg.DagsterInstance.get() as opened:
            return end_runs_of_dead_processes(opened)
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)):
        if _is_dead(run):
            instance.report_run_failed(run, "The process of this run is gone; its pool slots are freed.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(run.run_id)
    return ended


def _is_dead(run: DagsterRun) -> bool:
    owner = _owner(run)
    return owner is not None and _started(owner[0]) != owner[1]


def _owner(run: DagsterRun) -> tuple[int, str] | None:
    """Pid and start of the process that executes a run, where that is one of this machine."""
    run_id, _, process = run.tags.get(_OWNER_TAG, "").partition("/")
    host, _, process = process.partition("/")
    pid, _, started = process.partition("/")
    return (int(pid), started) if run_id == run.run_id and host == socket.gethostname() else None


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None when there is none (a pid is used again, a pair is not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self").exists() else _alive(pid)
    return stat.rpartition(")")[2].split()[19]


def _alive(pid: int) -> str | None:
    """Without /proc (macOS) only whether the process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One run as the instance has it; ``holds`` are the pools in which it has a place."""

    run_id: str
    job: str
    database: str | None
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    holds: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "job": self.job,
            "database": self.database,
            "status": self.status,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "holds": list(self.holds),
        }


class UnknownRun(UsageError):
    """There is no run {run_id}."""


class RunGoesOn(UsageError):
    """The run {run_id} has not ended."""


def list_runs(instance: dg.DagsterInstance, *, limit: int) -> list[RunState]:
    """The newest runs, with the pools that they hold."""
    storage = instance.event_log_storage
    held: dict[str, list[str]] = {}
    for key in sorted(storage.get_concurrency_keys()):
        for run_id in storage.get_concurrency_info(key).active_run_ids:
            held.setdefault(run_id, []).append(key)
    return [
        RunState(
            run_id=record.dagster_run.run_id,
            job=record.dagster_run.job_name,
            database=record.dagster_run.tags.get("dbplatform/database"),
            status=record.dagster_run.status.value.lower(),
            started_at=_moment(record.start_time),
            finished_at=_moment(record.end_time),
            holds=tuple(held.get(record.dagster_run.run_id, ())),
        )
        for record in instance.get_run_records(limit=limit)
    ]


def cancel_run(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Tell the process of a run to stop; a run whose process cannot be told is ended here. False when it had ended."""
    run = _run(instance, run_id)
    if run.is_finished:
        return False
    owner = _owner(run)
    if owner is not None and not _is_dead(run):
        os.kill(owner[0], signal.SIGINT)
    else:
        instance.report_run_canceled(run, "Cancelled by hand.")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return True


def free_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give back the places in pools that a run holds, which must have ended."""
    run = _run(instance, run_id)
    if not run.is_finished:
        raise RunGoesOn(run_id=run_id, hint=f"Cancel it first: dbplatform runs cancel {run_id}")
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def _run(instance: dg.DagsterInstance, run_id: str) -> DagsterRun:
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise UnknownRun(run_id=run_id, hint="See which there are: dbplatform runs list")
    return run


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
