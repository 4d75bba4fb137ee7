"""One sensor for the whole code location: it looks at every database side by side, tells, and shows what changed.

The truth is in the ledger. The cursor only remembers what is shown in the Dagster UI, so that an event is written when
something changed and not once a minute; when it is lost, everything is shown once more and nobody is told twice.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.operations import alerts as alerting
from dbplatform.operations import looks as marks
from dbplatform.operations import watching
from dbplatform.operations.alerts import Watched
from dbplatform.operations.observations import RunEnd, Runs
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.steps import failed_step
from dbplatform.orchestration.watch import check_states, health_metadata
from dbplatform.reporting.publish import dagster_address

NAME = "dbplatform_watch"
SECONDS = 60
_MOST_RUNS = 1_000

_Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
_Shown = dict[str, dict[str, str]]


def watch_sensor(platform: Platform, databases: Sequence[Declared]) -> dg.SensorDefinition:
    """The sensor over these databases; it runs as soon as the daemon does."""

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Measures every database, holds the metrics against their limits, looks at failed runs and checks, "
        "and tells whoever is declared. What changed is shown as checks of the asset alerts.",
    )
    def dbplatform_watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = datetime.now(UTC)
        runs = runs_of(context, platform, databases, now)
        looks, failed = alerting.watch_all(platform, databases, now=now, runs=runs)
        before = _shown(context.cursor)
        by_name = {declared.name: declared for declared in databases}
        events: list[_Event] = []
        shown: _Shown = {name: before[name] for name in before if name in by_name}
        for looked in looks:
            try:
                new, shown[looked.database] = _changed(platform, by_name[looked.database], looked, shown)
            except (PlatformError, SQLAlchemyError) as error:
                failed[looked.database] = f"{type(error).__name__}: {error}"
            else:
                events += new
        return dg.SensorResult(
            asset_events=events, cursor=json.dumps(shown), skip_reason=dg.SkipReason(_words(looks, failed))
        )

    return dbplatform_watch


def runs_of(
    context: dg.SensorEvaluationContext, platform: Platform, databases: Sequence[Declared], now: datetime
) -> dict[str, Runs]:
    """The jobs of each database, and their runs that ended since the sensor looked last.

    But for restores: a refused one is the answer to whoever asked, and no alarm.
    """
    assert context.repository_def is not None
    jobs: dict[str, set[str]] = {declared.name: set() for declared in databases}
    for job in context.repository_def.get_all_jobs():
        database = job.tags.get("dbplatform/database")
        if database in jobs and job.name != keys.restore_name(database):
            jobs[database].add(job.name)
    since = marks.runs_since(platform.ledger, list(jobs), now)
    records = context.instance.get_run_records(
        filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE], updated_after=since),
        limit=_MOST_RUNS,
    )
    ended: dict[str, list[RunEnd]] = {name: [] for name in jobs}
    for record in sorted(records, key=lambda one: one.end_time or 0.0):
        run = record.dagster_run
        if (database := run.tags.get("dbplatform/database")) in ended and run.job_name in jobs[database]:
            ended[database].append(_end(context.instance, run))
    return {name: Runs(jobs=jobs[name], ended=ended[name]) for name in jobs}


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunEnd:
    if run.is_success:
        return RunEnd(job=run.job_name, succeeded=True)
    failures = [
        entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    ]
    found = failed_step(event for event in failures if event is not None)
    return RunEnd(
        job=run.job_name,
        succeeded=False,
        reason=f"in {found.step}: {found.reason}" if found is not None else "see its log",
        advice=f"Its log: {dagster_address()}/runs/{run.run_id}",
    )


def _shown(cursor: str | None) -> _Shown:
    """What is shown already; nothing where the cursor is not ours."""
    try:
        found = json.loads(cursor) if cursor else {}
        return {str(database): {str(k): str(v) for k, v in signs.items()} for database, signs in found.items()}
    except (ValueError, AttributeError):
        return {}


def _changed(
    platform: Platform, declared: Declared, looked: Watched, shown: _Shown
) -> tuple[list[_Event], dict[str, str]]:
    """The events for what is not shown yet, and what is shown with them."""
    before = shown.get(declared.name, {})
    states = check_states(platform, declared, looked)
    after = {**before, **{name: state.sign for name, state in states.items()}}
    events: list[_Event] = [
        dg.AssetCheckEvaluation(
            asset_key=keys.alerts(declared.name),
            check_name=name,
            passed=state.passed,
            severity=state.dagster_severity,
            description=state.words,
            metadata=state.metadata,
        )
        for name, state in states.items()
        if before.get(name) != state.sign
    ]
    if looked.metrics is not None:
        try:
            health = watching.score(declared, looked.metrics)
        except NothingMeasured:
            return events, after
        after["health"] = str(health.score)
        if before.get("health") != after["health"]:
            events.append(dg.AssetMaterialization(keys.health(declared.name), metadata=health_metadata(health)))
    return events, after


def _words(looks: Iterable[Watched], failed: dict[str, str]) -> str:
    """What the list of ticks says."""
    seen = list(looks)
    firing = sum(len(looked.firing) for looked in seen)
    words = [f"{_count(sum(looked.there for looked in seen), 'database')} watched, {_count(firing, 'alert')} firing"]
    words += [f"{looked.database}: {looked.problem.message}" for looked in seen if looked.problem is not None]
    words += [f"{name}: {why}" for name, why in failed.items()]
    return "; ".join(words)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
