"""The safety loop of one database: a backup, and the drill that proves it by restoring it elsewhere."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import backups
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata


def backup_assets(platform: Platform, declared: Declared, *, deps: Sequence[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """Backup and drill; nothing where no backups are declared."""
    if declared.database.backups is None:
        return []
    return [_backup(platform, declared, deps=deps), _drill(platform, declared)]


def _backup(platform: Platform, declared: Declared, *, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.backup(declared.name),
        deps=deps,
        description="A dump of one snapshot, every file with its SHA-256, every table with its rows and content hash. "
        "It counts when the drill has proven it.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "backup"},
    )
    def backup(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        if options.dry_run:
            folder = backups.folder_of(platform, backups.policy_of(declared)) / declared.name
            return dg.MaterializeResult(metadata={"dry run": True, "plan": f"A dump into a new folder of {folder}."})
        with step(context, f"{declared.name}/backup"):
            taken = backups.take(platform, declared, run_id=context.run_id)
        return dg.MaterializeResult(
            metadata={
                "backup": taken.id,
                "bytes": taken.bytes or 0,
                "sha256": taken.sha256 or "",
                "folder": dg.MetadataValue.path(str(taken.location)),
            }
        )

    return backup


def _drill(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.restore_drill(declared.name),
        deps=[keys.backup(declared.name)],
        description="The newest backup, restored into a scratch database and compared table by table with what was "
        "dumped. Fails when anything differs.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "backup"},
    )
    def restore_drill(
        context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        if options.dry_run:
            return dg.MaterializeResult(metadata={"dry run": True, "plan": "The newest backup would be restored."})
        with step(context, f"{declared.name}/restore_drill"):
            report = backups.prove(platform, declared, run_id=context.run_id)
        found = report.as_json()
        measured = {"RTO seconds": report.rto_seconds, "RPO seconds": report.rpo_seconds}
        metadata: dict[str, Any] = {
            "backup": report.backup_id,
            "proven": report.proven,
            **{name: value for name, value in measured.items() if value is not None},
            **table_metadata("tables", found["tables"], ("table", "rows", "expected_rows", "hash", "match")),
        }
        if not report.proven:
            raise dg.Failure(
                description=f"Backup {report.backup_id} is not proven: {'; '.join(report.errors)}",
                metadata=metadata,
                allow_retries=False,
            )
        return dg.MaterializeResult(metadata=metadata)

    return restore_drill
