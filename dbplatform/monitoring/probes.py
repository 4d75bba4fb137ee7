"""How each metric is measured: one cheap statement per group of them.

Every statement reads catalog and statistics views only, works from version 14 on and needs no more than
``pg_monitor``. Sources: the chapters "Monitoring Database Activity" and "System Views" of the PostgreSQL manual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.words import value_words
from dbplatform.postgres.connection import AutocommitConnection

DEAD_ROWS_MINIMUM = 10_000
XID_LIMIT = 2**31

_NO_STATISTICS = "the setting track_counts is off, so the server counts nothing"
FIRST_COLLECTION = "it is a difference: known from the second collection on"
_STATS = "the user may not see the sessions of others"


class Facts(NamedTuple):
    """What the probes must know beforehand about server and user."""

    version: int
    user: str
    """Quoted for SQL where needed."""
    in_recovery: bool
    reads_all_stats: bool
    track_counts: bool
    archive_mode: str
    usable_connections: int
    """``max_connections`` less those kept for superusers and for ``pg_use_reserved_connections``."""


@dataclass(slots=True, kw_only=True)
class Collecting:
    """A collection while it is made."""

    facts: Facts
    now: datetime
    previous: Metrics | None
    values: dict[str, Metric] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def found(self, name: str, value: Any, **about: Any) -> None:
        """Keep a value; its unit is the kind's."""
        self.values[name] = Metric(name=name, value=float(value), unit=kind_of(name).unit, **about)

    def nothing(self, reason: str, *names: str) -> None:
        """The database has nothing to measure for these."""
        self.absent.update(dict.fromkeys(names, reason))

    def unknown(self, reason: str, *names: str) -> None:
        """These could not be measured."""
        self.unmeasured.update(dict.fromkeys(names, reason))

    def grown(self, reset: str, *counters: str) -> tuple[list[float], float] | None:
        """By how much these counters have grown since the previous collection, and the seconds in between.

        None when there is no previous one, when the server's statistics were reset in between (``reset`` is the
        counter that holds the time of the last reset), or when the clock went back.
        """
        before = self.previous.counters if self.previous else {}
        if self.previous is None or any(name not in before for name in (reset, *counters)):
            return None
        seconds = (self.now - self.previous.at).total_seconds()
        grown = [self.counters[name] - before[name] for name in counters]
        if before[reset] != self.counters[reset] or seconds <= 0 or min(grown) < 0:
            return None
        return grown, seconds

    def since(self, name: str, reset: str, counter: str) -> None:
        """Keep the growth of one counter as a metric whose sample is the seconds that it took."""
        grown = self.grown(reset, counter)
        if grown is None:
            self.unknown(FIRST_COLLECTION, name)
        else:
            (value,), seconds = grown
            self.found(name, value, sample=seconds, detail=f"in the last {value_words(seconds, 'seconds')}")


class Probe(NamedTuple):
    """One question; the metrics that it answers are unmeasured when it is refused."""

    names: tuple[str, ...]
    measure: Callable[[AutocommitConnection, Collecting], None]


def _one(connection: AutocommitConnection, statement: str) -> tuple[Any, ...]:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row


_COUNTERS = """
    select blks_hit, blks_read, deadlocks, temp_bytes, coalesce(extract(epoch from stats_reset), 0)
    from pg_stat_database where datname = current_database()
"""


def _counters(connection: AutocommitConnection, into: Collecting) -> None:
    if not into.facts.track_counts:
        into.unknown(_NO_STATISTICS, "cache_hit_ratio", "deadlocks", "temp_bytes")
        return
    names = ("blks_hit", "blks_read", "deadlocks", "temp_bytes", "database_stats_reset")
    into.counters.update(zip(names, map(float, _one(connection, _COUNTERS)), strict=True))
    grown = into.grown("database_stats_reset", "blks_hit", "blks_read")
    hit, read = grown[0] if grown else (into.counters["blks_hit"], into.counters["blks_read"])
    span = f"in the last {value_words(grown[1], 'seconds')}" if grown else "since its statistics began"
    if hit + read:
        detail = f"{read:,.0f} of {hit + read:,.0f} blocks were not in shared buffers {span}"
        into.found("cache_hit_ratio", hit / (hit + read), sample=hit + read, detail=detail)
    else:
        into.unknown(f"no block was asked for {span}", "cache_hit_ratio")
    into.since("deadlocks", "database_stats_reset", "deadlocks")
    into.since("temp_bytes", "database_stats_reset", "temp_bytes")


