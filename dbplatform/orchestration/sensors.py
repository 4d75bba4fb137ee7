"""One sensor for the whole code location: it looks at every database side by side, tells, and shows what changed.

The truth is in the ledger. The cursor only remembers what is shown in the Dagster UI, so that an event is written when
something changed and not once a minute; when it is lost, everything is shown once more and nobody is told twice.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorType, TickStatus
from sqlalchemy.exc import SQLAlchemyError

from dbplatform.alerting.states import Severity
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.operations import alerts as alerting
from dbplatform.operations import heartbeats, watching
from dbplatform.operations import looks as marks
from dbplatform.operations.alerts import Watched
from dbplatform.operations.observations import AssetCheckEnd, Runs, Tick
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import automation, healing, keys, run_ends
from dbplatform.orchestration.runs import end_dead_runs
from dbplatform.orchestration.schedules import frozen_words
from dbplatform.orchestration.watch import check_states, health_metadata

NAME = "dbplatform_watch"
SECONDS = 60
_MOST_RUNS = 1_000
_TICKS_AT_ONCE = 500
#: So many databases with the same trouble are named in a tick.
_NAMED = 10
_LONG_IN_THE_QUEUE = timedelta(minutes=15)
_LONG_WHEN_FULL = timedelta(hours=1)
_SEVERITIES: dict[dg.AssetCheckSeverity, Severity] = {
    dg.AssetCheckSeverity.WARN: "warning",
    dg.AssetCheckSeverity.ERROR: "critical",
}

_Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
_Shown = dict[str, dict[str, str]]


def watch_sensor(platform: Platform, databases: Sequence[Declared]) -> dg.SensorDefinition:
    """The sensor over these databases; it runs as soon as the daemon does."""

    healable = healing.targets(databases)

    @dg.sensor(
        name=NAME,
        asset_selection=dg.AssetSelection.assets(*healable) if healable else None,
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Measures every database, holds the metrics against their limits, looks at failed runs and checks, "
        "ends runs whose process is gone, and tells whoever is declared. What changed is shown as checks of the asset "
        "alerts. Begins what is declared under on_breach.",
    )
    def dbplatform_watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = datetime.now(UTC)
        for run_id in end_dead_runs(context.instance, platform):
            context.log.warning(f"the process of run {run_id} was gone: it is ended as failed, its pools are free")
        runs = runs_of(context, platform, databases, now)
        own = _own_ticks(context.instance)
        looks, failed = alerting.watch_all(platform, databases, now=now, runs=runs, own_ticks=own)
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
        requests, held = healing.begin(platform, databases, context.instance, _repository(context), now)
        if not _queue_stands_still(context.instance, now):
            heartbeats.beat(platform.ledger, heartbeats.QUEUE)
        heartbeats.beat(platform.ledger, heartbeats.WATCH)
        return dg.SensorResult(
            asset_events=events,
            cursor=json.dumps(shown),
            run_requests=requests,
            # Dagster takes one or the other.
            skip_reason=None
            if requests
            else dg.SkipReason("; ".join([_words(looks, failed), *held, *frozen_words(databases, now)])),
        )

    return dbplatform_watch


def runs_of(
    context: dg.SensorEvaluationContext, platform: Platform, databases: Sequence[Declared], now: datetime
) -> dict[str, Runs]:
    """The jobs of each database, their runs that ended since the sensor looked last or are stuck, checks, schedules."""
    repository = _repository(context)
    names = [declared.name for declared in databases]
    jobs = run_ends.watched_jobs(repository, names)
    since = marks.runs_since(platform.ledger, names, now)
    ended = run_ends.ended_runs(context.instance, repository, jobs, since=since)
    stuck = run_ends.stuck_runs(context.instance, databases, now=now)
    checks, ticks = _checks_of(context.instance, repository, list(jobs)), _ticks_of(context.instance, repository, jobs)
    return {
        name: Runs(jobs=jobs[name], ended=ended[name], stuck=stuck[name], checks=checks[name], ticks=ticks[name])
        for name in names
    }


def _repository(context: dg.SensorEvaluationContext) -> dg.RepositoryDefinition:
    assert context.repository_def is not None
    return context.repository_def


def _checks_of(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, databases: Sequence[str]
) -> dict[str, list[AssetCheckEnd]]:
    """The last evaluation of each asset check of a database, but those that the ledger knows better."""
    found: dict[str, list[AssetCheckEnd]] = {name: [] for name in databases}
    wanted = [
        key
        for key in repository.asset_graph.asset_check_keys
        if key.asset_key.path[0] in found and not _is_in_ledger(key.asset_key)
    ]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(wanted) if wanted else {}
    for key in wanted:
        asset = "/".join(key.asset_key.path[1:])
        evaluation = records[key].evaluation if key in records else None
        if isinstance(evaluation, dg.AssetCheckEvaluation):
            end = AssetCheckEnd(
                asset=asset,
                check=key.name,
                severity=None if evaluation.passed else _SEVERITIES[evaluation.severity],
                words=evaluation.description or "",
            )
        else:
            end = AssetCheckEnd(asset=asset, check=key.name, evaluated=False)
        found[key.asset_key.path[0]].append(end)
    return found


def _is_in_ledger(asset: dg.AssetKey) -> bool:
    """Data-quality checks are read from the ledger; the checks of ``alerts`` show alerts, and are none."""
    return asset.path[1:2] == ["tables"] or asset == keys.alerts(asset.path[0])


def _ticks_of(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, jobs: Mapping[str, Collection[str]]
) -> dict[str, list[Tick]]:
    """The last tick of each schedule and sensor that starts jobs of a database."""
    found: dict[str, list[Tick]] = {name: [] for name in jobs}
    if instance.schedule_storage is None:  # an instance in memory: nothing ticks there
        return found
    owners = {job: name for name in jobs for job in jobs[name]}
    starts = {schedule.name: {schedule.job_name} for schedule in repository.schedule_defs}
    starts |= {sensor.name: {target.job_name for target in sensor.targets} for sensor in repository.sensor_defs}
    owned = {name: owners[job] for name, targets in starts.items() for job in targets if job in owners}
    states = instance.all_instigator_state()
    for tick in _last_ticks(instance, [one for one in states if one.is_running and one.instigator_name in owned]):
        found[owned[tick.name]].append(tick)
    return found


def _own_ticks(instance: dg.DagsterInstance) -> list[Tick]:
    """The last tick of the sensors that belong to no database; one that is stopped does not fail."""
    if instance.schedule_storage is None:
        return []
    sensors = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    own = [state for state in sensors if state.instigator_name.startswith(automation.NAME)]
    stopped = [Tick(name=state.instigator_name, error=None) for state in own if not state.is_running]
    return [*stopped, *_last_ticks(instance, [state for state in own if state.is_running])]


def _last_ticks(instance: dg.DagsterInstance, states: Sequence[InstigatorState]) -> Iterator[Tick]:
    """The last tick of each schedule or sensor; none of one that has not ticked yet.

    A statement for many of them: with hundreds of databases there are thousands of schedules.
    """
    for start in range(0, len(states), _TICKS_AT_ONCE):
        some = {state.selector_id: state.instigator_name for state in states[start : start + _TICKS_AT_ONCE]}
        for selector, ticks in instance.get_batch_ticks(list(some), limit=1).items():
            error = None
            if ticks[0].status == TickStatus.FAILURE:
                error = ((ticks[0].error.message if ticks[0].error else "").strip().splitlines() or ["it failed"])[0]
            yield Tick(name=some[selector], error=error)


def _queue_stands_still(instance: dg.DagsterInstance, now: datetime) -> bool:
    """Whether a run has waited long while no other one of its database goes on, and the queue did not have its turn.

    A queue that is full of runs that go on (every night, with hundreds of databases) moves as long as one of them began
    within the last hour.
    """
    waiting = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=_MOST_RUNS)
    late = [one for one in waiting if now - one.create_timestamp > _LONG_IN_THE_QUEUE]
    if not late:
        return False
    going_on = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), limit=_MOST_RUNS)
    most = instance.get_concurrency_config().run_queue_config
    is_full = most is not None and 0 < most.max_concurrent_runs <= len(going_on)
    if is_full and now.timestamp() - max(one.start_time or 0.0 for one in going_on) <= _LONG_WHEN_FULL.total_seconds():
        return False
    busy = {one.dagster_run.tags.get("dbplatform/database") for one in going_on}
    return any(one.dagster_run.tags.get("dbplatform/database") not in busy for one in late)


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
    words += [f"{looked.database}: {looked.problem.message.rstrip('.')}" for looked in seen if looked.problem]
    reasons: dict[str, list[str]] = {}
    for name, why in failed.items():
        reasons.setdefault(why, []).append(name)
    words += [f"{_names(names)}: {why}" for why, names in reasons.items()]
    return "; ".join(words)


def _names(names: Sequence[str]) -> str:
    """A few by their names, many by their number."""
    return ", ".join(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
