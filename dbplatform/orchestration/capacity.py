"""The look ahead and the look back of one database as assets: its capacity by quarter, its maintenance by month."""

from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations.capacity import capacity
from dbplatform.operations.platform import Platform
from dbplatform.operations.watching import NothingToMeasure
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata
from dbplatform.reporting.capacity import growth_words, headline, publish_capacity
from dbplatform.reporting.maintenance import publish_maintenance

_COLUMNS = ("limit", "subject", "used", "of", "words", "advice", "command")


def planning_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """Neither is part of a run of the whole graph: they come with the quarter and the month."""
    return [_capacity(platform, declared), _maintenance_report(platform, declared)]


def _capacity(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.capacity(declared.name),
        deps=[keys.metrics(declared.name)],
        description="When disk, partitions, sequences, transaction ids and connections run out, as ranges from the "
        "history in the ledger, and what grows; with the report of the quarter.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres"},
    )
    def look_ahead(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/capacity"):
            try:
                written = None if options.dry_run else publish_capacity(platform, declared)
                found = written.capacity if written is not None else capacity(platform, declared)
            except NothingToMeasure as nothing:
                return dg.MaterializeResult(metadata={"dry run": options.dry_run, "capacity": str(nothing)})
        soonest = [
            limit.days.low
            for limit in found.limits
            if limit.days is not None and limit.days.low is not None and not limit.renewed
        ]
        growth = [{"kind": one.kind, "name": one.name, "bytes": one.bytes, "growth": growth_words(one)}
                  for one in found.growth]  # fmt: skip
        return dg.MaterializeResult(
            metadata={
                "dry run": options.dry_run,
                "in one sentence": headline(found),
                "limits that are near": len(found.near),
                **({"days until the first": float(min(soonest))} if soonest else {}),
                **({"report": written.entry.kept_at(platform.home.reports)} if written is not None else {}),
                **table_metadata("limits", [one.as_json() for one in found.limits], _COLUMNS),
                **table_metadata("growth", growth, ("kind", "name", "bytes", "growth")),
            }
        )

    return look_ahead


def _maintenance_report(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.maintenance(declared.name, "report"),
        description="The report of the last whole month: what care ran and what it gained, what was skipped, alerts, "
        "backups with their proof, and what needs a decision now.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"html"},
    )
    def look_back(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        if options.dry_run:
            return dg.MaterializeResult(metadata={"dry run": True, "plan": "The report of the month would be written."})
        with step(context, f"{declared.name}/maintenance/report"):
            written = publish_maintenance(platform, declared, month=None)
        decisions = [one.as_json() for one in written.month.decisions]
        return dg.MaterializeResult(
            metadata={
                "dry run": False,
                "month": written.month.period.name,
                "number of decisions": len(decisions),
                "report": written.entry.kept_at(platform.home.reports),
                **table_metadata("decisions", decisions, ("urgency", "title", "why", "command")),
            }
        )

    return look_back
