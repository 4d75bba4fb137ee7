"""The ledger's tables of metrics and alerts: history, what is wrong now, and the messages that must arrive.

The schema is that of ``V4``, ``V20``, ``V21`` and ``V34``; a test compares the two.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Double, ForeignKey, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dbplatform.ledger.models import Base


class MetricCollection(Base):
    """One pass over one database: what was measured, the running totals, and what could not be, with the reasons."""

    __tablename__ = "metric_collection"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    database: Mapped[str]
    at: Mapped[datetime]
    counters: Mapped[dict[str, Any]]
    absent: Mapped[dict[str, Any]]
    unmeasured: Mapped[dict[str, Any]]
    missing: Mapped[list[str]] = mapped_column(JSONB)
    measured: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    worst: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class MetricHistory(Base):
    """What was measured in one step of time: of each metric average, least, greatest and number of collections."""

    __tablename__ = "metric_history"

    database: Mapped[str] = mapped_column(primary_key=True)
    step_s: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    """When the step began."""
    measured: Mapped[dict[str, Any]]


class StatementCounts(Base):
    """What ``pg_stat_statements`` had counted at the last look at a database."""

    __tablename__ = "statement_counts"

    database: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    reset: Mapped[float | None] = mapped_column(Double)
    dealloc: Mapped[int] = mapped_column(BigInteger)
    whole: Mapped[bool]
    counts: Mapped[dict[str, Any]]


class StatementText(Base):
    """The text of one statement, without values."""

    __tablename__ = "statement_text"

    database: Mapped[str] = mapped_column(primary_key=True)
    queryid: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    text: Mapped[str]


class StatementWindow(Base):
    """What one statement cost in one step of time."""

    __tablename__ = "statement_window"

    database: Mapped[str] = mapped_column(primary_key=True)
    step_s: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    queryid: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    ms: Mapped[float] = mapped_column(Double)
    rows: Mapped[int] = mapped_column(BigInteger)
    hit: Mapped[int] = mapped_column(BigInteger)
    read: Mapped[int] = mapped_column(BigInteger)
    temp: Mapped[int] = mapped_column(BigInteger)


class SettingChange(Base):
    """One setting of a database or its server that the platform changed, until it is undone."""

    __tablename__ = "setting_change"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    database: Mapped[str]
    scope: Mapped[str]
    """``database`` or ``server``."""
    setting: Mapped[str]
    before: Mapped[str | None]
    """None: it was not set in that scope."""
    after: Mapped[str]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    undone_at: Mapped[datetime | None]


class SettingSeen(Base):
    """What a setting of a database or its server was at the first look, or became later."""

    __tablename__ = "setting_seen"

    database: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    first: Mapped[bool]
    """Of the first look: nobody knows when it was set."""
    before: Mapped[str | None]
    """None: it was the default."""
    value: Mapped[str | None]
    """None: it is the default again."""


class Alert(Base):
    """One episode of one thing being wrong, from the first bad observation to the good one that ended it."""

    __tablename__ = "alert"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    database: Mapped[str]
    key: Mapped[str]
    """What is watched; at most one alert of a key is open."""
    metric: Mapped[str]
    labels: Mapped[dict[str, Any]]
    state: Mapped[str]
    """``pending``, ``firing`` or ``resolved``."""
    severity: Mapped[str]
    """Of the last bad observation: ``warning`` or ``critical``."""
    told: Mapped[str | None]
    """The worst severity that messages were sent about; none while pending."""
    change: Mapped[int]
    """How many changes were told; the number of the last message."""
    since: Mapped[datetime]
    critical_since: Mapped[datetime | None]
    seen_at: Mapped[datetime]
    """The time of the last observation of any kind."""
    fired_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    acknowledged_at: Mapped[datetime | None]
    value: Mapped[float | None] = mapped_column(Double)
    limit_words: Mapped[str]
    cause: Mapped[str]
    good_since: Mapped[datetime | None]
    """While a firing one is good, and not for long enough to be resolved."""
    owners: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    advice: Mapped[str] = mapped_column(server_default="")
    runbook: Mapped[str] = mapped_column(server_default="")
    preceded_by: Mapped[str] = mapped_column(server_default="")
    """What was changed shortly before it began: its likely cause."""


class Silence(Base):
    """For a time nobody is told that something fires; its alerts go on, and what still fires afterwards is told."""

    __tablename__ = "silence"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    database: Mapped[str | None]
    """None: of every database."""
    metric: Mapped[str | None]
    """None: every metric, check and job."""
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    reason: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Heartbeat(Base):
    """The last sign of life of one part of the platform, and within how many seconds the next one is due."""

    __tablename__ = "heartbeat"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    within_s: Mapped[float] = mapped_column(Double)
    words: Mapped[str]
    """What it means when it does not come, for people."""


class Outbox(Base):
    """One message for one channel, kept until it was taken; written in the transaction of the change it tells of."""

    __tablename__ = "outbox"
    __table_args__ = (UniqueConstraint("alert_id", "change", "channel"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    alert_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Alert.id, ondelete="CASCADE"))
    """None for a test message."""
    change: Mapped[int]
    kind: Mapped[str]
    """``firing``, ``resolved`` or ``test``."""
    channel: Mapped[str]
    """The name of the variable that holds the URL; never the URL."""
    message_key: Mapped[str]
    """The same whenever the same message is sent again, so that a receiver can tell."""
    title: Mapped[str]
    body: Mapped[str]
    severity: Mapped[str]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_attempt_at: Mapped[datetime | None]
    """None: it is not tried again."""
    last_error: Mapped[str | None]


class Watch(Base):
    """How far the watch over a database has come."""

    __tablename__ = "watch"

    database: Mapped[str] = mapped_column(primary_key=True)
    looked_at: Mapped[datetime]
    """When the last look began, whatever became of it."""
    checks_until: Mapped[datetime | None]
    """Checks that ended before are known."""
    runs_until: Mapped[datetime | None]
    """Runs that ended before are known."""
    measured_at: Mapped[datetime | None]
    """When it could be measured last; none: it was never there."""
