"""Makes tables live, and ends it: the triggers, the function that they call, and the tables that it writes into.

``plan`` compares what is declared with the triggers that there are, by their definitions; ``apply`` makes each table
live, or no longer, in one transaction of its own. Both can be done again at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import sql

from dbplatform import progress
from dbplatform.live.errors import ColumnMasked, ColumnMissing, NoKey, NotLive
from dbplatform.live.policy import LivePolicy
from dbplatform.postgres.catalog import columns, require_table
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.patience import Patience
from dbplatform.postgres.state import SCHEMA, ensure_state

#: The channel on which a commit is announced; it says only that there is something to read.
CHANNEL = "dbplatform_live"
#: What is said on it when tables became live, or are no longer.
INSTALLED = "installed"
LOCK = "SHARE ROW EXCLUSIVE"
LOCK_TIMEOUT_MS = 2_000

# Events stay for those who come back after a while. A feed is one life of this table: after a restore from a dump
# transaction ids are others, and a token of before means nothing.
_EVENTS = """
    create table dbplatform.live_table (relation text primary key, key text[] not null, most_rows int not null);
    create function dbplatform.live_here() returns text language sql stable set search_path = pg_catalog, pg_temp
        return (select format('%s/%s', s.system_identifier, d.oid) from pg_control_system() s, pg_database d
                where d.datname = current_database());
    create table dbplatform.live_event (
        id bigint generated always as identity primary key,
        xid xid8 not null default pg_current_xact_id(),
        at timestamptz not null default clock_timestamp(),
        relation text not null,
        op text not null,
        keys jsonb
    );
    create index live_event_xid on dbplatform.live_event (xid);
    create table dbplatform.live_feed (
        made_in text primary key,
        feed uuid not null default gen_random_uuid(),
        pruned_before xid8 not null default '0'
    );
"""
# After a restore or an upgrade the events are of other transactions, and a token of before means nothing.
_FEED = """
    do $$ begin
        if not exists (select from dbplatform.live_feed where made_in = dbplatform.live_here()) then
            delete from dbplatform.live_event;
            delete from dbplatform.live_feed;
            insert into dbplatform.live_feed (made_in) select dbplatform.live_here();
            perform pg_notify('dbplatform_live', 'installed');
        end if;
    end $$
"""

# One row of a statement's keys is their texts in the order of the primary key. More than the first argument: null.
_FUNCTION = """
    create or replace function dbplatform.live_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    -- A key is the same text whoever writes it, and for who reads it.
    set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = '1'
    set bytea_output = 'hex' as $live$
    declare
        most constant int := tg_argv[0];
        source constant text := case tg_op
            when 'INSERT' then 'select %1$s from new_rows'
            when 'DELETE' then 'select %1$s from old_rows'
            else 'select %1$s from new_rows union select %1$s from old_rows' end;
        quick constant text := case tg_op when 'DELETE' then 'old_rows' else 'new_rows' end;
        counted int;
        key text := '';
        found jsonb;
    begin
        if tg_op <> 'TRUNCATE' then
            execute format('select count(*) from (select from %I limit %s) counted_rows', quick, most + 1) into counted;
            if counted = 0 then
                return null;
            end if;
            if counted <= most then
                select string_agg(format('%I::text', tg_argv[i]), ', ' order by i) into key
                from generate_series(1, tg_nargs - 1) i;
                begin
                    execute format(
                        'select jsonb_agg(k) from (' || source || ') s(k)', format('jsonb_build_array(%s)', key)
                    ) into found;
                exception when undefined_column then
                    -- Its key is another one since: told as many until "live apply" knows it.
                    found := null;
                end;
            end if;
        end if;
        insert into dbplatform.live_event (relation, op, keys)
        values (format('%I.%I', tg_table_schema, tg_table_name), lower(tg_op), found);
        perform pg_notify('dbplatform_live', '');
        return null;
    end
    $live$
