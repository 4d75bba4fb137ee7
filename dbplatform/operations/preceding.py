"""What was changed shortly before something went wrong: its likely cause, from the record of operations."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from dbplatform.ledger.models import Operation

_SHORTLY = timedelta(hours=6)
_MOST = 3


def preceding(session: Session, database: str, since: datetime) -> str:
    """One sentence that names the last three changes within six hours before ``since``; empty where there is none."""
    statement = (
        select(Operation)
        .where(
            Operation.database == database,
            Operation.started_at <= since,
            Operation.started_at > since - _SHORTLY,
        )
        .order_by(Operation.started_at.desc())
        .limit(_MOST)
    )
    found = session.scalars(statement).all()
    if not found:
        return ""
    return f"Changed shortly before: {', '.join(_words(one, since) for one in found)}."


def _words(operation: Operation, since: datetime) -> str:
    minutes = (since - operation.started_at) // timedelta(minutes=1)
    ago = f"{minutes} min before" if minutes else "less than a minute before"
    ended = "" if operation.status == "succeeded" else f", {operation.status}"
    run = f", run {operation.run_id[:8]}" if operation.run_id else f", by {operation.actor}"
    return f"{operation.kind} ({ago}{run}{ended})"
