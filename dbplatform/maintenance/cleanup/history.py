"""The ledger forgets what is older than is declared, and nothing that something kept depends on.

Metrics, alerts and the values of checks have bounds of their own. Never forgotten: archives, erasures, and backups that
are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from dbplatform.ledger.ledger import Ledger
from dbplatform.maintenance.cleanup.leftovers import Leftover
from dbplatform.maintenance.cleanup.policy import HistoryPolicy
from dbplatform.postgres.connection import connect

KIND = "history"
#: Runs go with their results and failing rows.
_BATCHES: Final = {"runs of checks": 20}
_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Which rows of a table are due, as their ids, and how they go."""

    retained: str
    """The field of the policy that says how long."""
    due: bytes
    delete: bytes


# Who asks since when a database exists, or what was done last, has its answer.
_OPERATIONS = b"""
    select o.id from ledger.operation o
    where o.database = %(database)s and o.started_at < %(before)s
      and exists (select from ledger.operation n
                  where n.database = o.database and n.kind = o.kind and n.started_at > o.started_at)
      and exists (select from ledger.operation f where f.database = o.database and f.started_at < o.started_at)
"""
# A report, a review of one, and the past that a failing check is compared with, need their run.
_RUNS = b"""
    with results as (
        select r.table_name, r.name, r.status, q.started_at, q.run_id
        from ledger.quality_result r join ledger.quality_run q using (run_id) where q.database = %(database)s
    ), newest as (
        (select distinct on (table_name, name) run_id from results
         order by table_name, name, started_at desc, run_id desc)
        union all
        (select distinct on (table_name, name) run_id from results where status = 'passed'
         order by table_name, name, started_at desc, run_id desc)
    )
    select q.run_id from ledger.quality_run q
    where q.database = %(database)s and q.started_at < %(before)s
      and not exists (select from newest n where n.run_id = q.run_id)
      and not exists (select from ledger.report p where p.run_id = q.run_id)
      and not exists (select from ledger.report_review v where v.run_id = q.run_id)
"""
_DRILLS = b"""
    select d.id from ledger.drill d join ledger.backup b on b.id = d.backup_id
    where d.database = %(database)s and d.started_at < %(before)s and b.removed_at is not null
      and (d.status <> 'proven' or exists (
          select from ledger.drill n
          where n.database = d.database and n.status = 'proven' and (n.target is null) = (d.target is null)
            and n.started_at > d.started_at))
      and not exists (select from ledger.archive a where a.backup_id = d.backup_id)
"""
_BACKUPS = b"""
    select b.id from ledger.backup b
    where b.database = %(database)s and b.status in ('pruned', 'failed') and b.removed_at < %(before)s
      and not exists (select from ledger.drill d where d.backup_id = b.id)
      and not exists (select from ledger.archive a where a.backup_id = b.id)
"""
_TRIALS = b"""
    select t.id from ledger.trial t
    where t.database = %(database)s and t.tried_at < %(before)s
      and exists (select from ledger.trial n
                  where n.database = t.database and n.kind = t.kind and n.tried_at > t.tried_at)
"""
_ADVICE = b"""
    select a.id from ledger.advice a
    where a.database = %(database)s and a.state = 'gone' and a.changed_at < %(before)s
"""
_SETTINGS = b"select id from ledger.setting_change where database = %(database)s and undone_at < %(before)s"

#: In this order: a backup's record goes behind its drills.
_TABLES: Final[Mapping[str, _Table]] = MappingProxyType(
    {
        "operations": _Table(
            retained="operations", due=_OPERATIONS, delete=b"delete from ledger.operation where id = any(%s)"
        ),
        "runs of checks": _Table(
            retained="runs", due=_RUNS, delete=b"delete from ledger.quality_run where run_id = any(%s)"
        ),
        "drills": _Table(retained="drills", due=_DRILLS, delete=b"delete from ledger.drill where id = any(%s)"),
        "removed backups": _Table(
            retained="drills", due=_BACKUPS, delete=b"delete from ledger.backup where id = any(%s)"
        ),
        "trials": _Table(retained="trials", due=_TRIALS, delete=b"delete from ledger.trial where id = any(%s)"),
        "advice": _Table(retained="advice", due=_ADVICE, delete=b"delete from ledger.advice where id = any(%s)"),
        "settings": _Table(
            retained="advice", due=_SETTINGS, delete=b"delete from ledger.setting_change where id = any(%s)"
        ),
    }
)


def find_old(ledger: Ledger, database: str, policy: HistoryPolicy, *, now: datetime) -> list[Leftover]:
    """What is older than is declared at ``now`` (aware), a leftover for each kind; only reads."""
    found = []
    with connect(ledger.target, work="history plan") as connection:
        for name, table in _TABLES.items():
            keep, parameters = _asked(table, database, policy, now)
            count = connection.execute(b"select count(*) from (" + table.due + b") due", parameters).fetchone()
            if count is not None and count[0]:
                found.append(Leftover(kind=KIND, name=name, reason=f"{count[0]:,} in the ledger, older than {keep}"))
    return found


def forget(ledger: Ledger, database: str, policy: HistoryPolicy, leftover: Leftover, *, now: datetime) -> bool:
    """Delete the rows of one kind, judged again batch by batch; whether there were any.

    A transaction per 1,000 rows, or 20 runs with their results. ROW EXCLUSIVE on tables of the ledger.
    """
    table = _TABLES[leftover.name]
    _, parameters = _asked(table, database, policy, now)
    size = _BATCHES.get(leftover.name, _BATCH)
    gone = 0
    with connect(ledger.target, work="history") as connection:
        while True:
            due = connection.execute(table.due + b" limit %(size)s", {**parameters, "size": size}).fetchall()
            if not due:
                return gone > 0
            gone += connection.execute(table.delete, ([id_ for (id_,) in due],)).rowcount


def _asked(table: _Table, database: str, policy: HistoryPolicy, now: datetime) -> tuple[str, dict[str, str | datetime]]:
    keep = getattr(policy, table.retained)
    return str(keep), {"database": database, "before": now - keep.relativedelta}