def _size(connection: AutocommitConnection, into: Collecting) -> None:
    (size,) = _one(connection, "select pg_database_size(current_database())")
    into.found("database_bytes", size)


_XID = """
    select datname, greatest(age(datfrozenxid), mxid_age(datminmxid)) from pg_database order by 2 desc, 1 limit 1
"""


def _xid_age(connection: AutocommitConnection, into: Collecting) -> None:
    name, age = _one(connection, _XID)
    detail = f"the oldest id of the database {name} is {age:,} transactions old"
    into.found("xid_age_ratio", age / XID_LIMIT, labels={"database": name}, detail=detail)


# A prepared transaction is open as well, and has no backend.
_ACTIVITY = """
    with client as (
        select pid, datname, state, state_change, xact_start,
               format('backend %s (%s)', pid, coalesce(nullif(application_name, ''), 'no application name')) as who,
               case when wait_event_type = 'Lock' then pg_blocking_pids(pid) else '{}' end as blockers
        from pg_stat_activity where backend_type = 'client backend'
    ), open as (
        select clock_timestamp() - xact_start as age, who from client
        where datname = current_database() and xact_start is not null and pid <> pg_backend_pid()
        union all
        select clock_timestamp() - prepared, 'prepared transaction ' || quote_literal(gid)
        from pg_prepared_xacts where database = current_database()
    ), idle as (
        select clock_timestamp() - state_change as age, who from client
        where datname = current_database() and state like 'idle in transaction%'
    )
    select (select count(*) from client),
           (select array[extract(epoch from age)::text, who] from open order by age desc limit 1),
           (select array[extract(epoch from age)::text, who] from idle order by age desc limit 1),
           count(*), mode() within group (order by blockers[1])
    from client where datname = current_database() and cardinality(blockers) > 0
"""


def _activity(connection: AutocommitConnection, into: Collecting) -> None:
    names = ("connections_used_ratio", "longest_transaction_s", "idle_in_transaction_s", "blocked_sessions")
    if not into.facts.reads_all_stats:
        into.unknown(_STATS, *names)
        into.missing.append(f"pg_monitor, to see the sessions of others: GRANT pg_monitor TO {into.facts.user};")
        return
    clients, longest, idle, blocked, blocker = _one(connection, _ACTIVITY)
    usable = into.facts.usable_connections
    into.found("connections_used_ratio", clients / usable, sample=clients, detail=f"{clients} of {usable} are in use")
    for name, oldest in (("longest_transaction_s", longest), ("idle_in_transaction_s", idle)):
        seconds, who = oldest or (0, "")
        into.found(name, max(0.0, float(seconds)), detail=who)
    into.found("blocked_sessions", blocked, detail=_blocker(blocker))


def _blocker(pid: int | None) -> str:
    if pid is None:
        return ""
    return f"most wait for backend {pid}" if pid else "most wait for a prepared transaction"


# The worst table by what the limits ask: its share, and enough dead rows to matter.
_DEAD_ROWS = """
    with tables as materialized (
        select format('%I.%I', n.nspname, c.relname) as name,
               pg_stat_get_dead_tuples(c.oid)::float as dead, pg_stat_get_live_tuples(c.oid)::float as live
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
    )
    select name, dead, dead / (dead + live) from tables where dead > 10000
    order by (dead > 100000 and dead / (dead + live) >= 0.3) desc, dead / (dead + live) desc, name limit 1
"""


