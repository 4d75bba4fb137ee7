"""The clean-up of a declared database as an asset: what was left over, what of it is gone, what is for a person."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.maintenance.cleanup.leftovers import CleanupPlan, Leftover
from dbplatform.operations import cleanup
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata
from dbplatform.reporting.retention import cleanup_part

NOTHING_FOR_A_PERSON = "nothing_for_a_person"
_COLUMNS = ("kind", "name", "fate", "outcome", "reason", "advice", "bytes")


def cleanup_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """The asset ``maintenance/cleanup`` and its check."""
    key = keys.maintenance(declared.name, "cleanup")

    @dg.asset(
        key=key,
        check_specs=[
            dg.AssetCheckSpec(
                NOTHING_FOR_A_PERSON,
                asset=key,
                description="Nothing is left over that only a person may clear: stale replication slots, old prepared "
                "transactions, an invalid index on which a constraint rests.",
            )
        ],
        description="Removes what is left over: invalid indexes of builds that were killed, scratch databases and "
        "recovery folders without a process, attempts of backups, archives and reports beyond their time, history of "
        "the ledger.",
        pool=keys.pool(declared.name),
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres"},
    )
    def cleaned(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> Iterator[Any]:
        with step(context, f"{declared.name}/maintenance/cleanup"):
            more = cleanup_part(platform, declared)
            found = cleanup.plan(platform, declared, more=more)
            if options.dry_run:
                planned = {"dry run": True, **_planned(found)}
                if found.unknown:
                    raise _failure("looked at", [f"{kind}: {why}" for kind, why in found.unknown.items()], planned)
                yield dg.MaterializeResult(metadata=planned)
                yield _check(found)
                return
            report = cleanup.apply(platform, declared, found, more=more, run_id=context.run.run_id)
        rows = [one.as_json() for one in report.cleaned] + [
            one.as_json() for one in found.leftovers if one.fate != "remove"
        ]
        metadata: dict[str, Any] = {
            "dry run": False,
            "removed": len(report.removed),
            "bytes removed": sum(one.bytes or 0 for one in report.removed),
            "for a person": len(found.told),
            **table_metadata("left over", rows, _COLUMNS),
        }
        if report.problems:
            raise _failure("cleared", report.problems, metadata)
        yield dg.MaterializeResult(metadata=metadata)
        yield _check(found)

    return [cleaned]


def _planned(found: CleanupPlan) -> dict[str, Any]:
    return {
        "would be removed": len(found.due),
        "for a person": len(found.told),
        **table_metadata("left over", [one.as_json() for one in found.leftovers], _COLUMNS),
    }


def _failure(what: str, problems: Iterable[str], metadata: Mapping[str, Any]) -> dg.Failure:
    """Of what is not known no check is passed."""
    return dg.Failure(
        description=f"Not all could be {what}: {'; '.join(problems)}", metadata=metadata, allow_retries=False
    )


def _check(found: CleanupPlan) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=NOTHING_FOR_A_PERSON,
        passed=not found.told,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(map(_words, found.told)) or "Nothing is left for a person.",
    )


def _words(one: Leftover) -> str:
    return f"{one.kind} {one.name}: {one.reason}. {one.advice}"
