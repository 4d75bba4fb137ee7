"""``metrics``, ``connections``, ``slow-queries`` and ``explain``, as a person types them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from dbplatform.postgres.connection import Target
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.typed import Type

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
"""


@pytest.fixture
def type_(declare_shop: Callable[[str], Type], database: Target) -> Type:
    """A declared database with a table of 20,000 items."""
    by_hand(database, "create table item (id int primary key, name text)", "create extension pg_stat_statements")
    by_hand(database, "insert into item select g, md5(g::text) from generate_series(1, 20000) g", "analyze item")
    return declare_shop(DECLARATION)


def test_what_was_measured_has_a_history_and_lists_of_the_worst(type_: Type) -> None:
    for _ in range(2):
        assert type_("metrics", "shop", "--json").code == 0
    shown = type_("metrics", "shop", "--history", "database_bytes", "--json").json
    assert (shown["metric"], shown["unit"], len(shown["history"])) == ("database_bytes", "bytes", 2)
    assert shown["history"][0]["value"] > 1_000_000
    assert "MB" in type_("metrics", "shop", "--history", "database_bytes", "--since", "1 hour").out
    assert "nothing was measured" in type_("metrics", "shop", "--history", "replication_lag_s").out
    assert type_("metrics", "shop", "--history", "uptime", "--json").code == 2
    assert "public.item" in type_("metrics", "shop", "--worst").out
    document = type_("metrics", "shop", "--json").json
    assert document["worst"]["largest_tables"][0]["name"] == "public.item"
    assert "commits_per_s" in document["metrics"]


def test_unused_room_is_counted_exactly_where_that_is_asked_for(type_: Type, database: Target) -> None:
    missing = type_("metrics", "shop", "--exact", "item", "--json")
    assert (missing.code, missing.json["error"]["hint"]) == (2, "CREATE EXTENSION pgstattuple;")
    by_hand(database, "create extension pgstattuple", "delete from item where id > 10000", "vacuum item")
    (counted,) = type_("metrics", "shop", "--exact", "item", "--json").json["exact"]
    assert (counted["relation"], counted["kind"], counted["dead_rows"]) == ("public.item", "table", 0)
    assert "are unused" in type_("metrics", "shop", "--exact", "item_pkey").out
    assert type_("metrics", "shop", "--exact", "nothing", "--json").code == 2


def test_sessions_are_shown_with_who_blocks_whom_and_without_values(type_: Type, database: Target) -> None:
    assert type_("connections", "shop").out.strip() == "nobody is connected"
    with psycopg.connect(database.url, application_name="till") as session:
        session.execute("select id from item where name = 'a secret word'")
        shown = type_("connections", "shop", "--json")
        (one,) = shown.json["connections"]
        assert (one["application"], one["state"]) == ("till", "idle in transaction")
        assert one["query"] == "select id from item where name = ?"
        assert one["transaction_seconds"] >= one["in_state_seconds"] >= 0
        assert "till" in type_("connections", "shop").out


def test_a_statement_that_is_slow_or_wasteful_is_listed_from_the_second_look_on(type_: Type, database: Target) -> None:
    first = type_("slow-queries", "shop", "--min-mean", "100ms", "--json").json
    assert (first["statements"], first["reason"] is not None) == ([], True)
    by_hand(database, "select pg_sleep(0.15), 'a secret word'", "select * from item where id = 7")
    found = type_("slow-queries", "shop", "--min-mean", "100ms", "--json").json
    queries = {one["query"]: one for one in found["statements"]}
    assert queries["select pg_sleep($1), $2"]["mean_seconds"] >= 0.1
    wasteful = queries["select * from item where id = $1"]
    assert "all columns" in wasteful["findings"][0]
    assert "secret" not in str(found)
    assert "dbplatform metrics" not in str(found)
    assert "- It selects all columns" in type_("slow-queries", "shop").out
    plan = type_("explain", "shop", wasteful["queryid"], "--json").json
    assert (plan["generic"], plan["plan"]["Plan"]["Node Type"]) == (True, "Index Scan")
    for number in ("123", "-123"):
        assert type_("explain", "shop", number, "--json").json["error"]["kind"] == "unknown_statement"


def test_a_loop_of_lookups_is_found_beside_statements_that_are_not_in_one(type_: Type, database: Target) -> None:
    assert type_("slow-queries", "shop", "--json").code == 0
    with psycopg.connect(database.url, autocommit=True) as connection:
        for page in range(3):
            rows = connection.execute("select id from item where id > %s order by id limit 40", (page * 40,)).fetchall()
            for (id_,) in rows:
                connection.execute("select name from item where id = %s", (id_,))
        for id_ in range(30):
            connection.execute("select id, name from item where name = %s", (str(id_),))
    found = {one["query"]: one for one in type_("slow-queries", "shop", "--json").json["statements"]}
    (loop,) = found["select name from item where id = $1"]["findings"]
    assert loop.startswith("N+1: it was called 120 times, about once for each of the 120 rows of statement")
    assert list(found) == ["select name from item where id = $1"]


def test_a_database_without_the_extension_says_how_to_have_it(type_: Type, database: Target) -> None:
    by_hand(database, "drop extension pg_stat_statements")
    shown = type_("slow-queries", "shop")
    assert (shown.code, "CREATE EXTENSION pg_stat_statements" in shown.out) == (0, True)


def test_a_plan_is_shown_and_what_writes_runs_only_to_be_rolled_back(type_: Type) -> None:
    assert "Index Scan using item_pkey" in type_("explain", "shop", "select name from item where id = 7").out
    refused = type_("explain", "shop", "delete from item", "--analyze", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (2, "writes")
    ran = type_("explain", "shop", "delete from item", "--analyze", "--rollback", "--json").json
    assert ran["analyzed"]
    count = type_("explain", "shop", "select count(*) from item", "--analyze", "--json").json
    assert count["plan"]["Plan"]["Plans"][0]["Actual Rows"] == 20_000
    assert type_("explain", "shop", "select 1", "--rollback", "--json").code == 2


def test_the_log_of_slow_statements_is_planned_set_and_undone(type_: Type, database: Target) -> None:
    planned = type_("slow-queries", "shop", "--log", "on", "--log-from", "2s", "--dry-run", "--json").json
    assert (planned["applied"], len(planned["changes"])) == (False, 2)
    assert logged(database) == "-1"
    assert "alter database" in type_("slow-queries", "shop", "--log", "on", "--log-from", "2s").out
    assert logged(database) == "2s"
    assert "nothing has to change" in type_("slow-queries", "shop", "--log", "on", "--log-from", "2s").out
    assert type_("slow-queries", "shop", "--log", "undo", "--json").json["applied"] is True
    assert logged(database) == "-1"
    assert type_("slow-queries", "shop", "--dry-run", "--json").code == 2


def logged(database: Target) -> str:
    with psycopg.connect(database.url) as connection:
        row = connection.execute("show log_min_duration_statement").fetchone()
    assert row is not None
    return str(row[0])
