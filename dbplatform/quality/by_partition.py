"""What the examination of a table asks of somebody who knows its partitions, and has seen them before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dbplatform.quality.checks.base import Check, Outcome
from dbplatform.quality.results import PartitionsRead
from dbplatform.quality.ways import PartitionWays

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dbplatform.ledger.models import QualityResult
    from dbplatform.quality.examination import Examination
    from dbplatform.quality.failed_rows import Batch
    from dbplatform.quality.run import Run


class ByPartition(Protocol):
    """Answers checks from those of each partition, which may be those of an earlier run (see ``unchanged``)."""

    @property
    def answered(self) -> Collection[str]:
        """The checks that it has answered, by name."""

    @property
    def read(self) -> PartitionsRead | None:
        """How many partitions there are, and were read; none where the table can only be read as a whole."""

    def answers(self, run: Run, checks: Sequence[Check]) -> Answered | None:
        """Answer what it can; none where the table can only be read as a whole."""

    def explain(self, run: Run, checks: Sequence[Check]) -> PartitionWays:
        """How it would answer them."""

    def note(self, check: Check, outcome: Outcome) -> Outcome:
        """The outcome, with a word about what was taken over."""

    def record(
        self,
        session: Session,
        stored: dict[str, QualityResult],
        *,
        bound: int,
        keep: Callable[[Session, Examination, Batch, dict[str, QualityResult]], None],
    ) -> None:
        """Keep failing rows and answers in the ledger, in the transaction of the results."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to all parts of some checks, and to what each asks on its own; the rows of the table."""

    rows: int
    parts: dict[str, Sequence[Any]]
    own: dict[str, Sequence[Any]]