def _dead_rows(connection: AutocommitConnection, into: Collecting) -> None:
    if into.facts.in_recovery:
        into.nothing("a standby counts no dead rows: ask the primary", "dead_tuple_ratio")
    elif not into.facts.track_counts:
        into.unknown(_NO_STATISTICS, "dead_tuple_ratio")
    else:
        row = connection.execute(_DEAD_ROWS).fetchone()
        if row is None:
            detail = f"no table has more than {DEAD_ROWS_MINIMUM:,} dead rows"
            into.found("dead_tuple_ratio", 0, sample=0, detail=detail)
        else:
            name, dead, ratio = row
            detail = f"{name} has {dead:,.0f} dead rows"
            into.found("dead_tuple_ratio", ratio, sample=dead, labels={"table": name}, detail=detail)


_INVALID = """
    select count(*), min(format('%I.%I', n.nspname, c.relname))
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
    where not (i.indisvalid and i.indisready and i.indislive) and c.relkind = 'i'
      and not exists (select from pg_stat_progress_create_index p
                      where p.datname = current_database() and i.indrelid = p.relid)
"""


def _invalid_indexes(connection: AutocommitConnection, into: Collecting) -> None:
    if not into.facts.reads_all_stats:
        into.unknown("the user may not see which indexes are being built right now", "invalid_indexes")
        return
    count, name = _one(connection, _INVALID)
    others = f" and {count - 1} more" if count > 1 else ""
    labels = {"index": name} if name else {}
    into.found("invalid_indexes", count, labels=labels, detail=f"{name}{others}" if name else "")


# A sequence that feeds a smaller column ends where the column's type ends. One that cycles has no end.
_SEQUENCES = """
    with known as materialized (
        select c.oid, n.nspname, c.relname, q.seqincrement > 0 as up, q.seqmin, q.seqmax,
               case a.atttypid when 21 then 32767 when 23 then 2147483647 end as type_max,
               has_sequence_privilege(c.oid, 'select, usage') as readable
        from pg_sequence q
        join pg_class c on c.oid = q.seqrelid
        join pg_namespace n on n.oid = c.relnamespace
        left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid
             and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
        left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where not q.seqcycle and c.relpersistence <> 't' and (c.relpersistence = 'p' or not pg_is_in_recovery())
    ), used as (
        select *, case when readable then pg_sequence_last_value(oid) end as last,
               least(seqmax, type_max) as top, greatest(seqmin, -type_max - 1) as bottom
        from known
    ), measured as (
        select *, case when up then (last - seqmin)::numeric / nullif(top - seqmin::numeric, 0)
                       else (seqmax - last)::numeric / nullif(seqmax - bottom::numeric, 0) end as ratio from used
    )
    select count(*), count(*) filter (where not readable),
           string_agg(distinct quote_ident(nspname), ', ') filter (where not readable),
           (select array[format('%I.%I', nspname, relname), ratio::text, last::text] from measured
            where ratio is not null order by ratio desc, 1 limit 1)
    from measured
"""


def _sequences(connection: AutocommitConnection, into: Collecting) -> None:
    count, hidden, schemas, worst = _one(connection, _SEQUENCES)
    name = "sequence_used_ratio"
    unread = f"{hidden} of {count} sequences may not be read by the user"
    if hidden:
        grant = f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schemas} TO {into.facts.user};"
        into.missing.append(f"SELECT on {hidden} sequences, to see how far they are: {grant}")
    if worst is not None:
        sequence, ratio, last = worst
        detail = unread if hidden else f"{sequence} is at {int(last):,}"
        labels = {"sequence": sequence}
        into.found(name, max(0.0, float(ratio)), labels=labels, detail=detail, complete=not hidden)
    elif hidden:
        into.unknown(unread, name)
    else:
        into.nothing("no sequence has been used yet" if count else "there is no sequence", name)


