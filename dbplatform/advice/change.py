"""Making one change of an advice, or taking it back: online, again where a lock was in the way, and ended right after a
kill.

What builds concurrently waits for open transactions and hinders nobody meanwhile but other changes of the table, so it
may wait long; a lock_timeout of seconds would only leave invalid indexes. What it leaves when it fails is dropped.
Source: PostgreSQL manual, "CREATE INDEX" and "REINDEX", on building and rebuilding indexes concurrently.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from dbplatform.advice.actions import Action, statement
from dbplatform.advice.errors import NameInTheWay, NotBuilt, StillBuilding
from dbplatform.errors import LockNotAcquired
from dbplatform.postgres.connection import AutocommitConnection

#: How long what is concurrent waits for one transaction, and everything else for its lock, and how often it tries.
CONCURRENT_WAIT_MS, LOCK_TIMEOUT_MS = 600_000, 2_000
TRIES = 5
_AGAIN = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

_FIND = """
    select i.indexrelid is not null and t.oid = to_regclass(%s), coalesce(i.indisvalid, false),
           (select p.pid from pg_stat_progress_create_index p where p.index_relid = c.oid limit 1),
           pg_get_indexdef(i.indexrelid), a.amname::text,
           (select array_agg(q.attname::text order by k.at) from unnest(i.indkey::int2[]) with ordinality k (number, at)
            join pg_attribute q on q.attrelid = i.indrelid and q.attnum = k.number),
           i.indpred is null and i.indexprs is null and not i.indisunique
    from pg_class c
    join pg_am a on a.oid = c.relam
    left join pg_index i on i.indexrelid = c.oid
    left join pg_class t on t.oid = i.indrelid
    where c.oid = to_regclass(%s)
"""
_DEBRIS = """
    select n.nspname, d.relname
    from pg_index i
    join pg_index j on j.indrelid = i.indrelid and not j.indisvalid
    join pg_class d on d.oid = j.indexrelid join pg_namespace n on n.oid = d.relnamespace
    where i.indexrelid = to_regclass(%s) and starts_with(d.relname::text, left(%s, 57))
      and d.relname ~ '_cc(new|old)[0-9]*$'
"""
_SIZE = "select pg_relation_size(to_regclass(%s))"


def make(
    connection: AutocommitConnection, action: Action, table: str, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Make one change; one that is made already changes nothing. ``table``: of an index, as SQL writes it.

    Lock: SHARE UPDATE EXCLUSIVE on the table. Raises ``LockNotAcquired``, ``NotBuilt``, ``NameInTheWay`` and
    ``StillBuilding``.
    """
    concurrent = action.verb not in ("table_options", "setting")
    waits = CONCURRENT_WAIT_MS if concurrent else LOCK_TIMEOUT_MS
    connection.execute(
        "select set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false)", (str(waits),)
    )
    for turn in range(1, TRIES + 1):
        try:
            _once(connection, action, table)
            return
        except _AGAIN as error:
            if turn == TRIES:
                raise LockNotAcquired(
                    lock=f"a lock that {statement(action)} needs",
                    waited_ms=TRIES * waits,
                    hint="Find in pg_stat_activity the transaction that holds it, then run the command again.",
                ) from error
        sleep(min(0.2 * 2**turn, 5.0) * random.uniform(0.8, 1.2))


def _once(connection: AutocommitConnection, action: Action, table: str) -> None:
    if action.verb in ("create_index", "recreate_index"):
        if _is_there(connection, action, table):
            return
        _built(connection, action)
    elif action.verb == "reindex":
        _drop_debris(connection, action)
        _built(connection, action)
    else:
        connection.execute(statement(action).encode())
        if action.verb == "setting":
            connection.execute("select pg_reload_conf()")


def _built(connection: AutocommitConnection, action: Action) -> None:
    try:
        connection.execute(statement(action).encode())
    except _AGAIN:
        _leave_nothing(connection, action)
        raise
    except psycopg.Error as error:
        if error.sqlstate is None or connection.closed:
            raise
        _leave_nothing(connection, action)
        raise NotBuilt(
            name=action.name,
            reason=(error.diag.message_primary or str(error)).rstrip("."),
            hint=error.diag.message_detail or "Nothing was left behind.",
        ) from error


def _is_there(connection: AutocommitConnection, action: Action, table: str) -> bool:
    """Whether the index is there already; an invalid one of that name, which a killed run left, is dropped."""
    name = action.identifier if action.verb == "recreate_index" else sql.Identifier(action.schema, action.name)
    row = connection.execute(_FIND, (table, name.as_string())).fetchone()
    if row is None:
        return False
    of_table, valid, builder, definition, method, columns, plain = row
    wanted = (
        definition == action.definition
        if action.verb == "recreate_index"
        else plain and (method, tuple(columns or ())) == (action.method, action.columns)
    )
    if not of_table or (valid and not wanted):
        hint = "Drop or rename it, then run the command again."
        raise NameInTheWay(name=f"{action.schema}.{action.name}", hint=hint)
    if builder is not None:
        raise StillBuilding(pid=builder, name=action.name, hint="Wait for it, then run the command again.")
    if not valid:
        connection.execute(sql.SQL("drop index concurrently if exists {}").format(name))
    return bool(valid)


def _leave_nothing(connection: AutocommitConnection, action: Action) -> None:
    """Drop the invalid index that a failed build leaves; one that was invalid before a REINDEX stays as it was."""
    if action.verb == "reindex":
        _drop_debris(connection, action)
        return
    row = connection.execute(
        "select indisvalid from pg_index where indexrelid = to_regclass(%s)", (action.identifier.as_string(),)
    ).fetchone()
    if row is not None and not row[0]:
        connection.execute(sql.SQL("drop index concurrently if exists {}").format(action.identifier))


def _drop_debris(connection: AutocommitConnection, action: Action) -> None:
    """Drop what an earlier REINDEX CONCURRENTLY of this index left behind."""
    for schema, name in connection.execute(_DEBRIS, (action.identifier.as_string(), action.name)).fetchall():
        connection.execute(sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(schema, name)))


def size_of(connection: AutocommitConnection, action: Action) -> int | None:
    """The bytes of the index or table of a change; none where it is not there."""
    if action.verb == "setting":
        return None
    schema_and_name = sql.Identifier(action.schema, action.name).as_string()
    row = connection.execute(_SIZE, (schema_and_name,)).fetchone()
    return None if row is None else row[0]
