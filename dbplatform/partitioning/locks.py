"""The locks of an attachment: which there are, and how they are taken without closing a cycle.

A transaction that holds one lock and waits for the next can close a cycle with a client that wants them in the other
order, and then PostgreSQL ends one of the two, after everybody has waited for ``deadlock_timeout``. So only the first
lock is waited for, while nothing is held. The others are had at once or not at all: then the transaction is rolled
back, everybody goes on, and the next try waits for the one that was busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation

# Whether the user may take the lock by name; ATTACH takes it in any case.
_REFERENCES = """
    select distinct n.nspname, c.relname, has_table_privilege(c.oid, 'update, delete, truncate'), k.conrelid = t.oid
    from pg_constraint k
    cross join (select %s::regclass::oid as oid) t
    join pg_class c on c.oid = case k.conrelid when t.oid then k.confrelid else k.conrelid end
    join pg_namespace n on n.oid = c.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and t.oid in (k.conrelid, k.confrelid) and c.oid <> t.oid
    order by 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLock:
    """A lock that an attachment takes: for whose sake everybody can see in the plan why."""

    relation: Relation
    mode: str
    why: str
    by_name: bool = True

    def as_json(self) -> dict[str, str]:
        """One entry of ``locks`` of ``partition plan --json``."""
        return {"relation": str(self.relation), "mode": self.mode, "why": self.why}


def locks_of(
    connection: AnyConnection, table: Relation, default: Relation | None, *, moves: bool
) -> tuple[TableLock, ...]:
    """Every lock on an existing table, each held for one transaction per partition.

    Moving rows needs the parent alone: a reader that has planned before the move and waits for the default partition
    would go on without the new one, and miss the rows that are in neither place for it.
    """
    found = [
        TableLock(relation=table, mode="ACCESS EXCLUSIVE", why="rows move out of the default partition")
        if moves
        else TableLock(relation=table, mode="SHARE UPDATE EXCLUSIVE", why="attaching; readers and writers go on")
    ]
    if default is not None:
        found.append(
            TableLock(relation=default, mode="ACCESS EXCLUSIVE", why="the default partition is read from end to end")
        )
    for schema, name, permitted, refers in connection.execute(_REFERENCES, (str(table),)):
        why = f"{table} refers to it" if refers else f"it refers to {table}"
        lock = TableLock(relation=Relation(schema, name), mode="SHARE ROW EXCLUSIVE", why=why, by_name=permitted)
        if lock.relation not in [one.relation for one in found]:
            found.append(lock)
    return tuple(found)


class LockOrder:
    """The order in which one table's locks are asked for; the busy one comes first the next time."""

    def __init__(self, locks: Sequence[TableLock]) -> None:
        self._locks = [lock for lock in locks if lock.by_name]

    def take(self, connection: AutocommitConnection) -> None:
        """Take all of them in the open transaction; only the first is waited for, as long as its ``lock_timeout``."""
        for place, lock in enumerate(self._locks):
            statement = sql.SQL("lock table only {} in {} mode{}").format(
                lock.relation.identifier, sql.SQL(lock.mode), sql.SQL(" nowait" if place else "")
            )
            try:
                connection.execute(statement)
            except psycopg.errors.LockNotAvailable:
                self._locks.insert(0, self._locks.pop(place))
                raise
