"""Failing rows are moved aside, exactly those, and can come back; killed anywhere, none is lost or doubled."""

from __future__ import annotations

import traceback
import uuid
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality import record
from dbplatform.quality.engine import check_table, run_table
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.quarantine import giving_back, move, place
from dbplatform.quality.quarantine.giving_back import (
    Choice,
    ColumnGone,
    NotReturned,
    Returned,
    RowsSwallowed,
    give_back,
    lies_aside,
)
from dbplatform.quality.results import CheckResult, TableResult
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

SHOP = """
    create table orders (id int primary key, qty int, customer int, note text);
    insert into orders select i, i % 10, i % 7, '100% ' || i from generate_series(1, 100) i;
"""
T = Relation("public", "orders")
ALL = Choice()


@pytest.fixture(autouse=True)
def without_state(emptied: Target) -> None:
    run(emptied, "drop schema if exists dbplatform cascade")


def run(target: Target, *statements: str) -> None:
    with psycopg.connect(target.url, autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def ask(target: Target, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(target.url) as session:
        return session.execute(query.encode()).fetchall()


def policy(*checks: Any, table: str = "orders", **options: Any) -> TablePolicy:
    return TablePolicy(table=table, checks=[{**check, "quarantine": True, **options} for check in checks])


QTY = {"range": {"column": "qty", "min": 1}}


def check(ledger: Ledger, target: Target, declared: TablePolicy, run_id: str = "run-1") -> TableResult:
    return check_table(target, ledger, "shop", run_id, declared)


def only(result: TableResult) -> CheckResult:
    (found,) = result.checks
    return found


def back(target: Target, choice: Choice = ALL) -> list[Returned]:
    with connect(target, work="test") as connection:
        return give_back(connection, choice)


def test_exactly_the_failing_rows_are_moved_and_the_run_tells(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    found = only(check(ledger, emptied, policy(QTY)))
    assert (found.status, found.failed_rows, found.quarantined_rows) == ("failed", 10, 10)
    assert found.quarantine_table == "dbplatform.quarantine_orders"
    assert found.message.endswith("10 of them were moved to dbplatform.quarantine_orders.")
    assert ask(emptied, "select count(*), count(*) filter (where qty < 1) from orders") == [(90, 0)]
    assert ask(emptied, "select id, qty, note, quarantine_checks, quarantine_run from dbplatform.quarantine_orders "
                        "order by id limit 1") == [(10, 0, "100% 10", ["range_qty"], "run-1")]  # fmt: skip
    assert record.load_run(ledger, "run-1").tables[0].checks == (found,)
    assert len(record.failed_row_samples(ledger, "run-1", "public.orders", "range_qty")) == 10
    assert only(check(ledger, emptied, policy(QTY), "run-2")).status == "passed"


def test_a_row_that_fails_several_checks_is_moved_once_and_counts_for_each(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    declared = policy(QTY, {"accepted_values": {"column": "customer", "values": [1, 2, 3, 4, 5, 6]}},
                      {"relationship": {"column": "id", "to": "known.id"}, "where": "note like '100%% 1%' or id = 30"},
                      {"matches": {"column": "note", "regex": "%"}})  # fmt: skip
    run(emptied, "create table known (id int); insert into known values (1), (11)")
    result = check(ledger, emptied, declared)
    numbers = {found.name: (found.failed_rows, found.quarantined_rows) for found in result.checks}
    assert numbers["range_qty"] == (10, 10)
    assert numbers["accepted_values_customer"] == (14, 14)
    assert numbers["relationship_id"][0] == numbers["relationship_id"][1]
    assert numbers["matches_note"] == (0, None)
    assert ask(emptied, "select quarantine_checks from dbplatform.quarantine_orders where id = 70") == [
        (["range_qty", "accepted_values_customer"],)
    ]
    assert ask(emptied, "select count(*), count(distinct id) from (select id from orders union all "
                        "select id from dbplatform.quarantine_orders) as every") == [(100, 100)]  # fmt: skip


def test_rows_that_changed_or_came_after_they_were_counted_stay(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(emptied, SHOP)
    moves = move.apply_moves

    def after_others(*given: Any, **options: Any) -> Any:
        run(emptied, "update orders set qty = 5 where id = 10", "update orders set note = 'new' where id = 20",
            "delete from orders where id = 30", "insert into orders values (1000, 0, 1, 'late')")  # fmt: skip
        return moves(*given, **options)

    monkeypatch.setattr("dbplatform.quality.quarantine.separation.apply_moves", after_others)
    found = only(check(ledger, emptied, policy(QTY)))
    assert (found.failed_rows, found.quarantined_rows) == (10, 7)
    assert "3 have changed since, or gone" in found.message
    assert ask(emptied, "select id from orders where qty < 1 or id = 10 order by 1") == [(10,), (20,), (1000,)]


def test_rows_stay_where_row_level_security_may_hide_others_that_refer_to_them(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"mover_{uuid.uuid4().hex[:12]}"
    run(
        emptied,
        SHOP,
        "create table lines (order_id int references orders on delete cascade); insert into lines values (10)",
        "alter table lines enable row level security; alter table lines force row level security",
        f"create role {role}; grant create on database {emptied.name} to {role}; "
        f"grant all on schema public to {role}; grant all on orders, lines to {role}",
    )
    mover = Target(emptied.name, make_conninfo(emptied.url, options=f"-c role={role}"))
    try:
        found = only(check(ledger, mover, policy(QTY)))
        assert (found.failed_rows, found.quarantined_rows) == (10, 0)
        assert "row-level security of lines may hide rows" in found.message
        assert ask(emptied, "select count(*), (select count(*) from lines) from orders") == [(100, 1)]
    finally:
        run(emptied, f"drop owned by {role}; drop role {role}")


def test_rows_of_a_partition_that_was_detached_since_stay_in_it(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(
        emptied,
        "create table orders (id int, qty int) partition by range (id)",
        "create table low partition of orders for values from (0) to (10)",
        "create table high partition of orders for values from (10) to (20)",
        "insert into orders values (1, 0), (11, 0)",
    )
    moves = move.apply_moves

    def after_others(*given: Any, **options: Any) -> Any:
        run(emptied, "alter table orders detach partition low")
        return moves(*given, **options)

    monkeypatch.setattr("dbplatform.quality.quarantine.separation.apply_moves", after_others)
    found = only(check(ledger, emptied, policy(QTY)))
    assert (found.failed_rows, found.quarantined_rows) == (2, 1)
    assert ask(emptied, "select id from low") == [(1,)]
    assert ask(emptied, "select id from dbplatform.quarantine_orders") == [(11,)]


def test_rows_that_others_refer_to_stay_and_the_foreign_key_is_named(emptied: Target, ledger: Ledger) -> None:
    run(
        emptied,
        SHOP,
        "create table lines (order_id int references orders on delete cascade, n int); "
        "insert into lines values (10, 1), (10, 2), (20, 1), (33, 1)",
        "create table returns (order_id int references orders on delete set null); insert into returns values (40)",
        "alter table orders add parent int references orders; update orders set parent = id where id = 50; "
        "update orders set parent = 60 where id = 61",
    )
    found = only(check(ledger, emptied, policy(QTY)))
    assert (found.failed_rows, found.quarantined_rows) == (10, 6)
    assert "4 stay: 2 because rows refer to them by the foreign key lines_order_id_fkey of lines" in found.message
    assert "1 because rows refer to them by the foreign key returns_order_id_fkey of returns" in found.message
    assert "1 because rows refer to them by the foreign key orders_parent_fkey of orders" in found.message
    assert ask(emptied, "select id from orders where qty < 1 order by 1") == [(10,), (20,), (40,), (60,)]
    assert ask(emptied, "select count(*) from lines") == [(4,)]
    assert not found.blocks
    assert only(check(ledger, emptied, policy(QTY, blocking=True), "run-2")).blocks


def test_a_partitioned_table_loses_the_rows_of_each_partition_and_gets_them_back(
    emptied: Target, ledger: Ledger
) -> None:
    run(
        emptied,
        "create table orders (id int, day date, qty int, primary key (id, day)) partition by range (day)",
        "create table orders_1 (qty int, day date not null, id int not null)",
        "alter table orders attach partition orders_1 for values from ('2026-01-01') to ('2026-02-01')",
        "create table orders_2 partition of orders for values from ('2026-02-01') to ('2026-03-01') "
        "partition by list (id)",
        "create table orders_2_rest partition of orders_2 default",
        "insert into orders select i, date '2026-01-10' + i % 40, i % 5 from generate_series(1, 200) i",
    )
    with connect(emptied, work="test") as connection:
        before = content_hash(connection, T)
        found = only(check(ledger, emptied, policy(QTY)))
        assert (found.failed_rows, found.quarantined_rows) == (40, 40)
        assert ask(emptied, "select count(*) from orders") == [(160,)]
        assert back(emptied) == [Returned(table=T, place=Relation("dbplatform", "quarantine_orders"), rows=40, stay={})]
        assert content_hash(connection, T) == before


def test_every_kind_of_value_comes_back_as_it_was(emptied: Target, ledger: Ledger) -> None:
    run(
        emptied,
        r"""
        create type pair as (a int, b text);
        create table "we ird%""t" (
            "we ird%""col" int generated always as identity, f float8, n numeric, at timestamptz, b bytea, j json,
            arr int[], p pair, c char(5), i interval, double int generated always as (bad * 2) stored, bad int
        );
        insert into "we ird%""t" (f, n, at, b, j, arr, p, c, i, bad)
        values ('NaN', 1.10, 'infinity', '\x00ff', '{"a": 1, "a": 2}', '[0:1]={1,null}', '(,"x ""y")', 'ab', '1 mon',
                0),
               ('-0', 123456789012345678901234567890, '-infinity', '', null, null, null, null, null, 0);
        """,
    )
    with connect(emptied, work="test") as connection:
        before = content_hash(connection, Relation("public", 'we ird%"t'))
        found = only(check(ledger, emptied, policy({"range": {"column": "bad", "min": 1}}, table='"we ird%""t"')))
        assert found.quarantined_rows == 2
        ((returned),) = back(emptied)
        assert returned.rows == 2
        assert content_hash(connection, Relation("public", 'we ird%"t')) == before
    assert found.quarantine_table == "dbplatform.quarantine_we_ird__t"
    assert ask(emptied, f"select count(*) from {found.quarantine_table}") == [(0,)]  # noqa: S608


def test_more_than_the_declared_number_is_not_moved_at_all(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    for at_most, moved in ((9, 0), ("9.9%", 0), (10, 10)):
        found = only(check(ledger, emptied, policy({**QTY}, quarantine={"at_most": at_most, "to": "aside"})))
        assert (found.failed_rows, found.quarantined_rows) == (10, moved)
    assert ask(emptied, "select count(*) from aside") == [(10,)]


def test_an_accepted_failure_moves_nothing_and_a_tolerated_one_does(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    accepted = {"date": "9999-12-31", "reason": "known"}
    found = only(check(ledger, emptied, policy(QTY, accepted_until=accepted)))
    assert (found.status, found.failed_rows, found.kept_rows, found.quarantined_rows) == ("accepted", 10, 10, None)
    found = only(check(ledger, emptied, policy(QTY, tolerance="50%")))
    assert (found.status, found.failed_rows, found.quarantined_rows) == ("passed", 10, 10)


def test_without_the_ledger_nothing_is_moved_and_the_message_says_what_would(emptied: Target) -> None:
    run(emptied, SHOP)
    with connect(emptied, work="test") as connection:
        found = only(run_table(connection, policy(QTY), dry_run=True))
    assert found.message.endswith("Its rows would be moved to dbplatform.quarantine_orders.")
    assert ask(emptied, "select count(*), to_regclass('dbplatform.quarantine_orders') from orders") == [(100, None)]


class Killed(BaseException):
    """Ends the work as a signal would."""


@pytest.mark.parametrize("after", cases(0, 1, 3, sample=(1,)))
def test_a_killed_run_loses_and_doubles_no_row_and_the_next_one_goes_on(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run(emptied, SHOP)
    monkeypatch.setattr(move, "ROWS_PER_BATCH", 3)
    batches = 0
    whole = move._Moves.move

    def killed(self: Any, *given: Any) -> bool:
        nonlocal batches
        if batches == after:
            raise Killed
        batches += 1
        return whole(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(move._Moves, "move", killed)
        with pytest.raises(Killed):
            check(ledger, emptied, policy(QTY))
    moved = 3 * after
    assert ask(emptied, "select count(*) from orders where qty < 1") == [(10 - moved,)]
    found = only(check(ledger, emptied, policy(QTY)))
    assert (found.failed_rows, found.quarantined_rows) == (10 - moved, 10 - moved)
    assert ask(emptied, "select count(*), count(distinct id) from dbplatform.quarantine_orders") == [(10, 10)]


def test_rows_that_another_session_holds_stay_and_the_others_go(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "_LOCK_TIMEOUT_MS", 20)
    run(emptied, SHOP)
    with psycopg.connect(emptied.url) as other:
        other.execute("select from orders where id = 50 for update")
        found = only(check(ledger, emptied, policy(QTY)))
    assert (found.failed_rows, found.quarantined_rows) == (10, 9)
    assert "1 stay: 1 because another session holds a lock on them" in found.message


def test_a_table_that_another_session_locks_is_tried_a_few_times_and_not_for_each_row(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (move, giving_back):
        monkeypatch.setattr(module, "_LOCK_TIMEOUT_MS", 20)
        monkeypatch.setattr(module, "ROWS_PER_BATCH", 4)
    run(emptied, SHOP)
    tried = []
    lock = place.lock_for_rows

    def counted(*given: Any) -> None:
        tried.append(given)
        lock(*given)

    monkeypatch.setattr(move, "lock_for_rows", counted)
    monkeypatch.setattr(giving_back, "lock_for_rows", counted)
    with psycopg.connect(emptied.url) as other:
        other.execute("lock table orders in share mode")
        found = only(check(ledger, emptied, policy(QTY)))
    assert (found.failed_rows, found.quarantined_rows) == (10, 0)
    assert "10 stay: 10 because another session holds a lock on a whole table" in found.message
    assert len(tried) == 6
    check(ledger, emptied, policy(QTY), "run-2")
    tried.clear()
    with psycopg.connect(emptied.url) as other:
        other.execute("lock table orders in share mode")
        (returned,) = back(emptied)
    assert (returned.rows, returned.stay) == (0, {"another session holds a lock on a whole table": 10})
    assert len(tried) == 5
    (returned,) = back(emptied)
    assert returned.rows == 10


def test_a_quarantine_that_another_session_locks_is_not_waited_for(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "_LOCK_TIMEOUT_MS", 20)
    run(emptied, SHOP)
    check(ledger, emptied, policy(QTY))
    run(emptied, "alter table orders add extra int; update orders set qty = 0 where id = 1")
    with psycopg.connect(emptied.url) as other:
        other.execute("lock table dbplatform.quarantine_orders in access share mode")
        found = only(check(ledger, emptied, policy(QTY), "run-2"))
    assert (found.failed_rows, found.quarantined_rows) == (1, 0)
    assert "another session holds a lock on dbplatform.quarantine_orders" in found.message


def test_rows_whose_place_is_taken_stay_aside_and_the_constraint_is_named(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(emptied, SHOP)
    check(ledger, emptied, policy(QTY))
    run(
        emptied,
        "insert into orders values (10, 3, 1, 'new')",
        "create table c (id int primary key)",
        "alter table orders add foreign key (customer) references c not valid; insert into c select 1 union select 6",
        "alter table orders add since date default '2026-01-01'",
    )
    monkeypatch.setattr(giving_back, "ROWS_PER_BATCH", 4)
    (returned,) = back(emptied)
    assert returned.rows + sum(returned.stay.values()) == 10
    assert returned.stay["orders refuses them by orders_pkey"] == 1
    assert "orders refuses them by orders_customer_fkey" in returned.stay
    assert ask(emptied, "select count(*), count(distinct since) from orders where qty < 1") == [(returned.rows, 1)]


def test_what_comes_back_is_chosen_by_check_and_run_and_listed_before(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    check(ledger, emptied, policy(QTY), "one")
    run(emptied, "update orders set qty = 0 where id in (1, 2)")
    check(ledger, emptied, policy(QTY), "two")
    with connect(emptied, work="test") as connection:
        listed = lies_aside(connection, ALL)
        assert [(a.run_id, a.checks, a.rows) for a in listed] == [
            ("one", ("range_qty",), 10),
            ("two", ("range_qty",), 2),
        ]
        assert lies_aside(connection, Choice(check="other")) == []
    assert [r.rows for r in back(emptied, Choice(table=T, check="range_qty", run_id="two"))] == [2]
    assert back(emptied, Choice(run_id="two")) == []
    assert ask(emptied, "select count(*) from orders") == [(90,)]


def test_a_column_that_came_is_followed_and_one_that_went_stops_the_way_back(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    check(ledger, emptied, policy(QTY))
    run(emptied, "alter table orders add extra text default 'x'; update orders set qty = 0 where id = 1")
    check(ledger, emptied, policy(QTY), "run-2")
    assert ask(emptied, "select id, extra from dbplatform.quarantine_orders where id in (1, 10) order by 1") == [
        (1, "x"), (10, "x")
    ]  # fmt: skip
    run(emptied, "alter table orders drop note")
    with pytest.raises(ColumnGone, match="have a column note"):
        back(emptied)
    run(emptied, "alter table orders alter qty type bigint; update orders set qty = 0 where id = 2")
    found = only(check(ledger, emptied, policy(QTY), "run-3"))
    assert found.quarantined_rows == 0
    assert "qty is bigint now, and integer in dbplatform.quarantine_orders" in found.message


def test_a_column_that_must_not_be_null_gets_its_default_or_is_named(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    check(ledger, emptied, policy(QTY))
    run(
        emptied,
        "alter table orders add kind text not null default '5 % {off}', add number int generated always as identity",
        "update orders set qty = 0 where id = 1",
    )
    check(ledger, emptied, policy(QTY), "run-2")
    assert ask(emptied, "select kind, number is null from dbplatform.quarantine_orders group by 1, 2") == [
        ("5 % {off}", False)
    ]
    run(emptied, "update dbplatform.quarantine_orders set kind = null where id = 10")
    (returned,) = back(emptied)
    assert returned.stay == {"orders refuses them: its column kind may not be null": 1}
    assert returned.rows == 10


def test_a_trigger_that_swallows_rows_does_not_lose_them(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    check(ledger, emptied, policy(QTY))
    run(emptied, "create function nothing() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger t before insert on orders for each row execute function nothing()")  # fmt: skip
    with pytest.raises(RowsSwallowed, match="took 0 of 10"):
        back(emptied)
    assert ask(emptied, "select count(*) from dbplatform.quarantine_orders") == [(10,)]


def test_an_error_on_the_way_back_does_not_quote_what_is_masked(emptied: Target, ledger: Ledger) -> None:
    run(emptied, SHOP)
    check(ledger, emptied, policy(QTY))
    raising = "begin raise exception '%', new.note; end"
    run(
        emptied,
        f"create function no() returns trigger language plpgsql as $$ {raising} $$",
        "create trigger t before insert on orders for each row execute function no()",
    )
    for masks, says in ((False, "100% "), (True, "SQLSTATE P0001")):
        with pytest.raises(NotReturned, match=says) as caught, connect(emptied, work="test") as connection:
            give_back(connection, ALL, masks=masks)
    assert "100% " not in "".join(traceback.format_exception(caught.value))
    assert ask(emptied, "select count(*) from dbplatform.quarantine_orders") == [(10,)]


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        ("create table child () inherits (orders)", "child inherits from it"),
        ("alter table orders add quarantine_id int", "its column quarantine_id has a name that the quarantine needs"),
        ("create schema dbplatform; create table dbplatform.quarantine_orders (id int)", "is a table of its own"),
    ],
)
def test_a_table_whose_rows_cannot_be_moved_keeps_them_and_the_reason_is_told(
    emptied: Target, ledger: Ledger, prepare: str, reason: str
) -> None:
    run(emptied, SHOP, prepare)
    found = only(check(ledger, emptied, policy(QTY)))
    assert (found.status, found.failed_rows, found.quarantined_rows) == ("failed", 10, 0)
    assert reason in found.message
    assert ask(emptied, "select count(*) from orders where qty < 1") == [(10,)]


def test_what_postgresql_refuses_is_a_reason_without_the_masked_value(emptied: Target, ledger: Ledger) -> None:
    run(
        emptied,
        SHOP,
        "create function no() returns trigger language plpgsql as $$ begin raise exception 'no: %', old.note; end $$",
        "create trigger t before delete on orders for each row execute function no()",
    )
    declared = TablePolicy(table="orders", mask=["note"], checks=[{**QTY, "quarantine": True}])
    found = only(check(ledger, emptied, declared))
    assert found.quarantined_rows == 0
    assert "10 stay: 10 because PostgreSQL refused it with SQLSTATE P0001" in found.message
    assert "100%" not in found.message
