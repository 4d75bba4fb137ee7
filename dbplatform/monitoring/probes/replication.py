"""How far replicas and slots are behind, and the WAL that waits on this server's disk."""

from __future__ import annotations

from psycopg.rows import dict_row

from dbplatform.monitoring.probes.collecting import MARK, Collecting, Probe
from dbplatform.postgres.connection import AutocommitConnection

LAGS = ("replication_lag_s", "replication_lag_bytes")
_SLOTS = ("slots_inactive", "slots_lost", "slot_retained_bytes")
_FILES = ("wal_bytes", "archiver_queue_files")

#: A replica without a slot is missed for so long after it was seen last: nothing on the server remembers it.
MISSED_S = 86_400
#: The running totals by which it is: how many there were at once, and when.
_SLOTLESS, _SLOTLESS_AT = "slotless_replicas", "slotless_replicas_at"

# A replica, a slot (it keeps WAL for one that is away), and this server itself where it is a standby. One whose WAL
# receiver is gone does not know how much it lacks, only of when its newest commit is.
_SEEN = """
    with here as (
        select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn
    )
    select 'replica' as kind, coalesce(nullif(application_name, ''), 'backend ' || pid) as who,
           pg_wal_lsn_diff(lsn, coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn)) as behind,
           extract(epoch from coalesce(replay_lag, flush_lag, write_lag)) as lag, null::numeric as retained,
           state as status, replay_lsn is not null
               and not exists (select from pg_replication_slots where active_pid = pid) as slotless
    from here, pg_stat_replication where state <> 'backup'
    union all
    select case when active then 'active slot' else 'slot' end, slot_name,
           pg_wal_lsn_diff(lsn, case slot_type when 'logical' then confirmed_flush_lsn else restart_lsn end), null,
           pg_wal_lsn_diff(lsn, restart_lsn), wal_status, false
    from here, pg_replication_slots where not temporary
    union all
    select 'standby', 'this server', case when receives then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), lsn) end,
           case when receives and pg_last_wal_receive_lsn() <= lsn then 0
                else extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) end, null,
           case when receives then 'streaming' else 'no WAL receiver' end, false
    from here, (select exists (select from pg_stat_wal_receiver where status = 'streaming') as receives) r
    where pg_is_in_recovery()
"""
_DISK = """
    union all select 'wal', null, coalesce(sum(size), 0), null, null, null, null from pg_ls_waldir()
    union all select 'queue', null, count(*), null, null, null, null from pg_ls_archive_statusdir()
    where name like '%.ready'
"""


def _measure(connection: AutocommitConnection, into: Collecting) -> None:
    facts = into.facts
    query = MARK + _SEEN + (_DISK if facts.lists_wal else "")
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.encode()).fetchall()
    _files({row["kind"]: float(row["behind"]) for row in rows if row["kind"] in ("wal", "queue")}, into)
    if not facts.reads_all_stats:
        into.unknown("the user may not see how far the replicas are", *LAGS, *_SLOTS, "replicas")
        return
    seen = [row for row in rows if row["kind"] not in ("wal", "queue")]
    into.found("replicas", sum(row["kind"] == "replica" for row in seen))
    _slots([row for row in seen if row["kind"].endswith("slot")], into)
    _lags(seen, _gone(seen, into), into)
    into.worst["replication"] = [
        {"kind": row["kind"], "name": row["who"], "bytes": int(row["behind"]), "status": row["status"]}
        for row in sorted(seen, key=lambda row: -(row["behind"] or 0))[:10]
        if row["behind"] is not None
    ]


def _files(found: dict[str, float], into: Collecting) -> None:
    if not into.facts.lists_wal:
        into.unknown("the user may not list the folder of WAL", *_FILES)
        if into.facts.reads_all_stats:
            into.missing.append(f"pg_monitor, to list the folder of WAL: GRANT pg_monitor TO {into.facts.user};")
        return
    into.found("wal_bytes", found["wal"])
    if into.facts.archives:
        into.found("archiver_queue_files", found["queue"])
    else:
        into.nothing("the server archives no WAL (archive_mode)", "archiver_queue_files")


def _slots(slots: list[dict[str, object]], into: Collecting) -> None:
    if not slots:
        into.nothing("there is no replication slot", *_SLOTS)
        return
    away = sorted(str(slot["who"]) for slot in slots if slot["kind"] == "slot")
    lost = sorted(str(slot["who"]) for slot in slots if slot["status"] in ("lost", "unreserved"))
    into.found("slots_inactive", len(away), labels={"slot": away[0]} if away else {}, detail=", ".join(away[:3]))
    into.found("slots_lost", len(lost), labels={"slot": lost[0]} if lost else {}, detail=", ".join(lost[:3]))
    retained, who = max((float(str(slot["retained"] or 0)), str(slot["who"])) for slot in slots)
    into.found("slot_retained_bytes", max(0.0, retained), labels={"slot": who}, detail=who)


def _gone(seen: list[dict[str, object]], into: Collecting) -> list[str]:
    """What is not even known in bytes, and why; remembers how many replicas there are without a slot."""
    reasons = ["this server receives no WAL"] if any(row["status"] == "no WAL receiver" for row in seen) else []
    before = into.previous.counters if into.previous else {}
    now, number = into.now.timestamp(), sum(bool(row["slotless"]) for row in seen)
    most, at = before.get(_SLOTLESS, 0), before.get(_SLOTLESS_AT, now)
    if number < most and now - at < MISSED_S:
        reasons.append(f"{most - number:.0f} of {most:.0f} replicas without a slot have gone in the last 24 h")
    else:
        most, at = number, now
    into.counters.update({_SLOTLESS: most, _SLOTLESS_AT: at})
    return reasons


def _lags(seen: list[dict[str, object]], gone: list[str], into: Collecting) -> None:
    """Those that are known are judged, but none is called well where another one is not known."""
    behind = [
        (max(0.0, float(str(row["behind"]))), str(row["who"]), str(row["kind"]))
        for row in seen
        if row["behind"] is not None
    ]
    away = [f"the replica of the slot {row['who']} is not connected" for row in seen if row["kind"] == "slot"]
    missing = [*gone, *away]
    if not behind and not missing:
        into.nothing("no replica is connected and no slot waits for one", *LAGS)
        return
    if behind:
        most, who, kind = max(behind)
        detail = "; ".join((f"{kind} {who}", *gone))
        into.found("replication_lag_bytes", most, detail=detail, complete=not gone)
    else:
        into.unknown(missing[0], "replication_lag_bytes")
    lags = []
    for row in seen:
        if row["lag"] is not None:
            lags.append((max(0.0, float(str(row["lag"]))), str(row["who"])))
        elif row["kind"] == "replica" and not row["behind"]:
            # PostgreSQL forgets the lag of a replica that has caught up and stays idle: then it is zero.
            lags.append((0.0, str(row["who"])))
        elif row["kind"] == "replica":
            missing.append(f"PostgreSQL has not measured the delay of {row['who']} yet")
    if lags:
        lag, who = max(lags)
        into.found("replication_lag_s", lag, detail="; ".join((who, *missing)), complete=not missing)
    else:
        into.unknown(missing[0] if missing else "no replica says how late it is", "replication_lag_s")


REPLICATION = Probe((*LAGS, *_SLOTS, *_FILES, "replicas"), _measure)
