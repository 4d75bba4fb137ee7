"""Tables that grow with time: how to partition them, and which of their rows could be archived, each with the evidence.

What is large is not read: times come from an index or from the statistics, and shares of rows from their histogram.
These are proposals. All of them change or delete data, so that a person decides.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from dbplatform.errors import PlatformError
from dbplatform.operations.adoption.survey import Survey, Table, query
from dbplatform.partitioning.bounds import Bounds, cell
from dbplatform.partitioning.conversion.plan import obstacles
from dbplatform.partitioning.existing import read_existing
from dbplatform.partitioning.plan import plan_table
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import quoted

#: A table with more rows is a candidate; one with no more is read as a whole.
CANDIDATE_ROWS = 1_000_000
EXACT_ROWS = 100_000
_OLD = "12 months"
_LEAST_OLD = 0.05
_READ = "all rows read"
_MONTH = timedelta(days=30.4375)
_RECENT = 3 * _MONTH
_GRIDS = ("1 day", "7 days", "1 month", "3 months", "12 months")
_OTHER_CHILDREN = """
    select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = %s and c.relkind <> 'r'
"""
_OTHERS = ("pg_partman", "timescaledb", "citus")

_ARRIVES = re.compile(
    r"(^|_)(created|inserted|loaded|recorded|received|logged|occurred|happened|event|placed|date|time|ts|at)(_|$)"
)
_MOVES = re.compile(
    r"(^|_)(last|updated?|modified|changed|deleted|expires?|expiry|due|birth|until|end|ends|finished|return)(_|$)"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
#: Less is no history that could be told apart.
_LEAST_SPAN = 2 * _MONTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The times in a column, and the shares of rows that were asked for."""

    oldest: datetime | None
    newest: datetime | None
    source: str
    old: float | None
    """The share of rows that are older than ``_OLD``; none: not known."""
    per_month: float | None
    """Rows a month, before the newest; none: not known."""

    @property
    def is_long(self) -> bool:
        """Whether there is some history in it, or nothing is known of that."""
        return self.oldest is None or self.newest is None or self.newest - self.oldest >= _LEAST_SPAN

    @property
    def about(self) -> str:
        return "" if self.source == _READ else "about "


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A table that could be partitioned by a column, or is and could be cared for."""

    table: Table
    column: str
    interval: str
    evidence: tuple[str, ...]
    obstacles: tuple[str, ...]
    active: bool
    """Partitions are made ahead of time: nothing else is changed. All other proposals are comments."""
    archive: str | None
    """Why rows could be archived; none: they are not old, or nothing is known of them."""

    def as_json(self) -> dict[str, Any]:
        return {
            "table": str(self.table.relation),
            "column": self.column,
            "interval": self.interval,
            "evidence": list(self.evidence),
            "obstacles": list(self.obstacles),
            "active": self.active,
            "archive": self.archive,
        }


def candidates(
    moment: SnapshotConnection, found: Survey, *, from_rows: int = CANDIDATE_ROWS
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Those among the surveyed tables that have at least ``from_rows``, and notes on the others that came near.

    ACCESS SHARE on each of them. At most two probes of an index read rows of a table over ``EXACT_ROWS``.
    """
    now = found.server.now
    plain = [table for table in found.tables if table.kind == "r" and not table.inherits and not table.secured]
    large = [table for table in plain if table.rows >= from_rows]
    proposals: list[Candidate] = []
    notes: list[str] = []
    for table in found.tables:
        if table.kind == "p":
            cared_for = [*_partitioned(moment, table, found)]
            proposals += cared_for
            if not cared_for:
                notes.append(f"{table.relation} is partitioned ({table.partitioned_by}), not by one grid of times.")
    columns = _columns(moment, large)
    for table in large:
        telling = sorted(columns.get(table.oid, []), key=_score, reverse=True)
        spans = ((one, _span(moment, table, one, now)) for one in telling if _score(one) > 0)
        best = next(((one, span) for one, span in spans if span.is_long), None)
        if best is None:
            notes.append(f"{table.relation} has about {table.rows:,} rows, and no column tells when one came.")
        else:
            proposals.append(_plain(moment, table, *best))
    return tuple(proposals), tuple(notes)


def _columns(moment: SnapshotConnection, tables: Sequence[Table]) -> dict[int, list[dict[str, Any]]]:
    """The columns of times of each table."""
    found: dict[int, list[dict[str, Any]]] = {}
    with moment.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query("adopt_moments").encode(), {"tables": [table.oid for table in tables]})
        for row in rows:
            found.setdefault(row["oid"], []).append(row)
    return found


