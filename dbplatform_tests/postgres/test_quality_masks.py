"""What is masked leaves the database by no way: rows, messages, values, errors."""

from __future__ import annotations

import json
import traceback
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality import record
from dbplatform.quality.engine import check_table, run_table
from dbplatform.quality.masks import MaskedColumnMissing, Masks
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, TableResult
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

SECRET = "Grace Hopper 1906"


def fill(target: Target, script: str) -> None:
    with psycopg.connect(target.url) as session:
        session.execute(script.replace("SECRET", SECRET).encode())


def check(ledger: Ledger, target: Target, declared: TablePolicy, masks: Masks | None = None) -> TableResult:
    return check_table(target, ledger, "shop", "run-1", declared, masks=masks)


def samples(ledger: Ledger, name: str) -> list[dict[str, Any]]:
    return record.failed_row_samples(ledger, "run-1", "public.t", name, limit=1000)


def everything(ledger: Ledger) -> str:
    """Every row of the ledger as text."""
    with psycopg.connect(ledger.target.url) as session:
        tables = session.execute("select tablename from pg_tables where schemaname = 'ledger'").fetchall()
        return "\n".join(
            str(row)
            for (table,) in tables
            for row in session.execute(sql.SQL("select t::text from {} t").format(sql.Identifier("ledger", table)))
        )


def test_each_kind_of_mask_shows_what_it_may_and_null_stays_null(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        """
        create table t (id int primary key, a text, b text, c text, d date);
        insert into t values (1, 'SECRET', 'SECRET', 'SECRET', '1906-12-09'),
            (2, 'short', 'SECRET', null, null);
        """,
    )
    declared = TablePolicy(
        table="t",
        mask={"a": "partial", "b": "hash", "c": "redact", "d": "partial"},
        checks=[{"unique": ["a", "b", "c", "d"], "name": "u"}, {"range": {"column": "id", "max": 0}, "name": "all"},
                {"length": {"column": "a", "max": 0}}, {"length": {"column": "b", "max": 0}},
                {"length": {"column": "c", "max": 0}}, {"range": {"column": "d", "max": "1900-01-01"}}],
    )  # fmt: skip
    result = check(ledger, emptied, declared)
    by_name = {found.name: found for found in result.checks}
    assert samples(ledger, "all") == [{"id": 1}, {"id": 2}]
    assert samples(ledger, "length_a") == [{"id": 1, "a": "Gr***06"}, {"id": 2, "a": "***"}]
    first, second = samples(ledger, "length_b")
    assert first["b"] == second["b"], "equal values are equal within a run"
    assert len(first["b"]) == 16
    assert samples(ledger, "length_c") == [{"id": 1, "c": "***"}]
    assert samples(ledger, "range_d") == [{"id": 1, "d": "19***09"}]
    assert by_name["length_c"].masked_columns == ("c",)
    assert (by_name["length_a"].key_columns, by_name["length_a"].value_columns) == (("id",), ("a",))
    assert SECRET not in everything(ledger)


def test_a_mask_holds_for_rows_that_were_moved_aside(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        """
        create table t (id int primary key, name text, n int);
        create table aside (id int, name text, n int);
        create schema if not exists dbplatform;
        create table dbplatform.quarantine_t (id int, name text, n int);
        insert into aside values (1, 'SECRET', 0);
        insert into dbplatform.quarantine_t values (1, 'SECRET', 0);
        """,
    )
    length = {"length": {"column": "name", "max": 0}}
    source = TablePolicy(
        table="t", mask=["name"], checks=[{"range": {"column": "n", "min": 1}, "quarantine": {"to": "aside"}}]
    )
    for place in ("aside", "dbplatform.quarantine_t"):
        policy = TablePolicy(table=place, checks=[length])
        found = check(ledger, emptied, policy, Masks.declared([source, policy]))
        assert found.checks[0].masked_columns == ("name",)
        assert SECRET not in everything(ledger)
    fill(emptied, "drop schema dbplatform cascade")


def test_the_hash_of_a_value_is_another_one_in_the_next_run(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, 'x')")
    declared = TablePolicy(table="t", mask={"a": "hash"}, checks=[{"length": {"column": "a", "max": 0}}])
    check(ledger, emptied, declared)
    first = samples(ledger, "length_a")
    check(ledger, emptied, declared)
    assert first != samples(ledger, "length_a")


