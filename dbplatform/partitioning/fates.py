"""What becomes of partitions that are due, in words and numbers; and what retirement asks of the archives.

Archives are another capability. Who holds both (``operations/retirement.py``) answers for them by an ``Archivist``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dbplatform.partitioning.bounds import Bounds, Point, point_text
from dbplatform.partitioning.plan import partition_json
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import row_count
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation

#: What becomes, or became, of a partition. ``waiting``: it stays attached until its rows are archived. ``detached``: it
#: stays beside the table with its rows. ``refused``: PostgreSQL, or what stands on it, does not let it go.
Fate = Literal["waiting", "detach", "drop", "detached", "dropped", "refused"]
#: What may be said of a partition with rows before they are compared.
Expected = Literal["waiting", "detach", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How many rows a detached partition holds, and how many of them are kept elsewhere, which was proven just now."""

    rows: int
    kept: int
    problems: tuple[str, ...] = ()
    """Why rows that might be kept elsewhere cannot be counted on: sentences."""

    @property
    def words(self) -> str:
        """Why it stays, or may go."""
        if not self.rows:
            return "it is empty"
        if self.rows == self.kept:
            return f"its {self.rows:,} rows are archived"
        missing = f"{self.rows - self.kept:,} of its {self.rows:,} rows are in no archive"
        return "; ".join([missing, *self.problems])


class Archivist(Protocol):
    """Answers for the archives of a database."""

    def expects(self, policy: PartitionPolicy, bounds: Bounds, rows: int) -> tuple[Expected, str]:
        """What is to be expected of a partition of this range with so many rows, and why; no row is compared."""

    def release(
        self, connection: AutocommitConnection, policy: PartitionPolicy, partition: Relation, bounds: Bounds
    ) -> Kept:
        """Compare the rows of a detached partition with the archives, in the transaction that locks and drops it.

        Where every row is kept, what must commit with the drop has been written when this returns.
        """

    def dropped(self, connection: AutocommitConnection, policy: PartitionPolicy) -> None:
        """The transaction has committed."""


class NoArchives:
    """The answers where there are no archives: rows are kept nowhere else."""

    def expects(self, policy: PartitionPolicy, bounds: Bounds, rows: int) -> tuple[Expected, str]:
        return "detach", "its rows are in no archive"

    def release(
        self, connection: AutocommitConnection, policy: PartitionPolicy, partition: Relation, bounds: Bounds
    ) -> Kept:
        return Kept(rows=exact_rows(connection, partition), kept=0)

    def dropped(self, connection: AutocommitConnection, policy: PartitionPolicy) -> None:
        return None


def exact_rows(connection: AnyConnection, relation: Relation) -> int:
    """The number of rows: an error rather than fewer, where row-level security would hide some."""
    with connection.transaction():
        connection.execute("select set_config('row_security', 'off', true)")
        return row_count(connection, relation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """One partition that is due, or was retired before and is still there."""

    relation: Relation
    bounds: Bounds
    rows: int
    fate: Fate
    reason: str
    lost: int = 0
    """How many rows its policy lets go that are in no archive."""

    def as_json(self) -> dict[str, Any]:
        """One entry of ``retire`` of the contract."""
        return {
            **partition_json(self.relation, self.bounds),
            "rows": self.rows,
            "fate": self.fate,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRetirement:
    """What is due of one table, or what became of it."""

    table: Relation
    cutoff: Point
    partitions: tuple[Retirement, ...]

    def count(self, *fates: Fate) -> int:
        """How many partitions have one of the fates."""
        return sum(one.fate in fates for one in self.partitions)

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables`` of ``partition retire --json``."""
        return {
            "table": str(self.table),
            "cutoff": point_text(self.cutoff),
            "retire": [one.as_json() for one in self.partitions],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirementReport:
    """The document of ``partition retire``: before (what would be done) and after (what was)."""

    tables: tuple[TableRetirement, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done: none is due but those that wait."""
        return not any(table.count("detach", "drop", "detached") for table in self.tables)

    @property
    def refused(self) -> int:
        """How many could not be retired."""
        return sum(table.count("refused") for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """The document of ``partition retire --json``."""
        return {"tables": [table.as_json() for table in self.tables]}
