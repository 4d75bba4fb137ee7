"""Advice on a made workload: exactly what is right is advised, what is followed is measured, and a kill is mended."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbplatform.advice import apply as applying
from dbplatform.advice.actions import Action
from dbplatform.advice.catalog import ReplicaUse, read_catalog
from dbplatform.advice.change import make
from dbplatform.advice.errors import NameInTheWay, NotBuilt
from dbplatform.advice.indexes import needless_indexes
from dbplatform.advice.missing import missing_indexes
from dbplatform.advice.model import Kind, Named
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.server import read_server
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.typed import Type

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test, pool: {size: 1, max_overflow: 0}}
  advice: {unused_after: 1 ms, unused_min_size: 64kB, large_table_rows: 10000, memory: 64GB}
"""
#: Three indexes are missing: on orders.customer_id, visit.day with site, session.token. Two are unused, on the browser
#: and the referrer of a visit; one is a duplicate, on the city of a customer. E-mail addresses are never looked up, but
#: a constraint keeps them unique; the index of failed visits is partial.
SCHEMA = """
    create table customer (id int primary key, email text not null unique, city int not null);
    create table orders (id int primary key, customer_id int not null references customer, note text);
    create table visit (id int primary key, site int, day int, browser int, referrer int, failed bool);
    create table session (id int primary key, token text, body text);
    insert into customer select g, 'c' || g || '@example.org', g % 1000 from generate_series(1, 10000) g;
    insert into orders select g, 1 + g * 7 % 10000, repeat('x', 60) from generate_series(1, 20000) g;
    insert into visit select g, g % 100, g * 31 % 365, g % 7, g % 900, g % 50 = 0 from generate_series(1, 30000) g;
    insert into session select g, md5(g::text), repeat('y', 80) from generate_series(1, 20000) g;
    create index customer_city on customer (city);
    create index customer_city_again on customer (city);
    create index visit_browser on visit (browser);
    create index visit_referrer on visit (referrer);
    create index visit_failed on visit (day) where failed;
    analyze;
"""
WORKLOAD = (
    "select * from orders where customer_id = 42",
    "select id from visit where site = 7 and day = 12",
    "select body from session where token = 'e4da3b7fbbce2345d7772b0674a318d5'",
    "select email from customer where city = 4",
    "select note from orders where id = 7",
)


@pytest.fixture
def type_(declare_shop: Callable[[str], Type], database: Target) -> Type:
    """A declared shop, whose workload was run."""
    by_hand(database, "create extension pg_stat_statements", *SCHEMA.split(";\n"))
    work(database)
    return declare_shop(DECLARATION)


def work(database: Target) -> None:
    by_hand(database, *[statement for statement in WORKLOAD for _ in range(8)])


def listed(type_: Type, *options: str) -> dict[tuple[str, str], dict[str, Any]]:
    (found,) = type_("advise", "list", "shop", "--json", *options).json["databases"]
    return {(one["kind"], one["subject"]): one for one in found["advice"]}


def indexes(database: Target) -> set[str]:
    with psycopg.connect(database.url) as connection:
        rows = connection.execute("select indexrelid::regclass::text from pg_index where indrelid > 16383").fetchall()
    return {name for (name,) in rows if not name.startswith("pg_toast")}


def test_exactly_the_right_indexes_are_advised_and_the_missing_ones_give_the_gain_shown(
    type_: Type, database: Target
) -> None:
    assert type_("advise", "list", "shop").code == 1
    found = listed(type_)
    about_indexes = {key for key in found if key[0].endswith("_index")}
    assert about_indexes == {
        ("missing_index", "public.orders(customer_id)"),
        ("missing_index", "public.visit(day, site)"),
        ("missing_index", "public.session(token)"),
        ("unused_index", "public.visit_browser"),
        ("unused_index", "public.visit_referrer"),
        ("duplicate_index", "public.customer_city_again"),
    } or about_indexes == {
        ("missing_index", "public.orders(customer_id)"),
        ("missing_index", "public.visit(day, site)"),
        ("missing_index", "public.session(token)"),
        ("unused_index", "public.visit_browser"),
        ("unused_index", "public.visit_referrer"),
        ("duplicate_index", "public.customer_city"),
    }
    for kind, subject in sorted(about_indexes):
        if kind != "missing_index":
            continue
        one = found[kind, subject]
        assert one["confidence"] == "estimated"
        assert one["evidence"]["cost after"] < 0.5 * one["evidence"]["cost before"]
        report = type_("advise", "apply", one["id"], "--json").json
        assert (report["changed"], report["proposal"]) == (True, None)
        receipt = report["advice"]["receipt"]
        (before,), (after,) = receipt["before"], receipt["after"]
        assert before["cost"] > 2 * after["cost"]
        assert receipt["gain"] == pytest.approx(1 - after["cost"] / before["cost"], abs=0.01)
        assert before["ms"] > 0
        assert after["ms"] > 0
        assert receipt["bytes_after"] > 0
    assert not [key for key in listed(type_) if key[0] == "missing_index"]
    again = type_("advise", "apply", found["missing_index", "public.session(token)"]["id"], "--json").json
    assert again["changed"] is False
    assert {"orders_customer_id_idx", "visit_day_site_idx", "session_token_idx"} <= indexes(database)


