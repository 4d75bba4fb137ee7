"""What a migration costs, known before it runs: the plan by an empty copy of the schema, the rehearsal by a backup."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.migrations.observe import MODE_OF
from dbplatform.postgres.connection import Target
from dbplatform_tests.typed import Type, Typed, typist

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test, scratch_url_env: SCRATCH_URL}
  migrations: {directory: migrations, allow_destructive: true, require_rehearsal: true}
  backups: {}
"""
#: Holds the migration in its transaction until the test has looked.
GATE = 4711

Write = Callable[[str, str], None]


@pytest.fixture
def project(tmp_path: Path, server_url: str, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one database; its first migration is applied, and made a thousand items."""
    folder = tmp_path / "defs" / "shop"
    (folder / "migrations").mkdir(parents=True)
    (folder / "defs.yaml").write_text(DECLARATION)
    (folder / "migrations" / "V1__item.sql").write_text(
        "create table item (id int primary key, name text, price int);\n"
        "insert into item select g, 'n' || g, g from generate_series(1, 1000) g;\n"
    )
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("SCRATCH_URL", server_url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def type_(project: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type a command."""
    typed = typist(project, capsys)
    assert typed("migrate", "apply", "shop").code == 0
    return typed


@pytest.fixture
def write(project: Path) -> Write:
    """Write a migration."""

    def written(script: str, text: str) -> None:
        (project / "defs" / "shop" / "migrations" / script).write_text(text)

    return written


@pytest.fixture
def session(database: Target) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        yield connection


def counting(session: psycopg.Connection[Any]) -> None:
    """Count statements; on a server that has seen thousands, a new one would be forgotten first."""
    session.execute("create extension pg_stat_statements")
    session.execute("select pg_stat_statements_reset()")


def databases(connection: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in connection.execute("select datname from pg_database").fetchall()}


def test_a_plan_tells_lock_rewrite_size_and_who_is_in_the_way(
    type_: Type, write: Write, session: psycopg.Connection[Any], database: Target
) -> None:
    write("V2__type.sql", "alter table item alter column price type bigint;\ncreate table own (id int);")
    session.execute("analyze item")
    with psycopg.connect(database.url, application_name="till") as other:
        other.execute("select from item")
        before = databases(session)
        [migration] = type_("migrate", "plan", "shop", "--json").json["migrations"]
    assert databases(session) == before
    first, second = migration["statements"]
    assert (first["lock"], first["rewrites"], first["rewritten"]) == ("ACCESS EXCLUSIVE", True, ["public.item"])
    assert (second["lock"], second["rewrites"]) == (None, False)
    [table] = migration["tables"]
    assert (table["relation"], table["mode"], table["rows"]) == ("public.item", "ACCESS EXCLUSIVE", 1000)
    assert table["bytes"] == session.execute("select pg_total_relation_size('item')").fetchone()[0]  # type: ignore[index]
    [blocker] = table["blocked_by"]
    assert (blocker["application"], blocker["mode"], blocker["state"]) == (
        "till",
        "ACCESS SHARE",
        "idle in transaction",
    )


def test_a_plan_that_cannot_be_tried_out_says_so_and_is_still_a_plan(type_: Type, write: Write) -> None:
    write("V2__rows.sql", "do $$begin if not exists (select from item) then raise 'no items'; end if; end$$;")
    document = type_("migrate", "plan", "shop", "--json").json
    assert "no items" in document["not_observed"]
    assert "error" not in document
    [migration] = document["migrations"]
    assert (migration["observed"], migration["statements"][0]["lock"]) == (False, None)


def test_a_plan_with_a_file_that_is_not_sql_is_told_and_exits_2(type_: Type, write: Write) -> None:
    write("V2__two.sql", "create table two (id int);")
    write("V3__three.sql", "create table three (id int);\ncreate tabel four (id int);")
    told = type_("migrate", "plan", "shop")
    assert told.code == 2
    assert "2 pending, now at version 1" in told.out
    assert re.search(r'V3__three.sql:2: syntax error at or near "tabel"\.', told.err)
    planned = type_("migrate", "plan", "shop", "--json")
    assert (planned.code, len(planned.json["migrations"])) == (2, 2)
    assert (planned.json["error"]["line"], "V3__three.sql" in planned.json["error"]["file"]) == (2, True)
    quick = type_("migrate", "plan", "shop", "--quick", "--json")
    assert (quick.code, quick.json["error"]["line"]) == (2, 2)
    assert type_("migrate", "plan", "shop", "--target", "2").code == 0


def test_a_quick_plan_makes_no_scratch_database(type_: Type, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("V2__two.sql", "create table two (id int);")
    monkeypatch.setenv("SCRATCH_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    assert "V2__two.sql" in type_("migrate", "plan", "shop", "--quick").out
    assert "Not all of it could be looked at" in type_("migrate", "plan", "shop").err


def test_a_scratch_server_of_another_version_is_refused(
    type_: Type, write: Write, second_server: SecondServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("V2__two.sql", "create table two (id int);")
    monkeypatch.setenv("SCRATCH_URL", second_server.superuser_url())
    refused = type_("migrate", "rehearse", "shop")
    assert refused.code == 2
    assert "runs PostgreSQL 15" in refused.err
    assert "scratch_url_env" in refused.err


def test_a_rehearsal_on_a_backup_measures_and_compares_plans(
    type_: Type, write: Write, session: psycopg.Connection[Any]
) -> None:
    counting(session)
    session.execute("insert into item select g, 'n' || g, g from generate_series(1001, 20000) g")
    session.execute("select price from item where name = 'n7'")
    session.execute("select name from item where id = 7")
    assert type_("backup", "create", "shop").code == 0
    write("V2__index.sql", "create index item_name on item (name);")
    rehearsed = type_("migrate", "rehearse", "shop", "--json")
    document = rehearsed.json
    assert (rehearsed.code, document["passed"], document["basis"]) == (0, True, "backup")
    [statement] = document["migrations"][0]["statements"]
    assert (statement["lock"], statement["scanned"]) == ("SHARE", ["public.item"])
    assert statement["seconds"] > 0
    # The index is written to the log in whole: each of 20,000 entries has some bytes.
    assert statement["wal_bytes"] > 20_000
    [change] = [c for c in document["plan_changes"] if "where name" in c["query"]]
    assert any("item_name" in node for node in change["after"]["nodes"])
    assert change["after"]["cost"] < change["before"]["cost"]


def test_a_rehearsal_finds_the_statement_of_the_application_that_would_break(
    type_: Type, write: Write, session: psycopg.Connection[Any]
) -> None:
    counting(session)
    session.execute("select price from item where id = 7")
    type_("backup", "create", "shop")
    write("V2__rename.sql", "alter table item rename column price to cents;")
    rehearsed = type_("migrate", "rehearse", "shop", "--json")
    assert (rehearsed.code, rehearsed.json["passed"]) == (1, False)
    broken = [change["query"] for change in rehearsed.json["plan_changes"] if change["breaks"]]
    assert broken == ["select price from item where id = $1"]
    assert 'BROKEN: select price from item where id = $1: column "price" does not exist' in (
        type_("migrate", "rehearse", "shop").out
    )


def test_without_a_backup_the_rehearsal_says_that_it_tells_no_times(type_: Type, write: Write) -> None:
    write("V2__index.sql", "create index item_name on item (name);")
    document = type_("migrate", "rehearse", "shop", "--json").json
    [statement] = document["migrations"][0]["statements"]
    assert (document["basis"], document["passed"], statement["lock"]) == ("schema clone", True, "SHARE")
    assert (statement["seconds"], statement["wal_bytes"]) == (None, None)
    assert "no times" in type_("migrate", "rehearse", "shop").out


def test_apply_waits_for_a_rehearsal_of_just_these_files(
    type_: Type, write: Write, session: psycopg.Connection[Any], ledger: Ledger
) -> None:
    def applied() -> Typed:
        return type_("migrate", "apply", "shop")

    write("V2__index.sql", "create index item_name on item (name);")
    refused = applied()
    assert refused.code == 3
    assert "V2__index.sql must be rehearsed before it is applied to shop: there was none" in refused.err
    type_("migrate", "rehearse", "shop")
    assert "had no backup to run on" in applied().err
    type_("backup", "create", "shop")
    type_("migrate", "rehearse", "shop")
    write("V2__index.sql", "create index item_price on item (price);")
    assert "did not run it as it is now" in applied().err
    type_("migrate", "rehearse", "shop")
    with psycopg.connect(ledger.target.url) as connection:
        connection.execute("update ledger.trial set tried_at = tried_at - interval '8 days'")
    assert "older than 7 days" in applied().err
    type_("migrate", "rehearse", "shop")
    assert applied().code == 0
    assert session.execute("select to_regclass('item_price') is not null").fetchone() == (True,)


def test_a_rehearsal_predicts_the_locks_that_apply_then_holds(
    type_: Type, write: Write, session: psycopg.Connection[Any]
) -> None:
    type_("backup", "create", "shop")
    write(
        "V2__many.sql",
        "create table part (id int primary key, item int references item);\n"
        "create index item_price on item (price);\n"
        "alter table item add column note text;\n"
        f"select pg_advisory_xact_lock({GATE});",
    )
    document = type_("migrate", "rehearse", "shop", "--json").json
    predicted = {(k["relation"], k["mode"]) for s in document["migrations"][0]["statements"] for k in s["locks"]}
    session.execute("select pg_advisory_lock(%s)", (GATE,))
    thread = threading.Thread(target=type_, args=("migrate", "apply", "shop"))
    thread.start()
    try:
        assert _held_by_waiter(session) == predicted
    finally:
        session.execute("select pg_advisory_unlock(%s)", (GATE,))
        thread.join()
    assert {mode for _, mode in predicted} >= {"SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"}


def _held_by_waiter(session: psycopg.Connection[Any]) -> set[tuple[str, str]]:
    """The table locks of the session that waits for the gate, in the words of the manual."""
    waiter = "select pid from pg_locks where locktype = 'advisory' and objid = %s and not granted"
    ended = threading.Event()
    while (row := session.execute(waiter, (GATE,)).fetchone()) is None:
        assert not ended.wait(0.01)
    rows = session.execute(
        """
        select l.relation::regclass::text, l.mode from pg_locks l join pg_class c on c.oid = l.relation
        where l.pid = %s and c.relkind = 'r' and l.relation >= 16384 and c.relname <> 'flyway_schema_history'
        """,
        (row[0],),
    ).fetchall()
    return {(f"public.{name}", MODE_OF[mode]) for name, mode in rows}


def test_what_changes_the_whole_server_is_not_tried_beside_the_database(
    type_: Type, write: Write, session: psycopg.Connection[Any]
) -> None:
    write("V2__role.sql", "create role dbplatform_test_reader;")
    rehearsed = type_("migrate", "rehearse", "shop")
    assert rehearsed.code == 1
    assert "changes the server's roles" in rehearsed.out
    assert session.execute("select from pg_roles where rolname = 'dbplatform_test_reader'").fetchone() is None


def test_a_drill_restores_to_the_declared_scratch_server(type_: Type, project: Path) -> None:
    type_("backup", "create", "shop")
    assert type_("drill", "shop", "--json").json["proven"] is True
    assert not (project / "home" / "postgres").exists()


def test_a_plan_changes_no_row_of_another_database(
    type_: Type, write: Write, session: psycopg.Connection[Any], database: Target
) -> None:
    session.execute("create extension postgres_fdw")
    session.execute("create server far foreign data wrapper postgres_fdw options (host '127.0.0.1')")
    session.execute("create table real (id int); insert into real values (1), (2)")
    info = session.info
    session.execute(
        psycopg.sql.SQL("alter server far options (add port {}, add dbname {})").format(
            psycopg.sql.Literal(str(info.port)), psycopg.sql.Literal(info.dbname)
        )
    )
    session.execute(
        psycopg.sql.SQL("create user mapping for public server far options (user {}, password {})").format(
            psycopg.sql.Literal(info.user), psycopg.sql.Literal(info.password)
        )
    )
    session.execute("create foreign table far_real (id int) server far options (table_name 'real')")
    type_("backup", "create", "shop")
    write("V2__clear.sql", "delete from far_real;")
    assert "user mapping not found" in type_("migrate", "plan", "shop", "--json").json["not_observed"]
    assert type_("migrate", "rehearse", "shop").code == 1
    assert session.execute("select count(*) from far_real").fetchone() == (2,)


def test_a_backup_that_is_newer_or_of_another_history_proves_nothing(type_: Type, write: Write, project: Path) -> None:
    write("V2__note.sql", "alter table item add note text;")
    write("U2__note.sql", "alter table item drop column note;")
    type_("backup", "create", "shop")
    type_("migrate", "rehearse", "shop")
    assert type_("migrate", "apply", "shop").code == 0
    type_("backup", "create", "shop")
    assert type_("drill", "shop").code == 0
    assert type_("migrate", "undo", "shop", "--yes").code == 0
    newer = type_("migrate", "rehearse", "shop", "--json")
    assert (newer.code, newer.json["passed"]) == (1, False)
    assert "V2__note.sql did not run" in newer.json["error"]
    (project / "defs" / "shop" / "migrations" / "V2__note.sql").unlink()
    (project / "defs" / "shop" / "migrations" / "U2__note.sql").unlink()
    write("V3__other.sql", "alter table item add other text;")
    refused = type_("migrate", "rehearse", "shop")
    assert refused.code == 3
    assert "Take a new one: dbplatform backup create shop" in refused.err


def test_a_callback_needs_a_rehearsal_too(type_: Type, write: Write, session: psycopg.Connection[Any]) -> None:
    write("afterMigrate__more.sql", "alter table item add column if not exists more int;")
    assert "afterMigrate__more.sql must be rehearsed" in type_("migrate", "apply", "shop").err
    assert session.execute("select from information_schema.columns where column_name = 'more'").fetchone() is None
    type_("backup", "create", "shop")
    assert type_("migrate", "rehearse", "shop").code == 0
    applied = type_("migrate", "apply", "shop")
    assert (applied.code, "ran its callbacks afterMigrate__more.sql" in applied.err) == (0, True)


def test_a_database_with_tables_and_no_history_needs_a_rehearsal(type_: Type, session: psycopg.Connection[Any]) -> None:
    session.execute("drop table flyway_schema_history")
    assert "V1__item.sql must be rehearsed" in type_("migrate", "apply", "shop").err


def test_statements_behind_a_comment_and_of_other_schemas_are_found_and_those_that_cannot_be_planned_are_told(
    type_: Type, write: Write, session: psycopg.Connection[Any]
) -> None:
    counting(session)
    session.execute("create schema app; create table app.orders (id int, note text)")
    session.execute("set search_path = app; ")
    session.execute("/* web */ select note from orders where id = 7")
    session.execute("create temporary table mine (a int); ")
    session.execute("select a from mine")
    session.execute("reset search_path")
    type_("backup", "create", "shop")
    write("V2__drop.sql", "alter table app.orders drop column note;")
    document = type_("migrate", "rehearse", "shop", "--json").json
    assert any("select note from orders" in change["query"] for change in document["plan_changes"] if change["breaks"])
    assert any("select a from mine" in reason for reason in document["not_planned"])


def test_a_materialized_view_can_be_refreshed_in_a_plan(
    type_: Type, write: Write, session: psycopg.Connection[Any]
) -> None:
    session.execute("create materialized view dear as select id from item; create unique index on dear (id)")
    session.execute("create materialized view dearer as select id from dear")
    write("V2__refresh.sql", "refresh materialized view concurrently dear;\nselect count(*) from dearer;")
    document = type_("migrate", "plan", "shop", "--json").json
    assert document["not_observed"] is None


def test_a_time_in_a_file_does_not_make_it_another_one(type_: Type, write: Write) -> None:
    write("V2__when.sql", "comment on table item is '${flyway:timestamp}';")
    type_("backup", "create", "shop")
    type_("migrate", "rehearse", "shop")
    assert type_("migrate", "apply", "shop").code == 0


def test_a_setting_is_seen_to_lock_nothing_and_what_nobody_saw_is_said(
    type_: Type, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("V2__set.sql", "set local work_mem = '8MB';\nalter table item add note text;")
    document = type_("migrate", "plan", "shop", "--json").json
    [migration] = document["migrations"]
    assert (migration["observed"], document["not_observed"]) == (True, None)
    assert [s["locks"] == [] for s in migration["statements"]] == [True, False]
    monkeypatch.setattr("dbplatform.migrations.observe.Observer.effect", lambda *_: None)
    document = type_("migrate", "plan", "shop", "--json").json
    assert document["migrations"][0]["observed"] is False
    assert "what 1 statements did could not be seen; the first: alter table item" in document["not_observed"]
