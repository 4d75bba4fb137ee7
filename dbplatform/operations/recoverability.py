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
from dbplatform.monitoring.kinds.recovery import RECOVERY
from dbplatform.monitoring.metrics import Metric, Metrics
from dbplatform.operations.platform import Platform

_OF_BACKUPS = tuple(kind.name for kind in RECOVERY)


def added(platform: Platform, declared: Declared, metrics: Metrics) -> Metrics:
    """The collection with the metrics of backups and drills, as the ledger has them at its time.

    A database that declares backups and has none yet is as old as the first work on it: to have never been backed up
    must not look well. What is not complete, is a part of the database, or was found damaged, does not count; nor does
    a proof that damage has taken away since.
    """
    if declared.database.backups is None:
        reasons = dict.fromkeys(_OF_BACKUPS, "no backups are declared")
        return replace(metrics, absent={**metrics.absent, **reasons})
    physical = declared.database.backups.physical is not None
    found, absent = _measured(platform.ledger, declared.name, metrics.at, physical=physical)
    values = {**metrics.values, **{metric.name: metric for metric in found}}
    return replace(metrics, values=values, absent={**metrics.absent, **absent})


def _measured(ledger: Ledger, database: str, now: datetime, *, physical: bool) -> tuple[list[Metric], dict[str, str]]:
    found: list[Metric] = []
    absent: dict[str, str] = {}
    sound = [
        one for one in list_backups(ledger, database) if one.status == "complete" and one.whole and one.damage is None
    ]
    since = _first_work(ledger, database)
    if sound:
        found.append(_age("backup_age_s", sound[0].taken_at or sound[0].started_at, sound[0].id, now=now))
    elif since is not None:
        found.append(
            _age("backup_age_s", since, "there is no sound backup yet; this is the age of the database", now=now)
        )
    else:
        absent["backup_age_s"] = "nothing was done on the database yet"

    proofs = [(one.proven_at, one.id) for one in sound if one.proven_at is not None]
    if proofs:
        found.append(_age("drill_age_s", *max(proofs), now=now))
    elif sound:
        first = min(one.taken_at or one.started_at for one in sound)
        found.append(_age("drill_age_s", first, "no backup is proven; this is the age of the oldest one", now=now))
    else:
        absent["drill_age_s"] = "there is no sound backup to prove"

    # Of either kind the newest: the limit is for whichever takes longer. One to a moment recovers a whole server.
    newest: dict[str, tuple[float, str]] = {}
    for one in list_drills(ledger, database):
        if one.status == "proven" and one.rto_seconds is not None and (physical or one.target is None):
            kind = "a dump" if one.target is None else "the server to a moment"
            newest.setdefault(kind, (one.rto_seconds, f"{one.backup_id}, recovery of {kind}"))
    if newest:
        seconds, detail = max(newest.values())
        found.append(Metric(name="recovery_time_s", value=seconds, unit="seconds", detail=detail))
    else:
        absent["recovery_time_s"] = "no drill has proven a backup"
    return found, absent


def _age(name: str, since: datetime, detail: str, *, now: datetime) -> Metric:
    return Metric(name=name, value=max(0.0, (now - since).total_seconds()), unit="seconds", detail=detail)


def _first_work(ledger: Ledger, database: str) -> datetime | None:
    with ledger.session() as session:
        return session.scalar(select(func.min(Operation.started_at)).where(Operation.database == database))
