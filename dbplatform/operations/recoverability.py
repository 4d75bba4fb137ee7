"""How well a database could be recovered, as metrics: the age of its backup and of its proof, the time of a restore."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import func, select

from dbplatform.backups.catalogue import list_backups
from dbplatform.backups.drill import list_drills
from dbplatform.declaration.loading import Declared
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.monitoring.metrics import KINDS, Metric, Metrics
from dbplatform.operations.platform import Platform

_OF_BACKUPS = tuple(kind.name for kind in KINDS.values() if kind.of_backups)


def added(platform: Platform, declared: Declared, metrics: Metrics) -> Metrics:
    """The collection with the metrics of backups and drills, as the ledger has them at its time.

    A database that declares backups and has none yet is as old as the first work on it: to have never been backed up
    must not look well. What is not complete, or is a part of the database, does not count.
    """
    if declared.database.backups is None:
        reasons = dict.fromkeys(_OF_BACKUPS, "no backups are declared")
        return replace(metrics, absent={**metrics.absent, **reasons})
    found, absent = _measured(platform.ledger, declared.name, metrics.at)
    values = {**metrics.values, **{metric.name: metric for metric in found}}
    return replace(metrics, values=values, absent={**metrics.absent, **absent})


def _measured(ledger: Ledger, database: str, now: datetime) -> tuple[list[Metric], dict[str, str]]:
    found: list[Metric] = []
    absent: dict[str, str] = {}
    complete = [one for one in list_backups(ledger, database) if one.status == "complete" and one.whole]
    since = _first_work(ledger, database)
    if complete:
        found.append(_age("backup_age_s", complete[0].taken_at or complete[0].started_at, now, complete[0].id))
    elif since is not None:
        found.append(
            _age("backup_age_s", since, now, "there is no complete backup yet; this is the age of the database")
        )
    else:
        absent["backup_age_s"] = "nothing was done on the database yet"

    # Those of a moment prove the past of the server, not that its dumps can be restored.
    proven = [one for one in list_drills(ledger, database) if one.status == "proven" and one.target is None]
    if proven:
        newest = proven[0]
        found.append(_age("drill_age_s", newest.finished_at or newest.started_at, now, newest.backup_id))
    elif complete:
        first = min(one.taken_at or one.started_at for one in complete)
        found.append(_age("drill_age_s", first, now, "no backup was ever proven; this is the age of the oldest one"))
    else:
        absent["drill_age_s"] = "there is no backup to prove"
    if proven and proven[0].rto_seconds is not None:
        found.append(
            Metric(name="recovery_time_s", value=proven[0].rto_seconds, unit="seconds", detail=proven[0].backup_id)
        )
    else:
        absent["recovery_time_s"] = "no drill has proven a backup"
    return found, absent


def _age(name: str, since: datetime, now: datetime, detail: str) -> Metric:
    return Metric(name=name, value=max(0.0, (now - since).total_seconds()), unit="seconds", detail=detail)


def _first_work(ledger: Ledger, database: str) -> datetime | None:
    with ledger.session() as session:
        return session.scalar(select(func.min(Operation.started_at)).where(Operation.database == database))
