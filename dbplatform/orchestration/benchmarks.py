"""The benchmarks of a declared database as an asset: times, verdicts against the baseline, and the page with plots.

No run of the whole graph times anything: what else the machine does then would be in it. What is worse, or misses its
target, is a warning of the check ``none_is_worse``; where nothing was measured it is left as it was.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from dbplatform.benchmarking.errors import NotAllowedNow
from dbplatform.benchmarking.model import Report
from dbplatform.declaration.loading import Declared
from dbplatform.operations import benchmarks as benching
from dbplatform.operations.benchmark_wanted import BASELINE, Wanted, plan
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata
from dbplatform.reporting import benchmarks as page

NONE_IS_WORSE = "none_is_worse"
_COLUMNS = (
    "name", "kind", "clients", "median_ms", "p95_ms", "tps", "target_ms", "target", "verdict", "change", "noise",
    "rounds", "error",
)  # fmt: skip


class BenchmarkConfig(dg.Config):
    """What to do with what is measured."""

    baseline: str | None = Field(
        default=None,
        description="Keep this run as the baseline of that name. Default: it is compared with the baseline.",
    )


def benchmark_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """The declared benchmarks; nothing where none are declared."""
    if declared.database.benchmarks is None:
        return []

    key = keys.benchmarks(declared.name)

    @dg.multi_asset(
        name="__".join(key.path),
        specs=[
            dg.AssetSpec(
                key,
                description="Named queries and pgbench scripts, timed in turns with a yardstick, compared with the "
                "baseline: a verdict only outside the noise. The first run becomes the baseline.",
                skippable=True,
                group_name=declared.name,
                owners=declared.database.owners,
                kinds={"postgres"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                NONE_IS_WORSE,
                asset=key,
                description="No benchmark is worse than its baseline, misses its target, or could not be run.",
            )
        ],
        can_subset=True,
        op_tags={"dagster/priority": "-10"},
        pool=keys.pool(declared.name),
    )
    def benchmarks(
        context: dg.AssetExecutionContext, config: BenchmarkConfig, options: dg.ResourceParam[Options]
    ) -> Iterator[Any]:
        with step(context, f"{declared.name}/benchmarks"):
            fresh = config.baseline is not None or not benching.has_baseline(platform, declared)
            wanted = Wanted(
                mode="run" if fresh else "baseline", baseline=(config.baseline or BASELINE) if fresh else None
            )
            report = None
            try:
                if options.dry_run:
                    found = _planned(plan(platform, declared, wanted).as_json())
                else:
                    report = benching.measure(platform, declared, wanted, run_id=context.run.run_id)
                    found = {**_metadata(report), "report": _link(page.write(platform, declared, report))}
            except NotAllowedNow as not_now:  # nothing is wrong: its time is another one, or nobody has agreed
                found = {"not measured": str(not_now)}
        metadata = {"dry run": options.dry_run, **found}
        if report is not None and context.selected_asset_check_keys:
            yield _check(key, report)
        if report is not None and report.errored:
            names = ", ".join(one.name for one in report.errored)
            raise dg.Failure(
                description=f"Could not be run: {names}. {report.errored[0].error}",
                metadata=metadata,
                allow_retries=False,
            )
        if context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=key, metadata=metadata)

    return [benchmarks]


def _check(key: dg.AssetKey, report: Report) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=NONE_IS_WORSE,
        passed=page.state(report) == "passed",
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{page.headline(report)}.",
        metadata={"worse or slower than their target": ", ".join(one.name for one in report.bad) or "none"},
    )


def _link(location: str) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.text(location) if "://" in location else dg.MetadataValue.path(location)


def _planned(document: dict[str, Any]) -> dict[str, Any]:
    columns = ("name", "kind", "clients", "place", "target_ms")
    return {
        "plan": document["plan"],
        "seconds": document["seconds"],
        "connections": document["connections"],
        **table_metadata("benchmarks", document["benchmarks"], columns),
    }


def _metadata(report: Report) -> dict[str, Any]:
    rows = [
        {**one, **{name: (one["comparison"] or {}).get(name) for name in ("verdict", "change", "noise")}}
        for one in report.as_json()["benchmarks"]
    ]
    times = {f"{one['name']} ms": one["median_ms"] for one in rows if one["median_ms"] is not None}
    return {
        "worse": sum(one["verdict"] == "worse" for one in rows),
        "targets missed": sum(one["target"] == "missed" for one in rows),
        **({"baseline": report.baseline} if report.baseline else {}),
        **times,
        **table_metadata("benchmarks", rows, _COLUMNS),
        **table_metadata("what else changed", [{"note": note} for note in report.notes], ("note",)),
    }
