"""All databases at a glance, from the ledger alone: seven statements, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import func, select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.ledger.monitoring import Alert
from dbplatform.monitoring import health, record
from dbplatform.operations import recorded
from dbplatform.web import documents as d
from dbplatform.web.answers import databases
from dbplatform.web.reading import Reading, report_url

_NEVER: Final = dict.fromkeys(("verdict", "run_id", "started_at", "finished_at", "unfinished_since", "report"))


def overview(reading: Reading) -> d.Databases:
    """Every database that is declared, or of which something is recorded, by name."""
    declared = set(reading.location.names)
    known = {state.name: state for state in databases(reading.ledger)}
    names = sorted(declared | set(known))
    now, begun = _now(reading.ledger, names), recorded.begun(reading.ledger)
    found = []
    for name in names:
        fields: dict[str, Any] = {**_NEVER, "name": name, "unreviewed": 0}
        if name in known:
            state = known[name]
            fields = {**asdict(state), "report": report_url(state.report) if state.report else None}
        begins = {"declared": name in declared, "begun": name in begun or now[name]["measured_at"] is not None}
        found.append(d.DatabaseSummary.model_validate({**fields, **now[name], **begins}))
    return d.Databases(databases=found)


def _now(ledger: Ledger, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """What was measured last of each, what fires, and how much is being done."""
    measured = record.newest_values(ledger, names)
    firing: Counter[tuple[str, str]] = Counter()
    running: Counter[str] = Counter()
    with ledger.session() as session:
        for database, severity, many in session.execute(
            select(Alert.database, Alert.severity, func.count())
            .where(Alert.state == "firing")
            .group_by(Alert.database, Alert.severity)
        ):
            firing[database, severity] = many
        for database, many in session.execute(
            select(Operation.database, func.count()).where(Operation.status == "running").group_by(Operation.database)
        ):
            running[database] = many
    found = {}
    for name in names:
        at, values = measured.get(name, (None, {}))
        score = values.get("health_score")
        found[name] = {
            "measured_at": at,
            "score": None if score is None else round(score),
            "grade": None if score is None else health.grade_of(round(score)),
            "critical_alerts": firing[name, "critical"],
            "warning_alerts": firing[name, "warning"],
            "running": running[name],
        }
    return found
