"""The audits of a database's structure and security, as checks of the asset ``health``.

Both run in one step. One that could not look at everything has not passed: it says at what, and why.
"""

from collections.abc import Callable, Mapping
from functools import partial

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.monitoring.audits.finding import Audit
from dbplatform.operations import audits, roles
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.asked import Asked, asset_checks
from dbplatform.orchestration.steps import Found, table_metadata


def audit_checks(platform: Platform, declared: Declared) -> list[dg.AssetChecksDefinition]:
    """``structure`` and ``security`` of a database; ``roles`` where they are declared."""
    key = keys.health(declared.name)
    asked = {
        dg.AssetCheckKey(key, name): Asked(words=words, ask=partial(_found, audit, platform, declared))
        for name, (words, audit) in _CHECKS.items()
    }
    if declared.database.roles is not None:
        asked[dg.AssetCheckKey(key, "roles")] = Asked(
            words="Each role has the rights that it needs, and no other; what nobody declared is told.",
            ask=lambda _run_id: _roles(platform, declared),
        )
    return asset_checks(declared, "audits", asked)


def _found(audit: Callable[[Platform, Declared], Audit], platform: Platform, declared: Declared, run_id: str) -> Found:
    found = audit(platform, declared)
    critical = any(finding.severity == "critical" for finding in found.failing)
    missed = [rule for rule in found.not_examined if rule not in found.accepted]
    words = f"{len(found.failing)} findings, {len(found.findings) - len(found.failing)} notices or accepted ones"
    if found.failing:
        first = found.failing[0]
        words += f"; {first.rule.name} of {first.object}: {first.evidence}"
    if missed:
        words += f"; not examined: {', '.join(missed)}"
    rows = [finding.as_json() for finding in found.findings]
    reasons = [{"rule": rule, "reason": reason} for rule, reason in found.not_examined.items()]
    return Found(
        passed=found.verdict == "passed",
        words=f"{words}.",
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        evidence={
            **(found.inventory.get("counts") or {}),
            **table_metadata(
                "findings", rows, ("severity", "rule", "object", "evidence", "mend", "document", "accepted")
            ),
            **table_metadata("not examined", reasons, ("rule", "reason")),
        },
    )


def _roles(platform: Platform, declared: Declared) -> Found:
    plan = roles.plan(platform, declared)
    words = f"{len(plan.steps)} statements would make it so: dbplatform roles apply {declared.name}."
    return Found(
        passed=not plan.steps,
        words=words if plan.steps else "The rights are as declared.",
        severity=dg.AssetCheckSeverity.WARN,
        evidence={
            **table_metadata("steps", [step.as_json() for step in plan.steps], ("sql", "undo", "why")),
            **table_metadata("notes", [{"note": note} for note in plan.notes], ("note",)),
        },
    )


#: Each check: what it says when it passes, and how it is asked.
_CHECKS: Mapping[str, tuple[str, Callable[[Platform, Declared], Audit]]] = {
    "structure": (
        "Every table has its keys, every foreign key its index and its type; nothing is unproven, disabled or double.",
        audits.audit_structure,
    ),
    "security": (
        "Connections are encrypted, roles and PUBLIC have no more rights than they need, policies hold.",
        audits.audit_security,
    ),
}
