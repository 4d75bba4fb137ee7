"""Whether a database is as well after a migration as it was before: its history, its checks, its alerts.

Only what became worse counts. A check that failed before, because real data has real defects, holds nothing up; a check
that could not run is no evidence, and counts as one that failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.operations import alerts, checks, schema, watching
from dbplatform.operations.platform import Platform

_BAD = ("failed", "errored")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of one database at one moment."""

    at: datetime
    version: str | None
    in_force: str = ""
    """What was applied, as a digest (``MigrationPlan.in_force``); empty where it was not kept."""
    pending: tuple[str, ...] = ()
    checks: Mapping[str, str] = field(default_factory=dict)
    """The status of each check of severity ``error``, by table and name."""
    critical: Mapping[str, str] = field(default_factory=dict)
    """The critical alerts that fire, by key, with their cause."""
    score: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return {
            "at": self.at.isoformat(),
            "version": self.version,
            "in_force": self.in_force,
            "pending": list(self.pending),
            "checks": dict(self.checks),
            "critical": dict(self.critical),
            "score": self.score,
        }

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> Look:
        """As it was kept."""
        at, pending = datetime.fromisoformat(kept["at"]), tuple(kept["pending"])
        return cls(**{**kept, "at": at, "pending": pending})


def look(platform: Platform, declared: Declared, *, target: str | None, now: datetime) -> Look:
    """Read the history, run the checks that are of severity ``error``, and look for alerts, as the watch does.

    Checks are recorded nowhere and move no rows; alerts are brought up to what is seen, and told by whoever delivers
    them. Raises what ``schema.plan`` does.
    """
    planned = schema.plan(platform, declared, target=target)
    watched = alerts.watch(platform, declared, now=now)
    score = None
    if watched.metrics is not None:
        with suppress(NothingMeasured):
            score = watching.score(declared, watched.metrics).score
    return Look(
        at=now,
        version=str(planned.current) if planned.current else None,
        in_force=planned.in_force,
        pending=tuple(pending.script for pending in planned.pending),
        checks=_checks(platform, declared),
        critical={alert.key: alert.cause for alert in watched.firing if alert.severity == "critical"},
        score=score,
    )


def worse(before: Look, after: Look) -> list[str]:
    """What is worse after than it was before, in words; nothing where all is well."""
    found = [f"{script} is still pending" for script in after.pending]
    found += [
        f"the check {name} {'failed' if status == 'failed' else 'could not run'}"
        for name, status in after.checks.items()
        if status in _BAD and before.checks.get(name) != status
    ]
    found += [f"a critical alert: {cause}" for key, cause in after.critical.items() if key not in before.critical]
    return found


def _checks(platform: Platform, declared: Declared) -> dict[str, str]:
    found: dict[str, str] = {}
    for policy in declared.database.quality:
        names = {check.name for check in policy.checks if check.severity == "error"}
        if not names:
            continue
        table = policy.table.words
        try:
            result = checks.check_table(platform, declared, policy.table, run_id=str(uuid4()), only=names, record=False)
        except PlatformError:
            found |= {f"{table}.{name}": "errored" for name in sorted(names)}
        else:
            found |= {f"{table}.{check.name}": check.status for check in result.checks}
    return found
