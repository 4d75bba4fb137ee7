"""Advice in the ledger: what was found, what became of it, and the receipts.

What was undone or dismissed is found again without a word. What was applied and is still found a day later is open
again; a setting that waits for a restart is not before. A kind that could not be examined leaves its advice as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from dbplatform.advice.errors import NotFollowed, UnknownAdvice
from dbplatform.advice.model import Advice, Findings
from dbplatform.ledger import acting
from dbplatform.ledger.advice import AdviceRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.locks import lock_key

_STILL_FOUND = timedelta(days=1)


def record_findings(ledger: Ledger, findings: Findings, *, now: datetime) -> None:
    """Keep what was found, and note what is gone. One transaction; of two processes one waits for the other."""
    with ledger.session() as session:
        session.execute(select(func.pg_advisory_xact_lock(lock_key(f"advice/{findings.database}"))))
        known = {
            one.id: one
            for one in session.scalars(select(AdviceRecord).where(AdviceRecord.database == findings.database))
        }
        for advice in findings.advice:
            record = known.pop(advice.id, None)
            if record is None:
                session.add(
                    AdviceRecord(
                        id=advice.id,
                        database=advice.database,
                        kind=advice.kind,
                        subject=advice.subject,
                        state="open",
                        first_seen_at=now,
                        seen_at=now,
                        changed_at=now,
                        **_details(advice),
                    )
                )
                continue
            record.seen_at = now
            if record.state in ("applying", "undoing"):
                continue
            if record.state == "applied" and now - record.changed_at < _STILL_FOUND:
                continue
            for name, value in _details(advice).items():
                setattr(record, name, value)
            if record.state in ("gone", "applied"):
                record.state, record.changed_at = "open", now
        for record in known.values():
            if record.state == "open" and record.kind not in findings.unexamined:
                record.state, record.changed_at = "gone", now


def _details(advice: Advice) -> dict[str, Any]:
    return {
        "severity": advice.severity,
        "reason": advice.reason,
        "evidence": dict(advice.evidence),
        "lock": advice.lock,
        "cost": advice.cost,
        "confidence": advice.confidence,
        "document": advice.document,
        "sql": advice.sql,
        "undo_sql": advice.undo_sql,
        "action": advice.action.as_json() if advice.action is not None else None,
        "undo": advice.undo.as_json() if advice.undo is not None else None,
        "statements": [one.as_json() for one in advice.statements],
        "table_name": list(advice.table) if advice.table is not None else None,
    }


def advice_of(ledger: Ledger, database: str | None, *states: str) -> Sequence[AdviceRecord]:
    """The advice of a database (none: of all) in these states, warnings first."""
    statement = select(AdviceRecord).where(AdviceRecord.state.in_(states))
    if database is not None:
        statement = statement.where(AdviceRecord.database == database)
    order = (AdviceRecord.database, AdviceRecord.severity.desc(), AdviceRecord.kind, AdviceRecord.subject)
    with ledger.session() as session:
        return session.scalars(statement.order_by(*order)).all()


def advice_by_id(ledger: Ledger, id_: str) -> AdviceRecord:
    """One advice. Raises ``UnknownAdvice``."""
    with ledger.session() as session:
        found = session.get(AdviceRecord, id_)
    if found is None:
        raise UnknownAdvice(id=id_, hint="See: dbplatform advise list")
    return found


def change(ledger: Ledger, id_: str, *, state: str, now: datetime, **values: Any) -> AdviceRecord:
    """Set the state of an advice, and other fields of it; what is in its receipt already stays."""
    with ledger.session() as session:
        record = session.get_one(AdviceRecord, id_, with_for_update=True)
        receipt: Mapping[str, Any] = values.pop("receipt", {})
        record.receipt = {**record.receipt, **receipt}
        for name, value in values.items():
            setattr(record, name, value)
        if record.state != state:
            record.state, record.changed_at = state, now
            if state == "dismissed":
                subject, reason = f"{id_}: {record.subject}", record.note
                acting.note(session, "dismiss advice", subject, database=record.database, reason=reason)
    return record


def plan_dismissal(ledger: Ledger, id_: str) -> AdviceRecord:
    """An advice that may be dismissed; only reads. Raises ``UnknownAdvice`` and ``NotFollowed``."""
    found = advice_by_id(ledger, id_)
    if found.state not in ("open", "gone", "undone", "dismissed"):
        raise NotFollowed(
            id=id_, subject=found.subject, state=found.state, what="dismiss", hint=f"dbplatform advise undo {id_}"
        )
    return found


def dismiss(ledger: Ledger, id_: str, reason: str, *, now: datetime) -> AdviceRecord:
    """Note that an advice is not wanted, and why. Raises as ``plan_dismissal``."""
    plan_dismissal(ledger, id_)
    return change(ledger, id_, state="dismissed", now=now, note=reason)


def as_json(record: AdviceRecord) -> dict[str, Any]:
    """One entry of ``advise list --json``."""
    return {
        "id": record.id,
        "database": record.database,
        "kind": record.kind,
        "subject": record.subject,
        "state": record.state,
        "severity": record.severity,
        "reason": record.reason,
        "evidence": record.evidence,
        "confidence": record.confidence,
        "sql": record.sql,
        "undo_sql": record.undo_sql,
        "applicable": record.action is not None,
        "lock": record.lock,
        "cost": record.cost,
        "document": record.document,
        "statements": record.statements,
        "first_seen_at": record.first_seen_at.isoformat(),
        "changed_at": record.changed_at.isoformat(),
        "note": record.note,
        "receipt": record.receipt,
    }
