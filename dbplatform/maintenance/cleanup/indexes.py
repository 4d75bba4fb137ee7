"""Invalid indexes: what a CREATE, REINDEX or DROP INDEX CONCURRENTLY leaves that was killed or has failed.

Each costs every write and serves no query, and IF NOT EXISTS takes it for the index. Left alone are: one that is being
built, one that a constraint or a replica rests on, and one that work which was begun will deal with itself. Source:
PostgreSQL manual, CREATE INDEX, "Building Indexes Concurrently"; REINDEX, "Rebuilding Indexes Concurrently".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg import sql

from dbplatform.errors import LockNotAcquired
from dbplatform.maintenance.cleanup.leftovers import Fate, Leftover
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation

KIND = "invalid index"
#: Each wait is short, and each try looks anew: whoever rebuilds an index while it is waited for makes it valid.
_LOCK_TIMEOUT_MS, _TRIES = 200, 25

# Whoever builds holds SHARE UPDATE EXCLUSIVE or more on the table until the index is valid, whatever phase it shows.
_FOUND = """
    select n.nspname, c.relname, pg_get_indexdef(c.oid), pg_relation_size(c.oid),
           c.relkind = 'I' or c.relispartition,
           exists (select from pg_constraint k where k.conindid = c.oid),
           i.indisreplident,
           not pg_has_role(c.relowner, 'usage'),
           (select l.pid from pg_locks l where l.granted and l.pid is distinct from pg_backend_pid()
            and l.locktype = 'relation' and l.relation in (c.oid, i.indrelid)
            and l.database = (select oid from pg_database where datname = current_database())
            and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                           'AccessExclusiveLock') limit 1),
           exists (select from pg_stat_progress_create_index p where p.index_relid = c.oid)
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
    where not (i.indisvalid and i.indisready and i.indislive) and c.relpersistence <> 't'
    order by 1, 2
"""
# Of the catalog alone: the size of an index waits for whoever rebuilds it, and what was read before is old then.
_STILL = """
    select exists (select from pg_index
                   where indexrelid = to_regclass(%s) and not (indisvalid and indisready and indislive))
"""


def find_invalid(connection: AnyConnection, *, needed: Callable[[str], str | None]) -> list[Leftover]:
    """Every invalid index of the database; only reads. ``needed`` says of a name which work wants it, if any does."""
    found = []
    for schema, name, definition, size, of_parts, constraint, identity, foreign, holder, built in connection.execute(
        _FOUND
    ).fetchall():
        index = str(Relation(schema, name))
        fate: Fate = "remove"
        why, advice = f"invalid: {definition}", ""
        if holder is not None or built:
            fate, why = "leave", f"its table is being worked on{f' by backend {holder}' if holder is not None else ''}"
        elif (work := needed(name)) is not None:
            fate, why = "leave", f"invalid, and {work}"
        elif of_parts:
            fate, why = "tell", "it belongs to a partitioned index that is not complete"
            advice = "Attach the index of each partition (alter index ... attach partition), or drop the whole one."
        elif constraint or identity:
            rests = "a constraint rests on it" if constraint else "replicas find rows by it"
            fate, why = "tell", f"invalid, and {rests}"
            advice = f"Rebuild it: reindex index concurrently {index}"
        elif foreign:
            fate, why = "tell", "invalid, and it belongs to somebody else"
            advice = f"Its owner may: drop index concurrently {index}"
        found.append(Leftover(kind=KIND, name=index, reason=why, fate=fate, advice=advice, bytes=size))
    return found


def drop_invalid(connection: AutocommitConnection, leftover: Leftover, *, needed: Callable[[str], str | None]) -> bool:
    """Drop one that is still as it was found; whether it was. Lock: SHARE UPDATE EXCLUSIVE on its table.

    Waits for open transactions of the table; killed, it leaves the index invalid. Raises ``LockNotAcquired``.
    """
    connection.execute(
        "select set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false)",
        (str(_LOCK_TIMEOUT_MS),),
    )
    index = Relation.parse(leftover.name).identifier
    for _ in range(_TRIES):
        with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            due = {one.name for one in find_invalid(connection, needed=needed) if one.fate == "remove"}
            still = connection.execute(_STILL, (index.as_string(connection),)).fetchone()
            if leftover.name not in due or still != (True,):
                return False
            connection.execute(sql.SQL("drop index concurrently if exists {}").format(index))
            return True
    raise LockNotAcquired(
        lock=f"the table of {leftover.name}",
        waited_ms=_TRIES * _LOCK_TIMEOUT_MS,
        hint="A transaction is open on it; the next clean-up tries again.",
    )
