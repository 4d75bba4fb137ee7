"""The assets of one declared database: migrations, their rehearsal, partitions, seed. Its tables are in ``checks``.

Each step calls an operation that the command line calls too, and publishes its report as metadata: numbers that Dagster
plots over time, and tables that it shows in line.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from dbplatform.declaration.loading import Declared
from dbplatform.operations import partitions, rehearsal, schema, seeds
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.not_made import not_made, would
from dbplatform.orchestration.periods import tell_periods
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import data_version, step, table_metadata
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import TableMissing


class MigrateConfig(dg.Config):
    """What to apply."""

    target: str | None = Field(default=None, description="Stop after this version, for example 3. Default: all.")


class SeedConfig(dg.Config):
    """What to load."""

    profile: str | None = Field(default=None, description="A declared profile. Default: the first one declared.")
    rows_scale: float = Field(default=1.0, description="How many times the rows of the seed.")


def writing_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """The assets that change the database, in their order; each depends on the stage before it."""
    database = declared.database
    assets: list[dg.AssetsDefinition] = []
    if database.migrations is not None:
        assets.append(_migrations(platform, declared))
    partitioned = [
        _partitions(platform, declared, policy, deps=[a.key for a in assets[:1]])
        for policy in database.partitioned_tables
    ]
    assets += partitioned
    if database.seeds:
        assets.append(_seed(platform, declared, deps=[a.key for a in partitioned or assets]))
    return assets


def rehearsal_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """The rehearsal of what is pending; it belongs to no run but its own."""
    return [] if declared.database.migrations is None else [_rehearsal(platform, declared)]


def last_stage(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetKey]:
    """What the tables wait for: the seed, else the partitions and migrations."""
    seeds_ = [asset.key for asset in assets if asset.key.path[1:] == ["seed"]]
    return seeds_ or [asset.key for asset in assets]


def _migrations(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.migrations(declared.name),
        description="The schema: versioned and repeatable SQL files, applied in order, each in one transaction with "
        "its row in Flyway's history table. A run with nothing to do changes nothing.",
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "sql"},
    )
    def migrations(
        context: dg.AssetExecutionContext, config: MigrateConfig, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/migrations"):
            if options.dry_run:
                found = schema.plan(platform, declared, target=config.target).as_json()
                unmade = not_made(platform, declared)
            else:
                found = schema.apply(platform, declared, target=config.target, run_id=context.run.run_id).as_json()
                unmade = {}
        wanted = "pending" if options.dry_run else "applied"
        rows = [
            m for m in found["migrations"] if m["status"] == wanted and (options.dry_run or m["seconds"] is not None)
        ]
        statements = [] if options.dry_run else _statements(rows)
        return dg.MaterializeResult(
            metadata={
                "dry run": options.dry_run,
                **unmade,
                "version": found["current"] or "none",
                wanted: len(rows),
                "seconds": float(sum(m["seconds"] or 0 for m in rows)),
                **table_metadata("migrations", rows, ("version", "description", "script", "seconds")),
                **table_metadata("statements", statements, ("script", "statement", "lock", "rewrites", "seconds")),
            }
        )

    return migrations


def _rehearsal(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.rehearsal(declared.name),
        deps=[keys.backup(declared.name)] if declared.database.backups is not None else [],
        description="What is pending, run on the newest backup in a scratch database: locks, rewrites, times, the log "
        "that it writes, and the plans of the statements that cost most before and after. Fails when it does not pass.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "sql"},
    )
    def rehearsed(
        context: dg.AssetExecutionContext, config: MigrateConfig, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        if options.dry_run:
            return dg.MaterializeResult(metadata={"dry run": True, "plan": "What is pending would be rehearsed."})
        with step(context, f"{declared.name}/rehearsal"):
            report = rehearsal.rehearse(platform, declared, target=config.target, run_id=context.run.run_id)
        if report is None:
            return dg.MaterializeResult(metadata={"dry run": False, "pending": 0})
        found = report.as_json()
        changes = [
            {"statement": c["query"], "breaks": c["breaks"], "before": c["before"]["cost"], "after": c["after"]["cost"]}
            for c in found["plan_changes"]
        ]
        columns = ("script", "statement", "lock", "rewrites", "seconds", "wal_bytes")
        metadata: dict[str, Any] = {
            "dry run": False,
            "pending": len(found["migrations"]),
            "passed": report.passed,
            "on": f"backup {found['backup_id']}" if found["backup_id"] else "an empty copy of the schema",
            "seconds": report.seconds,
            **table_metadata("statements", _statements(found["migrations"]), columns),
            **table_metadata("other plans", changes, ("statement", "breaks", "before", "after")),
        }
        if not report.passed:
            broken = [change["statement"] for change in changes if change["breaks"]]
            raise dg.Failure(
                description=found["error"] or f"It breaks statements of the application: {'; '.join(broken)}",
                metadata=metadata,
                allow_retries=False,
            )
        return dg.MaterializeResult(metadata=metadata)

    return rehearsed


def _statements(migrations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each statement of migrations as the contract writes them."""
    return [
        {**statement, "script": migration["script"], "statement": statement["sql"]}
        for migration in migrations
        for statement in migration["statements"]
    ]


