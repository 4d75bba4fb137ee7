"""``/metrics``: what the ledger knows, as OpenMetrics text for Prometheus and its kin.

The number of series is bounded: a database gives one of each metric, with the one label ``database``; what a value is
about (a table, a statement) is in the API. A value that was not measured in the last minutes is left out, so that
nobody takes it for one of now; the time of the last collection stays.
Source: OpenMetrics 1.0, "ABNF" and "Metric naming".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert, Heartbeat, Outbox
from dbplatform.monitoring import record
from dbplatform.monitoring.metrics import KINDS, Kind
from dbplatform.operations import recorded

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: A look is made once a minute; after so long nothing is known any more.
STALE: Final = timedelta(minutes=10)
MOST_DATABASES: Final = 1_000
_UNITS: Final = {"seconds": "seconds", "bytes": "bytes", "ratio": "ratio"}
_ENDS: Final = {"_s": "_seconds", "_per_s": "_per_second"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric of the text: a gauge, with its samples by their labels."""

    name: str
    help: str
    unit: str = ""
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)

    def lines(self) -> Iterable[str]:
        """Its lines, without the end of the last one."""
        yield f"# TYPE {self.name} gauge"
        if self.unit:
            yield f"# UNIT {self.name} {self.unit}"
        yield f"# HELP {self.name} {_escaped(self.help)}"
        for labels, value in self.samples:
            written = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{self.name}{'{' + written + '}' if written else ''} {value!r}"


def text(ledger: Ledger, declared: Sequence[str], *, now: datetime) -> str:
    """The whole exposition."""
    databases = sorted({*declared, *recorded.databases(ledger)})[:MOST_DATABASES]
    families = [*_measured(ledger, databases, now), *_of_the_platform(ledger, databases)]
    lines = [line for family in families if family.samples for line in family.lines()]
    return "\n".join([*lines, "# EOF\n"])


def _measured(ledger: Ledger, databases: Sequence[str], now: datetime) -> list[Family]:
    newest = record.newest_values(ledger, databases)
    families = {kind.name: _family(kind) for kind in KINDS.values()}
    at = Family(
        name="dbplatform_collection_timestamp_seconds", help="When the database was measured last.", unit="seconds"
    )
    for database, (measured_at, values) in sorted(newest.items()):
        labels = {"database": database}
        at.samples.append((labels, measured_at.timestamp()))
        if now - measured_at <= STALE:
            for name, value in values.items():
                families[name].samples.append((labels, float(value)))
    return [at, *families.values()]


def _family(kind: Kind) -> Family:
    name = kind.name
    for end, written in sorted(_ENDS.items(), key=lambda pair: -len(pair[0])):
        if name.endswith(end):
            name = name.removesuffix(end) + written
            break
    name, unit = f"dbplatform_{name}", _UNITS.get(kind.unit, "")
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return Family(name=name, help=kind.meaning, unit=unit)


def _of_the_platform(ledger: Ledger, databases: Sequence[str]) -> list[Family]:
    alerts = Family(name="dbplatform_alerts", help="Alerts that are open, by severity and state.")
    beats = Family(name="dbplatform_heartbeat_overdue", help="1 where the next sign of life of a part is overdue.")
    waiting = Family(name="dbplatform_messages_waiting", help="Messages that no receiver has taken yet.")
    overdue = func.now() > Heartbeat.at + func.make_interval(0, 0, 0, 0, 0, 0, Heartbeat.within_s)
    with ledger.session() as session:
        counted: Counter[tuple[str, str, str]] = Counter()
        for database, severity, state, count in session.execute(
            select(Alert.database, Alert.severity, Alert.state, func.count())
            .where(Alert.state != "resolved")
            .group_by(Alert.database, Alert.severity, Alert.state)
        ):
            counted[database, severity, state] = count
        late = session.execute(select(Heartbeat.name, overdue).order_by(Heartbeat.name)).all()
        messages = session.scalar(select(func.count()).where(Outbox.delivered_at.is_(None)))
    # Those without any are told, too: a rule on an alert that is not there says nothing.
    for database in databases:
        for severity in ("warning", "critical"):
            for state in ("pending", "firing"):
                labels = {"database": database, "severity": severity, "state": state}
                alerts.samples.append((labels, float(counted[database, severity, state])))
    beats.samples.extend(({"part": name}, float(is_late)) for name, is_late in late)
    waiting.samples.append(({}, float(messages or 0)))
    return [alerts, beats, waiting]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
