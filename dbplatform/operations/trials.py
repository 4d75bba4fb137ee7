"""What was tried out in a scratch database, kept in the ledger: equal input need not be tried twice.

A fingerprint names all that a result follows from: the migration files, how they are run, the version of the server.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, select

from dbplatform.declaration.loading import Declared
from dbplatform.ledger.trials import TrialRecord
from dbplatform.operations.platform import Platform

#: Enough to go back and forth between a few branches of files.
_KEPT = 20

Kind = Literal["round trip", "schema", "rehearsal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial and what it showed."""

    fingerprint: str
    result: dict[str, Any]
    tried_at: datetime


def fingerprint(*parts: object) -> str:
    """SHA-256 of the parts as they are written, each one bounded, so that none runs into the next."""
    return hashlib.sha256(repr(tuple(map(str, parts))).encode()).hexdigest()


def newest(platform: Platform, declared: Declared, kind: Kind, of: str | None = None) -> Trial | None:
    """The newest trial of this kind, and of this fingerprint where one is given."""
    query = select(TrialRecord).where(TrialRecord.database == declared.name, TrialRecord.kind == kind)
    if of is not None:
        query = query.where(TrialRecord.fingerprint == of)
    query = query.order_by(TrialRecord.tried_at.desc()).limit(1)
    with platform.ledger.session() as session:
        found = session.scalars(query).first()
    return None if found is None else _trial(found)


def keep(
    platform: Platform, declared: Declared, kind: Kind, of: str, result: dict[str, Any], *, run_id: str | None = None
) -> Trial:
    """Record a trial that came to its end, and forget all but the newest of its kind; one transaction."""
    record = TrialRecord(database=declared.name, kind=kind, fingerprint=of, result=result, run_id=run_id)
    with platform.ledger.session() as session:
        session.add(record)
        session.flush()
        session.refresh(record)
        kept = (
            select(TrialRecord.id)
            .where(TrialRecord.database == declared.name, TrialRecord.kind == kind)
            .order_by(TrialRecord.tried_at.desc())
            .limit(_KEPT)
        )
        session.execute(
            delete(TrialRecord).where(
                TrialRecord.database == declared.name, TrialRecord.kind == kind, TrialRecord.id.not_in(kept)
            )
        )
    return _trial(record)


def _trial(record: TrialRecord) -> Trial:
    return Trial(fingerprint=record.fingerprint, result=record.result, tried_at=record.tried_at)
