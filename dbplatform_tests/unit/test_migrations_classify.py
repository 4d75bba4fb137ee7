"""Which statements need no transaction, destroy data, or build an index concurrently."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.migrations import classify
from dbplatform.migrations.errors import DestructiveStatement, ScriptError
from dbplatform.migrations.statements import Statement, split

FILE = Path("V1__a.sql")


def one(sql: str) -> Statement:
    (statement,) = split(sql).statements
    return statement


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("drop table t", "drop table"),
        ('DROP TABLE IF EXISTS "a"."b" CASCADE', "drop table"),
        ("drop /* why */ table t", "drop table"),
        ("drop schema s", "drop schema"),
        ("drop database d", "drop database"),
        ("drop owned by somebody", "drop owned"),
        ("truncate t", "truncate"),
        ("truncate table only t restart identity", "truncate"),
        ("alter table t drop column a", "drop column"),
        ("alter table t drop a", "drop column"),
        ("alter table if exists only public.t drop column if exists a cascade", "drop column"),
        ("alter table t * drop a", "drop column"),
        ("alter table t add b numeric(1, 2) default f(1, drop), drop a", "drop column"),
        ("alter type y drop attribute a", "drop column"),
        ("do $$ begin drop  table t; end $$", "drop table"),
        ("do $$ begin execute 'TRUNCATE t'; end $$", "truncate"),
        ("drop sequence s", "drop sequence"),
        ("drop type y cascade", "drop cascade"),
        ("drop extension if exists e cascade", "drop cascade"),
    ],
)
def test_statements_that_destroy_data_are_known(sql: str, what: str) -> None:
    assert classify.destructive(one(sql)) == [what]


@pytest.mark.parametrize(
    "sql",
    [
        "drop index i",
        "drop view v",
        "drop function f()",
        "drop type y",
        "drop view v cascade",
        "drop index i cascade",
        "alter table t drop constraint c",
        "alter table t alter column a drop not null, alter b drop default",
        "alter table t alter a drop expression, add b int",
        "create table truncate_log (a int)",
        "select 'drop table t'",
        "delete from t where a = 1",
        "create function f() returns void language plpgsql as $$ begin drop table t; end $$",
        "do $$ begin -- drop table t\n perform 1; end $$",
        "comment on table t is 'drop table'",
    ],
)
def test_statements_that_keep_data_are_not_refused(sql: str) -> None:
    assert classify.destructive(one(sql)) == []


def test_a_destructive_statement_is_refused_with_file_line_and_statement() -> None:
    with pytest.raises(DestructiveStatement, match="drop table old_flights") as caught:
        classify.refuse_destructive(split("select 1;\n\ndrop table old_flights;"), file=FILE)
    assert caught.value.place == "V1__a.sql:3"
    assert caught.value.exit_code == 2
    assert "-- dbplatform:allow drop table" in (caught.value.hint or "")


@pytest.mark.parametrize("comment", ["-- dbplatform:allow drop table", "--dbplatform: allow TRUNCATE,  Drop  Table"])
def test_a_comment_in_the_file_allows_what_it_names(comment: str) -> None:
    classify.refuse_destructive(split(f"{comment}\ndrop table t;"), file=FILE)


@pytest.mark.parametrize(
    "text",
    [
        "-- dbplatform:allow drop column\ndrop table t;",
        "select '-- dbplatform:allow drop table'; drop table t;",
        "/* dbplatform:allow drop table */ drop table t;",
        "-- see dbplatform:allow drop table\ndrop table t;",
    ],
)
def test_another_comment_does_not_allow_it(text: str) -> None:
    with pytest.raises(DestructiveStatement):
        classify.refuse_destructive(split(text), file=FILE)


def test_an_allowance_of_something_unknown_is_refused() -> None:
    with pytest.raises(ScriptError, match="'drop everything'") as caught:
        classify.refuse_destructive(split("select 1;\n-- dbplatform:allow drop everything"), file=FILE)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    "sql",
    [
        "create index concurrently i on t (a)",
        "create unique index concurrently if not exists i on t (a)",
        "drop index concurrently i",
        "reindex table concurrently t",
        "reindex (verbose, concurrently) index i",
        "reindex (verbose) database d",
        "reindex schema s",
        "vacuum",
        "vacuum (analyze) t",
        "create database d",
        "drop database d",
        "alter system set work_mem = '1MB'",
        "alter table p detach partition c concurrently",
        "alter database d set tablespace s",
        "create tablespace s location '/x'",
        "create subscription s connection 'x' publication p",
        "alter subscription s refresh publication",
        "cluster",
        "discard all",
    ],
)
def test_statements_that_need_no_transaction_are_known(sql: str) -> None:
    assert classify.needs_no_transaction(one(sql))


@pytest.mark.parametrize(
    "sql",
    [
        "create index i on t (concurrently)",
        'create index "concurrently" on t (a)',
        "create index i on t (a)",
        "reindex table t",
        'reindex table "concurrently"',
        "refresh materialized view concurrently v",
        "alter table p detach partition c",
        "alter type e add value 'x'",
        "cluster t using i",
        "analyze",
        "select 'vacuum'",
        "(select 1)",
        "'x'",
    ],
)
def test_other_statements_run_in_a_transaction(sql: str) -> None:
    assert classify.needs_no_transaction(one(sql)) is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("create index concurrently i on t (a)", ("i", None, "t")),
        ('create unique index concurrently if not exists "I x" on only "S"."T" using btree (a)', ("I x", "S", "T")),
        ("CREATE INDEX CONCURRENTLY Ix ON Public.T (a)", ("ix", "public", "t")),
        ("create index concurrently on t (a)", (None, None, "t")),
    ],
)
def test_the_index_and_its_table_are_read_from_the_statement(sql: str, expected: tuple[str, str, str]) -> None:
    statement = one(sql)
    index = classify.concurrent_index(statement)
    assert index is not None
    assert (index.name, index.table_schema, index.table) == expected
    assert statement.sql[slice(*index.table_span)].lower().endswith((expected[2].lower(), f'{expected[2].lower()}"'))


@pytest.mark.parametrize("sql", ["create index concurrently", "create index concurrently i", "create index i on t (a)"])
def test_what_builds_no_index_concurrently_is_none(sql: str) -> None:
    assert classify.concurrent_index(one(sql)) is None


@pytest.mark.parametrize(
    "sql",
    [
        "begin",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "start transaction",
        "commit",
        "end",
        "abort",
        "rollback",
        "commit and chain",
    ],
)
def test_transactions_of_its_own_are_refused_in_a_file(sql: str) -> None:
    with pytest.raises(ScriptError, match="already one transaction") as caught:
        classify.refuse_transaction_control(split(f"select 1;\n{sql};"), file=FILE)
    assert caught.value.place == "V1__a.sql:2"


@pytest.mark.parametrize(
    "sql",
    [
        "savepoint a",
        "rollback to a",
        "rollback to savepoint a",
        "release a",
        "prepare q as select 1",
        "do $$ begin commit; end $$",
    ],
)
def test_savepoints_and_blocks_are_not_taken_for_transactions(sql: str) -> None:
    classify.refuse_transaction_control(split(sql), file=FILE)
    assert split(sql).statements


@pytest.mark.parametrize(
    ("sql", "actions"),
    [
        ("alter table t alter a type bigint", ["alter a type bigint"]),
        (
            "alter table if exists only s.t alter column a set data type numeric(1, 2) using a::int, add b int",
            ["alter column a set data type numeric(1, 2) using a::int"],
        ),
        ('alter table "T" drop b, alter a type int, alter c type text', ["alter a type int", "alter c type text"]),
        ("alter table t alter a set not null, alter b drop default, add c type_of_mine", []),
        ("alter type y alter attribute a type int", []),
    ],
)
def test_the_column_types_that_a_statement_changes_are_found(sql: str, actions: list[str]) -> None:
    statement = one(sql)
    assert [statement.sql[slice(*change.span)] for change in classify.retyped(statement)] == actions


@pytest.mark.parametrize(
    ("sql", "table"),
    [("alter table only a.b alter c type int", ("a", "b")), ('alter table "T x" alter c type int', ("T x",))],
)
def test_the_table_of_a_changed_type_is_read_from_the_statement(sql: str, table: tuple[str, ...]) -> None:
    assert [change.table for change in classify.retyped(one(sql))] == [table]


@pytest.mark.parametrize("sql", ["set work_mem = '1GB'", "set role x", "reset all", "set local a.b to 1"])
def test_what_changes_the_session_alone_is_known(sql: str) -> None:
    assert classify.session_only(one(sql))


@pytest.mark.parametrize(
    "sql", ["set constraints all deferred", "select set_config('a', 'b', false)", "create table set ()"]
)
def test_other_statements_are_not_taken_for_settings(sql: str) -> None:
    assert not classify.session_only(one(sql))


@pytest.mark.parametrize(
    "sql", ["call p()", "do $$ begin commit; end $$", "do $$ begin insert into t values (1); ROLLBACK; end $$"]
)
def test_what_may_end_a_transaction_of_its_own_is_known(sql: str) -> None:
    assert classify.may_commit(one(sql))


@pytest.mark.parametrize("sql", ["do $$ begin perform 1; end $$", "do $$ begin -- commit\n end $$", "select 1"])
def test_what_cannot_end_a_transaction_is_known(sql: str) -> None:
    assert not classify.may_commit(one(sql))
