"""The tables that a migration will lock, as they are now: how large, how many rows, and whose locks are in the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dbplatform.migrations.observe import MODE_OF, MODES, Effect
from dbplatform.postgres.connection import AutocommitConnection

#: Which modes conflict with each mode (manual, "Conflicting Lock Modes"): by their places in ``MODES``.
_CONFLICTS = {
    "ACCESS SHARE": (7,),
    "ROW SHARE": (6, 7),
    "ROW EXCLUSIVE": (4, 5, 6, 7),
    "SHARE UPDATE EXCLUSIVE": (3, 4, 5, 6, 7),
    "SHARE": (2, 3, 5, 6, 7),
    "SHARE ROW EXCLUSIVE": (2, 3, 4, 5, 6, 7),
    "EXCLUSIVE": (1, 2, 3, 4, 5, 6, 7),
    "ACCESS EXCLUSIVE": (0, 1, 2, 3, 4, 5, 6, 7),
}
_TABLE = """
    select c.oid, pg_total_relation_size(c.oid), case when c.reltuples >= 0 then c.reltuples::bigint end,
           case when c.relispartition then
               (select format('%%I.%%I', n.nspname, r.relname) from pg_class r
                join pg_namespace n on n.oid = r.relnamespace where r.oid = pg_partition_root(c.oid)) end
    from pg_class c where c.oid = to_regclass(%s)
"""
_BLOCKERS = """
    select l.pid, a.application_name, a.usename, a.state, extract(epoch from now() - a.xact_start)::float8,
           array_agg(l.mode)
    from pg_locks l left join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'relation' and l.granted and l.relation = %s and l.mode = any (%s)
      and l.pid is distinct from pg_backend_pid()
      and l.database = (select oid from pg_database where datname = current_database())
    group by l.pid, l.virtualtransaction, a.application_name, a.usename, a.state, a.xact_start
    order by 5 desc nulls last
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """A session that holds a lock in the way."""

    pid: int | None
    """None: a prepared transaction, which no session has."""
    application: str
    user: str
    state: str
    seconds: float | None
    """How old its transaction is."""
    mode: str

    def as_json(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "application": self.application,
            "user": self.user,
            "state": self.state,
            "seconds": self.seconds,
            "mode": self.mode,
        }

    def __str__(self) -> str:
        if self.pid is None:
            return f"a prepared transaction (see pg_prepared_xacts) holds {self.mode}"
        age = "" if self.seconds is None else f", its transaction is {self.seconds:.0f} s old"
        return f"backend {self.pid} ({self.application or 'no application name'}, {self.state}{age}) holds {self.mode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTable:
    """A table that will be locked."""

    relation: str
    mode: str
    """The strongest lock of the migration on it."""
    bytes: int
    """With its indexes."""
    rows: int | None
    """As the planner estimates them; None where it was never analyzed."""
    partition_of: str | None
    """The root of its partition tree."""
    blocked_by: tuple[Blocker, ...]

    @property
    def rank(self) -> int:
        """The higher, the stronger its lock."""
        return MODES.index(self.mode)

    def as_json(self) -> dict[str, Any]:
        return {
            "relation": self.relation,
            "mode": self.mode,
            "bytes": self.bytes,
            "rows": self.rows,
            "partition_of": self.partition_of,
            "blocked_by": [blocker.as_json() for blocker in self.blocked_by],
        }


def live_tables(connection: AutocommitConnection, effects: Iterable[Effect | None]) -> tuple[LiveTable, ...]:
    """Each table that the effects lock, in the declared database now, the strongest lock first. Only reads."""
    strongest: dict[str, str] = {}
    for effect in effects:
        for lock in effect.locks if effect is not None else ():
            before = strongest.get(lock.relation)
            if before is None or MODES.index(lock.mode) > MODES.index(before):
                strongest[lock.relation] = lock.mode
    found = []
    for relation, mode in sorted(strongest.items(), key=lambda item: (-MODES.index(item[1]), item[0])):
        row = connection.execute(_TABLE, (relation,)).fetchone()
        if row is None:
            continue  # made by a migration before it
        conflicting = [name for name, words in MODE_OF.items() if MODES.index(words) in _CONFLICTS[mode]]
        blockers = connection.execute(_BLOCKERS, (row[0], conflicting)).fetchall()
        found.append(
            LiveTable(
                relation=relation,
                mode=mode,
                bytes=int(row[1]),
                rows=row[2],
                partition_of=row[3],
                blocked_by=tuple(
                    Blocker(
                        pid=pid,
                        application=application or "",
                        user=user or "",
                        state=state or "unknown",
                        seconds=seconds,
                        mode=max((MODE_OF[mode] for mode in held), key=MODES.index),
                    )
                    for pid, application, user, state, seconds, held in blockers
                ),
            )
        )
    return tuple(found)
