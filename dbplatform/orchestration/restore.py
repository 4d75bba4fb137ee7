"""The job ``<database>_restore``: what ``dbplatform restore`` does, from the Launchpad.

It is no asset, because nothing is kept up to date by it, and no run of the whole graph may restore anything.
"""

from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from pydantic import Field

from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.operations import restores
from dbplatform.operations.platform import Platform
from dbplatform.operations.restores import RestorePlan
from dbplatform.orchestration import keys, runs
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata


class OtherRuns(WorkError):
    """{database} is not replaced while other runs work on it: {runs}."""


class RestoreConfig(dg.Config):
    """Name exactly one of backup, time, lsn and restore_point, and say where to; what is empty is not given.

    Every field has a default that the Launchpad shows.
    """

    backup: str | None = Field(
        default="", description="newest: the newest complete dump. Or the id of a backup, of either kind."
    )
    time: str | None = Field(
        default="",
        description="Every commit before this time, ISO 8601 with its offset (2026-01-31T12:00:00+01:00), or latest. "
        "Needs physical backups, as lsn and restore_point do.",
    )
    lsn: str | None = Field(default="", description="As it was at this WAL position, such as 16/B374D848.")
    restore_point: str | None = Field(
        default="", description="As it was at this named point: dbplatform backup restore-point."
    )
    into: str | None = Field(
        default="", description="The new database, on the same server, beside the declared one. It must not exist."
    )
    replace: str | None = Field(
        default="",
        description="In the place of the database of this name, which is dropped: its name, written once more.",
    )
    table: str | None = Field(
        default="",
        description="One table of a dump alone, such as public.flights. Without into or aside it comes back in its "
        "place, if it is gone.",
    )
    aside: str | None = Field(
        default="", description="With table: a new schema of the declared database, beside the table that is there."
    )

    @property
    def request(self) -> restores.Request:
        """What is asked for."""
        return restores.Request(**{name: value or None for name, value in self.model_dump().items()})


def restore_job(platform: Platform, declared: Declared) -> list[dg.JobDefinition]:
    """The job; none where no backups are declared."""
    if declared.database.backups is None:
        return []
    database = declared.name

    @dg.op(
        name=f"{database}__restore",
        description="Looks first at all that can be known, and refuses in one sentence. Then the backup, or the "
        "server as of then, is restored under a name of ours, compared table by table, and renamed.",
        pool=keys.pool(database),
        tags={"dagster/kind": "postgres"},
    )
    def restore(context: dg.OpExecutionContext, config: RestoreConfig, options: dg.ResourceParam[Options]) -> None:
        with step(context, f"{database}/restore"):
            plan = restores.plan(platform, declared, config.request, only_look=options.dry_run)
            if options.dry_run:
                context.add_output_metadata({"dry run": True, "plan": f"would restore {plan.words}"})
                return
            alone = (
                partial(_refuse_beside_others, context, platform, database) if plan.replace is not None else _nothing
            )
            alone()
            context.log.info(f"restoring {plan.words}")
            report = restores.apply(platform, declared, plan, run_id=context.run_id, before_renamed=alone)
        context.add_output_metadata(_metadata(plan, report))

    @dg.job(
        name=keys.restore_name(database),
        description=f"Restore a backup of {database}, or {database} as of a moment, beside it or in its place.",
        tags={"dbplatform/database": database},
        executor_def=dg.in_process_executor,
    )
    def job() -> None:
        restore()

    return [job]


def _refuse_beside_others(context: dg.OpExecutionContext, platform: Platform, database: str) -> None:
    """Raise ``OtherRuns``: their sessions would be ended. Steps that write wait for the pool, which is ours; those that
    only read do not, so this is asked when the restore begins and once more right before the database gets its name."""
    runs.end_dead_runs(context.instance, platform)
    going_on = context.instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
    others = [run for run in going_on if run.run_id != context.run_id and _works_on(run, database)]
    if others:
        raise OtherRuns(
            database=database,
            runs=", ".join(f"{run.job_name} ({run.run_id})" for run in others),
            hint="Start it again when they have ended, or end them: dbplatform runs cancel ID.",
        )


def _works_on(run: dg.DagsterRun, database: str) -> bool:
    """By its job's tag; or by its assets and checks, whose keys begin with the database: of a run of chosen ones."""
    named = run.tags.get("dbplatform/database")
    if named is not None:
        return named == database
    if run.asset_selection is None and run.asset_check_selection is None:
        return run.job_name.startswith(IMPLICIT_ASSET_JOB_NAME)
    chosen = [*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())]
    return any(key.path[0] == database for key in chosen)


def _nothing() -> None:
    """Where no database is replaced, nobody's sessions are ended."""


def _metadata(plan: RestorePlan, report: restores.Report) -> dict[str, Any]:
    found = report.as_json()
    tables = found.get("tables", [found])
    erased = [{"table": table, "rows": rows} for table, rows in report.erased_again.items()]
    return {
        "restored": plan.words,
        "backup": found["backup_id"],
        "database": found.get("name") or found["database"],
        **({"moment reached": found["last_commit"] or found["target"]} if "target" in found else {}),
        "rows": sum(table["rows"] or 0 for table in tables),
        "seconds": round(found["seconds"], 2),
        "rows erased again": sum(report.erased_again.values()),
        **table_metadata("tables", tables, ("table", "rows", "hash")),
        **table_metadata("erased again", erased, ("table", "rows")),
        **({"not brought back": " ".join(found["notes"])} if found.get("notes") else {}),
    }
