"""What a message says: what is wrong, since when, the limit, and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dbplatform.alerting.states import EventKind
from dbplatform.ledger.monitoring import Alert, Outbox

#: So many names stand in the title of a message about several alerts.
_NAMES_IN_TITLE = 3


def message_key(database: str, alert_id: int, change: int, now: datetime) -> str:
    """The name of a message, the same whenever it is sent again: ``flights/12/1/20260131T120000Z``.

    The time keeps it apart from the messages of a ledger that was made anew and counts from one again.
    """
    return f"{database}/{alert_id}/{change}/{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def title(alert: Alert, kind: EventKind) -> str:
    """``[critical] flights: cache_hit_ratio``."""
    word = alert.told if kind == "firing" else "resolved"
    return f"[{word}] {alert.database}: {alert.metric}"


def firing_body(alert: Alert, key: str, *, grown: bool, again: bool) -> str:
    """What is wrong, since when, what was changed before it, and the next step; the last line is the message's key."""
    before = "It still fires. " if again else "It was a warning before. " if grown else ""
    return _lines(
        _what(alert.cause or alert.metric, alert),
        f"{before}Since {_time(alert.since)}.",
        alert.preceded_by,
        alert.advice,
        f"Runbook: {alert.runbook}" if alert.runbook else "",
        f"Next: dbplatform alerts list {alert.database}; dbplatform alerts ack {alert.id}",
        key=key,
    )


def resolved_body(alert: Alert, words: str, key: str, now: datetime) -> str:
    """What was wrong, from when to when; ``words`` say how it is now."""
    return _lines(
        _what(words or alert.metric, alert), f"It was {alert.told} from {_time(alert.since)} to {_time(now)}.", key=key
    )


def _what(words: str, alert: Alert) -> str:
    return f"{words}.{f' The limit is {alert.limit_words}.' if alert.limit_words else ''}"


def _lines(*lines: str, key: str) -> str:
    return "\n".join([*(line for line in lines if line), f"Message {key}"])


def together(rows: Sequence[Outbox]) -> tuple[str, str]:
    """Title and body of one message for several changes of one database that were noticed at one moment.

    The last line is the key of the first of them.
    """
    if len(rows) == 1:
        return rows[0].title, rows[0].body
    word = rows[0].title.partition("]")[0]
    worst = next((row.title.partition("]")[0] for row in rows if row.severity == "critical"), word)
    database = rows[0].message_key.partition("/")[0]
    names = [row.title.partition(": ")[2] for row in rows]
    more = f" and {len(names) - _NAMES_IN_TITLE} more" if len(names) > _NAMES_IN_TITLE else ""
    title = f"{worst}] {database}: {len(rows)} alerts: {', '.join(names[:_NAMES_IN_TITLE])}{more}"
    parts = [f"{row.title}\n{row.body.rpartition(chr(10))[0]}" for row in rows]
    return title, "\n\n".join([*parts, f"Message {rows[0].message_key}"])


def proof_text(channel: str, key: str) -> tuple[str, str]:
    """Title and body of a test message."""
    return (
        "[test] dbplatform",
        f"A test of the channel {channel}: alerts arrive here. Nothing is wrong.\nMessage {key}",
    )


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
