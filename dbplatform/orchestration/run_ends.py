"""What the watch sees of runs: how each that ended did, and which are stuck.

A run of a job is known by its job. One of chosen assets (Materialize in the UI, a back-fill, an automation) has no job
of ours: it is known by each of its assets that failed, until a run of whatever kind has made that asset.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from dbplatform.addresses import dagster_address
from dbplatform.declaration.loading import Declared
from dbplatform.operations.observations import RunEnd, StuckRun
from dbplatform.orchestration import keys
from dbplatform.orchestration.runs import GOING_ON, MAX_RUNTIME, database_of, is_dead, policy_of
from dbplatform.orchestration.steps import failed_step, step_words
from dbplatform.postgres.words import Interval

_MOST_RUNS = 1_000
#: How Dagster words that a step failed, which is told by the step's own words.
_OF_A_STEP = "Execution of run for"
_ENDS = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def watched_jobs(repository: dg.RepositoryDefinition, databases: Collection[str]) -> dict[str, set[str]]:
    """The jobs of each database whose failure is an alarm, and its assets, as ``job_of_asset`` names them.

    But for restores and reviews: a refused one is the answer to whoever asked, and no alarm.
    """
    found: dict[str, set[str]] = {name: set() for name in databases}
    for job in repository.get_all_jobs():
        database = job.tags.get("dbplatform/database")
        if database in found and job.name not in (keys.restore_name(database), keys.review_name(database)):
            found[database].add(job.name)
    for key in repository.asset_graph.executable_asset_keys:
        if key.path[0] in found:
            found[key.path[0]].add(job_of_asset(key))
    return found


def job_of_asset(key: dg.AssetKey) -> str:
    """What stands in the place of a job for a run of chosen assets."""
    return f"materialize {'/'.join(key.path[1:])}"


def ended_runs(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    jobs: Mapping[str, Collection[str]],
    *,
    since: Mapping[str, datetime],
) -> dict[str, list[RunEnd]]:
    """The runs of each database that ended since its time, oldest first; without a time, none of it.

    A run that was cancelled by a person has neither failed nor not.
    """
    ended: dict[str, list[RunEnd]] = {name: [] for name in jobs}
    for record in _records_since(instance, since):
        run = record.dagster_run
        if run.status == dg.DagsterRunStatus.CANCELED and not _too_long(record):
            continue
        databases = {name for name in since if name in ended and record.update_timestamp >= since[name]}
        assets = _assets(repository, run)
        of_job = run.tags.get("dbplatform/database")
        if of_job in databases and run.job_name in jobs[of_job]:
            ended[of_job].append(_end(instance, run, run.job_name))
        elif (
            run.job_name.startswith(IMPLICIT_ASSET_JOB_NAME)
            and not run.is_success
            and databases & {key.path[0] for key in assets}
        ):
            for key in _failed_assets(instance, run) & assets or assets:
                if key.path[0] in databases:
                    ended[key.path[0]].append(_end(instance, run, job_of_asset(key)))
        if run.is_success:
            for key in assets:
                if key.path[0] in databases:
                    ended[key.path[0]].append(RunEnd(job=job_of_asset(key), succeeded=True))
    return ended


def _records_since(instance: dg.DagsterInstance, since: Mapping[str, datetime]) -> list[dg.RunRecord]:
    """Those that ended since the first of these times, oldest first: all, because none that failed may be missed."""
    if not since:
        return []
    found: list[dg.RunRecord] = []
    filters = dg.RunsFilter(statuses=_ENDS, updated_after=min(since.values()))
    while True:
        cursor = found[-1].dagster_run.run_id if found else None
        page = instance.get_run_records(filters=filters, limit=_MOST_RUNS, cursor=cursor)
        found += page
        if len(page) < _MOST_RUNS:
            return sorted(found, key=lambda one: one.end_time or 0.0)


def stuck_runs(
    instance: dg.DagsterInstance, databases: Sequence[Declared], *, now: datetime
) -> dict[str, list[StuckRun]]:
    """The runs that have not ended: those whose process is gone, and those that go on longer than is declared."""
    by_name = {declared.name: declared for declared in databases}
    found: dict[str, list[StuckRun]] = {name: [] for name in by_name}
    for record in instance.get_run_records(dg.RunsFilter(statuses=GOING_ON), limit=_MOST_RUNS):
        run = record.dagster_run
        database = database_of(run)
        if database not in by_name:
            continue
        begun = datetime.fromtimestamp(record.start_time, UTC) if record.start_time is not None else None
        limit: Interval = policy_of(by_name[database]).tell_after
        if is_dead(run):
            words, dead = f"the process of the run {run.run_id} is gone, and it holds its place in the pool", True
        elif begun is not None and now - begun > limit.timedelta:
            words, dead = f"the run {run.run_id} goes on since {begun:%Y-%m-%d %H:%M} UTC, longer than {limit}", False
        else:
            continue
        found[database].append(StuckRun(job=run.job_name, run_id=run.run_id, dead=dead, words=words))
    return found


def _too_long(record: dg.RunRecord) -> bool:
    """Whether a run was ended because it lasted longer than its tag allows."""
    limit = record.dagster_run.tags.get(MAX_RUNTIME)
    if limit is None or record.start_time is None or record.end_time is None:
        return False
    return record.end_time - record.start_time > float(limit)


def _assets(repository: dg.RepositoryDefinition, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """What a run was to make."""
    if run.asset_selection:
        return set(run.asset_selection)
    if run.job_name.startswith(IMPLICIT_ASSET_JOB_NAME):
        return set(repository.asset_graph.executable_asset_keys)
    if not repository.has_job(run.job_name):
        return set()
    return set(repository.get_job(run.job_name).asset_layer.selected_asset_keys)


def _failed_assets(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """The assets whose steps failed: a step is named by its asset's key."""
    entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    steps = [entry.dagster_event.step_key for entry in entries if entry.dagster_event is not None]
    return {dg.AssetKey(step_words(step).split("/")) for step in steps if step is not None}


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun, job: str) -> RunEnd:
    if run.is_success:
        return RunEnd(job=job, succeeded=True)
    failures = [
        entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    ]
    found = failed_step(event for event in failures if event is not None)
    reason = _of_the_run(instance, run) or (f"in {found.step}: {found.reason}" if found is not None else "see its log")
    return RunEnd(job=job, succeeded=False, reason=reason, advice=f"Its log: {dagster_address()}/runs/{run.run_id}")


def _of_the_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Why the run itself failed, where that was not by a step."""
    if run.status == dg.DagsterRunStatus.CANCELED:
        return "it lasted longer than runs.end_after, and was ended"
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE):
        said = entry.dagster_event.message if entry.dagster_event is not None else None
        if said and not said.startswith(_OF_A_STEP):
            return said
    return None
