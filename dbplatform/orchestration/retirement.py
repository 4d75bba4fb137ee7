"""Old partitions leave their tables: the last step of a run, behind the archives and the proven backup."""

from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import retirement
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.not_made import would
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.safety import looks_at_rows
from dbplatform.orchestration.steps import step, table_metadata
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import TableMissing


def retirement_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """One asset per table that declares ``retain``."""
    return [_retirement(platform, declared, p) for p in declared.database.partitioned_tables if p.retain]


def _before(declared: Declared, policy: PartitionPolicy) -> list[dg.AssetKey]:
    """What comes before: whoever looks at the rows, the backup that holds them, the archives that take them."""
    database = declared.database
    archives = [keys.archive(declared.name, one.name) for one in database.archives if one.table == policy.table]
    proof = [keys.restore_drill(declared.name)] if database.backups is not None else []
    return [keys.partitions(declared.name, policy.table), *looks_at_rows(declared), *proof, *archives]


def _retirement(platform: Platform, declared: Declared, policy: PartitionPolicy) -> dg.AssetsDefinition:
    assert policy.retain is not None
    keep, loses = policy.retain.keep, policy.retain.then == "drop_without_archive"

    @dg.asset(
        key=keys.retirement(declared.name, policy.table),
        deps=_before(declared, policy),
        description=f"Partitions of {policy.table} whose every row is older than {keep}: detached, and "
        + (
            "dropped with their rows."
            if loses
            else "dropped once they are empty, or their every row is in a verified archive; else one stays beside the "
            "table."
        ),
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "table"},
    )
    def retired(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/retirement/{policy.table.words}"):
            if options.dry_run:
                try:
                    report = retirement.plan(platform, declared, only=policy.table)
                except TableMissing as missing:
                    words = f"Partitions whose every row is older than {keep} would be retired."
                    return dg.MaterializeResult(metadata=would(platform, declared, missing, words))
            else:
                report = retirement.apply(platform, declared, only=policy.table, run_id=context.run.run_id)
        [table] = report.tables
        found = table.as_json()
        metadata: dict[str, Any] = {
            "dry run": options.dry_run,
            "cutoff": found["cutoff"],
            "dropped": table.count("dropped"),
            "detached": table.count("detached"),
            "waiting for the archive": table.count("waiting"),
            **table_metadata("partitions", found["retire"], ("name", "lower", "upper", "rows", "fate", "reason")),
        }
        refused = [f"{one.relation}: {one.reason}" for one in table.partitions if one.fate == "refused"]
        if refused:
            raise dg.Failure(
                description=f"Could not be retired: {'; '.join(refused)}", metadata=metadata, allow_retries=False
            )
        return dg.MaterializeResult(metadata=metadata)

    return retired
