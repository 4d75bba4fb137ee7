"""A collection while it is made: what is known of server and user, what was found, and what could not be.

Every statement of the probes reads catalog and statistics views only, works from version 14 on and needs no more than
``pg_monitor``. Sources: the chapters "Monitoring Database Activity" and "System Views" of the PostgreSQL manual.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.rows import dict_row

from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.statements import Counts
from dbplatform.monitoring.words import value_words
from dbplatform.postgres.connection import AutocommitConnection

NO_STATISTICS = "the setting track_counts is off, so the server counts nothing"
FIRST_COLLECTION = "it is a difference: known from the second collection on"
NONE_OF_THEM = "there were no "
ON_STANDBY = "a standby counts no changed rows: ask the primary"

#: Every statement begins so: by it the platform finds its own ones in ``pg_stat_statements``.
MARK = "/* dbplatform metrics */ "

Row = Mapping[str, Any]


class Facts(NamedTuple):
    """What the probes must know beforehand about server and user."""

    major: int
    user: str
    """Quoted for SQL where needed."""
    in_recovery: bool
    reads_all_stats: bool
    lists_wal: bool
    track_counts: bool
    archive_mode: str
    usable_connections: int
    """``max_connections`` less those kept for superusers and for ``pg_use_reserved_connections``."""
    counting_since: float
    """Seconds since the epoch: when the statistics were reset, or else the server started."""
    statements: tuple[str, str] | None
    """Schema and version of ``pg_stat_statements``."""

    @property
    def archives(self) -> bool:
        """Whether this server archives its WAL."""
        return self.archive_mode == "always" or (self.archive_mode == "on" and not self.in_recovery)


@dataclass(slots=True, kw_only=True)
class Collecting:
    """A collection while it is made."""

    major: int
    now: datetime
    previous: Metrics | None
    bloat_bytes: tuple[int, int]
    """Smaller tables, and smaller indexes, are not estimated."""
    known: Collection[int] = ()
    """Statements whose text is known."""
    facts: Facts = field(init=False)
    values: dict[str, Metric] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    worst: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    statements: Counts | None = None
    settings: dict[str, str] = field(default_factory=dict)

    def found(self, name: str, value: Any, **about: Any) -> None:
        """Keep a value; its unit is the kind's."""
        self.values[name] = Metric(name=name, value=float(value), unit=kind_of(name).unit, **about)

    def nothing(self, reason: str, *names: str) -> None:
        """The database has nothing to measure for these."""
        self.absent.update(dict.fromkeys(names, reason))

    def unknown(self, reason: str, *names: str) -> None:
        """These could not be measured."""
        self.unmeasured.update(dict.fromkeys(names, reason))

    def listed(self, row: Row, *names: str) -> None:
        """Keep the lists of the worst; an empty one is kept too."""
        for name in names:
            self.worst[name] = row[name] or ()

    def count(self, row: Row, *names: str) -> None:
        """Keep running totals, for the differences of the next collection."""
        self.counters.update({name: float(row[name]) for name in names})

    def grown(self, reset: str, *counters: str) -> tuple[list[float], float] | None:
        """By how much these counters have grown since the previous collection, and the seconds in between.

        None when there is no previous one, when the server was restarted or its statistics were reset in between
        (``reset`` is the counter that holds the time of the last reset), or when the clock went back.
        """
        before = self.previous.counters if self.previous else {}
        same = ("postmaster_start", reset)
        if self.previous is None or any(name not in before for name in (*same, *counters)):
            return None
        seconds = (self.now - self.previous.at).total_seconds()
        grown = [self.counters[name] - before[name] for name in counters]
        if any(before[name] != self.counters[name] for name in same) or seconds <= 0 or min(grown) < 0:
            return None
        return grown, seconds

    def since(self, name: str, reset: str, counter: str, *, per_second: bool = False, scale: float = 1) -> None:
        """Keep the growth of one counter, or its rate, as a metric whose sample is the seconds that it took."""
        grown = self.grown(reset, counter)
        if grown is None:
            self.unknown(FIRST_COLLECTION, name)
        else:
            (value,), seconds = grown
            detail = f"in the last {value_words(seconds, 'seconds')}"
            self.found(name, value * scale / (seconds if per_second else 1), sample=seconds, detail=detail)

    def share(self, name: str, reset: str, part: str, rest: str, *, of: str, are: str) -> None:
        """Keep the share of one counter's growth of that of both.

        Without a difference, that of the totals is shown, but is no evidence: it may be of long ago, or of the minute
        in which the database was made.
        """
        grown = self.grown(reset, part, rest)
        good, other = grown[0] if grown else (self.counters[part], self.counters[rest])
        span = f"in the last {value_words(grown[1], 'seconds')}" if grown else "since the statistics began"
        if good + other:
            detail = f"{good:,.0f} of {good + other:,.0f} {of} {are} {span}"
            self.found(name, good / (good + other), sample=good + other if grown else 0, detail=detail)
        else:
            self.unknown(f"{NONE_OF_THEM}{of} {span}", name)


class Probe(NamedTuple):
    """One question; the metrics that it answers are unmeasured when it is refused."""

    names: tuple[str, ...]
    measure: Callable[[AutocommitConnection, Collecting], None]


def one(connection: AutocommitConnection, name: str, values: Mapping[str, Any] | None = None, **parts: sql.SQL) -> Row:
    """The one row of a statement of ``postgres/sql``, by the names of its columns."""
    text = statement(name)
    query = sql.SQL(text).format(**parts) if parts else sql.SQL(text)
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, values).fetchone()
    assert row is not None
    return row


@cache
def statement(name: str) -> str:
    """A statement of ``postgres/sql``, marked as the platform's, without the header that is for people."""
    lines = (files("dbplatform.postgres") / "sql" / f"{name}.sql").read_text("utf-8").splitlines()
    return MARK + "\n".join(line for line in lines if not line.startswith("--"))
