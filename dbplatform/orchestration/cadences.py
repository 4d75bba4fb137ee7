"""Which work comes daily, weekly, monthly and quarterly, and which of it is left out in a freeze: one table.

The job ``<database>_<cadence>`` does what of its rows the database has. Nothing is in two of them, and a cadence does
not do the work of another: on the first of January all four come, each at its own hour. What a freeze left out comes at
its next time, not when the freeze ends; ``dbplatform run shop --job shop_monthly`` makes it up. No Dagster here, and no
clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dbplatform.declaration.database import Database

Cadence = Literal["daily", "weekly", "monthly", "quarterly"]
CADENCES: tuple[Cadence, ...] = get_args(Cadence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One row: ``asset`` is the key of an asset below its database, ``archive/*`` each of those below ``archive``."""

    asset: str
    why: str
    check: str | None = None
    """Only this check of the asset, which is not brought up to date itself."""
    waits: bool = False
    """It changes the database, or loads its server: in a freeze it is left out, until its next time."""
    unless: Literal["backup", "physical"] | None = None
    """It is left to that job where the declaration gives it a schedule of its own."""

    def names(self, path: Sequence[str]) -> bool:
        """Whether the asset of this key, without its database, is meant."""
        if self.asset.endswith("/*"):
            return list(path[:-1]) == [self.asset.removesuffix("/*")]
        return "/".join(path) == self.asset


def _waits(asset: str, why: str) -> Work:
    return Work(asset=asset, why=why, waits=True)


CALENDAR: Mapping[Cadence, tuple[Work, ...]] = {
    "daily": (
        _waits("partitions/*", "New rows find a partition."),
        Work(asset="partitions/*", check="runs_out", why="Partitions that run out are seen, in a freeze too."),
        Work(asset="migrations", check="drift", why="What was changed by hand is seen."),
        Work(asset="tables/*", why="The data-quality checks."),
        Work(asset="quality_report", why="Their report."),
        Work(asset="metrics", why="What is measured once a minute, as a point of the asset's history."),
        Work(asset="health", why="The score, and the audits of structure and security."),
        Work(asset="alerts", why="What is wrong, as asset checks."),
        Work(asset="backup", why="A dump of the night.", unless="backup"),
        Work(asset="restore_drill", why="Its proof by a restore.", unless="backup"),
        Work(asset="backup_retention", why="What no day, week or month wants any more is removed.", unless="backup"),
        _waits("archive/*", "Old rows leave, behind a proven backup."),
        _waits("retirement/*", "Old partitions leave, behind the archives."),
        _waits("maintenance/analyze", "Plans follow what was written."),
        _waits("maintenance/vacuum", "Dead rows are cleared, old ones frozen."),
        _waits(
            "maintenance/cleanup",
            "What killed work left is removed, and what is past its time: archives (keep), reports, history.",
        ),
    ),
    "weekly": (
        _waits("maintenance/reindex", "Bloated indexes are built anew, concurrently."),
        Work(asset="advice", why="Missing and needless indexes, settings, pools."),
        Work(asset="physical_backup", why="A base backup of the server.", unless="physical"),
        Work(asset="recovery_drill", why="Its proof by a recovery.", unless="physical"),
        Work(asset="physical_retention", why="What is older than its window is removed.", unless="physical"),
    ),
    "monthly": (
        _waits("maintenance/repack", "Bloated tables are written anew, where pg_repack is installed."),
        _waits("maintenance/autovacuum", "Large tables get settings of their own."),
        _waits("maintenance/statistics", "Columns that plans misjudge get larger samples."),
        Work(asset="maintenance/report", why="What was done in the month before, and what needs a decision."),
    ),
    "quarterly": (
        Work(asset="capacity", why="How many days are left until a disk, a sequence or the connections run out."),
        _waits("benchmarks", "Declared queries are timed, and compared with the baseline."),
    ),
}

#: Assets that have no place in a run of the whole graph: what they do comes in its own time.
UPKEEP = ("maintenance", "capacity", "benchmarks")

#: Jobs, by what stands behind the database's name, that change nothing in it: a freeze does not concern them.
HARMLESS_JOBS = ("backup", "drill", "physical", "recovery_drill", "quality", "rehearse", "review", "benchmarks")


def work_of(database: Database, cadence: Cadence) -> Iterator[Work]:
    """The rows of a cadence that are not left to a schedule of their own."""
    backups = database.backups
    own = {
        "backup": backups is not None and backups.logical.schedule is not None,
        "physical": backups is not None and backups.physical is not None and backups.physical.schedule is not None,
    }
    return (work for work in CALENDAR[cadence] if work.unless is None or not own[work.unless])


def is_harmless(database: str, job: str) -> bool:
    """Whether a job of the database changes nothing in it."""
    return job.removeprefix(f"{database}_") in HARMLESS_JOBS
