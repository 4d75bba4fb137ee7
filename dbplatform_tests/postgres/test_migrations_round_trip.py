"""Up, down and up again: an undo file that does not give back what was there is named, with what differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbplatform.migrations.drift.objects import schema_objects
from dbplatform.migrations.engine import MigrationPolicy
from dbplatform.migrations.errors import ServerWide
from dbplatform.migrations.trials.round_trip import RoundTrip, round_trip
from dbplatform.postgres.connection import AutocommitConnection, Target, connect

POLICY = MigrationPolicy()


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.sql").write_text(text)
    return folder


def tried(connection: AutocommitConnection, files: Path) -> RoundTrip:
    return round_trip(connection, files, POLICY, database="shop", server_wide=False)


def test_undo_files_that_undo_pass(connection: AutocommitConnection, tmp_path: Path) -> None:
    write(
        tmp_path,
        V1__a="create table a (id int primary key, name text);",
        U1__a="drop table a;",
        V2__b="alter table a add b int default 1; comment on column a.b is 'new'; create index a_b on a (b);",
        U2__b="alter table a drop column b;",
        V3__c="create index concurrently a_name on a (name);",
        U3__c="drop index concurrently a_name;",
        R__v="create or replace view v as select id, b from a;",
    )
    found = tried(connection, tmp_path)
    assert found.passed
    assert [(str(v.version), v.status) for v in found.versions] == [("1", "equal"), ("2", "equal"), ("3", "equal")]
    assert (found.undone_to, found.without_undo, found.whole_way) == (None, (), ())
    assert connection.execute("select count(*) from pg_views where viewname = 'v'").fetchone() == (1,)


@pytest.mark.parametrize(
    ("up", "down", "left"),
    [
        ("create table b (a int); create table c (a int)", "drop table c", "table public.b should not be there"),
        ("alter table a alter name set not null", "select 1", "column public.a.name is NOT NULL, the"),
        ("drop index a_name", "create index a_name on a (id)", "index public.a_name has the definition"),
        ("create function f() returns int language sql as 'select 1'", "select 1", "function public.f() should not"),
        ("grant select on a to public", "select 1", "public has SELECT on table public.a, which"),
        ("create type mood as enum ('sad')", "select 1", "enum public.mood should not be there"),
        ("comment on table a is 'x'", "select 1", "comment on table public.a should not be there"),
    ],
)
def test_what_an_undo_file_leaves_is_named(
    connection: AutocommitConnection, tmp_path: Path, up: str, down: str, left: str
) -> None:
    write(
        tmp_path,
        V1__a="create table a (id int, name text); create index a_name on a (name);",
        V2__b=f"{up};",
        U2__b=f"{down};",
    )
    found = tried(connection, tmp_path)
    assert not found.passed
    second = found.versions[1]
    assert second.status in ("different", "redo failed")
    assert any(left in str(difference) for difference in second.after_undo), [str(d) for d in second.after_undo]


def test_an_undo_file_that_fails_is_a_finding_and_the_way_goes_on(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        V1__a="create table a (id int);",
        U1__a="drop table nowhere;",
        V2__b="create table b (id int);",
        U2__b="drop table b;",
    )
    found = tried(connection, tmp_path)
    assert not found.passed
    assert [v.status for v in found.versions] == ["undo failed", "equal"]
    assert 'table "nowhere" does not exist' in (found.versions[0].error or "")
    assert str(found.undone_to) == "1"


def test_a_version_that_cannot_be_applied_behind_its_undo_file_is_a_finding(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        V1__a="create table a (id int, name text);",
        V2__b="alter table a rename column name to title;",
        U2__b="select 1;",
        V3__c="create table c (id int);",
    )
    found = tried(connection, tmp_path)
    assert not found.passed
    assert [v.status for v in found.versions] == ["no undo file", "redo failed"]
    assert 'column "name" does not exist' in (found.versions[1].error or "")
    assert "column public.a.title should not be there" in [str(d) for d in found.versions[1].after_undo]


def test_a_missing_undo_file_is_reported_and_no_fault(connection: AutocommitConnection, tmp_path: Path) -> None:
    write(
        tmp_path,
        V1__a="create table a (id int);",
        V2__b="create table b (id int);",
        V3__c="create table c (id int);",
        U1__a="drop table a;",
        U3__c="drop table c;",
    )
    found = tried(connection, tmp_path)
    assert found.passed
    assert [v.status for v in found.versions] == ["equal", "no undo file", "equal"]
    assert found.without_undo == ("V2__b.sql",)
    assert str(found.undone_to) == "2"
    assert found.as_json()["without_undo"] == ["V2__b.sql"]


def test_no_migrations_pass(connection: AutocommitConnection, tmp_path: Path) -> None:
    found = tried(connection, tmp_path)
    assert (found.passed, found.versions) == (True, ())


def test_the_objects_of_a_database_do_not_depend_on_search_path_or_history(
    connection: AutocommitConnection,
) -> None:
    connection.execute("create table t (a int primary key, b text); create view v as select * from t")
    first = schema_objects(connection, history_table=POLICY.history_table)
    connection.execute("create table flyway_schema_history (a int primary key); set search_path = pg_catalog")
    connection.execute("create schema dbplatform; create table dbplatform.mark (a int)")
    assert schema_objects(connection, history_table=POLICY.history_table) == first
    assert first["column", "public.t.a"].parts == {"type": "integer", "not null": "yes"}


def test_a_role_of_the_real_server_is_neither_made_nor_dropped(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        V1__a="create table a (id int);",
        U1__a="-- dbplatform:allow drop table\ndrop table a; drop role dbplatform_test_writer;",
    )
    connection.execute("create role dbplatform_test_writer")
    try:
        with pytest.raises(ServerWide, match="drop role dbplatform_test_writer"):
            tried(connection, tmp_path)
        there = connection.execute("select count(*) from pg_roles where rolname = 'dbplatform_test_writer'")
        assert there.fetchone() == (1,)
    finally:
        connection.execute("drop role dbplatform_test_writer")