def test_a_needless_index_goes_after_a_question_and_comes_back_as_it_was(type_: Type, database: Target) -> None:
    before = definition(database, "visit_browser")
    id_ = listed(type_)["unused_index", "public.visit_browser"]["id"]
    asked = type_("advise", "apply", id_, "--json")
    assert (asked.code, asked.json["error"]["kind"]) == (2, "not_confirmed")
    assert "DROP INDEX CONCURRENTLY" in type_("advise", "apply", id_, "--dry-run").out
    assert "visit_browser" in indexes(database)
    receipt = type_("advise", "apply", id_, "--yes", "--json").json["advice"]["receipt"]
    assert (receipt["benefit"], receipt["bytes_after"]) == (True, None)
    assert receipt["bytes_before"] > 64 * 1024
    assert "visit_browser" not in indexes(database)
    assert type_("advise", "undo", id_, "--yes").code == 0
    assert definition(database, "visit_browser") == before
    assert type_("advise", "undo", id_, "--yes", "--json").json["changed"] is False
    # What was taken back is not advised again.
    assert ("unused_index", "public.visit_browser") not in listed(type_)
    assert listed(type_, "--all")["unused_index", "public.visit_browser"]["state"] == "undone"


def definition(database: Target, name: str) -> str:
    with psycopg.connect(database.url) as connection:
        row = connection.execute("select pg_get_indexdef(to_regclass(%s))", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def test_a_run_that_was_killed_while_it_built_is_ended_by_the_next_one(
    type_: Type, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = listed(type_)["missing_index", "public.session(token)"]["id"]

    def killed(*_: object, **__: object) -> None:
        by_hand(database, "create index session_token_idx on session (token)")
        by_hand(database, "update pg_index set indisvalid = false where indexrelid = 'session_token_idx'::regclass")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(applying, "make", killed)
        assert type_("advise", "apply", id_).code == 3
    shown = listed(type_)
    assert shown["missing_index", "public.session(token)"]["state"] == "applying"
    assert ("invalid_index", "public.session_token_idx") in shown
    report = type_("advise", "apply", id_, "--json").json
    assert report["advice"]["state"] == "applied"
    assert report["advice"]["receipt"]["gain"] > 0.5
    assert ("invalid_index", "public.session_token_idx") not in listed(type_)


@pytest.mark.drill
def test_a_process_that_is_killed_behind_an_open_transaction_leaves_work_for_the_next_run(
    type_: Type, tmp_path: Path, database: Target
) -> None:
    id_ = listed(type_)["missing_index", "public.session(token)"]["id"]
    with psycopg.connect(database.url) as other, psycopg.connect(database.url, autocommit=True) as session:
        other.execute("update session set body = 'z' where id = 1")
        command = [sys.executable, "-m", "dbplatform.cli.main", "-C", str(tmp_path), "advise", "apply", id_]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        building = "select pid from pg_stat_progress_create_index where relid = 'session'::regclass"
        while session.execute(building).fetchone() is None:
            assert process.poll() is None
        process.kill()
        process.wait()
        session.execute("select pg_terminate_backend(pid, 10000) from pg_stat_progress_create_index")
        other.rollback()
    assert "session_token_idx" in indexes(database)
    assert listed(type_)["invalid_index", "public.session_token_idx"]["state"] == "open"
    report = type_("advise", "apply", id_, "--json").json
    assert (report["advice"]["state"], report["advice"]["receipt"]["benefit"]) == ("applied", True)
    assert ("invalid_index", "public.session_token_idx") not in listed(type_)


def test_an_index_of_no_use_is_proposed_to_be_taken_back(
    type_: Type, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = listed(type_)["missing_index", "public.session(token)"]["id"]
    # Without its index scans the planner goes on as before.
    by_hand(database, f'alter database "{database.name}" set enable_indexscan = off')
    by_hand(database, f'alter database "{database.name}" set enable_bitmapscan = off')
    by_hand(database, f'alter database "{database.name}" set enable_indexonlyscan = off')
    shown = type_("advise", "apply", id_)
    assert f"Take it back: dbplatform advise undo {id_}" in shown.out
    assert type_("advise", "undo", id_, "--yes").code == 0
    assert "session_token_idx" not in indexes(database)


def test_a_foreign_key_without_an_index_is_advised_where_no_statement_asks_for_one(
    type_: Type, database: Target
) -> None:
    by_hand(database, "select pg_stat_statements_reset()", "delete from customer where id = 10001")
    one = listed(type_)["foreign_key_index", "public.orders(customer_id)"]
    assert one["severity"] == "info"
    receipt = type_("advise", "apply", one["id"], "--json").json["advice"]["receipt"]
    assert receipt["gain"] > 0.5
    assert receipt["before"][0]["query"] == 'SELECT 1 FROM "public"."orders" WHERE "customer_id" = $1'


def test_tables_sequences_and_the_server_are_advised_with_an_undo(
    type_: Type, tmp_path: Path, database: Target
) -> None:
    till = tmp_path / "defs" / "till" / "defs.yaml"
    till.parent.mkdir()
    till.write_text(
        DECLARATION.replace("name: shop", "name: till").replace("{size: 1, max_overflow: 0}", "{size: 300}")
    )
    by_hand(
        database,
        "update orders set note = 'z'",
        "create sequence worn as smallint",
        "select setval('worn', 30000)",
        "analyze orders",
    )
    found = listed(type_)
    assert found["sequence", "public.worn"]["applicable"] is False
    assert type_("advise", "apply", found["sequence", "public.worn"]["id"], "--json").code == 2
    vacuum = found["autovacuum", "public.orders"]
    assert vacuum["evidence"]["threshold"] == 4050
    assert type_("advise", "apply", vacuum["id"]).code == 0
    with psycopg.connect(database.url) as connection:
        row = connection.execute("select reloptions from pg_class where relname = 'orders'").fetchone()
    assert row is not None
    assert "autovacuum_vacuum_scale_factor=0.02" in row[0]
    assert type_("advise", "undo", vacuum["id"], "--yes").code == 0
    pools = found["pools", "max_connections"]
    assert (pools["severity"], pools["applicable"], pools["evidence"]["pools"]["shop"]) == ("info", False, 1)
    assert pools["reason"] in type_("doctor", "shop").out, "the doctor says the same"
    assert found["setting", "effective_cache_size"]["undo_sql"] == 'ALTER SYSTEM RESET "effective_cache_size"'


def test_a_user_that_reads_all_data_and_is_no_superuser_is_told_of_the_server(database: Target) -> None:
    with psycopg.connect(database.url) as session:
        session.execute("create role reads_all_data; grant pg_read_all_data, pg_monitor to reads_all_data")
        session.execute("set local role reads_all_data")
        found = read_server(session)
        session.rollback()  # and there is no such role
    assert found.settings["shared_buffers"] > 0
    assert found.set_by_file == {}


def test_what_is_dismissed_is_not_shown_again_and_what_is_mended_by_hand_is_gone(type_: Type, database: Target) -> None:
    first = listed(type_)
    id_ = first["unused_index", "public.visit_referrer"]["id"]
    only_looked = type_("advise", "dismiss", id_, "--reason", "for the audit in March", "--dry-run", "--json")
    assert (only_looked.code, only_looked.json["changed"], only_looked.json["advice"]["state"]) == (0, False, "open")
    assert type_("advise", "dismiss", id_, "--reason", "for the audit in March").code == 0
    by_hand(database, "drop index visit_browser")
    found = listed(type_)
    assert ("unused_index", "public.visit_referrer") not in found
    assert ("unused_index", "public.visit_browser") not in found
    everything = listed(type_, "--all")
    assert everything["unused_index", "public.visit_browser"]["state"] == "gone"
    assert everything["unused_index", "public.visit_referrer"]["note"] == "for the audit in March"
    gone = everything["unused_index", "public.visit_browser"]["id"]
    assert type_("advise", "apply", gone, "--yes", "--json").json["error"]["kind"] == "no_longer_true"
    assert type_("advise", "apply", "00000000", "--json").json["error"]["kind"] == "unknown_advice"
    unknown = type_("advise", "dismiss", "00000000", "--reason", "-", "--dry-run", "--json")
    assert unknown.json["error"]["kind"] == "unknown_advice"


def test_young_statistics_and_a_replica_that_is_away_say_nothing_of_use(type_: Type, tmp_path: Path) -> None:
    assert ("unused_index", "public.visit_browser") in listed(type_)
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.write_text(DECLARATION.replace("environment: test", "environment: test, replica_url_env: SHOP_COPY"))
    (found,) = type_("advise", "list", "shop", "--json").json["databases"]
    assert "the replica may need them, and could not be asked" in found["unexamined"]["unused_index"]
    file.write_text(DECLARATION.replace("unused_after: 1 ms", "unused_after: 14 days"))
    (found,) = type_("advise", "list", "shop", "--json").json["databases"]
    assert "14 days" in found["unexamined"]["unused_index"]
    # What was open stays so: nothing new is known of it.
    assert "public.visit_browser" in {one["subject"] for one in found["advice"] if one["state"] == "open"}


def test_an_index_that_a_replica_reads_by_stays(database: Target) -> None:
    by_hand(database, *SCHEMA.split(";\n"))
    policy = AdvicePolicy.model_validate({"unused_after": "1 ms", "unused_min_size": "64kB"})
    with connect(database, work="advise") as connection:
        catalog = read_catalog(connection, database="shop")
    unexamined: dict[Kind, str] = {}
    replica = ReplicaUse(used=frozenset({"public.visit_browser"}), counting_s=60.0)
    found = {(one.kind, one.subject) for one in needless_indexes(catalog, policy, replica, unexamined)}
    assert ("unused_index", "public.visit_referrer") in found
    assert ("unused_index", "public.visit_browser") not in found
    assert not unexamined
    young = ReplicaUse(used=frozenset(), counting_s=0.0)
    assert not [one for one in needless_indexes(catalog, policy, young, unexamined) if one.kind == "unused_index"]
    assert "unused_index" in unexamined


def test_a_narrow_index_is_spared_where_a_wider_one_begins_with_its_columns(database: Target) -> None:
    by_hand(
        database,
        "create table t (a int, b int, c int unique)",
        "insert into t select g, g, g from generate_series(1, 5000) g",
        "create index t_a on t (a)",
        "create index t_a_b on t (a, b)",
        "create index t_a_down on t (a desc, b)",
        "create index t_c_b on t (c, b)",
    )
    with connect(database, work="advise") as connection:
        catalog = read_catalog(connection, database="shop")
    (found,) = needless_indexes(catalog, AdvicePolicy(), None, {})
    assert (found.kind, found.subject, found.evidence["kept"]) == ("overlapping_index", "public.t_a", "public.t_a_b")


OTHER_TABLES = (
    "create table reading (day int, sensor int, value text) partition by range (day)",
    "create table reading_1 partition of reading for values from (0) to (50)",
    "create table reading_2 partition of reading for values from (50) to (100)",
    'create table paper (id int primary key, "order" int, facts jsonb, scan text, span int4range)',
    "insert into paper select g, g, jsonb_build_object('n', g), repeat(md5(g::text), 30), int4range(g, g + 1) "
    "from generate_series(1, 5000) g",
    "analyze paper",
    "insert into reading select g % 100, g % 5000, repeat('x', 40) from generate_series(1, 20000) g",
    "analyze reading",
)
ASKED = {
    "select * from orders where customer_id = $1": "public.orders(customer_id)",
    "select * from orders where customer_id = any($1)": "public.orders(customer_id)",
    "select * from orders o join customer c on c.id = o.customer_id where c.city = $1": "public.orders(customer_id)",
    "select id from visit where site = $1 and day = $2": "public.visit(day, site)",
    "select id from visit where site = $1 order by day limit 10": "public.visit(site, day)",
    "select * from visit order by day desc limit 10": "public.visit(day)",
    "update session set body = 'x' where token = $1": "public.session(token)",
    "delete from session where token = $1": "public.session(token)",
    "select * from reading where sensor = $1": "public.reading(sensor)",
    "select id from paper where facts @> $1": "public.paper(facts)",
    'select id from paper where "order" = $1': "public.paper(order)",
    # Nothing that an index of columns would answer, or that has one, or that reads too much for it.
    "select * from session where lower(token) = $1": None,
    "select id from paper where scan = $1": None,
    "select id from paper where span @> 7": None,
    "select * from visit where site = $1 or day = $2": None,
    "select * from visit where browser = $1": None,
    "select * from visit where id between 5 and 9": None,
    "select count(*) from visit": None,
    "insert into visit (id) values ($1)": None,
    "select this is no statement": None,
}


@pytest.mark.parametrize("confidence", ["estimated", "proven"])
def test_a_statement_asks_for_the_index_that_serves_it_or_for_none(
    confidence: str, request: pytest.FixtureRequest
) -> None:
    if confidence == "proven":
        second: SecondServer = request.getfixturevalue("second_server")
        second.run("drop database if exists advised", "create database advised")
        target = Target("advised", second.url("advised"))
        by_hand(target, "create extension hypopg")
    else:
        target = request.getfixturevalue("database")
    by_hand(target, *SCHEMA.split(";\n"), *OTHER_TABLES)
    found: dict[str, str | None] = {}
    with connect(target, work="advise") as connection:
        catalog = read_catalog(connection, database="shop")
        for query in ASKED:
            named = Named(queryid="1", query=query, calls=9)
            advised, _ = missing_indexes(connection, catalog, AdvicePolicy(), [named])
            found[query] = ", ".join(one.subject for one in advised) or None
            assert {one.confidence for one in advised} <= {confidence if "facts" not in query else "estimated"}
            assert [one.action is None for one in advised] in ([], ["reading" in query])
        if confidence == "proven":
            assert connection.execute("select count(*) from hypopg_list_indexes").fetchone() == (0,)
    assert found == ASKED


def test_an_index_that_was_built_before_a_kill_is_known_again(database: Target) -> None:
    by_hand(database, 'create table paper (a int, "order" int)', 'create index paper_order_idx on paper ("order")')
    action = Action(verb="create_index", schema="public", table="paper", name="paper_order_idx", columns=("order",))
    with connect(database, work="advise") as connection:
        make(connection, action, '"public"."paper"', sleep=lambda _: None)
    assert indexes(database) == {"paper_order_idx"}


def test_an_index_that_costs_the_writers_more_than_it_gives_is_not_advised(database: Target) -> None:
    by_hand(database, *SCHEMA.split(";\n"))
    reader = Named(queryid="1", query="select * from orders where customer_id = $1", calls=9, rows=9)
    writer = Named(queryid="2", query="insert into orders values ($1, $2, $3)", calls=100_000, rows=100_000)
    load = Named(queryid="3", query="insert into orders select g from generate_series(1, $1) g", calls=1, rows=900_000)
    with connect(database, work="advise") as connection:
        catalog = read_catalog(connection, database="shop")
        assert missing_indexes(connection, catalog, AdvicePolicy(), [reader, load])[0]
        assert not missing_indexes(connection, catalog, AdvicePolicy(), [reader, writer])[0]


def test_a_build_that_fails_or_meets_another_index_leaves_nothing(database: Target) -> None:
    by_hand(database, "create table t (a int, b int)", "insert into t values (1, 1), (1, 2)")
    again = Action(
        verb="recreate_index",
        schema="public",
        name="t_a",
        definition="CREATE UNIQUE INDEX t_a ON public.t USING btree (a)",
    )
    with connect(database, work="advise") as connection:
        with pytest.raises(NotBuilt):
            make(connection, again, "public.t", sleep=lambda _: None)
        assert "t_a" not in indexes(database)
        by_hand(database, "create index t_a on t (b)")
        wanted = Action(verb="create_index", schema="public", table="t", name="t_a", columns=("a",))
        with pytest.raises(NameInTheWay):
            make(connection, wanted, "public.t", sleep=lambda _: None)


def test_settings_of_a_table_are_tried_again_until_their_lock_is_free(
    database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbplatform.advice.change.LOCK_TIMEOUT_MS", 50)
    by_hand(database, "create table t (a int)")
    action = Action(verb="table_options", schema="public", name="t", values={"autovacuum_vacuum_threshold": "10"})
    holder = psycopg.connect(database.url)
    holder.execute("lock table t in access exclusive mode")
    released = threading.Event()

    def sleep(_: float) -> None:
        holder.rollback()
        released.set()

    with connect(database, work="advise") as connection:
        make(connection, action, "public.t", sleep=sleep)
    holder.close()
    assert released.is_set()
