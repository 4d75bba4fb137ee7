"""What a message says: what is wrong, since when, the limit, and the next step."""

from __future__ import annotations

from datetime import UTC, datetime

from dbplatform.alerting.states import Event, Observation
from dbplatform.ledger.monitoring import Alert


def message_key(database: str, alert_id: int, change: int, now: datetime) -> str:
    """The name of a message, the same whenever it is sent again: ``flights/12/1/20260131T120000Z``.

    The time keeps it apart from the messages of a ledger that was made anew and counts from one again.
    """
    return f"{database}/{alert_id}/{change}/{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def title(alert: Alert, event: Event) -> str:
    """``[critical] flights: cache_hit_ratio``."""
    word = event.severity if event.kind == "firing" else "resolved"
    return f"[{word}] {alert.database}: {alert.metric}"


def body(alert: Alert, event: Event, observation: Observation, key: str, now: datetime) -> str:
    """The text of a change of an alert; its last line is the message's key."""
    cause = observation.cause or alert.metric
    limit = f" The limit is {observation.limit}." if observation.limit else ""
    if event.kind == "firing":
        told_before = "It was a warning before. " if event.change > 1 else ""
        lines = [
            f"{cause}.{limit}",
            f"{told_before}Since {_time(alert.since)}.",
            observation.advice,
            f"Next: dbplatform alerts list {alert.database}; dbplatform alerts ack {alert.id}",
        ]
    else:
        lines = [f"{cause}.{limit}", f"It was {event.severity} from {_time(alert.since)} to {_time(now)}."]
    return "\n".join([*(line for line in lines if line), f"Message {key}"])


def proof_text(channel: str, key: str) -> tuple[str, str]:
    """Title and body of a test message."""
    return (
        "[test] dbplatform",
        f"A test of the channel {channel}: alerts arrive here. Nothing is wrong.\nMessage {key}",
    )


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
