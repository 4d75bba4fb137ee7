"""What one run of benchmarks found, as it is kept in the ledger, shown and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any, Literal, Self

from dbplatform.benchmarking.statistics import Comparison, Round

Kind = Literal["query", "script"]
Target = Literal["met", "missed", "not sure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One benchmark in one run. Times are milliseconds of one call, a number for each round."""

    name: str
    kind: Kind
    clients: int
    identity: str
    """Tells whether the statement and all that it is run with is the same: SHA-256 of it."""
    values: str
    """Tells whether the same values were drawn."""
    place: str
    a: tuple[float, ...] = ()
    """The best of the turns of each round: what it costs where nothing is in its way."""
    b: tuple[float, ...] = ()
    """Of the other side; in a plain run of the yardstick."""
    typical_ms: float | None = None
    """The median of all calls, of a query."""
    p95_ms: float | None = None
    target_ms: float | None = None
    comparison: Comparison | None = None
    error: str | None = None
    """Why it could not be run."""

    @property
    def ms(self) -> float | None:
        """What a call takes: the median."""
        return self.best_ms if self.typical_ms is None else self.typical_ms

    @property
    def best_ms(self) -> float | None:
        """What a call takes where nothing is in its way: the median of the rounds."""
        return median(self.a) if self.a else None

    @property
    def waiting(self) -> float:
        """How many times its best a call usually took: it waited for others on the machine."""
        return self.ms / self.best_ms if self.ms and self.best_ms else 1.0

    @property
    def tps(self) -> float | None:
        """Transactions in a second, of a script: by all of its clients."""
        return 1000 * self.clients / self.ms if self.kind == "script" and self.ms else None

    @property
    def target(self) -> Target | None:
        """Whether the median is within its target; not sure where only the best of the turns are."""
        if self.target_ms is None or self.ms is None or self.best_ms is None:
            return None
        if self.ms <= self.target_ms:
            return "met"
        return "missed" if self.best_ms > self.target_ms else "not sure"

    @property
    def bad(self) -> bool:
        """Whether somebody should look at it."""
        worse = self.comparison is not None and self.comparison.verdict == "worse"
        return worse or self.target == "missed"

    def as_json(self) -> dict[str, Any]:
        """One entry of ``bench run --json`` and of the ledger."""
        return {
            "name": self.name,
            "kind": self.kind,
            "clients": self.clients,
            "identity": self.identity,
            "values": self.values,
            "place": self.place,
            "status": "errored" if self.error is not None else "measured",
            "error": self.error,
            "rounds": len(self.a),
            "median_ms": _short(self.ms),
            "best_ms": _short(self.best_ms),
            "typical_ms": _short(self.typical_ms),
            "p95_ms": _short(self.p95_ms),
            "tps": _short(self.tps),
            "target_ms": self.target_ms,
            "target": self.target,
            "comparison": self.comparison.as_json() if self.comparison is not None else None,
            "a_ms": list(self.a),
            "b_ms": list(self.b),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What ``as_json`` gave, as far as it is not computed."""
        kept = ("name", "kind", "clients", "identity", "values", "place", "typical_ms", "p95_ms", "target_ms", "error")
        compared = document.get("comparison")
        return cls(
            **{name: document[name] for name in kept},
            a=tuple(document["a_ms"]),
            b=tuple(document["b_ms"]),
            comparison=_comparison(compared) if compared is not None else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run: of the database as it is, or of two sides of it."""

    id: str
    database: str
    started_at: datetime
    finished_at: datetime
    kind: Literal["run", "compare", "pool"]
    sides: tuple[str, str]
    """What A and B were, in words; B of a plain run is the yardstick."""
    against: str | None = None
    """The earlier run that a plain one is compared with."""
    results: tuple[Result, ...] = ()
    pool: tuple[Mapping[str, Any], ...] = ()
    surroundings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What else changed between the sides, and what was waited for: a sentence each."""
    baseline: str | None = None
    """The name under which it is kept."""

    @property
    def bad(self) -> Sequence[Result]:
        """Those that are worse, or miss their target."""
        return [one for one in self.results if one.bad]

    @property
    def errored(self) -> Sequence[Result]:
        """Those that could not be run."""
        return [one for one in self.results if one.error is not None]

    def as_json(self) -> dict[str, Any]:
        """The document of ``bench run --json`` and ``bench compare --json``."""
        return {
            "id": self.id,
            "database": self.database,
            "kind": self.kind,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "baseline": self.baseline,
            "sides": {"a": self.sides[0], "b": self.sides[1]},
            "against": self.against,
            "benchmarks": [one.as_json() for one in self.results],
            "pool": [dict(one) for one in self.pool],
            "surroundings": dict(self.surroundings),
            "notes": list(self.notes),
        }


def milliseconds(rounds: Sequence[Round], side: Literal["a", "b"]) -> tuple[float, ...]:
    """The mean of both blocks of each round, in milliseconds with as many digits as say something."""
    pairs = [one.a if side == "a" else one.b for one in rounds]
    return tuple(float(f"{500 * (first + second):.5g}") for first, second in pairs)


def _comparison(document: Mapping[str, Any]) -> Comparison:
    numbers = {
        name: float("nan") if document[name] is None else document[name] for name in ("change", "low", "high", "noise")
    }
    return Comparison(verdict=document["verdict"], rounds=document["rounds"], reason=document["reason"], **numbers)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