def test_a_row_with_a_masked_key_is_known_by_another_key_or_its_place(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (email text primary key, a int); insert into t values ('a@example.org', null)")
    declared = TablePolicy(table="t", mask=["email"], checks=[{"not_null": "a"}])
    check(ledger, emptied, declared)
    assert samples(ledger, "not_null_a") == [{"email": "***", "ctid": "(0,1)", "a": None}]
    fill(emptied, "alter table t add id int unique default 7")
    check(ledger, emptied, declared)
    assert samples(ledger, "not_null_a") == [{"id": 7, "a": None}]


def test_a_query_cannot_carry_a_masked_column_out_under_another_name(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        """
        create table people (id int primary key, name text);
        insert into people values (1, 'SECRET');
        create table t (id int primary key, person int, note text) ;
        insert into t values (1, 1, 'plain');
        create view v as select name as harmless from people;
        """,
    )
    queries = {
        "renamed": "select t.id, p.name as x from t join people p on p.id = t.person",
        "nested": "with q as (select * from (select name y from people) i) select y as z from q",
        "worked_on": "select id, upper(p.name) as u, lower(p.name) from people p",
        "of_a_view": "select * from v",
        "a_union": "select name from people union all select note from t",
        "a_row": "select p from people p",
        "twice": "select t.note as id, t.id, p.name as id from t join people p on true",
    }
    declared = TablePolicy(table="t", checks=[{"sql": {"name": n, "rows": q}} for n, q in queries.items()])
    masks = Masks({Relation("public", "people"): {"name": "redact"}})
    check(ledger, emptied, declared, masks)
    assert samples(ledger, "renamed") == [{"id": 1, "x": "***"}]
    assert samples(ledger, "nested") == [{"z": "***"}]
    assert samples(ledger, "worked_on") == [{"id": 1, "u": "***", "lower": "***"}]
    assert samples(ledger, "of_a_view") == [{"harmless": "***"}]
    assert samples(ledger, "a_union") == [{"name": "***"}] * 2
    assert samples(ledger, "a_row") == [{"p": "***"}]
    assert samples(ledger, "twice") == [{"id": "***"}]
    assert SECRET.lower() not in everything(ledger).lower()


def test_a_mask_of_a_table_holds_for_its_partitions_and_the_other_way_round(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        """
        create table t (id int, a text, b text) partition by range (id);
        create table t1 partition of t for values from (0) to (10);
        insert into t values (1, 'SECRET', 'SECRET');
        """,
    )
    masks = Masks({Relation("public", "t"): {"a": "redact"}, Relation("public", "t1"): {"b": "redact"}})
    checks = [{"length": {"column": column, "max": 0}} for column in "ab"]
    checks.append({"sql": {"name": "q", "rows": "select a, b from t1"}})
    for table in ("t", "t1"):
        check(ledger, emptied, TablePolicy(table=table, checks=checks), masks)
    assert samples(ledger, "length_b")[0]["b"] == "***"
    assert samples(ledger, "q") == [{"a": "***", "b": "***"}]
    assert SECRET not in everything(ledger)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_measured_of_a_masked_column_is_judged_and_not_told(emptied: Target, stream: bool) -> None:
    fill(
        emptied,
        "create table t (id int primary key, salary int, born timestamptz); "
        "insert into t values (1, 98765, '1906-12-09')",
    )
    declared = TablePolicy(
        table="t",
        mask=["salary", "born"],
        checks=[
            {"mean": {"column": "salary", "max": 10}},
            {"sum": {"column": "salary", "min": 10}},
            {"freshness": {"column": "born", "max_age": "1 day"}},
            {"null_ratio": {"column": "salary", "max": 0.5}},
        ],
    )
    with connect(emptied, work="test") as connection:
        checks = run_table(connection, declared, stream=stream).checks
    assert [found.status for found in checks] == ["failed", "passed", "failed", "passed"]
    assert [found.value for found in checks] == [None, None, None, 0.0]
    told = json.dumps([found.as_json() for found in checks])
    assert "98" not in told
    assert "1906" not in told
    assert "masked" in checks[0].message


def test_the_days_of_a_masked_time_are_told_and_kept_by_no_anomaly(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        "create table t (born date); insert into t "
        "select d from generate_series(now() - interval '50 days', now(), interval '1 day') d, generate_series(1, 9)",
    )
    declared = TablePolicy(
        table="t", mask=["born"], checks=[{"anomaly": {"metric": "row_count", "by": "born", "name": "a"}}]
    )
    (found,) = check(ledger, emptied, declared).checks
    assert (found.status, found.value, found.judged) == ("errored", None, ())
    assert found.message == "born is masked: no past by its days is kept."
    with psycopg.connect(ledger.target.url) as session:
        kept = session.execute("select count(*) from ledger.quality_history where value is not null").fetchone()
    assert kept == (0,)


def test_an_error_of_postgresql_that_quotes_a_value_is_told_by_its_name(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, 'SECRET')")
    hostile = "create function f(text) returns bool language plpgsql as $$ begin raise exception '%', $1; end $$"
    fill(emptied, hostile)
    declared = TablePolicy(
        table="t",
        mask=["a"],
        checks=[
            {"not_null": "id", "where": "a::int > 0", "name": "cast"},
            {"sql": {"name": "raised", "rows": "select id from t where f(a)"}},
            {"sql": {"name": "missing", "rows": "select nope from t"}},
            {"sql": {"name": "only_in_the_rows", "rows": "select id, case when id = 1 then a::int end from t"}},
        ],
    )
    result = check(ledger, emptied, declared)
    by_name = {found.name: found for found in result.checks}
    assert by_name["cast"].status == "errored"
    assert "SQLSTATE 22P02 (InvalidTextRepresentation)" in by_name["cast"].message
    assert "SQLSTATE P0001 (RaiseException)" in by_name["raised"].message
    assert 'column "nope" does not exist' in by_name["missing"].message, "planning reads no data"
    assert by_name["only_in_the_rows"].status == "errored"
    assert SECRET not in everything(ledger)


def test_an_interrupted_check_quotes_nothing_in_the_chain_of_its_errors(emptied: Target) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, 'SECRET')")
    fill(
        emptied,
        "create function die(t text) returns bool language plpgsql as $$ begin "
        "perform pg_terminate_backend(pg_backend_pid()); raise exception '%', t; end $$",
    )
    declared = TablePolicy(
        table="t", mask=["a"], checks=[{"sql": {"name": "q", "rows": "select 1 from t where die(a)"}}]
    )
    with pytest.raises(Exception, match=r"interrupted|lost|terminating|was lost") as caught, \
            connect(emptied, work="test") as connection:  # fmt: skip
        run_table(connection, declared)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_mask_on_a_column_that_is_not_there_is_refused_before_anything_is_read(
    emptied: Target, ledger: Ledger
) -> None:
    fill(emptied, "create table t (id int primary key, email text)")
    with pytest.raises(MaskedColumnMissing, match='no column "E-Mail"') as caught:
        check(ledger, emptied, TablePolicy(table="t", mask=['"E-Mail"'], checks=[{"not_null": "email"}]))
    assert caught.value.hint == "It has: email, id."


def test_a_table_without_masks_in_a_database_without_masks_keeps_its_values(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, 'x')")
    queries = [{"sql": {"name": "q", "rows": "select upper(a) from t"}}]
    found: CheckResult = check(ledger, emptied, TablePolicy(table="t", checks=queries)).checks[0]
    assert samples(ledger, "q") == [{"upper": "X"}]
    assert (found.value_columns, found.masked_columns) == (("upper",), ())


def test_a_wrong_mask_of_another_table_stops_a_query_that_could_read_it(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table people (id int, name text); create table t (id int)")
    declared = TablePolicy(table="t", checks=[{"sql": {"name": "q", "rows": "select name from people"}}])
    masks = Masks(
        {Relation("public", "people"): {"nmae": "redact"}, Relation("public", "not_made_yet"): {"a": "redact"}}
    )
    with pytest.raises(MaskedColumnMissing, match="people has no column nmae"):
        check(ledger, emptied, declared, masks)
