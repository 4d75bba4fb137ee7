"""The Dagster instance of a project: its home, its storage on PostgreSQL, and which process executes a run."""

import json
import os
import socket
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import deserialize_value

from dbplatform import machines
from dbplatform.operations.platform import Platform

DAGSTER_DATABASE = "dagster"
URL_VARIABLE = "DBPLATFORM_DAGSTER_URL"
WORKSPACE = "workspace.yaml"
_OWNER_TAG = "dbplatform/process"
#: In the place of its start, of a process that is there and says no more of itself.
_THERE = "alive"
#: How long a code location may take to say which runs it has.
_ASKED_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProcess:
    """A process of this machine that executes a run, or did."""

    pid: int
    alive: bool


def prepare_instance(platform: Platform) -> None:
    """Set ``DAGSTER_HOME`` and the storage's URL for this process and its children, where they are not set yet.

    Raises ``OnOneMachine``.
    """
    # A child may work in another folder.
    os.environ["DBPLATFORM_HOME"] = str(platform.home.root)
    os.environ["DAGSTER_HOME"] = str(Path(os.environ.get("DAGSTER_HOME", platform.home.dagster)).absolute())
    if URL_VARIABLE not in os.environ:
        hint = f"Name its database in {URL_VARIABLE}: postgresql+psycopg2://user:password@host:port/database"
        machines.refuse_on_one("Dagster's record of runs", "its embedded server", hint=hint)
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
    return {_OWNER_TAG: f"{run_id}/{_machine()}/{os.getpid()}/{_started(os.getpid())}"}


def tag_with_process(instance: dg.DagsterInstance, run: DagsterRun) -> None:
    """Make known which process executes a run, whoever launched it: so that a killed one is recognised."""
    tags = process_tags(run.run_id)
    if run.tags.get(_OWNER_TAG) != tags[_OWNER_TAG]:
        instance.add_run_tags(run.run_id, tags)


def process_of(run: DagsterRun) -> RunProcess | None:
    """The process that executes a run, or did; None where that is not known, or is not one of this machine."""
    run_id, _, process = run.tags.get(_OWNER_TAG, "").partition("/")
    machine, _, process = process.partition("/")
    pid, _, started = process.partition("/")
    if run_id != run.run_id or machine != _machine():
        return None
    found = _started(int(pid))
    return RunProcess(pid=int(pid), alive=found is not None and (found == started or _THERE in (found, started)))


def lives(run: DagsterRun) -> bool | None:
    """Whether the process that executes a run is there; None where nobody here can tell.

    A process of this machine is looked for. For one of another machine or container, the code location that began the
    run is asked, where it has a name: one that was begun anew, as in a new container, does not have the run.
    """
    process = process_of(run)
    return process.alive if process is not None else _is_at_its_code_location(run)


def _is_at_its_code_location(run: DagsterRun) -> bool | None:
    begun = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    host, port = begun.get("host"), begun.get("port")
    # Before a run has started, its code location need not have it yet. A socket is of one machine.
    if run.status not in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING) or not port or _means_here(host):
        return None
    # gRPC takes its time to load, and hardly anybody is asked.
    from dagster._grpc.__generated__ import dagster_api_pb2
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import GetCurrentRunsResult

    client = DagsterGrpcClient(host=host, port=port, use_ssl=bool(begun.get("use_ssl")))
    try:
        # What get_current_runs() asks, with a minute to answer. Dagster's proxy of several servers refuses it.
        answer = client._query("GetCurrentRuns", dagster_api_pb2.Empty, timeout=_ASKED_SECONDS)
    except DagsterUserCodeUnreachableError:
        return None
    return run.run_id in deserialize_value(answer.serialized_current_runs, GetCurrentRunsResult).current_runs


def _means_here(host: str) -> bool:
    """Whether it is an address by which every machine reaches itself, and nobody another one."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _machine() -> str:
    """Where pids mean the same: containers that share a host's name have each a namespace of their own."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return f"{socket.gethostname()}:"
    return f"{socket.gethostname()}:{namespace}"


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None when there is none (a pid is used again, a pair is not).

    One whose start cannot be read (hidepid, too many open files) is there as long as the kernel knows it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _alive(pid)
    state, *rest = stat.rpartition(")")[2].split()
    return rest[18] if state not in "ZX" else None  # dead, and only nobody has asked for its end


def _alive(pid: int) -> str | None:
    """Only whether the process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return _THERE
