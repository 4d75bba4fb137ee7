"""The advice for a declared database as an asset: its list as metadata.

Nothing is followed by a run: a person reads the advice, and types ``dbplatform advise apply ID``.
"""

from typing import Any

import dagster as dg

from dbplatform.advice.record import as_json
from dbplatform.declaration.loading import Declared
from dbplatform.operations import advice as advising
from dbplatform.operations.advice import Advised
from dbplatform.operations.platform import Platform
from dbplatform.operations.watching import NothingToMeasure
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata

_COLUMNS = ("id", "severity", "kind", "subject", "reason", "sql", "lock", "cost", "confidence", "undo_sql")


def advice_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """What would make the database faster, smaller or safer."""
    key = keys.advice(declared.name)

    @dg.asset(
        key=key,
        deps=[keys.health(declared.name)],
        op_tags={"dagster/priority": "-10"},
        description="Indexes that are missing or needless, autovacuum, bloat, sequences, settings; each with reason, "
        "evidence, SQL, lock, cost and undo. Follow one: dbplatform advise apply ID.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres"},
    )
    def advice(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/advice"):
            try:
                found = advising.advise(platform, declared)
            except NothingToMeasure as nothing:
                return dg.MaterializeResult(metadata={"dry run": options.dry_run, "advice": str(nothing)})
        return dg.MaterializeResult(metadata={"dry run": options.dry_run, **_metadata(found)})

    return [advice]


def _metadata(found: Advised) -> dict[str, Any]:
    unexamined = [{"kind": kind, "reason": reason} for kind, reason in found.findings.unexamined.items()]
    return {
        "advice": len(found.advice),
        "warnings": found.warnings,
        **table_metadata("open advice", [as_json(one) for one in found.advice], _COLUMNS),
        **table_metadata("not examined", unexamined, ("kind", "reason")),
    }
