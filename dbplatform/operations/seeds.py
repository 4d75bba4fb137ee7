"""Seeds of a declared database, recorded in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbplatform.archiving.catalogue import rows_away
from dbplatform.archiving.records import deleted_rows
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.gates import SeedingRefused, not_declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect, snapshot
from dbplatform.quality.engine import run_table
from dbplatform.quality.masks import Masks
from dbplatform.quality.results import TableResult
from dbplatform.seeding.apply import SeedReport, apply_seed
from dbplatform.seeding.plan import SeedPlan, plan_seed
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.verify import SeedVerification, verify_seed


class UnknownProfile(UsageError):
    """The database {database} declares no seed profile {profile!r}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFindings:
    """What ``seed verify`` found: rows and references, and the declared checks of the seeded tables."""

    seed: SeedVerification
    quality: tuple[TableResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no row or reference is missing, every check could run, and none failed but as a warning."""
        checks = [check for table in self.quality for check in table.checks]
        return self.seed.passed and all(
            check.status in ("passed", "accepted") or (check.status == "failed" and check.severity == "warn")
            for check in checks
        )

    def as_json(self) -> dict[str, Any]:
        """The document of ``seed verify --json``."""
        return {
            **self.seed.as_json(),
            "passed": self.passed,
            "quality": [table.as_json() for table in self.quality],
        }


def plan(platform: Platform, declared: Declared, *, profile: str | None = None, rows_scale: float = 1.0) -> SeedPlan:
    """Which tables would be loaded; only reads."""
    policy, directory = _policy(declared, profile)
    with connect(platform.target(declared), work="seed plan") as connection:
        return plan_seed(
            connection, directory, policy, database=declared.name, now=datetime.now(UTC), rows_scale=rows_scale
        )


def apply(
    platform: Platform,
    declared: Declared,
    *,
    profile: str | None = None,
    rows_scale: float = 1.0,
    allow_production: bool = False,
    run_id: str | None = None,
) -> SeedReport:
    """Load what is not recorded as loaded, under the writer lock. Refuses the environment production unless allowed."""
    policy, directory = _policy(declared, profile)
    if not allow_production:
        _refuse_production(declared)
    now = datetime.now(UTC)
    with platform.writer(declared, "seed") as connection:
        planned = plan_seed(connection, directory, policy, database=declared.name, now=now, rows_scale=rows_scale)
        if not planned.pending:
            return apply_seed(connection, directory, policy, database=declared.name, now=now, rows_scale=rows_scale)
        with platform.ledger.operation(declared.name, "seed", run_id=run_id) as summary:
            report = apply_seed(connection, directory, policy, database=declared.name, now=now, rows_scale=rows_scale)
            summary.update(report.as_json())
            return report


def verify(platform: Platform, declared: Declared, *, profile: str | None = None) -> SeedFindings:
    """Compare rows, those in archives counted in, with what was recorded, follow every foreign key, run the checks.

    Only reads. Rows and references are read in one snapshot, so that rows which are being archived meanwhile are
    counted once; then the declared checks of each seeded table, in a snapshot of its own, their results kept nowhere.
    """
    policy, directory = _policy(declared, profile)
    with connect(platform.target(declared), work="seed verify") as connection:
        with snapshot(connection) as reading:
            left = deleted_rows(reading)
            archived = rows_away(platform.ledger, declared.name, left) if left else {}
            seed = verify_seed(reading, directory, policy, database=declared.name, archived=archived)
        seeded = {table.table for table in seed.tables}
        checks = [checked for checked in declared.database.quality if checked.table in seeded]
        masks = Masks.declared(declared.database.quality)
        return SeedFindings(seed=seed, quality=tuple(run_table(connection, checked, masks=masks) for checked in checks))


def _policy(declared: Declared, profile: str | None) -> tuple[SeedPolicy, Path]:
    seeds = declared.database.seeds
    if not seeds:
        raise not_declared(declared, "seeds", "seeds")
    for seed in seeds:
        if profile is None or seed.profile == profile:
            return seed, declared.folder / seed.directory
    raise UnknownProfile(
        database=declared.name,
        profile=profile,
        hint=f"Declared are: {', '.join(seed.profile for seed in seeds)}.",
        file=declared.document.shown,
        line=declared.document.line_of(("attributes", "seeds")),
    )


def _refuse_production(declared: Declared) -> None:
    if declared.database.connection.environment == "production":
        raise SeedingRefused(
            database=declared.name,
            hint="Seed a database declared as development, test or staging, or say --allow-production.",
            file=declared.document.shown,
            line=declared.document.line_of(("attributes", "connection", "environment")),
        )
