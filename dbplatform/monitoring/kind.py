"""What one metric is: its unit, what it means, what helps, and the limits that experts use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["ratio", "seconds", "bytes", "count", "per_second", "bytes_per_second"]
Severity = Literal["warning", "critical"]
Source = Literal["server", "pooler", "record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One metric by its nature.

    ``warn`` and ``critical`` are the limits that experts use (none: it is judged only where a threshold is declared).
    ``min_sample`` and ``min_sample_critical`` are the evidence below which a value says nothing, in the unit that
    ``sample_unit`` names. ``points`` are taken from the health score: at warning, at critical. ``document`` is the page
    of PostgreSQL's manual (or of the pooler's) that explains it.
    """

    name: str
    unit: Unit
    meaning: str
    advice: str
    document: str
    warn: str | None = None
    critical: str | None = None
    sample_unit: str | None = None
    min_sample: float = 0
    min_sample_critical: float = 0
    points: tuple[int, int] = (10, 25)
    source: Source = "server"
    """Where it is measured: in the database, in its pooler, or taken from what is known of it otherwise."""

    @property
    def counts(self) -> bool:
        """It counts what happened since the previous collection: what one has seen, the next one cannot see again."""
        return self.sample_unit == "seconds" and not self.unit.endswith("per_second")


def manual(page: str) -> str:
    """A page of PostgreSQL's manual."""
    return f"https://www.postgresql.org/docs/current/{page}"
