"""Tables with their data-quality checks, and the report over them.

The checks run in the step of their table: so the report comes after all of them, and one check can still be run alone
in the UI. A check that could not run has not passed: it is shown as failed, says that it errored, and fails the step of
the report after the report is written. So does a failed check that is declared ``blocking``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import checks
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.not_made import would
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.base import Check, Separable
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult
from dbplatform.reporting.publish import publish


def table_assets(platform: Platform, declared: Declared, *, deps: Sequence[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """One asset per table: those with checks, then the partitioned ones without."""
    database = declared.database
    assets = [_checked_table(platform, declared, policy, deps=deps) for policy in database.quality]
    checked = {policy.table for policy in database.quality}
    assets += [
        _plain_table(platform, declared, policy.table, deps=deps)
        for policy in database.partitioned_tables
        if policy.table not in checked
    ]
    if database.quality:
        assets.append(_report(platform, declared, deps=[keys.table(declared.name, p.table) for p in database.quality]))
    return assets


def _checked_table(
    platform: Platform, declared: Declared, policy: TablePolicy, *, deps: Sequence[dg.AssetKey]
) -> dg.AssetsDefinition:
    key = keys.table(declared.name, policy.table)
    specs = [
        dg.AssetCheckSpec(
            name=check.name,
            asset=key,
            description=check.description,
            metadata=_declared(policy, check),
        )
        for check in policy.checks
    ]

    @dg.multi_asset(
        name="__".join(key.path),
        specs=[_spec(declared, policy.table, deps)],
        check_specs=specs,
        can_subset=True,
    )
    def checked_table(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> Iterator[Any]:
        selected = {check.name for check in context.selected_asset_check_keys}
        with step(context, f"{declared.name}/tables/{policy.table.words}"):
            try:
                result = checks.check_table(
                    platform,
                    declared,
                    policy.table,
                    run_id=context.run.run_id,
                    only=selected,
                    record=not options.dry_run,
                )
            except TableMissing as missing:
                if not options.dry_run:
                    raise
                words = f"{len(selected)} of its checks would run."
                yield dg.MaterializeResult(asset_key=key, metadata=would(platform, declared, missing, words))
                return
            columns = checks.columns_of(platform, declared, policy.table)
        if context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **({} if result.row_count is None else {"dagster/row_count": result.row_count}),
                    "dagster/column_schema": _column_schema(columns),
                    "checks failed": sum(check.status in ("failed", "errored") for check in result.checks),
                    "checks accepted": sum(check.status == "accepted" for check in result.checks),
                    "failed rows": sum(check.failed_rows or 0 for check in result.checks if check.status == "failed"),
                    "rows moved aside": sum(check.quarantined_rows or 0 for check in result.checks),
                    "seconds": result.seconds,
                },
            )
        for check in result.checks:
            yield _evaluation(key, check)

    return checked_table


def _declared(policy: TablePolicy, check: Check) -> dict[str, Any]:
    """What is declared of a check beside what it asks."""
    declared: dict[str, Any] = {"severity": check.severity}
    if check.owner:
        declared["owner"] = check.owner
    if check.accepted_until is not None:
        declared["accepted until"] = check.accepted_until.until.isoformat()
    if isinstance(check, Separable) and check.quarantine is not None:
        declared["quarantine"] = str(check.quarantine)
    if (sample := policy.sample_of(check)) is not None:
        declared["sample"] = str(sample)
    return declared


def _plain_table(
    platform: Platform, declared: Declared, relation: Relation, *, deps: Sequence[dg.AssetKey]
) -> dg.AssetsDefinition:
    key = keys.table(declared.name, relation)

    @dg.multi_asset(name="__".join(key.path), specs=[_spec(declared, relation, deps)])
    def table(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/tables/{relation.words}"):
            try:
                rows = checks.row_count_of(platform, declared, relation)
            except TableMissing as missing:
                if not options.dry_run:
                    raise
                return dg.MaterializeResult(metadata=would(platform, declared, missing, "Its rows would be counted."))
            columns = _column_schema(checks.columns_of(platform, declared, relation))
        return dg.MaterializeResult(metadata={"dagster/row_count": rows, "dagster/column_schema": columns})

    return table


def _spec(declared: Declared, relation: Relation, deps: Sequence[dg.AssetKey]) -> dg.AssetSpec:
    return dg.AssetSpec(
        keys.table(declared.name, relation),
        deps=deps,
        description=f"The table {relation} as this run found it, before old rows are archived: rows, columns, and what "
        "its checks say.",
        skippable=True,
        metadata={"dagster/table_name": f"{declared.name}.{relation}"},
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres", "table"},
    )


def _evaluation(key: dg.AssetKey, check: CheckResult) -> dg.AssetCheckResult:
    errored = check.status == "errored"
    measured: dict[str, Any] = {"status": check.status}
    if check.failed_rows is not None:
        measured["failed rows"] = check.failed_rows
    if check.value is not None:
        measured["value"] = check.value
    if check.column is not None:
        measured["column"] = check.column
    if check.sql is not None:
        measured["query"] = dg.MetadataValue.md(f"```sql\n{check.sql}\n```")
    if check.quarantined_rows is not None:
        measured["rows moved aside"] = check.quarantined_rows
    if check.quarantine_table is not None:
        measured["quarantine"] = check.quarantine_table
    if check.accepted_until is not None:
        measured["accepted until"] = check.accepted_until.isoformat()
        measured["accepted because"] = check.accepted_reason
    if check.sample is not None:
        measured["sample"] = check.sample
        measured["sampled rows"] = check.sampled_rows
    if check.masked_columns:
        measured["masked"] = ", ".join(check.masked_columns)
    # Somebody answers for an accepted failure: it is a warning, whatever its severity.
    warn = (check.severity == "warn" or check.status == "accepted") and not errored
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check.name,
        passed=check.status == "passed",
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=f"Could not run: {check.message}" if errored else check.message,
        metadata=measured,
    )


def _report(platform: Platform, declared: Declared, *, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.quality_report(declared.name),
        deps=deps,
        description="One page on what the checks of this run found: what failed, which rows, since when.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"html"},
    )
    def quality_report(
        context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]
    ) -> dg.MaterializeResult[Any]:
        if options.dry_run:
            return dg.MaterializeResult(metadata={"dry run": True, "plan": "A report would be written."})
        with step(context, f"{declared.name}/quality_report"):
            written = publish(platform, declared, context.run.run_id, in_dagster=True)
        metadata: dict[str, Any] = {
            "report": dg.MetadataValue.url(written.url),
            "review": dg.MetadataValue.url(written.review_url),
            "file": dg.MetadataValue.path(written.location),
            **{form: dg.MetadataValue.path(written.forms[form]) for form in ("json", "junit")},
            "verdict": written.run.verdict,
            "checks": len(written.run.checks),
            "failed checks": written.run.count("failed"),
            "errored checks": written.run.count("errored"),
            "failed rows": written.failed_rows,
            **({"old reports": f"not removed: {written.problem}"} if written.problem else {}),
        }
        if written.stops:
            raise dg.Failure(
                description=f"The report is written, but {written.stops}. {written.url}",
                metadata=metadata,
                allow_retries=False,
            )
        return dg.MaterializeResult(metadata=metadata)

    return quality_report


def _column_schema(columns: Sequence[checks.Column]) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                type=column.type,
                description=column.comment,
                constraints=dg.TableColumnConstraints(nullable=not column.not_null),
            )
            for column in columns
        ]
    )
