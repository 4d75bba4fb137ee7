"""Reads what was noted of live tables since a token, so that nothing is missed and nothing comes twice.

A token is the snapshot of the last reading: which transactions were seen by it. What is new are the events of those
that are seen now and were not then, however long they took and in whatever order they committed; an identity column or
a time would leave out a transaction that began before another and committed behind it (manual: "9.27.8. Transaction ID
and Snapshot Information Functions").
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, cast

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from dbplatform.live.keeping import KEPT, PRUNE
from dbplatform.live.policy import LivePolicy
from dbplatform.postgres.identifiers import Relation

Connection = psycopg.AsyncConnection[TupleRow]
#: The columns of a primary key, in its order: name and type.
Key = tuple[tuple[str, str], ...]

#: More events than that at once are told as a reset: whoever watches loads everything again.
MOST_EVENTS: Final = 2_000
#: More keys of one table at once are a change of many.
MOST_KEYS: Final = 5_000
#: Rows of one table with more characters are a change of many, too.
MOST_CHARACTERS: Final = 1 << 20
#: A whole number beyond it is another one in JavaScript (ECMA-262, Number.MAX_SAFE_INTEGER).
_GREATEST_WHOLE: Final = 2**53 - 1
_TOKEN = re.compile(r"(?P<feed>[0-9a-f-]{36})\.(?P<snapshot>\d{1,20}:\d{1,20}:[\d,]{0,4000})")

_NOW = """
    select (select feed::text from dbplatform.live_feed where made_in = dbplatform.live_here()),
           pg_current_snapshot()::text
"""
_KEY = """
    select a.attname::text, format_type(a.atttypid, a.atttypmod)
    from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace,
         unnest(i.indkey::int2[]) with ordinality k(attnum, place), pg_attribute a
    where n.nspname = %s and c.relname = %s and i.indisprimary and a.attrelid = i.indrelid and a.attnum = k.attnum
    order by k.place
"""
_FAMILY = """
    select n.nspname, c.relname
    from pg_partition_tree(coalesce(pg_partition_root(to_regclass(%s)), 0::regclass)) t
    join pg_class c on c.oid = t.relid join pg_namespace n on n.oid = c.relnamespace
"""
_READ = """
    with now as materialized (select pg_current_snapshot() as snapshot),
    feed as (select feed::text as id, pruned_before from dbplatform.live_feed where made_in = dbplatform.live_here()),
    since as (select %(snapshot)s::pg_snapshot as snapshot),
    found as (
        -- Not seen by a snapshot are the transactions from its xmax on, and those that it lists.
        select * from (
            select relation, keys, xid, id from dbplatform.live_event
            where xid >= (select pg_snapshot_xmax(snapshot) from since)
            union all
            select relation, keys, xid, id from dbplatform.live_event
            where xid = any (array(select pg_snapshot_xip(snapshot) from since))
        ) unseen
        limit %(most)s + 1
    ),
    bounded as (
        select relation, xid, id,
               case when sum(jsonb_array_length(coalesce(keys, '[]'))) over (partition by relation) <= %(most_keys)s
                    then keys end as keys
        from found
    )
    select feed.id, now.snapshot::text,
           feed.id is distinct from %(feed)s or feed.pruned_before > pg_snapshot_xmin(since.snapshot)
               or pg_snapshot_xmax(since.snapshot) > pg_snapshot_xmax(now.snapshot),
           coalesce((select jsonb_agg(jsonb_build_array(relation, keys) order by xid, id) from bounded), '[]')
    from now cross join since left join feed on true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Up to where somebody knows."""

    feed: str
    snapshot: str

    @classmethod
    def parse(cls, text: str) -> Token | None:
        """None: it was not made here."""
        match = _TOKEN.fullmatch(text)
        return cls(feed=match["feed"], snapshot=match["snapshot"]) if match else None

    def __str__(self) -> str:
        return f"{self.feed}.{self.snapshot}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one table since the last reading, in all."""

    relation: str
    keys: frozenset[tuple[str, ...]]
    many: bool
    """So much has changed that the table is to be loaded again; then there are no keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is new, and the token behind it."""

    token: Token
    changes: tuple[Change, ...]
    reset: bool = False
    """What was before the token is not known any more: everything is to be loaded again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one table as they are now."""

    relation: str
    rows: Sequence[Mapping[str, Any]]
    gone: Sequence[Mapping[str, Any]] = field(default=())
    """The keys of those that are no more."""
    many: bool = False


async def now(connection: Connection) -> Token | None:
    """The token of this moment; None where no table is live here."""
    try:
        row = await (await connection.execute(_NOW.encode())).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
        return None
    if row is None or row[0] is None:
        return None
    return Token(feed=row[0], snapshot=row[1])


