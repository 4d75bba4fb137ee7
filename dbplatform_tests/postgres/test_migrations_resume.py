"""A file without a transaction goes on at the statement that failed or was killed, and stops where that is unclear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.migrations.errors import FileChangedHalfWay, InDoubt, MigrationFailed
from dbplatform.migrations.repair import apply_repair
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform_tests.postgres.migrations_support import apply_and_die

POLICY = MigrationPolicy()


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute("create table t (a int, b text); create table ran (statement int)")
        connection.execute("insert into t select i, 'x' || i from generate_series(1, 100) i")
        yield connection


def write(folder: Path, text: str, name: str = "V1__x.sql") -> None:
    (folder / name).write_text(text)
    (folder / f"{name}.conf").write_text("executeInTransaction=false")


def rows(connection: AutocommitConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def test_a_failed_statement_is_where_the_next_apply_begins(connection: AutocommitConnection, tmp_path: Path) -> None:
    text = (
        "insert into ran values (1);\ncreate index concurrently t_a on t (a);\n"
        "select 1 / {};\ninsert into ran values (4);\n"
    )
    write(tmp_path, text.format(0))
    with pytest.raises(MigrationFailed, match="division by zero") as caught:
        apply_migrations(connection, tmp_path, POLICY)
    assert caught.value.line == 3
    assert "goes on from here" in (caught.value.hint or "")
    assert history(connection, POLICY) == []
    write(tmp_path, text.format(1))
    (applied,) = apply_migrations(connection, tmp_path, POLICY).migrations
    assert applied.found_done
    assert [s.line for s in applied.statements] == [3, 4]
    assert rows(connection, "select statement from ran order by 1") == [(1,), (4,)]
    assert len(history(connection, POLICY)) == 1


def test_statements_that_ran_may_not_change(connection: AutocommitConnection, tmp_path: Path) -> None:
    write(tmp_path, "insert into ran values (1);\nselect 1 / 0;")
    with pytest.raises(MigrationFailed):
        apply_migrations(connection, tmp_path, POLICY)
    write(tmp_path, "insert into ran values (11);\nselect 1;")
    with pytest.raises(FileChangedHalfWay, match=r"first 1 statements of V1__x\.sql"):
        apply_migrations(connection, tmp_path, POLICY)
    assert rows(connection, "select statement from ran") == [(1,)]


def test_settings_of_the_file_hold_again_when_it_is_taken_up(connection: AutocommitConnection, tmp_path: Path) -> None:
    text = (
        "set search_path = other, public;\ncreate schema other;\ncreate table made (a int);\n"
        "select 1 / {};\ncreate table made_too (a int);\nvacuum t;"
    )
    write(tmp_path, text.format(0))
    with pytest.raises(MigrationFailed):
        apply_migrations(connection, tmp_path, POLICY)
    write(tmp_path, text.format(1))
    apply_migrations(connection, tmp_path, POLICY)
    made = (
        "select nspname, relname from pg_class c join pg_namespace n on n.oid = relnamespace where relname like 'made%'"
    )
    assert rows(connection, f"{made} order by 2") == [("other", "made"), ("other", "made_too")]


def test_a_role_of_the_file_need_not_see_the_marks(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create role migration_guest; grant create on schema public to migration_guest")
    try:
        write(
            tmp_path, "set role migration_guest;\ncreate table made (a int);\ncreate index concurrently m on made (a);"
        )
        apply_migrations(connection, tmp_path, POLICY)
        owner = "select pg_get_userbyid(relowner)::text from pg_class where relname in ('made', 'm')"
        assert rows(connection, owner) == [("migration_guest",), ("migration_guest",)]
    finally:
        connection.execute("drop owned by migration_guest; drop role migration_guest")


def test_a_single_statement_that_shows_by_itself_needs_no_marks(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    write(tmp_path, "create index concurrently t_a on t (a);")
    apply_migrations(connection, tmp_path, POLICY)
    assert rows(connection, "select to_regnamespace('dbplatform')") == [(None,)]


@pytest.mark.parametrize(
    ("sql", "check"),
    [
        ("drop index concurrently t_b", "select to_regclass('t_b') is null"),
        ("reindex index concurrently t_b", "select indisvalid from pg_index where indexrelid = 't_b'::regclass"),
        ("vacuum t", "select true"),
        (
            "alter table p detach partition p1 concurrently",
            "select not relispartition from pg_class where relname = 'p1'",
        ),
    ],
)
def test_a_statement_killed_before_its_mark_is_not_done_twice(
    database: Target, connection: AutocommitConnection, tmp_path: Path, sql: str, check: str
) -> None:
    connection.execute(
        "create index t_b on t (b); create table p (a int) partition by range (a); "
        "create table p1 partition of p for values from (1) to (2)"
    )
    write(tmp_path, "\n".join(("insert into ran values (1);", f"{sql};", "insert into ran values (3);")))
    apply_and_die(database, tmp_path, "V1__x.sql: done", 2)
    apply_migrations(connection, tmp_path, POLICY)
    assert rows(connection, check) == [(True,)]
    assert rows(connection, "select statement from ran order by 1") == [(1,), (3,)]
    assert rows(connection, "select count(*) from pg_index where not indisvalid") == [(0,)]


@pytest.mark.parametrize("decision", ["did", "again"])
def test_a_statement_that_leaves_no_trace_is_in_doubt_until_a_person_decides(
    database: Target, connection: AutocommitConnection, tmp_path: Path, decision: str
) -> None:
    connection.execute("create procedure p() language plpgsql as $$ begin insert into ran values (2); commit; end $$")
    write(tmp_path, "insert into ran values (1);\ncall p();\ninsert into ran values (3);")
    apply_and_die(database, tmp_path, "V1__x.sql: done", 2)
    with pytest.raises(InDoubt, match=r"in its statement 2 of 3, .*: call p\(\)") as caught:
        apply_migrations(connection, tmp_path, POLICY)
    assert caught.value.place == f"{tmp_path / 'V1__x.sql'}:2"
    assert "--did V1__x.sql" in (caught.value.hint or "")
    assert rows(connection, "select statement from ran order by 1") == [(1,), (2,)]
    did, again = (["V1__x.sql"], []) if decision == "did" else ([], ["V1__x.sql"])
    apply_repair(connection, tmp_path, POLICY, did=did, again=again)
    apply_migrations(connection, tmp_path, POLICY)
    expected = [(1,), (2,), (3,)] if decision == "did" else [(1,), (2,), (2,), (3,)]
    assert rows(connection, "select statement from ran order by 1") == expected


def test_a_call_that_the_server_did_not_understand_is_not_in_doubt(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    write(tmp_path, "insert into ran values (1);\ncall p();")
    with pytest.raises(MigrationFailed, match="does not exist"):
        apply_migrations(connection, tmp_path, POLICY)
    connection.execute("create procedure p() language sql as 'insert into ran values (2)'")
    apply_migrations(connection, tmp_path, POLICY)
    assert rows(connection, "select statement from ran order by 1") == [(1,), (2,)]


def test_the_lock_timeout_of_the_file_counts_where_it_sets_one(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    connection.execute("create table seen (setting text)")
    seen = "insert into seen select current_setting('lock_timeout');"
    write(tmp_path, f"set lock_timeout = '7s';\nvacuum t;\n{seen}")
    write(tmp_path, f"vacuum t;\n{seen}", "V2__y.sql")
    apply_migrations(connection, tmp_path, MigrationPolicy(lock_timeout="3s"))
    assert rows(connection, "select setting from seen") == [("7s",), ("3s",)]


def test_databases_and_tablespaces_that_were_made_are_not_made_twice(
    database: Target, connection: AutocommitConnection, tmp_path: Path
) -> None:
    name = f"{database.name}_made"
    write(tmp_path, f"create database {name};\ninsert into ran values (2);")
    try:
        apply_and_die(database, tmp_path, "V1__x.sql: done", 1)
        apply_migrations(connection, tmp_path, POLICY)
        assert rows(connection, "select statement from ran") == [(2,)]
    finally:
        connection.execute(f"drop database if exists {name}".encode())
