"""Live tables: a change is noted with its commit or not at all, and read once, in whatever order transactions end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import sql

from dbplatform.errors import LockNotAcquired
from dbplatform.live import events, keeping
from dbplatform.live.errors import ColumnMasked, ColumnMissing, NoKey, NotLive
from dbplatform.live.events import Connection, Rows, Token
from dbplatform.live.install import LivePlan, apply_live, plan_live
from dbplatform.live.policy import LivePolicy
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import Target, connect, connect_to_listen
from dbplatform_tests.drills.breaking import no_room

T = TypeVar("T")

TABLES = """
    create table items (id int primary key, name text, secret text);
    create table pairs ("the key" text, number numeric(6, 2), at timestamptz, primary key ("the key", number));
    create table plain (id int);
    create table parted (id int, at date, primary key (id, at)) partition by range (at);
    create table parted_now partition of parted for values from ('2020-01-01') to ('2100-01-01');
"""
ITEMS = LivePolicy.model_validate({"table": "public.items", "columns": ["name"], "most_rows": 5})
PAIRS = LivePolicy.model_validate({"table": "public.pairs"})
PARTED = LivePolicy.model_validate({"table": "public.parted"})
EVERY = (ITEMS, PAIRS, PARTED)


@pytest.fixture
def live(database: Target) -> Target:
    run(database, TABLES)
    make(database, EVERY)
    return database


def run(database: Target, text: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(text.encode())


def make(database: Target, policies: Sequence[LivePolicy]) -> LivePlan:
    with connect(database, work="test") as connection:
        return apply_live(connection, policies, database="shop", sleep=lambda seconds: None)


def asked(database: Target, ask: Callable[[Connection], Awaitable[T]]) -> T:
    async def one() -> T:
        async with connect_to_listen(database, work="test") as connection:
            return await ask(connection)

    return asyncio.run(one())


def token(database: Target) -> Token:
    found = asked(database, events.now)
    assert found is not None
    return found


def since(database: Target, before: Token) -> tuple[events.Reading, dict[str, Rows]]:
    """What is new, and the rows of it."""

    async def ask(connection: Connection) -> tuple[events.Reading, dict[str, Rows]]:
        reading = await events.read(connection, before)
        rows = {}
        for change in reading.changes:
            [policy] = [policy for policy in EVERY if str(policy.table) == change.relation]
            if not change.many:
                key = await events.key_of(connection, policy.table)
                rows[change.relation] = await events.read_rows(connection, policy, key, change)
        return reading, rows

    return asked(database, ask)


def test_rows_that_were_made_changed_and_removed_are_read_as_they_are_now(live: Target) -> None:
    run(live, "insert into items values (1, 'one', 'x'), (2, 'two', 'x'), (3, 'three', 'x')")
    before = token(live)
    run(
        live, "update items set name = 'ONE' where id = 1; delete from items where id = 2; insert into items values (4)"
    )
    reading, rows = since(live, before)
    assert [(change.relation, change.many) for change in reading.changes] == [("public.items", False)]
    assert rows["public.items"].rows == [{"id": 1, "name": "ONE"}, {"id": 4, "name": None}], "not the other columns"
    assert rows["public.items"].gone == [{"id": "2"}]
    again, _ = since(live, reading.token)
    assert again.changes == ()


def test_a_change_whose_note_finds_no_room_is_not_made_and_nobody_is_told_of_it(live: Target) -> None:
    before = token(live)
    with no_room(live, "dbplatform.live_event"), pytest.raises(psycopg.errors.DiskFull):
        run(live, "insert into items values (1, 'one', 'x')")
    reading, _ = since(live, before)
    assert reading.changes == ()
    run(live, "insert into items values (2, 'two', 'x')")
    _, rows = since(live, before)
    assert rows["public.items"].rows == [{"id": 2, "name": "two"}]


def test_a_changed_key_is_the_old_one_gone_and_the_new_one_there(live: Target) -> None:
    run(live, "insert into pairs values ('a \"quoted\" 100 % key', 1.50, '2026-03-01 12:00Z')")
    before = token(live)
    run(live, "update pairs set number = 2.5")
    _, rows = since(live, before)
    assert [row["number"] for row in rows["public.pairs"].rows] == [2.5]
    assert rows["public.pairs"].gone == [{"the key": 'a "quoted" 100 % key', "number": "1.50"}]


def test_a_number_that_javascript_would_change_is_text_and_no_other_one(database: Target) -> None:
    wide = LivePolicy.model_validate({"table": "public.wide"})
    run(database, "create table wide (id bigint primary key, amount numeric, share float8, more jsonb)")
    make(database, [wide])
    before = token(database)
    run(
        database,
        "insert into wide values (9007199254740991, 12.50, 0.1, null), (9007199254740992, 0.1234567890123456789, 'NaN',"
        " '{\"n\": -9007199254740993}'), (-9223372036854775808, " + "7" * 5000 + ", 1e-300, '[1e2, 1.5]')",
    )

    async def ask(connection: Connection) -> tuple[Rows, Rows]:
        [change] = (await events.read(connection, before)).changes
        key = await events.key_of(connection, wide.table)
        there = await events.read_rows(connection, wide, key, change)
        await connection.execute("delete from wide where id > 9007199254740991")
        return there, await events.read_rows(connection, wide, key, change)

    there, left = asked(database, ask)
    assert {row["id"]: (row["amount"], row["share"], row["more"]) for row in there.rows} == {
        9007199254740991: (12.5, 0.1, None),
        "9007199254740992": ("0.1234567890123456789", "NaN", {"n": "-9007199254740993"}),
        "-9223372036854775808": ("7" * 5000, 1e-300, [100, 1.5]),
    }
    assert left.gone == [{"id": "9007199254740992"}]


def test_rows_of_too_many_characters_are_a_change_of_many_and_are_not_fetched(
    live: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_CHARACTERS", 1_000)

    insert = "insert into items select coalesce(max(id), 0) + 1, repeat('x', 400) from items"

    def told(*statements: str) -> tuple[bool, int, int]:
        before = token(live)
        for statement in statements:
            run(live, statement)
        found = since(live, before)[1]["public.items"]
        return found.many, len(found.rows), len(found.gone)

    assert told(insert, insert) == (False, 2, 0)
    assert told(insert, insert, insert) == (True, 0, 0)
    assert told("update items set name = repeat('x', 1000000) where id = 1") == (True, 0, 0)


def test_a_session_whose_rows_were_too_many_is_good_for_the_next_statement(
    live: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_CHARACTERS", 1_000)
    keys = frozenset((str(number),) for number in range(1, 1_001))
    run(live, "insert into items select i, repeat('x', 10000) from generate_series(1, 1000) i")

    async def ask(connection: Connection) -> tuple[bool, Token | None]:
        key = await events.key_of(connection, ITEMS.table)
        change = events.Change(relation="public.items", keys=keys, many=False)
        found = await events.read_rows(connection, ITEMS, key, change)
        return found.many, await events.now(connection)

    many, now = asked(live, ask)
    assert many
    assert now == token(live)


def test_rows_of_a_partitioned_table_are_told_of_the_table(live: Target) -> None:
    before = token(live)
    run(live, "insert into parted values (1, '2026-01-01')")
    _, rows = since(live, before)
    assert rows["public.parted"].rows == [{"id": 1, "at": "2026-01-01"}]


def test_what_is_rolled_back_or_changes_nothing_is_not_noted(live: Target) -> None:
    before = token(live)
    run(live, "begin; insert into items values (1); rollback; update items set name = 'x' where false")
    reading, _ = since(live, before)
    assert reading.changes == ()
    with psycopg.connect(live.url) as session:
        assert session.execute("select count(*) from dbplatform.live_event").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    ["insert into items select i from generate_series(1, 6) i", "truncate items"],
)
def test_more_rows_than_declared_are_a_change_of_many(live: Target, statement: str) -> None:
    before = token(live)
    run(live, statement)
    reading, _ = since(live, before)
    assert [(change.relation, change.many, change.keys) for change in reading.changes] == [
        ("public.items", True, frozenset())
    ]


def test_a_transaction_that_began_first_and_commits_last_is_not_missed(live: Target) -> None:
    before = token(live)
    with psycopg.connect(live.url) as slow, psycopg.connect(live.url) as quick:
        slow.execute("insert into items values (1, 'slow')")
        quick.execute("insert into items values (2, 'quick')")
        quick.commit()
        first, rows = since(live, before)
        assert [row["id"] for row in rows["public.items"].rows] == [2]
        slow.commit()
    second, rows = since(live, first.token)
    assert [row["id"] for row in rows["public.items"].rows] == [1]
    assert since(live, second.token)[0].changes == ()


@pytest.mark.drill(sample=True)
def test_among_many_writers_nothing_is_missed_and_nothing_comes_twice(live: Target) -> None:
    """Each reading begins behind the last one, while transactions of all lengths begin, wait and end."""
    writers, each = 6, 40
    over = threading.Event()

    def write(number: int) -> None:
        with psycopg.connect(live.url) as session:
            for turn in range(each):
                session.execute("insert into items values (%s)", (number * each + turn,))
                session.execute("select pg_sleep(random() * 0.01)")
                session.rollback() if turn % 7 == 0 else session.commit()

    async def follow() -> list[tuple[str, ...]]:
        seen: list[tuple[str, ...]] = []
        async with connect_to_listen(live, work="test") as connection:
            at = await events.now(connection)
            assert at is not None
            threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
            for thread in threads:
                thread.start()
            ender = threading.Thread(target=lambda: ([thread.join() for thread in threads], over.set()))
            ender.start()
            while True:
                last = over.is_set()
                reading = await events.read(connection, at)
                seen += [key for change in reading.changes for key in change.keys]
                at = reading.token
                if last:
                    return seen

    seen = asyncio.run(follow())
    with psycopg.connect(live.url) as session:
        there = [(str(id_),) for (id_,) in session.execute("select id from items").fetchall()]
    assert sorted(seen) == sorted(there)


def test_a_token_of_before_what_was_let_go_is_a_reset(live: Target) -> None:
    old = token(live)
    run(live, "insert into items values (1)")
    new = token(live)
    run(live, "insert into items values (2)")
    run(live, "update dbplatform.live_event set at = now() - interval '2 hours' where keys = '[[\"1\"]]'")
    assert asked(live, lambda connection: events.prune(connection)) == 1
    assert since(live, old)[0].reset
    kept, rows = since(live, new)
    assert not kept.reset
    assert [row["id"] for row in rows["public.items"].rows] == [2]


def a_token_of_another_database(own: Token) -> Token:
    return Token(feed="00000000-0000-0000-0000-000000000000", snapshot=own.snapshot)


def a_token_of_the_future(own: Token) -> Token:
    return Token(feed=own.feed, snapshot="999999999:999999999:")


def a_token_that_is_no_snapshot(own: Token) -> Token:
    return Token(feed=own.feed, snapshot="5:4:")


@pytest.mark.parametrize(
    "made", [a_token_of_another_database, a_token_of_the_future, a_token_that_is_no_snapshot], ids=lambda f: f.__name__
)
def test_a_token_that_means_nothing_here_is_a_reset(live: Target, made: Callable[[Token], Token]) -> None:
    own = token(live)
    reading, _ = since(live, made(own))
    assert reading.reset
    assert reading.token.feed == own.feed


@pytest.mark.parametrize("text", ["", "x", "1:1:", "00000000-0000-0000-0000-000000000000.1:1:';drop"])
def test_other_words_are_no_token(text: str) -> None:
    assert Token.parse(text) is None


def test_a_user_without_rights_on_the_platforms_schema_writes_as_before(live: Target) -> None:
    run(live, "drop role if exists live_app; create role live_app; grant insert on items to live_app")
    before = token(live)
    run(live, "set role live_app; insert into items values (7)")
    _, rows = since(live, before)
    run(live, "drop owned by live_app; drop role live_app")
    assert [row["id"] for row in rows["public.items"].rows] == [7]


def test_applied_again_there_is_nothing_to_do_and_what_is_not_declared_ends(live: Target) -> None:
    assert make(live, EVERY).actions == ()
    ended = make(live, (PAIRS,))
    assert [(str(one.relation), one.kind) for one in ended.actions] == [
        ("public.items", "end"),
        ("public.parted", "end"),
    ]
    with psycopg.connect(live.url) as session:
        tables = session.execute(
            "select distinct tgrelid::regclass::text from pg_trigger where not tgisinternal"
        ).fetchall()
    assert tables == [("pairs",)]
    assert make(live, (PAIRS,)).actions == ()


def test_a_disabled_trigger_a_new_key_and_another_bound_are_mended(live: Target) -> None:
    run(live, "alter table pairs disable trigger dbplatform_live_update")
    run(live, "alter table items drop constraint items_pkey, add column uid int, add primary key (uid)")
    found = make(live, (ITEMS, PAIRS.model_copy(update={"most_rows": 7}), PARTED))
    assert {str(one.relation): (one.kind, one.key) for one in found.actions} == {
        "public.items": ("change", ("uid",)),
        "public.pairs": ("change", ("the key", "number")),
    }
    assert make(live, (ITEMS, PAIRS.model_copy(update={"most_rows": 7}), PARTED)).actions == ()


@pytest.mark.parametrize(
    ("declared", "error", "words"),
    [
        ({"table": "public.plain"}, NoKey, "has no primary key"),
        ({"table": "public.nothing"}, TableMissing, "nothing"),
        ({"table": "public.items", "columns": ["nme"]}, ColumnMissing, "no column 'nme'"),
        ({"table": "public.parted_now"}, NotLive, "it is a partition"),
    ],
)
def test_what_cannot_be_live_is_refused_before_anything_changes(
    database: Target, declared: dict[str, Any], error: type[Exception], words: str
) -> None:
    run(database, TABLES)
    with connect(database, work="test") as connection, pytest.raises(error, match=words):
        apply_live(connection, [PAIRS, LivePolicy.model_validate(declared)], database="shop")
    with psycopg.connect(database.url) as session:
        assert session.execute("select count(*) from pg_trigger where not tgisinternal").fetchone() == (0,)


def test_a_key_that_is_masked_is_not_pushed(database: Target) -> None:
    run(database, TABLES)
    with connect(database, work="test") as connection, pytest.raises(ColumnMasked, match="push the key"):
        apply_live(connection, [PAIRS], database="shop", masked={(PAIRS.table, "the key")})
    with psycopg.connect(database.url) as session:
        assert session.execute("select count(*) from pg_trigger where not tgisinternal").fetchone() == (0,)


def test_a_key_that_was_renamed_stops_no_writer(live: Target) -> None:
    before = token(live)
    run(live, "alter table items rename id to item_id; insert into items values (1)")
    reading, _ = since(live, before)
    assert [(change.relation, change.many) for change in reading.changes] == [("public.items", True)]
    assert [one.key for one in make(live, EVERY).actions] == [("item_id",)]


def test_whoever_writes_by_whatever_clock_a_row_that_is_there_is_not_gone(database: Target) -> None:
    run(database, "create table moments (at timestamptz primary key, span interval)")
    run(database, 'create table "order" (id int primary key)')
    policies = [LivePolicy.model_validate({"table": f"public.{name}"}) for name in ("moments", "order")]
    make(database, policies)
    before = token(database)
    run(
        database,
        "set timezone = 'Europe/Berlin'; set datestyle = 'German';"
        " insert into moments values ('01.03.2026 13:00'); insert into \"order\" values (1)",
    )

    async def ask(connection: Connection) -> list[Rows]:
        reading = await events.read(connection, before)
        by_name = {str(policy.table): policy for policy in policies}
        return [
            await events.read_rows(
                connection,
                by_name[change.relation],
                await events.key_of(connection, by_name[change.relation].table),
                change,
            )
            for change in reading.changes
        ]

    found = {rows.relation: (rows.rows, rows.gone) for rows in asked(database, ask)}
    assert found == {
        "public.moments": ([{"at": "2026-03-01T12:00:00+00:00", "span": None}], []),
        "public.order": ([{"id": 1}], []),
    }


def test_a_restored_database_begins_a_feed_of_its_own(live: Target) -> None:
    old = token(live)
    run(live, "insert into items values (1); update dbplatform.live_feed set made_in = 'elsewhere'")
    assert asked(live, events.now) is None
    make(live, EVERY)
    assert token(live).feed != old.feed
    assert since(live, old)[0].reset


def test_an_old_transaction_makes_no_reading_longer(live: Target) -> None:
    with psycopg.connect(live.url) as old:
        old.execute("insert into items values (1)")
        run(live, "insert into pairs select i::text, 1 from generate_series(1, 20) i")
        first, _ = since(live, token(live))
        assert first.changes == ()
        old.commit()
        assert [change.relation for change in since(live, first.token)[0].changes] == ["public.items"]


def test_old_events_go_without_a_service_too(live: Target) -> None:
    run(live, "insert into items values (1)")
    run(live, "update dbplatform.live_event set at = now() - interval '2 hours'")
    run(live, "insert into items values (2)")
    with connect(live, work="test") as connection:
        assert keeping.count_old(connection) == 1
        assert (keeping.forget_old(connection), keeping.count_old(connection)) == (1, 0)


def test_a_table_that_is_in_use_is_asked_for_often_and_briefly(database: Target) -> None:
    run(database, TABLES)
    pauses: list[float] = []
    with psycopg.connect(database.url) as user, connect(database, work="test") as connection:
        user.execute("insert into items values (1)")

        def leave(seconds: float) -> None:
            pauses.append(seconds)
            user.commit()

        apply_live(connection, [ITEMS], database="shop", sleep=leave)
        assert len(pauses) == 1
        assert plan_live(connection, [ITEMS], database="shop").actions == ()


def test_a_table_that_stays_in_use_is_given_up_with_nothing_changed(
    database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbplatform.live.install.LOCK_TIMEOUT_MS", 1)
    run(database, TABLES)
    with psycopg.connect(database.url) as user, connect(database, work="test") as connection:
        user.execute("insert into items values (1)")
        with pytest.raises(LockNotAcquired, match="a lock on public"):
            apply_live(connection, [ITEMS], database="shop", sleep=lambda seconds: None)
        assert [one.kind for one in plan_live(connection, [ITEMS], database="shop").actions] == ["make"]


def test_the_rows_of_a_change_are_found_by_the_index_of_the_key(database: Target) -> None:
    run(database, TABLES)
    run(database, "insert into items select i from generate_series(1, 5000) i; analyze items")
    make(database, [ITEMS])
    run(database, "select pg_stat_reset()")
    before = token(database)
    run(database, "update items set name = 'x' where id = 77")
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("select pg_stat_force_next_flush()")
    since_scans = scans(database)
    reading = asked(database, lambda connection: events.read(connection, before))

    async def rows(connection: Connection) -> Rows:
        found = await events.read_rows(
            connection, ITEMS, await events.key_of(connection, ITEMS.table), reading.changes[0]
        )
        await connection.execute("select pg_stat_force_next_flush()")
        return found

    assert [row["id"] for row in asked(database, rows).rows] == [77]
    assert scans(database) == since_scans


def scans(database: Target) -> int:
    with psycopg.connect(database.url, autocommit=True) as session:
        row = session.execute(sql.SQL("select seq_scan from pg_stat_user_tables where relname = 'items'")).fetchone()
    assert row is not None
    return int(row[0])
