"""Live tables: the step that makes them so, behind whatever makes and fills the tables."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import live
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.not_made import would
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata
from dbplatform.postgres.catalog import TableMissing


def live_assets(platform: Platform, declared: Declared, *, deps: Sequence[dg.AssetKey]) -> list[dg.AssetsDefinition]:
    """The asset ``<database>/live``; none where no table is declared live."""
    if not declared.database.live:
        return []

    @dg.asset(
        key=keys.live(declared.name),
        deps=deps,
        description="What is committed in these tables is pushed to who watches: "
        + ", ".join(str(policy.table) for policy in declared.database.live)
        + ".",
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres"},
    )
    def made(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/live"):
            if options.dry_run:
                try:
                    report = live.plan(platform, declared)
                except TableMissing as missing:
                    words = "Its tables would be made live."
                    return dg.MaterializeResult(metadata=would(platform, declared, missing, words))
            else:
                report = live.apply(platform, declared, run_id=context.run.run_id)
        found = report.as_json()
        return dg.MaterializeResult(
            metadata={
                "dry run": options.dry_run,
                "live already": ", ".join(found["live"]) or "none",
                **table_metadata("changes", found["actions"], ("table", "do", "lock", "reason")),
            }
        )

    return [made]