async def read(connection: Connection, since: Token) -> Reading:
    """What was committed since the token; one statement."""
    given = {"snapshot": since.snapshot, "feed": since.feed, "most": MOST_EVENTS, "most_keys": MOST_KEYS}
    try:
        row = await (await connection.execute(_READ.encode(), given)).fetchone()
    except psycopg.errors.InvalidTextRepresentation:
        fresh = await now(connection)
        return Reading(token=fresh or since, changes=(), reset=True)
    assert row is not None
    feed, snapshot, lost, events = row
    token = Token(feed=feed or since.feed, snapshot=snapshot)
    if lost or len(events) > MOST_EVENTS:
        return Reading(token=token, changes=(), reset=True)
    return Reading(token=token, changes=_folded(events))


async def key_of(connection: Connection, relation: Relation) -> Key:
    """The columns of the primary key with their types; none where the table has none, or is gone."""
    rows = await (await connection.execute(_KEY.encode(), (relation.schema, relation.name))).fetchall()
    return tuple((name, type_) for name, type_ in rows)


async def family_of(connection: Connection, relation: Relation) -> frozenset[Relation]:
    """The table and those whose rows are its own: of a partitioned one the whole tree."""
    rows = await (await connection.execute(_FAMILY.encode(), (str(relation),))).fetchall()
    return frozenset({relation, *(Relation(schema, name) for schema, name in rows)})


async def read_rows(connection: Connection, policy: LivePolicy, key: Key, change: Change) -> Rows:
    """The rows of a change as they are now, found by their key; one statement, which ends where they are too many.

    A number that lost digits as a binary one of 64 bits is text: JavaScript, for which rows are meant, has no other.
    """
    keys = sorted(change.keys)
    names = [sql.Identifier(name) for name, _ in key]
    aliases = [sql.Identifier(f"key_{place}") for place in range(len(key))]
    wanted = [sql.Identifier(name) for name in dict.fromkeys([*(name for name, _ in key), *(policy.columns or [])])]
    query = sql.SQL(
        "select k.place - 1, left((select to_jsonb(row) from (select {wanted}) row)::text, %s)"
        " from {table} t join unnest({arrays}) with ordinality as k({aliases}, place) on {same}"
    ).format(
        wanted=sql.SQL(", ").join(sql.SQL("t.{}").format(name) for name in wanted)
        if policy.columns
        else sql.SQL("t.*"),
        table=policy.table.identifier,
        arrays=sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in key),
        aliases=sql.SQL(", ").join(aliases),
        same=sql.SQL(" and ").join(
            # The type as the catalog writes it: the comparison can use the index of the key.
            sql.SQL("t.{} = k.{}::{}").format(name, alias, sql.SQL(type_))
            for name, alias, (_, type_) in zip(names, aliases, key, strict=True)
        ),
    )
    columns = [[one[place] for one in keys] for place in range(len(key))]
    found: dict[int, Any] = {}
    left = MOST_CHARACTERS
    async with connection.cursor() as cursor:
        # One by one: who has read enough ends the statement, and no row behind it is made or fetched.
        texts = cast(AsyncGenerator[TupleRow, None], cursor.stream(query, [left + 1, *columns]))
        async with aclosing(texts):
            async for place, text in texts:
                left -= len(text)
                if left < 0:
                    return Rows(relation=change.relation, rows=(), many=True)
                found[place] = json.loads(text, parse_int=_whole, parse_float=_broken)
    return Rows(
        relation=change.relation,
        rows=[found[place] for place in range(len(keys)) if place in found],
        gone=[
            dict(zip((name for name, _ in key), one, strict=True))
            for place, one in enumerate(keys)
            if place not in found
        ],
    )


async def prune(connection: Connection) -> int:
    """Let go of events that are older than ``KEPT``; how many."""
    return (await connection.execute(PRUNE.encode(), (KEPT,))).rowcount


def _whole(text: str) -> int | str:
    # Python reads no number of thousands of digits, and a numeric may have them.
    short = len(text) <= len(str(-_GREATEST_WHOLE))
    return int(text) if short and abs(int(text)) <= _GREATEST_WHOLE else text


def _broken(text: str) -> float | str:
    number = float(text)
    return number if Decimal(text) == Decimal(repr(number)) else text


def _folded(events: Sequence[Sequence[Any]]) -> tuple[Change, ...]:
    """One change for each table: of a key it counts only that something became of it."""
    keys: dict[str, set[tuple[str, ...]]] = {}
    many: set[str] = set()
    for name, found in events:
        # The server quotes names that are keywords, too.
        relation = str(Relation.parse(name))
        known = keys.setdefault(relation, set())
        if found is None:
            many.add(relation)
        else:
            known.update(tuple(one) for one in found)
    return tuple(
        Change(relation=relation, keys=frozenset() if relation in many else frozenset(known), many=relation in many)
        for relation, known in keys.items()
    )
