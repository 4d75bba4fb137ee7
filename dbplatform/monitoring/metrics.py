"""The metrics: the whole list of them by name, and what one collection of them found.

Everything that speaks of a metric (thresholds, health, alerts, the ledger) takes its unit and its words from ``KINDS``;
the kinds themselves are in ``kinds``, how each one is measured in ``probes``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from dbplatform.monitoring.errors import UnknownMetric
from dbplatform.monitoring.kind import Kind, Severity, Unit
from dbplatform.monitoring.kinds.activity import ACTIVITY
from dbplatform.monitoring.kinds.recovery import POOLER, RECOVERY
from dbplatform.monitoring.kinds.score import HEALTH_SCORE
from dbplatform.monitoring.kinds.server import SERVER
from dbplatform.monitoring.kinds.storage import STORAGE
from dbplatform.monitoring.statements import Counts

__all__ = ["KINDS", "Kind", "Metric", "Metrics", "Severity", "Unit", "kind_of"]

#: Every metric by its name, in the order in which they are shown.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.name: kind for kind in (*ACTIVITY, *STORAGE, *SERVER, *POOLER, *RECOVERY, HEALTH_SCORE)}
)


def kind_of(name: str) -> Kind:
    """The metric of that name; raises ``UnknownMetric`` with the names that there are."""
    if name not in KINDS:
        raise UnknownMetric(name=name, hint=f"The metrics are {', '.join(KINDS)}.")
    return KINDS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One value that was measured.

    ``sample`` is the size of the evidence in the kind's ``sample_unit`` (none: the value needs no minimum). ``labels``
    say what it is about: at most one relation or database, never a list that grows. ``detail`` is a sentence for
    people. With ``complete=False`` a part could not be read, and the truth is this value or a worse one.
    """

    name: str
    value: float
    unit: Unit
    sample: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
    complete: bool = True

    def as_json(self) -> dict[str, Any]:
        """One entry of ``metrics``."""
        return {
            "value": self.value,
            "unit": self.unit,
            "sample": self.sample,
            "labels": dict(self.labels),
            "detail": self.detail,
            "complete": self.complete,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One collection.

    Every metric of ``KINDS`` is in one of three places: ``values``; ``absent``, where the database has nothing to
    measure (no replica, no archiver); or ``unmeasured``, where it could not be measured, so nothing is known. Those of
    backups are added by whoever has their record.
    ``counters`` are the running totals, from which the next collection takes differences. ``missing`` are the rights
    that the user lacks, each with the statement that grants it. ``worst`` are short lists by what is wrong: ten tables,
    indexes, sequences or sessions at most, however many there are. ``statements`` and ``settings`` (those
    that are not the default) are kept by themselves (``windows``, ``settings``).
    """

    database: str
    at: datetime
    values: Mapping[str, Metric]
    absent: Mapping[str, str] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    worst: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    statements: Counts | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The document of ``metrics --json``."""
        return {
            "database": self.database,
            "at": self.at.isoformat(),
            "metrics": {name: metric.as_json() for name, metric in self.values.items()},
            "absent": dict(self.absent),
            "unmeasured": dict(self.unmeasured),
            "missing": list(self.missing),
            "worst": {name: [dict(row) for row in rows] for name, rows in self.worst.items()},
        }
