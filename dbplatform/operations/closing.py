"""The end of the watch over a database that is no longer declared: no look would end its alerts any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbplatform.alerting import evaluate, record
from dbplatform.alerting.policy import one_per_variable
from dbplatform.alerting.record import AlertRecord, alerts_json
from dbplatform.alerting.states import Observation
from dbplatform.errors import UsageError
from dbplatform.ledger.acting import note
from dbplatform.monitoring import forgetting
from dbplatform.operations import heartbeats
from dbplatform.operations.platform import Platform


class StillDeclared(UsageError):
    """The database {database} is declared: its alerts end by themselves."""


class NothingToClose(UsageError):
    """The ledger has no open alert and no metrics of {database}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What ends: the open alerts, and the rows of what was measured, by what they are."""

    database: str
    alerts: tuple[AlertRecord, ...]
    rows: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """The document of ``alerts close --json``."""
        return {"database": self.database, **alerts_json(self.alerts), "metrics": dict(self.rows)}


def plan_closing(platform: Platform, database: str) -> Closing:
    """What ``close`` would end; only reads. Raises ``StillDeclared`` and ``NothingToClose``."""
    declarations = platform.declarations
    names = {*declarations.by_name, *(name for one in declarations.broken for name in (one.folder, one.name))}
    if database in {*names, heartbeats.PLATFORM}:
        hint = f"Silence them for a time: dbplatform alerts silence {database} --reason TEXT"
        raise StillDeclared(database=database, hint=hint)
    alerts = record.list_alerts(platform.ledger, database)
    rows = forgetting.kept(platform.ledger, database)
    if not alerts and not rows:
        raise NothingToClose(database=database, hint="See the open alerts of all: dbplatform alerts list")
    return Closing(database=database, alerts=alerts, rows=rows)


def close(platform: Platform, plan: Closing, *, now: datetime) -> None:
    """End the alerts, tell whoever heard of them, and let go of what was measured; the past alerts stay.

    What is open now counts, not what was when it was planned. May be run twice, and killed anywhere. Raises
    ``StillDeclared``.
    """
    database, ledger = plan.database, platform.ledger
    try:
        open_now = plan_closing(platform, database).alerts
    except NothingToClose:
        return
    over = [
        Observation(key=one.key, metric=one.metric, severity=None, cause=f"{database} is no longer declared")
        for one in open_now
    ]
    channels = one_per_variable(one for declared in platform.declarations.databases for one in declared.database.notify)
    evaluate.evaluate(ledger, database, over, channels, now=now)
    with ledger.session() as session:
        note(session, "close alerts", f"{len(open_now)} alerts and what was measured", database=database)
    forgetting.forget(ledger, database)
