"""What was changed shortly before something went wrong: its likely cause.

From the record of operations (migrations, jobs, advice), and from the settings as the watch has seen them change.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from dbplatform.ledger.models import Operation
from dbplatform.ledger.monitoring import SettingSeen
from dbplatform.monitoring.settings import changed_settings

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
    operations = [(one.started_at, _operation(one, since)) for one in session.scalars(statement)]
    settings = changed_settings(session, database, until=since, within=_SHORTLY, most=_MOST)
    changes = [*operations, *((one.at, _setting(one, since)) for one in settings)]
    if not changes:
        return ""
    newest = sorted(changes, reverse=True)[:_MOST]
    return f"Changed shortly before: {', '.join(words for _, words in newest)}."


def _operation(operation: Operation, since: datetime) -> str:
    ended = "" if operation.status == "succeeded" else f", {operation.status}"
    run = f", run {operation.run_id[:8]}" if operation.run_id else f", by {operation.actor}"
    return f"{operation.kind} ({_ago(operation.started_at, since)}{run}{ended})"


def _setting(setting: SettingSeen, since: datetime) -> str:
    before, after = (value if value is not None else "its default" for value in (setting.before, setting.value))
    return f"the setting {setting.name} from {before} to {after} (seen {_ago(setting.at, since)})"


def _ago(at: datetime, since: datetime) -> str:
    minutes = (since - at) // timedelta(minutes=1)
    return f"{minutes} min before" if minutes else "less than a minute before"
