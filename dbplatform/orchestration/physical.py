"""Physical backups in the graph: the base backup of the server, the drill that proves it by a recovery, the retention.

They belong to no run of the whole graph: a server is copied when its own schedule says so.
"""

from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import recovery, wal
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import proof_result, step, table_metadata


def physical_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """Base backup, drill and retention; nothing where no physical backups are declared."""
    backups = declared.database.backups
    if backups is None or backups.physical is None:
        return []
    return [_backup(platform, declared), _drill(platform, declared), _retention(platform, declared)]


def _backup(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.physical_backup(declared.name),
        description="A copy of the whole server by pg_basebackup, read again by pg_verifybackup; it serves every "
        "database there, so that one of the last hour is not taken again. With its WAL any moment can be restored.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "backup"},
    )
    def physical_backup(
        context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/physical_backup"):
            if options.dry_run:
                server, parent = recovery.plan_take(platform, declared)
                kind = f"An incremental base backup on {parent.id}" if parent else "A full base backup"
                return dg.MaterializeResult(metadata={"dry run": True, "plan": f"{kind} of {server.place}."})
            taken = recovery.take_shared(platform, declared, run_id=context.run.run_id)
            found = wal.status(platform, declared)
        windows = [window.as_json() for window in found.windows]
        return dg.MaterializeResult(
            metadata={
                "backup": taken.id,
                "bytes": taken.bytes or 0,
                "sha256": taken.sha256 or "",
                "folder": dg.MetadataValue.text(taken.location),
                "findings": " ".join(found.findings) or "none",
                **table_metadata("can be restored", windows, ("start", "end", "start_lsn", "end_lsn", "missing")),
            }
        )

    return physical_backup


def _drill(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.recovery_drill(declared.name),
        deps=[keys.physical_backup(declared.name)],
        description="The newest base backup, recovered aside to a random moment and to the end of its WAL: witnesses, "
        "quiet tables, pages, indexes and checks. Fails when anything differs.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "backup"},
    )
    def recovery_drill(
        context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        if options.dry_run:
            return dg.MaterializeResult(metadata={"dry run": True, "plan": "The server would be recovered aside."})
        with step(context, f"{declared.name}/recovery_drill"):
            proof = recovery.prove(platform, declared, run_id=context.run.run_id)
        columns = ("table", "rows", "expected_rows", "hash", "match")
        more = {
            "recovered to": proof.moment or "none: no WAL is archived behind it",
            "and to the end": proof.end,
            "witnesses heard": proof.witnesses,
        }
        tables = table_metadata("quiet tables", proof.as_json()["tables"], columns)
        return proof_result("Base backup", proof, more=more, tables=tables)

    return recovery_drill


def _retention(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.physical_retention(declared.name),
        deps=[keys.recovery_drill(declared.name)],
        description="Base backups that nothing keeps any more, and the WAL before the recovery window, are removed, "
        "behind a proof. While anything is in doubt, nothing is removed, and the metadata say why.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "backup"},
    )
    def physical_retention(
        context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/physical_retention"):
            planned = recovery.plan_prune(platform, declared)
            done = planned if options.dry_run else recovery.apply_prune(platform, declared, planned)
        rows = [
            {"backup": kept.backup.id, "kept as": ", ".join(kept.reasons), "bytes": kept.backup.bytes}
            for kept in planned.keep
        ]
        return dg.MaterializeResult(
            metadata={
                **({"dry run": True} if options.dry_run else {}),
                "removed": len(done.prune),
                "removed WAL files": len(done.wal),
                "kept": len(planned.keep),
                **({"nothing removed because": done.refusal} if done.refusal else {}),
                **table_metadata("base backups", rows, ("backup", "kept as", "bytes")),
            }
        )

    return physical_retention