"""
_OPERATIONS = {
    "insert": "referencing new table as new_rows",
    "update": "referencing old table as old_rows new table as new_rows",
    "delete": "referencing old table as old_rows",
    "truncate": "",
}
_INSTALLED = """
    select l.relation, l.key, l.most_rows,
           (select count(*) from pg_trigger t
            where t.tgrelid = to_regclass(l.relation) and t.tgfoid = to_regproc('dbplatform.live_changed')
              and t.tgenabled <> 'D') = 4
    from dbplatform.live_table l
"""
_PART = """
    select case when c.relispartition then (select format('%%I.%%I', n.nspname, p.relname) from pg_inherits i
               join pg_class p on p.oid = i.inhparent join pg_namespace n on n.oid = p.relnamespace
               where i.inhrelid = c.oid) end,
           exists (select from pg_partition_tree(c.oid) t join pg_class f on f.oid = t.relid where f.relkind = 'f')
    from pg_class c where c.oid = to_regclass(%s)
"""
_KEY = """
    select array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum order by k.place)
    from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s and i.indisprimary
"""


Kind = Literal["make", "change", "end"]
Masked = AbstractSet[tuple[Relation, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAction:
    """What is to be done to one table."""

    relation: Relation
    kind: Kind
    key: tuple[str, ...]
    most_rows: int
    reason: str

    @property
    def statements(self) -> tuple[sql.Composed, ...]:
        """The SQL, in the order in which it runs in one transaction."""
        if self.kind == "end":
            return tuple(
                sql.SQL("drop trigger if exists {} on {}").format(_trigger(word), self.relation.identifier)
                for word in _OPERATIONS
            )
        arguments = sql.SQL(", ").join(map(sql.Literal, (str(self.most_rows), *self.key)))
        return tuple(
            sql.SQL("create or replace trigger {} after {} on {} {} for each statement execute function {}({})").format(
                _trigger(word),
                sql.SQL(word),
                self.relation.identifier,
                sql.SQL(referencing),
                sql.Identifier(SCHEMA, "live_changed"),
                arguments,
            )
            for word, referencing in _OPERATIONS.items()
        )

    def as_json(self) -> dict[str, Any]:
        """As ``live plan --json`` shows it."""
        return {
            "table": str(self.relation),
            "do": self.kind,
            "reason": self.reason,
            "lock": "ACCESS EXCLUSIVE" if self.kind == "end" else LOCK,
            "statements": [statement.as_string() for statement in self.statements],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePlan:
    """What differs from what is declared."""

    database: str
    actions: tuple[LiveAction, ...]
    live: tuple[str, ...]
    """The tables that are live as declared already."""

    def as_json(self) -> dict[str, Any]:
        """The document of ``live plan|apply --json``."""
        return {
            "database": self.database,
            "live": list(self.live),
            "actions": [action.as_json() for action in self.actions],
        }


def plan_live(
    connection: AnyConnection, policies: Sequence[LivePolicy], *, database: str, masked: Masked = frozenset()
) -> LivePlan:
    """What differs from what is declared; only reads. ``masked``: columns that nobody outside may see.

    Raises ``TableMissing``, ``NoKey``, ``NotLive``, ``ColumnMasked`` and ``ColumnMissing``.
    """
    installed = _installed(connection)
    actions, live = [], []
    for policy in policies:
        key = _key(connection, policy)
        shown = policy.columns or [column.name for column in columns(connection, policy.table)]
        for column in (*key, *shown):
            if (policy.table, column) in masked:
                hint = "Declare the columns that may be pushed; a table whose key is masked cannot be live."
                raise ColumnMasked(table=policy.table, column=column, hint=hint)
        action = _missing(policy, key, installed.pop(str(policy.table), None))
        if action is None:
            live.append(str(policy.table))
        else:
            actions.append(action)
    for name, (key, most_rows, _) in installed.items():
        relation = Relation.parse(name)
        ended = LiveAction(relation=relation, kind="end", key=key, most_rows=most_rows, reason="no longer declared")
        actions.append(ended)
    return LivePlan(database=database, actions=tuple(actions), live=tuple(live))


def apply_live(
    connection: AutocommitConnection,
    policies: Sequence[LivePolicy],
    *,
    database: str,
    masked: Masked = frozenset(),
    sleep: Callable[[float], None] = time.sleep,
) -> LivePlan:
    """Do what ``plan_live`` says, a table at a time; the plan that was carried out.

    Locks: SHARE ROW EXCLUSIVE on each table that becomes live, ACCESS EXCLUSIVE on one that is no longer, asked for at
    most two seconds at a time and then tried again, with nothing held between the tries. Raises besides
    ``LockNotAcquired``.
    """
    if policies:
        ensure_state(connection, "live_event", _EVENTS)
        connection.execute(_FUNCTION.encode())
        connection.execute(_FEED.encode())
    plan = plan_live(connection, policies, database=database, masked=masked)
    patience = Patience(connection=connection, lock_timeout_ms=LOCK_TIMEOUT_MS, sleep=sleep)
    for done, action in enumerate(plan.actions):
        progress.report(f"live {database}", done=done, total=len(plan.actions), unit="tables")
        patience.run(str(action.relation), lambda action=action: _carry_out(connection, action))  # type: ignore[misc]
    progress.report(f"live {database}", done=len(plan.actions), total=len(plan.actions), unit="tables")
    return plan


def _carry_out(connection: AutocommitConnection, action: LiveAction) -> None:
    there = connection.execute("select to_regclass(%s) is not null", (str(action.relation),)).fetchone()
    if action.kind != "end" or there == (True,):
        for statement in action.statements:
            connection.execute(statement)
    connection.execute("select pg_notify(%s, %s)", (CHANNEL, INSTALLED))
    if action.kind == "end":
        connection.execute("delete from dbplatform.live_table where relation = %s", (str(action.relation),))
        return
    connection.execute(
        "insert into dbplatform.live_table (relation, key, most_rows) values (%s, %s, %s)"
        " on conflict (relation) do update set key = excluded.key, most_rows = excluded.most_rows",
        (str(action.relation), list(action.key), action.most_rows),
    )


_State = tuple[tuple[str, ...], int, bool]


def _installed(connection: AnyConnection) -> dict[str, _State]:
    there = connection.execute("select to_regclass('dbplatform.live_table') is not null").fetchone()
    if there != (True,):
        return {}
    return {
        name: (tuple(key), most, whole) for name, key, most, whole in connection.execute(_INSTALLED.encode()).fetchall()
    }


def _key(connection: AnyConnection, policy: LivePolicy) -> tuple[str, ...]:
    require_table(connection, policy.table)
    part = connection.execute(_PART.encode(), (str(policy.table),)).fetchone()
    if part is not None and part[0] is not None:
        hint = f"Make {part[0]} live: statements on it, and on it alone, are told."
        raise NotLive(table=policy.table, reason="it is a partition", hint=hint)
    if part is not None and part[1]:
        hint = "Take it out of live: PostgreSQL cannot tell such a statement's rows."
        raise NotLive(table=policy.table, reason="a partition of it is a foreign table", hint=hint)
    row = connection.execute(_KEY.encode(), (policy.table.schema, policy.table.name)).fetchone()
    if row is None:
        raise NoKey(table=policy.table, hint="Add one by a migration, or take the table out of live.")
    known = {column.name for column in columns(connection, policy.table)}
    for column in policy.columns or []:
        if column not in known:
            raise ColumnMissing(table=policy.table, column=column, hint=f"It has: {', '.join(sorted(known))}.")
    return tuple(row[0])


def _missing(policy: LivePolicy, key: tuple[str, ...], state: _State | None) -> LiveAction | None:
    kind: Kind
    if state is None:
        kind, reason = "make", "declared, and not live yet"
    elif not state[2]:
        kind, reason = "change", "triggers of it are missing or disabled"
    elif (key, policy.most_rows) != state[:2]:
        kind, reason = "change", "its key or most_rows has changed"
    else:
        return None
    return LiveAction(relation=policy.table, kind=kind, key=key, most_rows=policy.most_rows, reason=reason)


def _trigger(operation: str) -> sql.Identifier:
    return sql.Identifier(f"dbplatform_live_{operation}")
