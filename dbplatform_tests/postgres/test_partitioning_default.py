"""Rows in a default partition: moved into their own, range by range, while the table is read and written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from dbplatform.errors import LockNotAcquired
from dbplatform.partitioning.apply import PartitionReport, apply_partitions
from dbplatform.partitioning.errors import RowsHeld
from dbplatform.partitioning.move import move_rows
from dbplatform.partitioning.plan import PartitionPlan, plan_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import AutocommitConnection, SessionLost, Target, connect
from dbplatform.postgres.identifiers import Relation

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
SALE = """
    create table item (id int primary key);
    create table sale (id bigint, item_id int not null references item, at timestamptz not null,
                       twice bigint generated always as (id * 2) stored, primary key (id, at)) partition by range (at);
    create table sale_default partition of sale default;
    insert into item select generate_series(1, 10)
"""


def policy(**changes: Any) -> PartitionPolicy:
    return PartitionPolicy.model_validate(
        {"table": "sale", "column": "at", "interval": "1 month", "premake": 2, **changes}
    )


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


def apply(connection: AutocommitConnection, *, now: datetime = NOW, **changes: Any) -> PartitionReport:
    return apply_partitions(connection, [policy(**changes)], now=now)


def one(connection: AutocommitConnection | psycopg.Connection[Any], question: str) -> Any:
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def fill(connection: AutocommitConnection, rows: int, first: str, last: str) -> None:
    connection.execute(
        "insert into sale (id, item_id, at) select n, n %% 10 + 1, %s::timestamptz"
        " + (n - 1) * ((%s::timestamptz - %s::timestamptz) / %s) from generate_series(1, %s) n",
        (first, last, first, rows, rows),
    )


def partitions(connection: AutocommitConnection) -> list[str]:
    return [
        name
        for (name,) in connection.execute(
            "select relid::text from pg_partition_tree('sale') where isleaf order by 1"
        ).fetchall()
    ]


def test_the_plan_counts_the_rows_of_each_range_and_names_every_lock(connection: AutocommitConnection) -> None:
    connection.execute(SALE)
    fill(connection, 60, "2026-01-01", "2026-03-02")
    plan = plan_partitions(connection, [policy()], now=NOW).as_json()["tables"][0]
    assert [(new["name"], new["rows"]) for new in plan["create"]] == [
        ("sale_p2026_01", 31), ("sale_p2026_02", 28), ("sale_p2026_03", 1), ("sale_p2026_04", 0), ("sale_p2026_05", 0),
    ]  # fmt: skip
    assert (plan["default_rows"], plan["default"]) == (60, "public.sale_default")
    assert [(lock["relation"], lock["mode"]) for lock in plan["locks"]] == [
        ("public.sale", "ACCESS EXCLUSIVE"),
        ("public.sale_default", "ACCESS EXCLUSIVE"),
        ("public.item", "SHARE ROW EXCLUSIVE"),
    ]
    assert partitions(connection) == ["sale_default"]


def test_the_rows_move_and_nothing_else_changes(connection: AutocommitConnection) -> None:
    connection.execute(SALE)
    fill(connection, 600, "2025-06-01", "2026-03-15")
    before = content_hash(connection, Relation("public", "sale"))
    report = apply(connection).as_json()["tables"][0]
    assert (report["moved_rows"], report["default_rows"], len(report["create"])) == (600, 0, 12)
    assert content_hash(connection, Relation("public", "sale")) == before
    assert one(connection, "select count(*) from only sale_default") == 0
    assert apply(connection).created == 0


def test_rows_beyond_premake_get_partitions_of_their_own_and_infinite_ones_stay(
    connection: AutocommitConnection,
) -> None:
    connection.execute(SALE)
    for at in ("2031-07-04", "2027-01-01", "infinity", "-infinity", "0044-03-15 BC", "12026-01-01"):
        connection.execute("insert into sale (id, item_id, at) values (1, 1, %s)", (at,))
    report = apply(connection, premake=1).as_json()["tables"][0]
    assert [new["name"] for new in report["create"]] == [
        "sale_p2026_03", "sale_p2026_04", "sale_p2027_01", "sale_p2031_07",
    ]  # fmt: skip
    assert report["default_rows"] == 4
    assert report["horizon_days"] == 46.5


def test_a_range_with_more_rows_than_may_move_stays_and_the_others_go_on(connection: AutocommitConnection) -> None:
    connection.execute(SALE)
    fill(connection, 100, "2026-01-01", "2026-01-31")
    connection.execute("insert into sale (id, item_id, at) values (0, 1, '2026-02-01')")
    report = apply(connection, move_at_most=50).as_json()["tables"][0]
    assert [left["name"] for left in report["left_in_default"]] == ["sale_p2026_01"]
    assert report["left_in_default"][0]["rows"] == 100
    assert (report["moved_rows"], report["default_rows"]) == (1, 100)
    assert partitions(connection) == ["sale_default", *(f"sale_p2026_0{n}" for n in (2, 3, 4, 5))]
    assert apply(connection, move_at_most=100).as_json()["tables"][0]["default_rows"] == 0


def test_rows_that_come_between_plan_and_attachment_move_too(
    database: Target, connection: AutocommitConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(SALE)
    from dbplatform.partitioning import apply as module

    def late(*arguments: Any, **options: Any) -> PartitionPlan:
        found = plan_partitions(*arguments, **options)
        connection.execute("insert into sale (id, item_id, at) values (1, 1, '2026-04-02')")
        return found

    monkeypatch.setattr(module, "plan_partitions", late)
    report = apply(connection).as_json()["tables"][0]
    assert [new["rows"] for new in report["create"]] == [0, 1, 0]
    assert one(connection, "select count(*) from sale where at >= '2026-04-01'") == 1


def test_a_session_lost_in_the_middle_of_a_move_loses_and_doubles_no_row(
    database: Target, connection: AutocommitConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(SALE)
    fill(connection, 600, "2025-06-01", "2026-03-15")
    before = content_hash(connection, Relation("public", "sale"))
    from dbplatform.partitioning import apply as module

    moves: list[int] = []

    def ended(session: AutocommitConnection, *arguments: Any) -> int:
        rows = move_rows(session, *arguments)
        moves.append(rows)
        if len(moves) == 3:
            connection.execute("select pg_terminate_backend(%s)", (session.info.backend_pid,))
        return rows

    monkeypatch.setattr(module, "move_rows", ended)
    with pytest.raises(SessionLost), connect(database, work="test") as lost:
        apply(lost)
    assert len(partitions(connection)) == 3
    assert content_hash(connection, Relation("public", "sale")) == before
    assert apply(connection).created == 10
    assert content_hash(connection, Relation("public", "sale")) == before
    assert one(connection, "select count(*) from sale_default") == 0


def test_a_default_partition_is_made_where_it_is_declared(connection: AutocommitConnection) -> None:
    connection.execute("create table sale (id int, at timestamptz) partition by range (at)")
    assert apply(connection).as_json()["tables"][0]["default"] is None
    report = apply(connection, default=True).as_json()["tables"][0]
    assert (report["default"], report["creates_default"]) == ("public.sale_default", True)
    connection.execute("insert into sale values (1, null)")
    report = apply(connection, default=True).as_json()["tables"][0]
    assert (report["creates_default"], report["default_rows"]) == (False, 1)


def test_triggers_and_cascading_foreign_keys_do_not_act_on_a_move(connection: AutocommitConnection) -> None:
    connection.execute(SALE)
    connection.execute(
        "create table refund (sale_id bigint, at timestamptz,"
        " foreign key (sale_id, at) references sale on delete cascade);"
        "create table heard (what text);"
        "create function hear() returns trigger language plpgsql as"
        " $$ begin insert into heard values (tg_op); return null; end $$;"
        "create trigger t after insert or delete on sale for each row execute function hear()"
    )
    fill(connection, 30, "2026-01-01", "2026-01-31")
    connection.execute("insert into refund select id, at from sale; truncate heard")
    assert apply(connection).as_json()["tables"][0]["moved_rows"] == 30
    assert one(connection, "select count(*) from refund") == 30
    assert one(connection, "select count(*) from heard") == 0
    connection.execute("delete from sale where id <= 10")
    assert one(connection, "select count(*) from refund") == 20
    assert one(connection, "select count(*) from heard") == 10


def test_a_trigger_that_always_fires_is_refused_by_name_and_nothing_moves(connection: AutocommitConnection) -> None:
    connection.execute(SALE)
    connection.execute(
        "create function hear() returns trigger language plpgsql as $$ begin return null; end $$;"
        "create trigger keep_away before delete on sale for each row execute function hear();"
        "alter table sale enable always trigger keep_away"
    )
    fill(connection, 30, "2026-01-01", "2026-01-31")
    with pytest.raises(RowsHeld, match="keep_away") as caught:
        apply(connection)
    assert caught.value.hint
    assert one(connection, "select count(*) from sale_default") == 30


def test_a_user_who_may_not_silence_triggers_is_told_how(database: Target, connection: AutocommitConnection) -> None:
    role = f"owner_{connection.info.dbname}"
    connection.execute(SALE)
    connection.execute(
        "create table refund (sale_id bigint, at timestamptz, foreign key (sale_id, at) references sale)"
    )
    fill(connection, 3, "2026-01-01", "2026-01-31")
    connection.execute(f"create role {role}; grant create, usage on schema public to {role}")
    try:
        for table in ("item", "sale", "sale_default", "refund"):
            connection.execute(f"alter table {table} owner to {role}")
        connection.execute(f"set role {role}")
        with pytest.raises(RowsHeld, match="refund_sale_id_at_fkey") as caught:
            apply(connection)
        assert "session_replication_role" in str(caught.value)
    finally:
        connection.execute(f"reset role; drop owned by {role} cascade; drop role {role}")


def test_pg_partman_510_rows_of_a_premade_day_do_not_stop_maintenance(connection: AutocommitConnection) -> None:
    connection.execute(
        "create table sale (at date, table_id int, primary key (at, table_id)) partition by range (at);"
        "create table sale_default partition of sale default;"
        "insert into sale select '2022-08-28'::date + n / 5, n from generate_series(1, 50) n"
    )
    now = datetime(2022, 8, 31, tzinfo=UTC)
    report = apply(connection, interval="1 day", now=now).as_json()["tables"][0]
    assert (report["moved_rows"], report["default_rows"]) == (50, 0)
    assert apply(connection, interval="1 day", now=now).created == 0


def test_pg_partman_620_a_late_month_and_a_future_one_without_unique_key(connection: AutocommitConnection) -> None:
    connection.execute(
        "create table sale (device text, at timestamp not null) partition by range (at);"
        "create table sale_default partition of sale default;"
        "insert into sale values ('a', '2023-05-01'), ('a', '2023-05-01'), ('b', '2024-09-30 23:59:59.999999')"
    )
    report = apply(connection, now=datetime(2024, 1, 26, tzinfo=UTC)).as_json()["tables"][0]
    assert (report["moved_rows"], report["default_rows"]) == (3, 0)
    assert one(connection, "select count(*) from sale where at = '2023-05-01'") == 2


def test_pg_partman_652_numbers_beyond_the_premade_ones(connection: AutocommitConnection) -> None:
    connection.execute(
        "create table sale (at int primary key, note text) partition by range (at);"
        "create table sale_default partition of sale default;"
        "insert into sale select n, 'x' from generate_series(-15, 155) n"
    )
    report = apply(connection, interval=10, start=-20).as_json()["tables"][0]
    assert [new["name"] for new in report["create"]][:3] == ["sale_pm20", "sale_pm10", "sale_p0"]
    assert (report["create"][-1]["name"], report["create"][-1]["upper"]) == ("sale_p170", 180)
    assert (report["moved_rows"], report["default_rows"]) == (171, 0)
    assert (report["horizon_days"], report["horizon_numbers"]) == (None, 25)


def test_a_reader_that_waits_for_the_move_misses_no_row(database: Target, connection: AutocommitConnection) -> None:
    """It has asked before the move is committed, and answers after: every row is there once."""
    connection.execute(SALE)
    fill(connection, 300, "2026-01-01", "2026-01-31")
    connection.execute("insert into sale (id, item_id, at) values (999, 1, '2026-02-01')")
    counted: list[int] = []
    with psycopg.connect(database.url, autocommit=True) as reader, psycopg.connect(database.url) as user:
        asked = threading.Thread(target=lambda: counted.append(one(reader, "select count(*) from sale")))
        from dbplatform.partitioning import apply as module

        inside = module.move_rows

        def slow(*arguments: Any) -> int:
            rows = inside(*arguments)
            if not asked.ident:
                asked.start()
                wait_until(user, "select count(*) = 1 from pg_locks where not granted and relation is not null")
            return rows

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "move_rows", slow)
            apply_partitions(connection, [policy()], now=NOW)
        asked.join()
    assert counted == [301]


def test_tycho_1323_a_client_that_wants_the_same_locks_in_the_other_order_is_never_ended(
    database: Target, connection: AutocommitConnection
) -> None:
    """It holds ``shop`` and wants ``item``; the attachment holds ``item`` and wants ``shop``: one must let go."""
    connection.execute(
        "create table item (id int primary key); create table shop (id int primary key);"
        "create table sale (item_id int references item, shop_id int references shop, at timestamptz)"
        " partition by range (at)"
    )
    made: list[int] = []

    def attach() -> None:
        with connect(database, work="test") as mine:
            report = apply_partitions(mine, [policy()], now=NOW, lock_timeout_ms=30_000, sleep=lambda _: None)
            made.append(report.created)

    with psycopg.connect(database.url) as client:
        client.execute("insert into shop values (1)")
        worker = threading.Thread(target=attach)
        worker.start()
        wait_until(connection, "select exists (select from pg_locks where not granted and relation = 'shop'::regclass)")
        client.execute("set local lock_timeout = '500ms'")  # shorter than it takes to see a deadlock
        client.execute("insert into item values (1)")
        client.commit()
        worker.join()
    assert made == [3]
    assert one(connection, "select count(*) from item") == 1


def test_a_reader_that_never_ends_gives_an_error_and_no_row_is_lost(
    database: Target, connection: AutocommitConnection
) -> None:
    connection.execute(SALE)
    fill(connection, 30, "2026-01-01", "2026-01-31")
    with psycopg.connect(database.url) as reader:
        reader.execute("select count(*) from sale")
        with pytest.raises(LockNotAcquired):
            apply_partitions(connection, [policy()], now=NOW, lock_timeout_ms=5, sleep=lambda _: None)
        assert one(reader, "select count(*) from sale") == 30
    assert one(connection, "select count(*) from sale_default") == 30


@pytest.mark.parametrize(
    "rows", [pytest.param(14_000, marks=pytest.mark.drill(sample=True)), pytest.param(300_000, marks=pytest.mark.drill)]
)
def test_a_full_default_partition_is_drained_under_writers_without_an_error(
    database: Target, connection: AutocommitConnection, rows: int
) -> None:
    connection.execute(SALE)
    fill(connection, rows, "2025-01-01", "2026-03-01")
    stop, errors, written = threading.Event(), [], []

    def client(number: int) -> None:
        """Writes into all months, changes rows that move, and counts: it must find every row that it wrote."""
        mine = 0
        try:
            with psycopg.connect(database.url, autocommit=True) as session:
                while not stop.is_set():
                    id_ = 10_000_000 * (number + 1) + mine
                    session.execute(
                        "insert into sale (id, item_id, at)"
                        " values (%s, 1, timestamptz '2025-01-01' + %s * '1h'::interval)",
                        (id_, mine * 37 % 10_000),
                    )
                    mine += 1
                    session.execute("update sale set item_id = item_id %% 10 + 1 where id = %s", (mine * 97 % rows,))
                    found = session.execute(
                        "select count(*) from sale where id between %s and %s",
                        (10_000_000 * (number + 1), 10_000_000 * (number + 2) - 1),
                    ).fetchone()
                    assert found == (mine,), f"{found} of {mine}"
        except BaseException as error:
            errors.append(error)
        written.append(mine)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        report = apply(connection).as_json()["tables"][0]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert report["moved_rows"] >= rows
    assert one(connection, "select count(*) from sale") == rows + sum(written)
    assert one(connection, "select count(distinct id) from sale where id < 10000000") == rows
    assert len(report["create"]) == 17


def wait_until(session: AutocommitConnection | psycopg.Connection[Any], question: str) -> None:
    """Ask until the answer is yes, 30 seconds at most."""
    gave_up = threading.Event()
    timer = threading.Timer(30, gave_up.set)
    timer.start()
    try:
        while one(session, question) is not True:
            assert not gave_up.is_set(), question
    finally:
        timer.cancel()
