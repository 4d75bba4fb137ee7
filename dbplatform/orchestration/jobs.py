"""The jobs and schedules of one declared database, over its assets."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from dbplatform.declaration.loading import Declared
from dbplatform.orchestration import keys

#: The job of a run launched by the command line or the UI must not start an interpreter per step.
_IN_PROCESS = dg.in_process_executor


def jobs_of(declared: Declared, assets: Sequence[dg.AssetsDefinition]) -> list[UnresolvedAssetJobDefinition]:
    """The main job, named as the database, and one per capability."""
    database = declared.name
    every = [key for asset in assets for key in asset.keys]
    jobs = [_job(database, database, every, "The whole graph: migrate, partition, seed, check, report.")]
    if keys.migrations(database) in every:
        jobs.append(_job(database, f"{database}_migrate", [keys.migrations(database)], "Apply pending migrations."))
    checked = [key for key in every if key.path[1] == "tables" or key == keys.quality_report(database)]
    if checked:
        jobs.append(_job(database, f"{database}_quality", checked, "Run the data-quality checks; write the report."))
    return jobs


def schedules_of(declared: Declared, jobs: Sequence[UnresolvedAssetJobDefinition]) -> list[dg.ScheduleDefinition]:
    """The daily run of the main job, in UTC; it runs as soon as the daemon does."""
    database = declared.database
    return [
        dg.ScheduleDefinition(
            name=f"{database.name}_daily",
            job=jobs[0],
            cron_schedule=database.maintenance.daily,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"The whole graph of {database.name}.",
        )
    ]


def _job(database: str, name: str, selection: Sequence[dg.AssetKey], description: str) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name=name,
        selection=dg.AssetSelection.assets(*selection),
        description=description,
        tags={"dbplatform/database": database},
        executor_def=_IN_PROCESS,
    )
