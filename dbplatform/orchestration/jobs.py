"""The jobs and schedules of one declared database, over its assets."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from dbplatform.declaration.loading import Declared
from dbplatform.orchestration import keys
from dbplatform.orchestration.runs import MAX_RUNTIME, policy_of

#: The job of a run launched by the command line or the UI must not start an interpreter per step.
_IN_PROCESS = dg.in_process_executor


def jobs_of(declared: Declared, assets: Sequence[dg.AssetsDefinition]) -> list[UnresolvedAssetJobDefinition]:
    """The main job, named as the database, and one per capability."""
    database = declared.name
    every = [key for asset in assets for key in asset.keys]
    # A run of the whole graph has no period, rehearses nothing, and leaves upkeep and the server's copies to their own
    # schedules.
    physical = [keys.physical_backup(database), keys.recovery_drill(database), keys.physical_retention(database)]
    apart = {keys.rehearsal(database), *physical}
    graph = [key for key in every if key not in apart and key.path[1] not in ("periods", "maintenance")]
    jobs = [_job(declared, database, graph, "The whole graph: migrate, partition, seed, check, report.")]
    if keys.migrations(database) in every:
        jobs.append(_job(declared, f"{database}_migrate", [keys.migrations(database)], "Apply pending migrations."))
        rehearsed = [keys.rehearsal(database)]
        jobs.append(_job(declared, f"{database}_rehearse", rehearsed, "Rehearse what is pending on a restored copy."))
    checked = [key for key in every if key.path[1] == "tables" or key == keys.quality_report(database)]
    if checked:
        jobs.append(_job(declared, f"{database}_quality", checked, "Run the data-quality checks; write the report."))
    if keys.backup(database) in every:
        proven = [keys.backup(database), keys.restore_drill(database)]
        words = "Take a backup, prove it by a restore, and remove old ones."
        jobs.append(_job(declared, f"{database}_backup", [*proven, keys.backup_retention(database)], words))
        jobs.append(_job(declared, f"{database}_drill", proven[1:], "Prove the newest backup by a restore."))
    if keys.physical_backup(database) in every:
        words = "Take a base backup of the server, prove it by a recovery, and remove what is too old."
        jobs.append(_job(declared, f"{database}_physical", physical, words))
        jobs.append(_job(declared, f"{database}_recovery_drill", physical[1:2], "Prove the newest base backup."))
    for policy in declared.database.partitioned_tables:
        words = f"One {policy.interval} of {policy.table}, or many: made where missing, archived where due, checked."
        name, key = keys.periods_name(database, policy.table), keys.periods(database, policy.table)
        jobs.append(_job(declared, name, [key], words))
    return jobs


def schedules_of(declared: Declared, jobs: Sequence[UnresolvedAssetJobDefinition]) -> list[dg.ScheduleDefinition]:
    """When the jobs run, in UTC; as soon as the daemon does."""
    database = declared.database
    by_name = {job.name: job for job in jobs}
    wanted: list[tuple[str, str, str | None]] = [("daily", database.name, database.maintenance.daily)]
    if database.backups is not None:
        wanted.append(("backup", f"{database.name}_backup", database.backups.logical.schedule))
        wanted.append(("drill", f"{database.name}_drill", database.backups.drill.schedule))
        if database.backups.physical is not None:
            wanted.append(("physical", f"{database.name}_physical", database.backups.physical.schedule))
            wanted.append(("recovery_drill", f"{database.name}_recovery_drill", database.backups.drill.schedule))
    return [
        dg.ScheduleDefinition(
            name=f"{database.name}_{what}_schedule" if what != "daily" else f"{database.name}_daily",
            job=by_name[job],
            cron_schedule=cron,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=by_name[job].description,
        )
        for what, job, cron in wanted
        if cron is not None
    ]


def _job(
    declared: Declared, name: str, selection: Sequence[dg.AssetKey], description: str
) -> UnresolvedAssetJobDefinition:
    ends = policy_of(declared).end_after
    return dg.define_asset_job(
        name=name,
        selection=dg.AssetSelection.assets(*selection),
        description=description,
        tags={
            "dbplatform/database": declared.name,
            **({MAX_RUNTIME: f"{ends.timedelta.total_seconds():.0f}"} if ends is not None else {}),
        },
        executor_def=_IN_PROCESS,
    )
