"""What every step shares: a user's mistake becomes a failure of one sentence, progress goes to the step's log.

Whatever the ledger records meanwhile has the id of the run.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import dagster as dg

from dbplatform import progress
from dbplatform.backups.checked import CheckProof, in_short
from dbplatform.errors import PlatformError, out_of_memory
from dbplatform.ledger.acting import acting, in_run
from dbplatform.orchestration.instance import tag_with_process
from dbplatform.orchestration.workers import on_a_worker

#: A step that tells of its progress is logged at most this often.
_LOG_SECONDS = 2.0

#: The task name under which each step tells that it began (0 of 1) and ended (1 of 1).
STEP = "step "

_CHECK_COLUMNS = ("table", "check", "verdict", "status", "failed_rows", "source_status", "source_failed_rows", "reason")

#: The metadata of a failed step that says with which exit code the command line ends.
EXIT_CODE = "exit code"


@contextmanager
def step(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext, name: str
) -> Iterator[None]:
    """Run one step's work: ``name`` is its step key as people read it (``flights/seed``)."""
    last = time.monotonic()

    def log(fact: progress.Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_SECONDS:
            last = now
            total = f" of {fact.total:,}" if fact.total is not None else ""
            context.log.info(f"{fact.task}: {fact.done:,}{total} {fact.unit}")

    # A worker only lends itself to the step: whoever waits for all of them executes the run.
    if not on_a_worker(context.job_def):
        tag_with_process(context.instance, context.run)
    progress.report(STEP + name, done=0, total=1)
    try:
        with progress.listening(log), acting(in_run(context.run.run_id)):
            yield
    except PlatformError as error:
        raise failure(error) from error
    except Exception as error:
        if refused := out_of_memory(error):
            raise failure(refused) from error
        raise
    progress.report(STEP + name, done=1, total=1)


def failure(error: PlatformError) -> dg.Failure:
    """The same sentence for Dagster, which shows it on the run's page; trying again would not help."""
    metadata = {"kind": error.kind, "place": error.place, "next step": error.hint, EXIT_CODE: error.exit_code}
    return dg.Failure(
        description=str(error), metadata={key: value for key, value in metadata.items() if value}, allow_retries=False
    )


def step_words(step_key: str) -> str:
    """A step as people read it: by its asset, or by what is named like one."""
    return step_key.replace("__", "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedStep:
    """The step that failed first: its asset as people read it, why, and the exit code of the command line."""

    step: str
    reason: str
    exit_code: int


def failed_step(events: Iterable[dg.DagsterEvent]) -> FailedStep | None:
    """The first failure among the events of a run; None where no step failed."""
    for event in events:
        if event.is_step_failure:
            data: Any = event.event_specific_data
            said = data.user_failure_data
            code = said.metadata.get(EXIT_CODE) if said else None
            return FailedStep(
                step=step_words(str(event.step_key)),
                reason=said.description if said else (data.error.cause or data.error).message.strip(),
                exit_code=int(code.value) if code is not None else 3,
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a check found: whether it passed, in one sentence, and the evidence."""

    passed: bool
    words: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN


class Proof(Protocol):
    """What every drill tells, of whatever kind of backup."""

    @property
    def backup_id(self) -> str: ...
    @property
    def proven(self) -> bool: ...
    @property
    def rto_seconds(self) -> float | None: ...
    @property
    def rpo_seconds(self) -> float | None: ...
    @property
    def checks(self) -> tuple[CheckProof, ...]: ...
    @property
    def errors(self) -> tuple[str, ...]: ...


def check_result(key: dg.AssetKey, name: str, ask: Callable[[], Found]) -> dg.AssetCheckResult:
    """The check as Dagster shows it. One that could not run has not passed: it is an error that says why."""
    try:
        found = ask()
    except PlatformError as error:
        found = Found(passed=False, words=f"Could not run: {error}", severity=dg.AssetCheckSeverity.ERROR)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=found.passed,
        severity=found.severity,
        description=found.words,
        metadata=found.evidence,
    )


def proof_result(
    what: str, proof: Proof, *, more: Mapping[str, Any], tables: Mapping[str, dg.MetadataValue[Any]]
) -> dg.MaterializeResult[Any]:
    """What a drill found, as Dagster shows and charts it; one that proves nothing is a failure with the same evidence.

    ``what`` names the kind of backup in the sentence of a failure.
    """
    measured = {"RTO seconds": proof.rto_seconds, "RPO seconds": proof.rpo_seconds}
    metadata: dict[str, Any] = {
        "backup": proof.backup_id,
        "proven": proof.proven,
        **more,
        **{name: round(value, 2) for name, value in measured.items() if value is not None},
        **({"checks on the copy": in_short(proof.checks)} if proof.checks else {}),
        **tables,
        **table_metadata("checks", [check.as_json() for check in proof.checks], _CHECK_COLUMNS),
    }
    if not proof.proven:
        raise dg.Failure(
            description=f"{what} {proof.backup_id} is not proven: {'; '.join(proof.errors)}",
            metadata=metadata,
            allow_retries=False,
        )
    return dg.MaterializeResult(metadata=metadata)


def data_version(context: dg.AssetExecutionContext, *, changed: bool) -> dg.DataVersion:
    """The version of what the asset holds: a new one by this run where it changed data, else the one before it.

    What follows changes of data (``automation``) begins by it.
    """
    last = None if changed else context.instance.get_latest_materialization_event(context.asset_key)
    tags = last.asset_materialization.tags if last is not None and last.asset_materialization is not None else None
    return dg.DataVersion((tags or {}).get("dagster/data_version") or context.run.run_id)


def table_metadata(
    name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> dict[str, dg.MetadataValue[Any]]:
    """Rows as a table shown in line; nothing when there are none."""
    if not rows:
        return {}
    records = [dg.TableRecord({column: _plain(row.get(column)) for column in columns}) for row in rows]
    schema_ = dg.TableSchema(columns=[dg.TableColumn(column) for column in columns])
    return {name: dg.MetadataValue.table(records=records, schema=schema_)}


def _plain(value: Any) -> str | int | float | bool:
    if value is None:
        return ""
    if isinstance(value, float):
        return round(value, 3)
    return value if isinstance(value, str | int | bool) else str(value)
