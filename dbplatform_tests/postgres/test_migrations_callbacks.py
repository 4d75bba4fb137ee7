"""Flyway's SQL callbacks: which run, in which order, in which transaction, and what is left when something fails.

Expected from github.com/flyway/flyway: ``DbMigrate.migrate``, ``migrateAll`` and ``doMigrateGroup`` (the events of a
run), ``DefaultCallbackExecutor`` (transactions), ``SqlScriptCallbackFactory`` (names, order). Not run against Flyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.errors import LockNotAcquired, NotBuiltYet
from dbplatform.migrations.apply import one_writer
from dbplatform.migrations.drift.engine import blueprint, build, drift
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, discover, history
from dbplatform.migrations.errors import (
    DestructiveStatement,
    MigrationFailed,
    MigrationFileError,
    ScriptError,
    ServerWide,
)
from dbplatform.migrations.trials.round_trip import round_trip
from dbplatform.migrations.undo import apply_undo, plan_undo
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform_tests.postgres.migrations_support import apply_and_die

POLICY = MigrationPolicy()
MIGRATE = (
    "beforeMigrate",
    "beforeEachMigrate",
    "afterEachMigrate",
    "afterEachMigrateError",
    "afterVersioned",
    "beforeRepeatables",
    "afterMigrateApplied",
    "afterMigrate",
    "afterMigrateError",
)
UNDO = ("beforeUndo", "beforeEachUndo", "afterEachUndo", "afterEachUndoError", "afterUndo", "afterUndoError")


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    """A database with a log: what ran, and in which transaction."""
    with connect(database, work="test") as connection:
        connection.execute(
            "create table public.ran (number int generated always as identity, what text, xid xid8 default "
            "pg_current_xact_id())"
        )
        yield connection


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.sql").write_text(text)


def say(what: str) -> str:
    return "insert into public.ran (what) values ('?');\n".replace("?", what)


def log_all(folder: Path, events: tuple[str, ...]) -> None:
    """A callback for each event that logs its name."""
    write(folder, **{event: say(event) for event in events})


def ran(connection: AutocommitConnection) -> list[str]:
    """What was logged since it was asked last."""
    rows = connection.execute("select what from public.ran order by number").fetchall()
    connection.execute("truncate public.ran")
    return [what for (what,) in rows]


def test_every_event_of_a_run_fires_in_flyways_order(connection: AutocommitConnection, tmp_path: Path) -> None:
    log_all(tmp_path, MIGRATE)
    write(tmp_path, V1__a=say("V1"), V2__b=say("V2"), R__c=say("R"))
    apply_migrations(connection, tmp_path, POLICY)
    each = ["beforeEachMigrate", "{}", "afterEachMigrate"]
    assert ran(connection) == [
        "beforeMigrate",
        *(word.format("V1") for word in each),
        *(word.format("V2") for word in each),
        "afterVersioned",
        "beforeRepeatables",
        *(word.format("R") for word in each),
        "afterMigrateApplied",
        "afterMigrate",
    ]
    assert [row.script for row in history(connection, POLICY)] == ["V1__a.sql", "V2__b.sql", "R__c.sql"]


def test_they_run_though_nothing_is_pending_and_without_them_a_run_takes_no_lock(
    connection: AutocommitConnection, database: Target, tmp_path: Path
) -> None:
    write(tmp_path, V1__a="select 1;")
    apply_migrations(connection, tmp_path, POLICY)
    with connect(database, work="other") as other, one_writer(other):
        apply_migrations(connection, tmp_path, POLICY, lock_wait_ms=0)
        log_all(tmp_path, MIGRATE)
        with pytest.raises(LockNotAcquired):
            apply_migrations(connection, tmp_path, POLICY, lock_wait_ms=0)
    assert ran(connection) == []
    assert apply_migrations(connection, tmp_path, POLICY).migrations == ()
    assert ran(connection) == ["beforeMigrate", "afterVersioned", "afterMigrate"]


def test_those_of_each_file_share_its_transaction_and_the_others_have_their_own(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    log_all(tmp_path, MIGRATE)
    write(tmp_path, V1__a=say("V1"), beforeMigrate__again=say("again"))
    apply_migrations(connection, tmp_path, POLICY)
    rows = connection.execute("select what, xid::text from public.ran order by number").fetchall()
    transactions = dict(rows)
    assert [what for what, _ in rows][:2] == ["beforeMigrate", "again"]
    assert transactions["beforeEachMigrate"] == transactions["V1"] == transactions["afterEachMigrate"]
    alone = ["beforeMigrate", "again", "V1", "afterVersioned", "afterMigrateApplied", "afterMigrate"]
    assert len({transactions[what] for what in alone}) == len(alone)


def test_those_of_one_event_run_in_the_order_of_their_descriptions_the_plain_one_first(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        afterMigrate__b=say("b"),
        afterMigrate__B=say("B"),
        afterMigrate__a=say("a"),
        afterMigrate=say("plain"),
        afterMigrate__10=say("10"),
    )
    apply_migrations(connection, tmp_path, POLICY)
    assert ran(connection) == ["plain", "10", "B", "a", "b"]


def test_what_a_callback_sets_holds_for_its_file_alone(connection: AutocommitConnection, tmp_path: Path) -> None:
    setting = "insert into public.ran (what) values (current_setting('work_mem') || current_setting('lock_timeout'));\n"
    write(
        tmp_path,
        beforeMigrate="set work_mem = '1MB';",
        beforeEachMigrate="set work_mem = '3MB'; set lock_timeout = '7s';",
        V1__a=setting,
        afterMigrate=setting,
    )
    apply_migrations(connection, tmp_path, POLICY)
    assert ran(connection) == ["3MB7s", "4MB2s"]


def test_placeholders_are_replaced(connection: AutocommitConnection, tmp_path: Path) -> None:
    write(tmp_path, afterMigrate=say("${who} in ${flyway:filename}"))
    apply_migrations(connection, tmp_path, MigrationPolicy(placeholders={"who": "it"}))
    assert ran(connection) == ["it in afterMigrate.sql"]


def test_a_failed_file_has_its_error_callbacks_behind_the_rollback(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    log_all(tmp_path, MIGRATE)
    write(tmp_path, V1__a=say("V1"), V2__b=say("V2") + "select 1 / 0;")
    with pytest.raises(MigrationFailed, match="division by zero") as failed:
        apply_migrations(connection, tmp_path, POLICY)
    assert (failed.value.fields["script"], failed.value.line) == ("V2__b.sql", 2)
    done = ["beforeMigrate", "beforeEachMigrate", "V1", "afterEachMigrate"]
    assert ran(connection) == [*done, "afterEachMigrateError", "afterMigrateError"]


def test_a_callback_that_fails_is_named_with_its_line_and_takes_its_file_with_it(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    log_all(tmp_path, MIGRATE)
    write(tmp_path, V1__a=say("V1"), afterEachMigrate="select 1;\nselect 1 / 0;")
    with pytest.raises(MigrationFailed, match=r"afterEachMigrate.sql failed: division by zero") as failed:
        apply_migrations(connection, tmp_path, POLICY)
    assert failed.value.place is not None
    assert failed.value.place.endswith("afterEachMigrate.sql:2")
    assert ran(connection) == ["beforeMigrate", "afterMigrateError"]
    assert history(connection, POLICY) == []
    write(tmp_path, beforeMigrate="select 1 / 0;")
    with pytest.raises(MigrationFailed, match=r"beforeMigrate.sql failed"):
        apply_migrations(connection, tmp_path, POLICY)
    assert ran(connection) == []


def test_an_error_callback_that_fails_does_not_hide_the_error(connection: AutocommitConnection, tmp_path: Path) -> None:
    write(tmp_path, V1__a="select 1 / 0;", afterEachMigrateError="select oops;", afterMigrateError=say("told"))
    with pytest.raises(MigrationFailed, match="division by zero") as failed:
        apply_migrations(connection, tmp_path, POLICY)
    assert 'Its callback afterEachMigrateError failed, too: afterEachMigrateError.sql failed: column "oops"' in (
        failed.value.hint or ""
    )
    assert ran(connection) == ["told"]


def test_a_file_without_a_transaction_has_its_callbacks_too(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table public.t (a int)")
    log_all(tmp_path, MIGRATE)
    write(tmp_path, V1__a=say("V1") + "create index concurrently t_a on public.t (a);\nselect 1 / 0;\n")
    with pytest.raises(MigrationFailed, match="division by zero"):
        apply_migrations(connection, tmp_path, POLICY)
    done = ["beforeMigrate", "beforeEachMigrate", "V1"]
    assert ran(connection) == [*done, "afterEachMigrateError", "afterMigrateError"]
    write(tmp_path, V1__a=say("V1") + "create index concurrently t_a on public.t (a);\nselect 1 / 1;\n")
    apply_migrations(connection, tmp_path, POLICY)
    rest = ["afterEachMigrate", "afterVersioned", "afterMigrateApplied", "afterMigrate"]
    assert ran(connection) == ["beforeMigrate", "beforeEachMigrate", *rest]


def test_a_callback_may_run_without_a_transaction(connection: AutocommitConnection, tmp_path: Path) -> None:
    write(tmp_path, V1__a="select 1;", afterMigrate="vacuum public.ran;\n" + say("vacuumed"))
    for _ in range(2):
        apply_migrations(connection, tmp_path, POLICY)
        assert ran(connection) == ["vacuumed"]


@pytest.mark.parametrize("event", ["beforeMigrate", "afterEachMigrate", "beforeUndo"])
def test_what_is_refused_in_a_migration_is_refused_in_a_callback_before_anything_ran(
    connection: AutocommitConnection, tmp_path: Path, event: str
) -> None:
    def run() -> None:
        apply_undo(connection, tmp_path, POLICY) if "Undo" in event else apply_migrations(connection, tmp_path, POLICY)

    write(tmp_path, V1__a=say("V1"), U1__a=say("U1"))
    if "Undo" in event:
        apply_migrations(connection, tmp_path, POLICY)
        ran(connection)
    write(tmp_path, **{event: "drop table public.ran;"})
    with pytest.raises(DestructiveStatement, match="drop table"):
        run()
    write(tmp_path, **{event: "select 1;\ncommit;"})
    with pytest.raises(ScriptError, match="commit in a migration"):
        run()
    assert ran(connection) == []


def test_undo_has_its_own_events(connection: AutocommitConnection, tmp_path: Path) -> None:
    log_all(tmp_path, (*MIGRATE, *UNDO))
    write(tmp_path, V1__a="select 1;", U1__a=say("U1"), V2__b="select 1;", U2__b=say("U2"))
    apply_migrations(connection, tmp_path, POLICY)
    ran(connection)
    assert plan_undo(connection, tmp_path, POLICY).as_json()["callbacks"] == sorted(f"{event}.sql" for event in UNDO)
    apply_undo(connection, tmp_path, POLICY, target="1")
    each = ["beforeEachUndo", "{}", "afterEachUndo"]
    assert ran(connection) == [
        "beforeUndo",
        *(word.format("U2") for word in each),
        *(word.format("U1") for word in each),
        "afterUndo",
    ]
    apply_migrations(connection, tmp_path, POLICY, target="1")
    write(tmp_path, U1__a="select 1 / 0;")
    ran(connection)
    with pytest.raises(MigrationFailed):
        apply_undo(connection, tmp_path, POLICY)
    assert ran(connection) == ["beforeUndo", "afterEachUndoError", "afterUndoError"]


def test_the_way_up_down_and_up_holds_with_callbacks(database: Target, tmp_path: Path) -> None:
    """What a callback makes is there before the first version, and what wants the whole schema runs at the end."""
    write(
        tmp_path,
        beforeMigrate="create schema if not exists shop; create table if not exists shop.ran (what text);",
        beforeEachMigrate="set search_path = shop;",
        afterEachMigrate="insert into shop.ran values ('each');",
        beforeEachUndo="set search_path = shop;",
        V1__a="create table a (id int);",
        U1__a="drop table a;",
        V2__b="create table b (id int);",
        U2__b="drop table b;",
        R__c="create or replace view shop.c as select id from shop.b;",
        afterMigrate="grant select on shop.c to public;",
    )
    with connect(database, work="test") as connection:
        found = round_trip(connection, tmp_path, POLICY, database="shop", server_wide=False)
        assert [v.status for v in found.versions] == ["equal", "equal"]
        assert found.passed
        assert connection.execute("select has_table_privilege('public', 'shop.c', 'select')").fetchone() == (True,)


def test_a_callback_changes_no_role_of_a_real_server_in_a_scratch_database(database: Target, tmp_path: Path) -> None:
    write(
        tmp_path, beforeMigrate="create role callback_reader;", V1__a="create table a (id int);", U1__a="drop table a;"
    )
    with connect(database, work="test") as connection:
        with pytest.raises(ServerWide, match="the server's roles"):
            round_trip(connection, tmp_path, POLICY, database="shop", server_wide=False)
        assert connection.execute("select to_regrole('callback_reader')").fetchone() == (None,)


@pytest.fixture
def empty(database: Target) -> Iterator[Target]:
    """A second database beside the first."""
    name = f"{database.name}_empty"
    with connect(database, work="test") as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield Target(name, make_conninfo(database.url, dbname=name))
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_what_callbacks_make_is_no_drift(database: Target, empty: Target, tmp_path: Path) -> None:
    write(
        tmp_path,
        beforeMigrate="create schema if not exists shop;",
        beforeEachMigrate="set search_path = shop;",
        V1__a="create table a (id int);",
        R__c="create or replace view shop.c as select id from shop.a;",
        afterMigrateApplied="grant select on shop.c to public;",
    )
    with connect(database, work="test") as live, connect(empty, work="test") as scratch:
        apply_migrations(live, tmp_path, POLICY)
        write(tmp_path, V2__b="create table b (id int);")
        plan = blueprint(live, tmp_path, POLICY)
        assert drift(live, plan, build(scratch, plan, server_wide=False)).differences == ()


def test_a_callback_that_wants_a_pending_version_does_not_keep_the_schema_from_being_compared(
    database: Target, empty: Target, tmp_path: Path
) -> None:
    write(tmp_path, V1__a="create table a (id int);")
    with connect(database, work="test") as live, connect(empty, work="test") as scratch:
        apply_migrations(live, tmp_path, POLICY)
        write(tmp_path, V2__b="create table b (id int);", afterMigrate="grant select on b to public;")
        plan = blueprint(live, tmp_path, POLICY)
        assert drift(live, plan, build(scratch, plan, server_wide=False)).differences == ()


@pytest.mark.parametrize(
    ("task", "done", "left"),
    [
        ("beforeMigrate.sql", 0, []),
        ("migrate test", 1, ["beforeMigrate", "beforeEachMigrate", "V1", "afterEachMigrate"]),
        ("afterMigrate.sql", 1, None),
    ],
)
def test_a_run_that_is_killed_among_callbacks_is_finished_by_the_next(
    connection: AutocommitConnection, database: Target, tmp_path: Path, task: str, done: int, left: list[str] | None
) -> None:
    log_all(tmp_path, MIGRATE)
    write(tmp_path, V1__a=say("V1"), V2__b=say("V2"))
    apply_and_die(database, tmp_path, task.replace("test", connection.info.dbname), done)
    before = ran(connection)
    assert left is None or before == left
    apply_migrations(connection, tmp_path, POLICY)
    every = before + ran(connection)
    assert (every.count("V1"), every.count("V2"), every[-1]) == (1, 1, "afterMigrate")
    assert [row.success for row in history(connection, POLICY)] == [True, True]


def test_names_are_flyways(tmp_path: Path) -> None:
    write(tmp_path, beforeMigrate="", afterEachUndoError__x_y="", afterMigrate__="")
    assert [(m.kind, m.event, m.description) for m in discover(tmp_path)] == [
        ("callback", "afterEachUndoError", "afterEachUndoError__x_y"),
        ("callback", "afterMigrate", "afterMigrate__"),
        ("callback", "beforeMigrate", "beforeMigrate"),
    ]
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", beforeMigrate="")
    with pytest.raises(MigrationFileError, match="have the same"):
        discover(tmp_path)
    (tmp_path / "below" / "beforeMigrate.sql").rename(tmp_path / "below" / "beforemigrate.sql")
    with pytest.raises(MigrationFileError, match="is not the name of a migration"):
        discover(tmp_path)
    (tmp_path / "below" / "beforemigrate.sql").rename(tmp_path / "below" / "afterInfo.sql")
    with pytest.raises(NotBuiltYet, match="Flyway's callback afterInfo"):
        discover(tmp_path)
