"""When the jobs of a declared database run by themselves: its schedules, on the clock of its time zone.

What comes when is declared (``maintenance``, ``backups``), what belongs to it is in ``cadences``. Every tick goes
through ``begin``, so that one that starts nothing says why:

- a run of the same job goes on, or waits: it is not doubled;
- the database is not there yet;
- a freeze is in force, and the job has nothing that goes on in one. One that has begins with that alone.

Dagster keeps the clock: an hour that summer time skips is made up at its end, one that comes twice counts once, and of
the ticks that a stopped daemon missed the last one is made up, which its run says by the tag ``dbplatform/due``.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from dbplatform.declaration.loading import Declared
from dbplatform.errors import VariableNotSet
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.cadences import CADENCES, is_harmless, work_of

#: The tags of a run that a schedule began: in which freeze, and when it was due where it comes late.
FREEZE, DUE = "dbplatform/freeze", "dbplatform/due"
_LATE = timedelta(minutes=10)


def schedules_of(
    platform: Platform, declared: Declared, jobs: Sequence[UnresolvedAssetJobDefinition]
) -> list[dg.ScheduleDefinition]:
    """A schedule for each job that has a time. They run as soon as the daemon does, but in an environment of tests."""
    by_name = {job.name: job for job in jobs}
    return [
        _schedule(platform, declared, name, by_name[job], cron)
        for name, job, cron in _wanted(declared)
        if cron is not None and job in by_name
    ]


def _wanted(declared: Declared) -> list[tuple[str, str, str | None]]:
    """The name of each schedule, its job and its time."""
    name, database = declared.name, declared.database
    found = [(f"{name}_{one}", f"{name}_{one}", getattr(database.maintenance, one)) for one in CADENCES]
    if (backups := database.backups) is not None:
        found.append((f"{name}_backup_schedule", f"{name}_backup", backups.logical.schedule))
        found.append((f"{name}_drill_schedule", f"{name}_drill", backups.drill.schedule))
        if backups.physical is not None:
            found.append((f"{name}_physical_schedule", f"{name}_physical", backups.physical.schedule))
            found.append((f"{name}_recovery_drill_schedule", f"{name}_recovery_drill", backups.drill.schedule))
    return found


def _schedule(
    platform: Platform, declared: Declared, name: str, job: UnresolvedAssetJobDefinition, cron: str
) -> dg.ScheduleDefinition:
    database = declared.database
    running = database.connection.environment != "test"
    told = "".join(f" Freeze from {one.starts_at:%Y-%m-%d %H:%M} {one}." for one in database.freezes)

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=str(database.time_zone),
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=f"{job.description or ''}{told}",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return begin(platform, declared, job.name, context, current_time())

    return tick


def current_time() -> datetime:
    """Now; in one place, for tests that turn the clock."""
    return datetime.now(UTC)


def frozen_words(databases: Sequence[Declared], now: datetime) -> list[str]:
    """Which of these databases are frozen at the time, until when and why."""
    frozen = [(one.name, one.database.frozen(now)) for one in databases]
    return [f"{name} is frozen {freeze}" for name, freeze in frozen if freeze is not None]


def hindrance(declared: Declared, now: datetime) -> str | None:
    """Why maintenance of the database does not begin by itself at this time; None where it may."""
    window = declared.database.maintenance.window
    if (freeze := declared.database.frozen(now)) is not None:
        return f"{declared.name} is frozen {freeze}"
    if window is not None and not window.is_open(now):
        return f"{declared.name} has maintenance from {window} alone"
    return None


def begin(
    platform: Platform, declared: Declared, job: str, context: dg.ScheduleEvaluationContext, now: datetime
) -> dg.RunRequest | dg.SkipReason:
    """What a tick begins at ``now``, or why it begins nothing."""
    if (waited_for := _goes_on(context.instance, job)) is not None:
        return dg.SkipReason(f"Run {waited_for} of {job} goes on; the next one comes at the next time of the schedule.")
    if not _is_there(platform, declared):
        return dg.SkipReason(f"{declared.name} is not there yet; dbplatform run {declared.name} makes it.")
    tags = {}
    if context.scheduled_execution_time is not None and now - context.scheduled_execution_time > _LATE:
        tags[DUE] = context.scheduled_execution_time.isoformat()
    if (freeze := declared.database.frozen(now)) is not None and not is_harmless(declared.name, job):
        assets, checks = _in_a_freeze(declared, job, context)
        if not assets:
            return dg.SkipReason(f"{declared.name} is frozen {freeze}.")
        return dg.RunRequest(tags={**tags, FREEZE: str(freeze)}, asset_selection=assets, asset_check_keys=checks)
    return dg.RunRequest(tags=tags)


def _goes_on(instance: dg.DagsterInstance, job: str) -> str | None:
    """The run of the job that has not ended; None where there is none."""
    found = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=NOT_FINISHED_STATUSES), limit=1)
    return found[0].dagster_run.run_id if found else None


def _is_there(platform: Platform, declared: Declared) -> bool:
    """Whether there is a database to care for; of one elsewhere its own run will say."""
    try:
        return platform.existing_target(declared) is not None
    except VariableNotSet:
        return True


def _in_a_freeze(
    declared: Declared, job: str, context: dg.ScheduleEvaluationContext
) -> tuple[list[dg.AssetKey], list[dg.AssetCheckKey]]:
    """The assets of the job that go on in a freeze, and the checks: theirs, and those that are asked by themselves."""
    assert context.repository_def is not None
    graph = context.repository_def.asset_graph
    cadence = next(one for one in CADENCES if job == f"{declared.name}_{one}")
    going_on = [work for work in work_of(declared.database, cadence) if not work.waits]
    whole = [work for work in going_on if work.check is None]
    of_job = context.repository_def.get_job(job).asset_layer.selected_asset_keys
    assets = {key for key in of_job if any(work.names(key.path[1:]) for work in whole)}
    alone = [
        check
        for check in graph.asset_check_keys
        if check.asset_key.path[0] == declared.name
        and any(work.check == check.name and work.names(check.asset_key.path[1:]) for work in going_on)
    ]
    return sorted(assets), sorted({*graph.get_check_keys_for_assets(assets), *alone})