def _score(column: dict[str, Any]) -> float:
    """How well a column tells when a row came: it never changes, is never null, and follows the order of the rows."""
    name = _HUMP.sub("_", column["name"]).lower()
    return (
        (3 if re.search(r"now\(\)|CURRENT_|statement_timestamp|clock_timestamp", column["default_value"]) else 0)
        + (2 if _ARRIVES.search(name) else 0)
        + (2 if column["not_null"] else 0)
        + (2 if (column["correlation"] or 0) > 0.9 else 0)
        + (1 if column["indexed"] else 0)
        - (5 if _MOVES.search(name) else 0)
        - (3 if (column["null_fraction"] or 0) > 0 else 0)
    )


def _plain(moment: SnapshotConnection, table: Table, column: dict[str, Any], span: Span) -> Candidate:
    name = column["name"]
    interval = _interval(span)
    policy = PartitionPolicy(table=table.relation, column=quoted(name), interval=interval)
    with moment.transaction():
        found = obstacles(moment, policy)
    evidence = [f"{table.rows:,} rows and {size(table.bytes)} ({table.source}); {table.traffic}"]
    evidence += _evidence(name, column, span)
    return Candidate(
        table=table,
        column=name,
        interval=interval,
        evidence=tuple(evidence),
        obstacles=tuple(found),
        active=False,
        archive=_archive(table, name, span),
    )


def _evidence(name: str, column: dict[str, Any], span: Span) -> Iterator[str]:
    if span.oldest is not None and span.newest is not None:
        yield f"{quoted(name)} from {span.oldest:%Y-%m-%d} to {span.newest:%Y-%m-%d} ({span.source})"
    else:
        yield f"the times in {quoted(name)} are not known: it has no index and was never analyzed"
    if span.per_month is not None:
        yield f"{span.about}{span.per_month:,.0f} rows a month at its end ({span.source})"
    if (column["correlation"] or 0) > 0.9:
        yield f"rows lie in the order of {quoted(name)} (correlation {column['correlation']:.2f}): they are appended"


def _archive(table: Table, name: str, span: Span) -> str | None:
    if span.old is None or span.old < _LEAST_OLD:
        return None
    rows = f"{100 * span.old:.0f} % of the rows ({span.about}{span.old * table.rows:,.0f})"
    words = f"{rows} are older than {_OLD} by {quoted(name)} ({span.source})"
    if table.updated > 0.1 * max(table.inserted, 1):
        words += f"; rows are updated ({table.updated:,} times): see that old ones are final"
    if table.referred_to_by:
        words += f"; foreign keys of other tables refer to it ({table.referred_to_by}): children: archive lets their"
        words += " rows go along"
    return words


def _span(moment: SnapshotConnection, table: Table, column: dict[str, Any], now: datetime) -> Span:
    """Read as a whole what is small; of what is large, ends from an index, and shares from the histogram."""
    name = column["name"]
    if table.rows <= EXACT_ROWS:
        statement = sql.SQL(
            "select count(*), min({c})::text, max({c})::text, count(*) filter (where {c} < now() - {old}::interval),"
            " count(*) filter (where {c} > (select max({c}) from {t}) - {recent}) from {t} where isfinite({c})"
        ).format(
            c=sql.Identifier(name), t=table.relation.identifier, old=sql.Literal(_OLD), recent=sql.Literal(_RECENT)
        )
        row = _asked(moment, statement)
        if row is not None and row[0]:
            oldest, newest = time_of(row[1]), time_of(row[2])
            return Span(
                oldest=oldest,
                newest=newest,
                source=_READ,
                old=row[3] / row[0],
                per_month=_rate(row[4], oldest, newest),
            )
    bounds = [bound for text in column["histogram"] or [] if (bound := time_of(text)) is not None]
    oldest, newest = (bounds[0], bounds[-1]) if len(bounds) > 1 else (None, None)
    source = "estimated from the statistics"
    if column["indexed"]:
        statement = sql.SQL("select (select min({c}) from {t})::text, (select max({c}) from {t})::text").format(
            c=sql.Identifier(name), t=table.relation.identifier
        )
        row = _asked(moment, statement)
        if row is not None and (first := time_of(row[0])) and (last := time_of(row[1])):
            oldest, newest = first, last
            source = "ends by its index, shares estimated from the statistics"
    recent = (1 - _share(bounds, newest - _RECENT)) * table.rows if newest is not None and bounds else None
    return Span(
        oldest=oldest,
        newest=newest,
        source=source,
        old=_share(bounds, now - 12 * _MONTH) if len(bounds) > 1 else None,
        per_month=_rate(recent, oldest, newest),
    )


def _asked(moment: SnapshotConnection, statement: sql.Composed) -> tuple[Any, ...] | None:
    """The answer; none where it takes too long, or waits for a lock."""
    try:
        with moment.transaction():
            return moment.execute(statement).fetchone()
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
        return None


