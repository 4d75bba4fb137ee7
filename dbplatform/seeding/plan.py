"""Which tables a seed would load, in which order, and whether it can. Only reads.

Everything that can be known beforehand is refused here: missing files and columns, rows that are there already, a seed
that was changed after it was applied and has no key to find its rows by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Interval
from dbplatform.seeding.contents import ScriptContent, name_of
from dbplatform.seeding.errors import SeedMistake
from dbplatform.seeding.files import locate
from dbplatform.seeding.manifest import Manifest, Newest, read_manifest
from dbplatform.seeding.order import ForeignKey, foreign_keys, steps
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.records import read_records, read_shift
from dbplatform.seeding.shift import RecordedShift, find_shift, shift_from
from dbplatform.seeding.tables import Planning, TableSeed, nulls_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPlan:
    """The tables in the order of loading, those of one step in one transaction; ``shift`` is recorded, or would be."""

    database: str
    profile: str
    steps: tuple[tuple[TableSeed, ...], ...]
    keys: tuple[ForeignKey, ...]
    rounds: int
    shift: RecordedShift | None

    @property
    def tables(self) -> tuple[TableSeed, ...]:
        """All tables in the order of loading."""
        return tuple(table for step in self.steps for table in step)

    @property
    def pending(self) -> tuple[TableSeed, ...]:
        """What is to be loaded."""
        return tuple(table for table in self.tables if table.pending)

    def as_json(self) -> dict[str, Any]:
        """The document of ``seed apply --dry-run --json``."""
        return {
            "database": self.database,
            "profile": self.profile,
            "shift": shift_json(self.shift),
            "tables": [table.as_json() for table in self.tables],
        }


def plan_seed(
    connection: AnyConnection,
    directory: Path,
    policy: SeedPolicy,
    *,
    database: str,
    now: datetime,
    rows_scale: float = 1,
) -> SeedPlan:
    """What of the seed is not loaded yet, found without writing.

    Reads every file once for its hash, and the one that holds the newest moment once more while no shift is recorded.
    ``rows_scale`` multiplies the rows of generated tables; one that was loaded at a larger scale counts as loaded. A
    table that is recorded as loaded is not read; of the others one row is looked for. Raises ``UsageError``.
    """
    manifest = read_manifest(directory, policy)
    _refuse_scale(manifest, rows_scale)
    records = read_records(connection, policy.profile)
    planning = Planning(connection, directory, policy, manifest, records, rows_scale)
    tables = {entry.table: planning.table(index, entry) for index, entry in enumerate(manifest.tables)}
    keys = foreign_keys(connection, list(tables))
    groups: dict[object, list[Relation]] = {}
    for table in tables.values():
        together = table.content if isinstance(table.content, ScriptContent) else table.table
        groups.setdefault(together, []).append(table.table)
    for group in groups.values():
        _refuse_half([tables[name] for name in group])
    found = tuple(tuple(tables[name] for name in step) for step in steps(list(groups.values()), keys))
    return SeedPlan(
        database=database,
        profile=policy.profile,
        steps=found,
        keys=tuple(keys),
        rounds=manifest.bcrypt_rounds,
        shift=_shift(connection, directory, policy, manifest, tuple(tables.values()), now),
    )


def shift_json(shift: RecordedShift | None) -> dict[str, Any] | None:
    """The shift as a document."""
    if shift is None:
        return None
    return {"newest": shift.newest.isoformat(), "by": str(shift.by), "steps": shift.steps}


def _refuse_half(group: list[TableSeed]) -> None:
    """A script runs once for all of its tables: one that was named later would run it again for the others."""
    fresh = [table for table in group if table.record is None]
    if fresh and len(fresh) < len(group):
        raise SeedMistake(
            f"{name_of(fresh[0].content)} has run already, and is now to fill {fresh[0].table} too.",
            hint="Fill that table from a file of its own.",
            file=name_of(fresh[0].content),
        )


def _refuse_scale(manifest: Manifest, scale: float) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise SeedMistake(f"--rows-scale {scale:g} makes no sense.", hint="Write a number above 0, such as 100.")
    if scale != 1 and not any(entry.generate for entry in manifest.tables):
        raise SeedMistake(
            "No table of this seed is generated, so that --rows-scale would change nothing.",
            hint="Leave it out, or declare rows and generate for a table in seed.yaml.",
        )


def _shift(
    connection: AnyConnection,
    directory: Path,
    policy: SeedPolicy,
    manifest: Manifest,
    tables: tuple[TableSeed, ...],
    now: datetime,
) -> RecordedShift | None:
    if manifest.shift is None:
        return None
    recorded = read_shift(connection, policy.profile)
    by = manifest.shift.by
    if recorded is not None:
        if recorded.by.timedelta != by.timedelta and any(table.pending and table.moved for table in tables):
            raise SeedMistake(
                f"The profile {policy.profile} is shifted by multiples of {recorded.by} since its first seeding, "
                f"not of {by}.",
                file=directory / "seed.yaml",
                hint="How far its times are moved was decided then: put shift.by back.",
            )
        return recorded
    _refuse_parts_of_days(connection, tables, by, directory)
    newest = manifest.shift.newest
    if not isinstance(newest, Newest):
        return shift_from(newest, by, now)
    return find_shift(locate(directory, manifest.package, newest.file), newest.column, nulls_of(manifest), by, now)


def _refuse_parts_of_days(
    connection: AnyConnection, tables: tuple[TableSeed, ...], by: Interval, directory: Path
) -> None:
    if not by.timedelta.seconds and not by.timedelta.microseconds:
        return
    for table in tables:
        for column in catalog.columns(connection, table.table):
            if column.name in table.moved and column.type == "date":
                raise SeedMistake(
                    f"The date {column.name} of {table.table} cannot be shifted by {by}.",
                    file=directory / "seed.yaml",
                    hint="Write whole days under shift.by.",
                )
