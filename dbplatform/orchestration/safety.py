"""The safety loop of one database: a backup, the drill that proves it by a restore, and what relies on the proof: the
removal of old backups, and the archives.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.declaration.loading import Declared
from dbplatform.operations import archives, backups
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.not_made import would
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import data_version, proof_result, step, table_metadata
from dbplatform.postgres.catalog import TableMissing


def backup_assets(platform: Platform, declared: Declared, *, deps: Sequence[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """Backup, drill, retention and archives; nothing where no backups are declared."""
    if declared.database.backups is None:
        return []
    archive_assets = [_archive(platform, declared, policy) for policy in declared.database.archives]
    return [
        _backup(platform, declared, deps=deps),
        _drill(platform, declared),
        _retention(platform, declared),
        *archive_assets,
    ]


def looks_at_rows(declared: Declared) -> list[dg.AssetKey]:
    """What judges or counts rows, and so comes before some of them leave.

    A run's findings are the same whichever branch of the graph is quicker, rows are checked while they are there, and
    none leaves while a blocking check fails.
    """
    if declared.database.quality:
        return [keys.quality_report(declared.name)]
    return [keys.table(declared.name, policy.table) for policy in declared.database.partitioned_tables]


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
            place = backups.destination_of(platform, declared).location(declared.name)
            return dg.MaterializeResult(metadata={"dry run": True, "plan": f"A dump into a new folder of {place}."})
        with step(context, f"{declared.name}/backup"):
            taken = backups.take(platform, declared, run_id=context.run.run_id)
        return dg.MaterializeResult(
            metadata={
                "backup": taken.id,
                "bytes": taken.bytes or 0,
                "sha256": taken.sha256 or "",
                "encrypted": bool(declared.database.backups and declared.database.backups.encrypt_to),
                "folder": _file(taken.location),
            }
        )

    return backup


def _drill(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.restore_drill(declared.name),
        deps=[keys.backup(declared.name)],
        description="The newest backup, restored into a scratch database and compared table by table with what was "
        "dumped, and checked. Fails when anything differs.",
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
            report = backups.prove(platform, declared, run_id=context.run.run_id)
        columns = ("table", "rows", "expected_rows", "hash", "match")
        tables = table_metadata("tables", report.as_json()["tables"], columns)
        return proof_result("Backup", report, more={}, tables=tables)

    return restore_drill


def _retention(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.backup_retention(declared.name),
        deps=[keys.restore_drill(declared.name)],
        description="Backups that no day, week or month wants any more are removed, behind a proof and never the "
        "newest proven one. While anything is in doubt, nothing is removed, and the metadata say why.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "backup"},
    )
    def backup_retention(
        context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/backup_retention"):
            planned = backups.plan_prune(platform, declared)
            report = None if options.dry_run else backups.apply_prune(platform, declared, planned)
        refusal = report.refusal if report is not None else planned.refusal
        removed = report.pruned if report is not None else tuple(backup.id for backup in planned.prune)
        rows = [
            {"backup": kept.backup.id, "kept as": ", ".join(kept.reasons), "bytes": kept.backup.bytes}
            for kept in planned.keep
        ]
        return dg.MaterializeResult(
            metadata={
                **({"dry run": True} if options.dry_run else {}),
                "removed": len(removed),
                "kept": len(planned.keep),
                **({"removed backups": ", ".join(removed)} if removed else {}),
                **({"nothing removed because": refusal} if refusal else {}),
                **table_metadata("backups", rows, ("backup", "kept as", "bytes")),
            }
        )

    return backup_retention


def _archive(platform: Platform, declared: Declared, policy: ArchivePolicy) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.archive(declared.name, policy.name),
        deps=[keys.restore_drill(declared.name), *looks_at_rows(declared)],
        description=f"Rows of {policy.table} where {policy.rule}, as Parquet: written, read back, and only then "
        + (
            "deleted, each one only where the proven backup holds it unchanged. "
            if policy.by == "rows"
            else "let go, with their partition, by retirement. "
        )
        + "The checks have seen them before.",
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "parquet"},
    )
    def archive(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/archive/{policy.name}"):
            if options.dry_run:
                try:
                    planned = archives.plan(platform, declared, policy)
                except TableMissing as missing:
                    words = f"Rows of {policy.table} where {policy.rule} would be archived."
                    return dg.MaterializeResult(metadata=would(platform, declared, missing, words))
                return dg.MaterializeResult(
                    metadata={"dry run": True, "matching rows": planned.rows, "proven rows": planned.covered_rows or 0}
                )
            report = archives.apply(platform, declared, policy, run_id=context.run.run_id)
            standing = archives.standing(platform, declared, policy)
        found = [entry.as_json() for entry in report.archives]
        return dg.MaterializeResult(
            data_version=data_version(context, changed=bool(report.deleted)),
            metadata={
                "rule": policy.rule,
                **({"cutoff": report.cutoff.isoformat()} if report.cutoff is not None else {}),
                "rows archived": report.deleted if policy.by == "rows" else report.written,
                **{f"rows of {table} along": rows for table, rows in report.along.items()},
                **({"left off because": report.stopped} if report.stopped else {}),
                "rows changed meanwhile": report.kept_changed,
                "rows not proven": report.uncovered,
                "rows in archives": standing.rows,
                "files": len(standing.archives),
                **({"newest file": _file(standing.newest.location)} if standing.newest else {}),
                **table_metadata("new files", found, ("id", "rows", "bytes", "sha256", "status", "location")),
            },
        )

    return archive


def _file(location: str) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.url(location) if "://" in location else dg.MetadataValue.path(location)
