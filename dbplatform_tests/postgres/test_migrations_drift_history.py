"""What drift is compared with: what the history says is in force, and nothing that is still to come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbplatform.migrations.baseline import apply_baseline
from dbplatform.migrations.drift.engine import DriftReport, blueprint, build, drift
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations
from dbplatform.migrations.errors import CannotCompare, MigrationFailed
from dbplatform.migrations.undo import apply_undo
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.postgres.drift_support import created

POLICY = MigrationPolicy()


@pytest.fixture
def live(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.sql").write_text(text)


def found(
    live: AutocommitConnection, files: Path, server_url: str, policy: MigrationPolicy = POLICY, *, own: bool = False
) -> DriftReport:
    with created(server_url) as target, connect(target, work="test") as empty:
        plan = blueprint(live, files, policy, database="shop")
        return drift(live, plan, build(empty, plan, server_wide=not own))


def sentences(report: DriftReport) -> list[str]:
    return [str(difference) for difference in report.differences]


def test_a_pending_version_is_no_drift(live: AutocommitConnection, tmp_path: Path, server_url: str) -> None:
    write(tmp_path, V1__a="create table a (id int);")
    apply_migrations(live, tmp_path, POLICY)
    write(tmp_path, V2__b="create table b (id int);", U2__b="drop table b;")
    report = found(live, tmp_path, server_url)
    assert (sentences(report), str(report.version), report.left_out) == ([], "1", {})
    apply_migrations(live, tmp_path, POLICY)
    assert sentences(found(live, tmp_path, server_url)) == []
    apply_undo(live, tmp_path, POLICY)
    assert sentences(found(live, tmp_path, server_url)) == []


def test_nothing_applied_yet_is_compared_with_an_empty_database(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create table a (id int);")
    assert sentences(found(live, tmp_path, server_url)) == []
    live.execute("create table a (id int)")
    assert sentences(found(live, tmp_path, server_url)) == ["table public.a should not be there"]


def test_a_repeatable_that_has_changed_since_is_left_out_and_the_rest_is_compared(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(
        tmp_path,
        V1__a="create table a (id int, name text); create function f() returns int language sql as 'select 1';",
        R__one="create or replace view one as select id from a; comment on view one is 'One.';",
        R__two="create or replace view two as select id from one;",
    )
    apply_migrations(live, tmp_path, POLICY)
    live.execute("grant select on one to public; create or replace view two as select id from one where id > 1")
    write(
        tmp_path,
        R__one="create or replace view one as select id, name from a; comment on view one is 'One!'; "
        "create or replace function f() returns int language sql as 'select 2';",
    )
    report = found(live, tmp_path, server_url)
    [difference] = report.differences
    assert (difference.kind, difference.name) == ("view", "public.two")
    [left_out] = report.as_json()["left_out"]
    assert left_out["script"] == "R__one.sql"
    assert {"view public.one", "comment view public.one", "function public.f()"} <= set(left_out["objects"])


def test_a_changed_repeatable_that_needs_a_pending_version_is_left_out(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create table a (id int);", R__v="create or replace view v as select id from a;")
    apply_migrations(live, tmp_path, POLICY)
    write(tmp_path, V2__b="alter table a add name text;", R__v="create or replace view v as select id, name from a;")
    report = found(live, tmp_path, server_url)
    assert sentences(report) == []
    assert ("view", "public.v") in report.left_out["R__v.sql"]


def test_what_a_killed_file_without_a_transaction_left_is_no_drift(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create table a (id int); create table b (id int);")
    apply_migrations(live, tmp_path, POLICY)
    live.execute("insert into a values (1), (1); create index left_over on b (id)")
    write(tmp_path, V2__i="create table c (id int);\ncreate unique index concurrently a_id on a (id);")
    with pytest.raises(MigrationFailed):
        apply_migrations(live, tmp_path, POLICY)
    assert live.execute("select count(*) from pg_index where not indisvalid").fetchone() == (1,)
    report = found(live, tmp_path, server_url)
    assert sentences(report) == ["index public.left_over should not be there"]
    assert {("index", "public.a_id"), ("table", "public.c")} <= set(report.left_out["V2__i.sql"])


def test_a_baseline_without_its_file_cannot_be_compared(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    live.execute("create table a (id int)")
    write(tmp_path, V3__b="create table b (id int);")
    apply_baseline(live, POLICY, version="2")
    apply_migrations(live, tmp_path, POLICY)
    with pytest.raises(CannotCompare, match="taken over at version 2, and no file says what lies below"):
        found(live, tmp_path, server_url)
    write(tmp_path, B2__all="create table a (id bigint);")
    assert sentences(found(live, tmp_path, server_url)) == [
        "column public.a.id is integer, the migrations make it bigint"
    ]


def test_a_baseline_at_a_version_that_has_a_file_is_compared_with_the_files_up_to_it(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    live.execute("create table a (id int); create table b (id int)")
    write(tmp_path, V1__a="create table a (id int);", V2__b="create table b (id int);", V3__c="create table c (a int);")
    apply_baseline(live, POLICY, version="2")
    apply_migrations(live, tmp_path, POLICY)
    assert sentences(found(live, tmp_path, server_url)) == []


def test_a_baseline_file_that_began_the_database_begins_the_comparison(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create table a (id int);", B2__all="create table a (id int, b int);")
    apply_migrations(live, tmp_path, POLICY)
    write(tmp_path, V3__c="create table c (id int);", B4__later="create table nothing (id int);")
    assert sentences(found(live, tmp_path, server_url)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("update flyway_schema_history set type = 'JDBC' where version = '1'", r"V1__a.sql is no SQL \(JDBC\)"),
        (
            "update flyway_schema_history set version = '9', script = 'V9__z.sql' where version = '2'",
            "V9__z.sql was applied from newer files than these",
        ),
    ],
)
def test_a_history_that_these_files_cannot_build_is_an_error_and_not_a_match(
    live: AutocommitConnection, tmp_path: Path, server_url: str, change: str, told: str
) -> None:
    write(tmp_path, V1__a="create table a (id int);", V2__b="create table b (id int);")
    apply_migrations(live, tmp_path, POLICY)
    live.execute(change.encode())
    with pytest.raises(CannotCompare, match=told):
        found(live, tmp_path, server_url)


def test_a_file_that_does_not_run_in_an_empty_database_is_an_error_with_its_line(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create table a (id int);\nselect 1 / count(*) from guests;")
    live.execute("create table guests (id int); insert into guests values (1)")
    apply_migrations(live, tmp_path, POLICY)
    with pytest.raises(CannotCompare, match=r'V1__a\.sql:2.*relation "guests" does not exist') as told:
        found(live, tmp_path, server_url)
    assert told.value.exit_code == 3


def test_a_file_that_changes_a_role_is_not_run_beside_the_database_itself(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    role = f"role_{live.info.dbname}"
    live.execute(f"create role {role}".encode())
    try:
        write(tmp_path, V1__a="create table a (id int);", V2__b=f"alter role {role} nocreatedb;")
        apply_migrations(live, tmp_path, POLICY)
        live.execute(f"alter role {role} createdb".encode())
        with pytest.raises(CannotCompare, match=r"alter role .* nocreatedb cannot be tried out .*scratch_url_env"):
            found(live, tmp_path, server_url, own=True)
        kept = live.execute("select rolcreatedb from pg_roles where rolname = %s", (role,)).fetchone()
        assert kept == (True,)
        assert sentences(found(live, tmp_path, server_url)) == []
    finally:
        live.execute(f"drop role {role}".encode())


def test_a_drop_that_was_applied_without_being_named_is_built(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create table a (id int);", V2__b="drop table a;", V3__c="create table c (id int);")
    apply_migrations(live, tmp_path, MigrationPolicy(allow_destructive=True))
    assert sentences(found(live, tmp_path, server_url)) == []


def test_tables_in_the_schema_of_the_history_are_compared(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    policy = MigrationPolicy(history_table=Relation("app", "history"))
    write(tmp_path, V1__a="create table app.a (id int);")
    apply_migrations(live, tmp_path, policy)
    assert sentences(found(live, tmp_path, server_url, policy)) == []
    live.execute("create table app.b (id int); grant usage on schema app to public")
    assert sentences(found(live, tmp_path, server_url, policy)) == [
        "table app.b should not be there",
        "public has USAGE on schema app, which the migrations do not grant",
    ]


def test_a_text_that_holds_the_name_of_the_database_is_no_drift(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__f="create function f() returns text language sql as 'select ''${flyway:database}''';")
    apply_migrations(live, tmp_path, POLICY)
    assert live.execute("select f()").fetchone() == (live.info.dbname,)
    assert sentences(found(live, tmp_path, server_url)) == []


def test_a_user_who_may_only_read_the_catalog_can_compare(
    live: AutocommitConnection, database: Target, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create table a (id int); create view v as select * from a;")
    apply_migrations(live, tmp_path, POLICY)
    role = f"reader_{live.info.dbname}"
    live.execute(f"create role {role}; grant select on flyway_schema_history to {role}".encode())
    try:
        live.execute(f"set role {role}".encode())
        assert sentences(found(live, tmp_path, server_url)) == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            live.execute("select * from a")
    finally:
        live.execute("reset role")
        live.execute(f"drop owned by {role}".encode())
        live.execute(f"drop role {role}".encode())


def test_a_secret_in_the_options_of_a_foreign_server_is_not_shown(
    live: AutocommitConnection, tmp_path: Path, server_url: str
) -> None:
    write(tmp_path, V1__a="create foreign data wrapper w;")
    apply_migrations(live, tmp_path, POLICY)
    live.execute("create server s foreign data wrapper w options (host 'there', api_token 'hush')")
    [difference] = found(live, tmp_path, server_url).as_json()["differences"]
    assert (difference["kind"], difference["object"]) == ("foreign server", "s")
    assert difference["actual"] == "wrapper w; options api_token=(hidden), host=there"