def _share(bounds: Sequence[datetime], before: datetime) -> float:
    """The share of rows before a time: between two bounds of a histogram lie equally many rows."""
    if len(bounds) < 2:
        return 0.0
    return min(1.0, bisect_left(bounds, before) / (len(bounds) - 1))


def _rate(rows: float | None, oldest: datetime | None, newest: datetime | None) -> float | None:
    """Rows a month, from those of the last three months, or of all where there are fewer."""
    if rows is None or oldest is None or newest is None or newest <= oldest:
        return None
    return rows / (min(newest - oldest, _RECENT) / _MONTH)


def _interval(span: Span) -> str:
    """As wide as ten million rows allow; a year where there is little."""
    rate = span.per_month or 0
    if rate > 100_000_000:
        return "1 day"
    if rate > 30_000_000:
        return "7 days"
    years = (span.newest - span.oldest) / timedelta(days=365) if span.oldest and span.newest else 0
    return "12 months" if rate and rate < 20_000 and years > 4 else "1 month"


def _partitioned(moment: SnapshotConnection, table: Table, found: Survey) -> Iterator[Candidate]:
    """A table that is partitioned by range already: its grid, and what the next run would make ahead."""
    column = table.range_column
    if column is None:
        return
    for interval in _GRIDS:
        policy = PartitionPolicy(table=table.relation, column=quoted(column), interval=interval, start=interval)
        bounds = _on_grid(moment, policy)
        if bounds:
            yield _cared_for(moment, table, policy, interval, bounds, found)
            return


def _on_grid(moment: SnapshotConnection, policy: PartitionPolicy) -> list[Bounds]:
    """The ranges of the partitions, where each is a piece of the grid; else none."""
    try:
        with moment.transaction():
            bounds = [one.bounds for one in read_existing(moment, policy).partitions]
        return bounds if all(cell(policy.interval, one.lower) == one for one in bounds) else []
    except (PlatformError, ValueError, OverflowError, TypeError):
        return []  # another kind of column, a bound without a day, or of the year infinity


def _cared_for(
    moment: SnapshotConnection,
    table: Table,
    policy: PartitionPolicy,
    interval: str,
    bounds: Sequence[Bounds],
    found: Survey,
) -> Candidate:
    evidence = [
        f"partitioned already: {len(bounds)} partitions of {interval}, from {bounds[0].lower:%Y-%m-%d} to "
        f"{bounds[-1].upper:%Y-%m-%d}; {table.rows:,} rows and {size(table.bytes)} ({table.source})"
    ]
    against = [*_against(table, found)]
    if bounds[-1].lower > found.server.now:
        against.append("partitions ahead of now are there: somebody makes them, and would meet ours (leave it to one)")
    other = _other_children(moment, table)
    if other:
        against.append(f"{other} of its partitions are no plain tables, and new ones would be (make them likewise)")
    try:
        with moment.transaction():
            plan = plan_table(moment, policy, now=found.server.now)
    except (PlatformError, psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as refused:
        against.append(str(refused))
    else:
        names = ", ".join(one.relation.name for one in plan.create)
        evidence.append(
            f"a run now would make {len(plan.create)} ahead: {names}" if names else "no run would make more now"
        )
        if plan.default_rows:
            against.append(f"{plan.default_rows:,} rows lie in the default partition, and would be moved out of it")
    old = sum(one.upper <= found.server.now - 12 * _MONTH for one in bounds)
    return Candidate(
        table=table,
        column=policy.column,
        interval=interval,
        evidence=tuple(evidence),
        obstacles=tuple(against),
        active=not against,
        archive=f"{old} of {len(bounds)} partitions are older than {_OLD}" if old else None,
    )


def _other_children(moment: SnapshotConnection, table: Table) -> int:
    """How many partitions are partitioned themselves, or foreign tables."""
    counted = moment.execute(_OTHER_CHILDREN, (table.oid,)).fetchone()
    assert counted is not None
    return int(counted[0])


def _against(table: Table, found: Survey) -> Iterator[str]:
    """Why partitions are not to be made without a person's word."""
    makers = [name for name in _OTHERS if name in found.server.extensions]
    if makers:
        yield f"{makers[0]} is installed, and may make its partitions (leave it to one of them)"
    if not table.owned:
        yield f"it does not belong to {found.server.user} (connect as a member of its owner)"


def time_of(text: str | None) -> datetime | None:
    """An aware moment; none for infinities and years that Python does not know."""
    with suppress(ValueError):
        found = datetime.fromisoformat(text or "")
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def size(number: int) -> str:
    """``1.2 GB``."""
    value, unit = float(number), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1024 or unit == "TB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit in ("bytes", "kB") or value >= 10 else f"{value:.1f} {unit}"
