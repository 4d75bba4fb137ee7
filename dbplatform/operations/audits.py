"""The structure and the security of a declared database, audited; what its declaration accepts is said beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.migrations.drift.differences import Difference
from dbplatform.migrations.drift.mending import fix_sql
from dbplatform.monitoring import collect
from dbplatform.monitoring.audits import security, structure
from dbplatform.monitoring.audits.finding import Audit
from dbplatform.monitoring.audits.policy import accepted
from dbplatform.operations import schema_drift, watching
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect

_COMPARE_TIMEOUT_MS = 30_000
_STRUCTURAL = ("table", "column", "constraint", "index", "trigger", "enum", "domain", "sequence")


def audit_structure(platform: Platform, declared: Declared) -> Audit:
    """What tables, indexes and foreign keys there are, and what is wrong with them. Reads catalogs only.

    Compared with what the migrations make where the check ``drift`` has found that out: no scratch database is made.
    Raises ``NothingToMeasure``, ``VariableNotSet`` and ``CannotConnect``.
    """
    target = watching.existing(platform, declared)
    migrated, differences = _migrated(platform, declared, target)
    policy = declared.database.migrations
    with collect.session(target) as connection:
        found = structure.audit(
            connection,
            database=declared.name,
            now=datetime.now(UTC),
            history_table=policy.history_table if policy is not None else None,
            migrated=migrated,
            differences=differences,
        )
    return _with_accepted(declared, found)


def audit_security(platform: Platform, declared: Declared) -> Audit:
    """How it is reached, who may do what in it, and what protects its rows. Reads catalogs only. Raises the same."""
    with collect.session(watching.existing(platform, declared)) as connection:
        found = security.audit(
            connection,
            database=declared.name,
            now=datetime.now(UTC),
            production=declared.database.connection.environment == "production",
        )
    return _with_accepted(declared, found)


def _with_accepted(declared: Declared, found: Audit) -> Audit:
    policy = declared.database.health
    return accepted(found, policy.accept) if policy is not None else found


def _migrated(
    platform: Platform, declared: Declared, target: Target
) -> tuple[Mapping[str, Any] | str, Sequence[Mapping[str, Any]]]:
    """What the migrations make, in numbers, and findings; or why that is not known."""
    if declared.database.migrations is None:
        return {"version": None, "note": "no migrations are declared"}, ()
    try:
        with connect(
            target, work="structure", lock_timeout_ms=collect.LOCK_TIMEOUT_MS, statement_timeout_ms=_COMPARE_TIMEOUT_MS
        ) as live:
            known = schema_drift.known_drift(platform, declared, live)
    except PlatformError as error:
        return f"it cannot be compared with its migrations: {error.message.rstrip('.')}", ()
    if known is None:
        return f"what its migrations make is not known yet: dbplatform migrate drift {declared.name}", ()
    numbers, report = known
    return numbers, [_row(difference) for difference in report.differences if difference.kind in _STRUCTURAL]


def _row(difference: Difference) -> Mapping[str, Any]:
    return {
        "rule": structure.NOT_AS_MIGRATED.name,
        "object": difference.name,
        "evidence": str(difference),
        "mend": fix_sql(difference),
    }
