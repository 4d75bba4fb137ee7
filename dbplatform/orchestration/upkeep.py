"""Maintenance as assets: one per kind of work, with what was measured before and after as metadata, which has a trend.

They are materialized by the jobs of their schedules, by a person, or on a breach; never by the run of the whole graph.
"""

from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.maintenance.model import Kind, Plan, Report
from dbplatform.operations import upkeep
from dbplatform.operations.platform import Platform
from dbplatform.operations.watching import NothingToMeasure, existing
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata

#: Each kind of work, what it comes behind, and what is said of it. What is analyzed first shows bloat; a table that is
#: written anew needs none of its indexes rebuilt.
_KINDS: tuple[tuple[Kind, tuple[Kind, ...], str], ...] = (
    ("statistics", (), "Statistics targets of large tables, proposed or applied, with undo."),
    ("autovacuum", (), "Autovacuum settings of large tables, proposed or applied, with undo."),
    ("analyze", ("statistics",), "ANALYZE where statistics are missing or stale, of partitioned tables too."),
    ("vacuum", (), "VACUUM where rows are dead, old enough to be frozen, or only ever inserted."),
    ("repack", ("analyze", "vacuum"), "pg_repack of bloated tables where it is installed, while they are written."),
    ("reindex", ("repack", "analyze"), "REINDEX CONCURRENTLY of bloated indexes; ends what a killed one left."),
)
_ITEM = ("priority", "subject", "reason", "sql", "lock", "undo")
_OUTCOME = ("state", "subject", "reason", "changes", "words", "seconds", "sql", "undo")
#: Facts whose sums before and after are charted.
_CHARTED = ("bytes", "index_bytes", "dead_rows", "changed_rows")


def upkeep_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """One asset per kind of work."""
    return [_asset(platform, declared, kind, behind, words) for kind, behind, words in _KINDS]


def _asset(
    platform: Platform, declared: Declared, kind: Kind, behind: tuple[Kind, ...], words: str
) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.maintenance(declared.name, kind),
        deps=[keys.maintenance(declared.name, one) for one in behind],
        description=words,
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres"},
    )
    def maintained(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/maintenance/{kind}"):
            try:
                if options.dry_run:
                    return dg.MaterializeResult(metadata=_planned(upkeep.plan(platform, declared, kind)))
                existing(platform, declared)
            except NothingToMeasure as nothing:
                return dg.MaterializeResult(metadata={"dry run": options.dry_run, "maintenance": str(nothing)})
            report = upkeep.apply(platform, declared, kind, run_id=context.run.run_id)
        metadata = _metadata(report)
        failed = report.of("failed")
        if failed:
            raise dg.Failure(
                description="; ".join(f"{one.item.subject}: {one.words}" for one in failed),
                metadata=metadata,
                allow_retries=False,
            )
        return dg.MaterializeResult(metadata=metadata)

    return maintained


def _planned(plan: Plan) -> dict[str, Any]:
    return {
        "dry run": True,
        "due": len(plan.items),
        **table_metadata("items", [item.as_json() for item in plan.items], _ITEM),
        **_not_possible(plan),
    }


def _metadata(report: Report) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for fact in _CHARTED:
        if any(fact in one.after for one in report.of("done")):
            words = fact.replace("_", " ")
            facts[f"{words} before"] = report.total(fact, after=False)
            facts[f"{words} after"] = report.total(fact, after=True)
    for query in report.queries:
        for when, ms in (("before", query.before_ms), ("after", query.after_ms)):
            if ms is not None:
                facts[f"{query.name} ms {when}"] = ms
    return {
        "dry run": False,
        "done": len(report.of("done")),
        "left": len(report.of("left")),
        "proposed": len(report.of("proposed")),
        "seconds": round(report.seconds, 2),
        "paused seconds": round(report.paused_s, 2),
        **({"stopped": report.stopped} if report.stopped else {}),
        **facts,
        **table_metadata("items", [one.as_json() for one in report.outcomes], _OUTCOME),
        **_not_possible(report),
    }


def _not_possible(found: Plan | Report) -> dict[str, Any]:
    rows = [one.as_json() for one in found.not_possible]
    return dict(table_metadata("not possible", rows, ("kind", "subject", "reason", "hint")))