# A replica, a slot (it keeps WAL for one that is away), and this server itself where it is a standby.
_LAG = """
    with here as (
        select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn
    )
    select 'replica', coalesce(nullif(application_name, ''), 'backend ' || pid),
           pg_wal_lsn_diff(lsn, coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn)),
           extract(epoch from coalesce(replay_lag, flush_lag, write_lag))
    from here, pg_stat_replication where state <> 'backup'
    union all
    select case when active then 'active slot' else 'slot' end, slot_name,
           pg_wal_lsn_diff(lsn, case slot_type when 'logical' then confirmed_flush_lsn else restart_lsn end), null
    from here, pg_replication_slots where not temporary and restart_lsn is not null
    union all
    select 'standby', 'this server', pg_wal_lsn_diff(pg_last_wal_receive_lsn(), lsn),
           case when pg_last_wal_receive_lsn() > lsn
                then extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) else 0 end
    from here where pg_is_in_recovery() and pg_last_wal_receive_lsn() is not null
"""


def _replication(connection: AutocommitConnection, into: Collecting) -> None:
    if not into.facts.reads_all_stats:
        into.unknown("the user may not see how far the replicas are", "replication_lag_s", "replication_lag_bytes")
        return
    rows = [
        (kind, who, max(0.0, float(behind)), lag)
        for kind, who, behind, lag in connection.execute(_LAG.encode())
        if behind is not None
    ]
    if not rows:
        into.nothing("no replica is connected and no slot waits for one", "replication_lag_s", "replication_lag_bytes")
        return
    kind, who, behind, _ = max(rows, key=lambda row: row[2])
    into.found("replication_lag_bytes", behind, detail=f"{kind} {who}")
    away = [who for kind, who, _, _ in rows if kind == "slot"]
    # PostgreSQL forgets the lag of a replica that has caught up and stays idle: then it is zero.
    lags = [(float(lag) if lag is not None else 0.0, who) for kind, who, b, lag in rows if lag is not None or not b]
    if away:
        into.unknown(f"the replica of the slot {away[0]} is not connected", "replication_lag_s")
    elif lags:
        lag, who = max(lags)
        into.found("replication_lag_s", max(0.0, lag), detail=who)
    else:
        into.unknown("PostgreSQL has not measured the delay of the replica yet", "replication_lag_s")


_ARCHIVER = """
    select failed_count, coalesce(extract(epoch from stats_reset), 0),
           extract(epoch from clock_timestamp() - last_failed_time), last_failed_wal
    from pg_stat_archiver
"""


def _archiver(connection: AutocommitConnection, into: Collecting) -> None:
    works = into.facts.archive_mode == "always" or (into.facts.archive_mode == "on" and not into.facts.in_recovery)
    if not works:
        into.nothing("the server archives no WAL (archive_mode)", "archiver_failures", "archiver_failure_age_s")
        return
    failed, reset, age, wal = _one(connection, _ARCHIVER)
    into.counters.update(archiver_failed=float(failed), archiver_stats_reset=float(reset))
    into.since("archiver_failures", "archiver_stats_reset", "archiver_failed")
    if age is None:
        into.nothing("no try has failed since the statistics began", "archiver_failure_age_s")
    else:
        into.found("archiver_failure_age_s", max(0.0, float(age)), detail=f"the last one was {wal}")


#: Every question, in the order in which they are asked.
PROBES = (
    Probe(("cache_hit_ratio", "deadlocks", "temp_bytes"), _counters),
    Probe(("database_bytes",), _size),
    Probe(("xid_age_ratio",), _xid_age),
    Probe(("connections_used_ratio", "longest_transaction_s", "idle_in_transaction_s", "blocked_sessions"), _activity),
    Probe(("dead_tuple_ratio",), _dead_rows),
    Probe(("invalid_indexes",), _invalid_indexes),
    Probe(("sequence_used_ratio",), _sequences),
    Probe(("replication_lag_s", "replication_lag_bytes"), _replication),
    Probe(("archiver_failures", "archiver_failure_age_s"), _archiver),
)
