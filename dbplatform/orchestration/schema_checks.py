"""What is asked of a schema behind its migrations, as checks of the asset ``migrations``.

All run in one step. A check that could not run has not passed: it says so, and why.
"""

from collections.abc import Callable
from functools import partial

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import schema_care, schema_drift, schema_lint
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.asked import Asked, asset_checks
from dbplatform.orchestration.steps import Found, table_metadata

Check = Callable[[Platform, Declared, str], Found]


def schema_checks(platform: Platform, declared: Declared) -> list[dg.AssetChecksDefinition]:
    """The checks of the migrations of a database; none where it has no migrations."""
    if declared.database.migrations is None:
        return []
    key = keys.migrations(declared.name)
    asked = {
        dg.AssetCheckKey(key, name): Asked(words=words, ask=partial(check, platform, declared))
        for name, (words, check) in _CHECKS.items()
    }
    return asset_checks(declared, "schema_checks", asked)


def _undo(platform: Platform, declared: Declared, run_id: str) -> Found:
    trial = schema_care.undo_trial(platform, declared, run_id=run_id)
    versions, without = trial.result["versions"], trial.result["without_undo"]
    way = f"Up, down and up again gives {'the same schema' if trial.result['passed'] else 'another schema'}"
    words = f"{way}: {len(versions)} versions, {len(without)} of them without an undo file."
    rows = [{**version, "error": version["error"] or ""} for version in versions]
    return Found(
        passed=trial.result["passed"],
        words=words,
        evidence={
            "tried at": dg.MetadataValue.timestamp(trial.tried_at),
            **table_metadata("versions", rows, ("version", "script", "status", "error")),
        },
    )


def _lint(platform: Platform, declared: Declared, run_id: str) -> Found:
    report = schema_lint.lint(platform, declared, every=True)
    words = f"{len(report.open)} open findings in {report.files} files, {len(report.accepted)} accepted."
    rows = [finding.as_json() for finding in report.open]
    return Found(
        passed=not report.open,
        words=words,
        evidence={
            "accepted": len(report.accepted),
            **table_metadata("findings", rows, ("file", "line", "rule", "message")),
        },
    )


def _drift(platform: Platform, declared: Declared, run_id: str) -> Found:
    report = schema_drift.drift(platform, declared, run_id=run_id)
    document = report.as_json()
    found, version = document["differences"], document["version"] or "none"
    words = (
        f"Differences between the schema and what its migrations make: {len(found) or 'none'}, at version {version}."
    )
    pending = {left_out["script"]: left_out["objects"] for left_out in document["left_out"]}
    return Found(
        passed=not found,
        words=words,
        evidence={
            **({"not compared, because pending": dg.MetadataValue.json(pending)} if pending else {}),
            **table_metadata("differences", found, ("kind", "object", "sentence", "fix_sql")),
        },
    )


#: Each check: what it says when it passes, and how it is asked.
_CHECKS: dict[str, tuple[str, Check]] = {
    "undo": ("Each undo file gives back the schema that was there before: tried out in a scratch database.", _undo),
    "lint": ("No file blocks traffic or breaks clients unless somebody accepted it, with a reason.", _lint),
    "drift": ("The schema is what its migrations make in an empty database.", _drift),
}