def _partitions(
    platform: Platform, declared: Declared, policy: PartitionPolicy, *, deps: Sequence[dg.AssetKey]
) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.partitions(declared.name, policy.table),
        deps=deps,
        description=f"Range partitions of {policy.table} by {policy.column}, one per {policy.interval}, "
        f"{policy.premake} ahead of now; each is built aside and attached.",
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "table"},
    )
    def table_partitions(
        context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/partitions/{policy.table.words}"):
            if options.dry_run:
                try:
                    report = partitions.plan(platform, declared, only=policy.table).as_json()
                except TableMissing as missing:
                    words = f"Its partitions would be made, one per {policy.interval}, {policy.premake} ahead."
                    return dg.MaterializeResult(metadata=would(platform, declared, missing, words))
            else:
                report = partitions.apply(platform, declared, only=policy.table, run_id=context.run.run_id).as_json()
                tell_periods(context.instance, platform, declared, policy)
        [found] = report["tables"]
        return dg.MaterializeResult(
            data_version=data_version(context, changed=not options.dry_run and bool(found["create"])),
            metadata={
                "dry run": options.dry_run,
                "to create" if options.dry_run else "created": len(found["create"]),
                "partitions": found["existing"],
                **({} if found["horizon_days"] is None else {"runs out in days": float(found["horizon_days"])}),
                **({"rows in the default partition": found["default_rows"]} if found["default"] else {}),
                **table_metadata("new partitions", found["create"], ("name", "lower", "upper", "rows")),
                **table_metadata("left in the default partition", found["left_in_default"], ("name", "rows")),
            },
        )

    return table_partitions


def _seed(platform: Platform, declared: Declared, *, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.seed(declared.name),
        deps=deps,
        description="The data that a fresh database begins with, by COPY, each table in one transaction with its "
        "record. What is recorded as loaded is skipped.",
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "csv"},
    )
    def seed(
        context: dg.AssetExecutionContext, config: SeedConfig, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        wanted: dict[str, Any] = {"profile": config.profile, "rows_scale": config.rows_scale}
        with step(context, f"{declared.name}/seed"):
            if options.dry_run:
                try:
                    found = seeds.plan(platform, declared, **wanted).as_json()
                except TableMissing as missing:
                    profile = config.profile or declared.database.seeds[0].profile
                    words = f"The profile {profile} would be loaded."
                    return dg.MaterializeResult(metadata=would(platform, declared, missing, words))
            else:
                found = seeds.apply(platform, declared, run_id=context.run.run_id, **wanted).as_json()
        tables = found["tables"]
        loaded = [table for table in tables if table["status"] == ("pending" if options.dry_run else "loaded")]
        return dg.MaterializeResult(
            data_version=data_version(context, changed=not options.dry_run and bool(loaded)),
            metadata={
                "dry run": options.dry_run,
                "profile": found["profile"],
                "tables to load" if options.dry_run else "tables loaded": len(loaded),
                "rows loaded": sum(table["rows"] or 0 for table in loaded),
                **table_metadata("tables", tables, ("table", "status", "rows", "seconds")),
            },
        )

    return seed
