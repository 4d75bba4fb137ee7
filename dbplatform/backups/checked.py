"""What data-quality checks say of a restored copy, beside what they said of the source: a part of the proof.

The checks themselves are not known here: whoever drills hands in who runs and judges them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from dbplatform.postgres.connection import Target

Verdict = Literal["passed", "finding", "undecided", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckProof:
    """One check on the copy, and what follows for the backup.

    ``passed``: on the copy. ``finding``: it says of the copy what it says of the source, so it is the data. ``failed``:
    the copy is not what the source was. ``undecided``: it cannot be told.
    """

    table: str
    check: str
    status: str
    """On the copy: ``passed``, ``failed``, ``accepted`` or ``errored``."""
    failed_rows: int | None
    message: str
    source_status: str | None
    """On the source, at the time nearest to the backup; none where it was never run there."""
    source_failed_rows: int | None
    source_at: datetime | None
    verdict: Verdict
    reason: str | None
    """Why, where it has not passed."""

    @property
    def difference(self) -> str | None:
        """What is wrong with the copy, in words."""
        if self.verdict != "failed":
            return None
        return f"the check {self.check} of {self.table} {self.status} on the copy ({self.message}), {self.reason}"

    def as_json(self) -> dict[str, Any]:
        """One of ``checks`` of ``drill --json``."""
        return {**asdict(self), "source_at": self.source_at.isoformat() if self.source_at else None}


#: Runs the declared checks on a copy of which every table is as expected, and judges them.
Examine = Callable[[Target], tuple[CheckProof, ...]]


def no_checks(copy: Target) -> tuple[CheckProof, ...]:
    """Where none are declared, or they are not wanted."""
    return ()


def in_short(checks: tuple[CheckProof, ...]) -> str:
    """``11 passed, 1 as on the source``; empty where there were none."""
    words = {"passed": "passed", "finding": "as on the source", "undecided": "undecided", "failed": "failed"}
    verdicts = [check.verdict for check in checks]
    return ", ".join(f"{verdicts.count(name)} {said}" for name, said in words.items() if name in verdicts)
