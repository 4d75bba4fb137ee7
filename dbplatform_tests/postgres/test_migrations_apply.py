"""Applying: each file and its history row together, by one writer, and never twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from dbplatform.errors import LockNotAcquired
from dbplatform.migrations.apply import LOCK
from dbplatform.migrations.engine import MigrationPolicy, MigrationReport, apply_migrations, history, plan_migrations
from dbplatform.migrations.errors import DestructiveStatement, HistoryTableError, MigrationFailed
from dbplatform.migrations.files import checksum
from dbplatform.migrations.history import ensure_history
from dbplatform.migrations.run import TRIES
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.locks import advisory_lock
from dbplatform.progress import Progress, listening

POLICY = MigrationPolicy()
SCHEMA = Path(__file__).parents[2] / "dbplatform" / "ledger" / "schema"


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


def tables(connection: AutocommitConnection) -> set[str]:
    rows = connection.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    )
    return {row[0] for row in rows} - {"flyway_schema_history"}


def test_apply_runs_each_file_once_and_records_it_as_flyway_does(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    (tmp_path / "V1_0__make_a_table.sql").write_text("create table t (a int);\ninsert into t values (1);\n")
    (tmp_path / "R__a_view.sql").write_text("create or replace view v as select * from t;\n")
    report = apply_migrations(connection, tmp_path, POLICY)
    assert [m.script for m in report.migrations] == ["V1_0__make_a_table.sql", "R__a_view.sql"]
    assert [s.line for s in report.migrations[0].statements] == [1, 2]
    first, second = history(connection, POLICY)
    assert (first.installed_rank, first.version, first.description, first.type) == (1, "1.0", "make a table", "SQL")
    assert (first.script, first.success, first.installed_by) == (
        "V1_0__make_a_table.sql",
        True,
        connection.info.user,
    )
    assert first.checksum == checksum("create table t (a int);insert into t values (1);")
    assert (second.installed_rank, second.version, second.script) == (2, None, "R__a_view.sql")
    assert first.installed_on.utcoffset() is not None
    assert apply_migrations(connection, tmp_path, POLICY).migrations == ()
    assert connection.execute("select count(*) from t").fetchone() == (1,)


def test_the_history_table_has_flyways_layout(connection: AutocommitConnection, tmp_path: Path) -> None:
    # PostgreSQLDatabase.getRawCreateScript of github.com/flyway/flyway.
    (tmp_path / "V1__a.sql").write_text("select 1")
    apply_migrations(connection, tmp_path, POLICY)
    columns = connection.execute(
        """select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute
           where attrelid = 'flyway_schema_history'::regclass and attnum > 0 order by attnum"""
    ).fetchall()
    assert columns == [
        ("installed_rank", "integer", True),
        ("version", "character varying(50)", False),
        ("description", "character varying(200)", True),
        ("type", "character varying(20)", True),
        ("script", "character varying(1000)", True),
        ("checksum", "integer", False),
        ("installed_by", "character varying(100)", True),
        ("installed_on", "timestamp without time zone", True),
        ("execution_time", "integer", True),
        ("success", "boolean", True),
    ]
    indexes = connection.execute(
        "select indexdef from pg_indexes where tablename = 'flyway_schema_history' order by indexname"
    ).fetchall()
    assert [row[0] for row in indexes] == [
        "CREATE UNIQUE INDEX flyway_schema_history_pk ON public.flyway_schema_history USING btree (installed_rank)",
        "CREATE INDEX flyway_schema_history_s_idx ON public.flyway_schema_history USING btree (success)",
    ]


def test_report_as_json_has_the_shape_of_the_contract(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("create table t (a int)")
    document = apply_migrations(connection, tmp_path, POLICY, database="flights").as_json()
    assert {key: document[key] for key in ("database", "current", "target")} == {
        "database": "flights",
        "current": "1",
        "target": "1",
    }
    (migration,) = document["migrations"]
    assert set(migration) == {"version", "description", "script", "status", "seconds", "statements", "findings"}
    assert migration["status"] == "applied"
    assert migration["seconds"] >= migration["statements"][0]["seconds"] > 0
    assert migration["statements"][0]["lock"] is None


def test_a_failing_file_leaves_nothing_and_names_file_line_and_state(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    (tmp_path / "V1__a.sql").write_text("create table good (a int);")
    (tmp_path / "V2__b.sql").write_text("create table half (a int);\n\nselect a,\n  missing\nfrom good;\n")
    with pytest.raises(MigrationFailed, match=r'column "missing" does not exist \(SQLSTATE 42703\)') as caught:
        apply_migrations(connection, tmp_path, POLICY)
    assert caught.value.place == f"{tmp_path / 'V2__b.sql'}:4"
    assert caught.value.exit_code == 3
    assert tables(connection) == {"good"}
    assert [row.version for row in history(connection, POLICY)] == ["1"]
    (tmp_path / "V2__b.sql").write_text("create table half (a int);")
    assert [m.script for m in apply_migrations(connection, tmp_path, POLICY).migrations] == ["V2__b.sql"]


@pytest.mark.parametrize(
    ("sql", "line"), [("\nselect a,\n  missing\nfrom good;", 3), ("select 1;\n\nselect missing;", 3)]
)
def test_the_line_of_an_error_is_right_whatever_went_to_the_server_before_it(
    connection: AutocommitConnection, tmp_path: Path, sql: str, line: int
) -> None:
    (tmp_path / "V1__a.sql").write_text("create table good (a int);")
    (tmp_path / "V2__b.sql").write_text(sql)
    with pytest.raises(MigrationFailed, match="missing") as caught:
        apply_migrations(connection, tmp_path, POLICY)
    assert caught.value.place == f"{tmp_path / 'V2__b.sql'}:{line}"


def test_only_the_last_file_of_a_run_waits_for_the_disk(connection: AutocommitConnection, tmp_path: Path) -> None:
    setting = "insert into seen select current_setting('synchronous_commit');"
    (tmp_path / "V1__a.sql").write_text(f"create table seen (setting text);\n{setting}")
    (tmp_path / "V2__b.sql").write_text(setting)
    (tmp_path / "V3__c.sql").write_text(setting)
    apply_migrations(connection, tmp_path, POLICY)
    assert connection.execute("select setting from seen").fetchall() == [("off",), ("off",), ("on",)]
    assert connection.execute("show synchronous_commit").fetchone() == ("on",)


def test_a_constraint_that_fails_at_commit_fails_the_file(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text(
        "create table p (a int primary key);"
        "create table c (a int references p deferrable initially deferred);"
        "insert into c values (1);"
    )
    with pytest.raises(MigrationFailed, match="SQLSTATE 23503"):
        apply_migrations(connection, tmp_path, POLICY)
    assert history(connection, POLICY) == []
    assert tables(connection) == set()


def test_a_destructive_statement_is_refused_before_anything_runs(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    (tmp_path / "V1__a.sql").write_text("create table t (a int);")
    (tmp_path / "V2__b.sql").write_text("drop table t;")
    with pytest.raises(DestructiveStatement):
        apply_migrations(connection, tmp_path, POLICY)
    assert tables(connection) == set()
    (tmp_path / "V2__b.sql").write_text("-- dbplatform:allow drop table\ndrop table t;")
    assert len(apply_migrations(connection, tmp_path, POLICY).migrations) == 2


def test_copy_data_in_a_file_is_loaded(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_bytes(
        "create table t (a int, b text);\ncopy t from stdin;\n1\tZürich; 'x'\n2\t\\N\n\\.\n"
        "insert into t values (3, '%s %% {}');\n".encode()
    )
    apply_migrations(connection, tmp_path, POLICY)
    assert connection.execute("select * from t order by a").fetchall() == [
        (1, "Zürich; 'x'"),
        (2, None),
        (3, "%s %% {}"),
    ]


def test_a_wrong_row_of_copy_data_is_named(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("create table t (a int);\ncopy t from stdin;\n1\nx\n\\.\n")
    with pytest.raises(MigrationFailed, match="COPY t, line 2") as caught:
        apply_migrations(connection, tmp_path, POLICY)
    assert caught.value.line == 2


def test_routines_with_semicolons_are_made(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text(
        "create function f(a int) returns int language sql begin atomic\n"
        "  select 0; select case when a > 1 then 2 else 1 end;\nend;\n"
        "create function g() returns int language plpgsql as $$ begin return f(5); end; $$;\n"
    )
    apply_migrations(connection, tmp_path, POLICY)
    assert connection.execute("select f(1), g()").fetchone() == (1, 2)


def test_what_a_file_sets_is_undone_before_the_next(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create role migration_guest")
    try:
        (tmp_path / "V1__dump.sql").write_text(
            "select pg_catalog.set_config('search_path', '', false);\nset timezone = 'Asia/Tokyo';\n"
            "create schema other;\ncreate table other.t (a int);\nset role migration_guest;\n"
        )
        (tmp_path / "V2__plain.sql").write_text("create table here (a int);")
        apply_migrations(connection, tmp_path, POLICY)
        assert tables(connection) == {"here"}
        settings = "select current_setting('search_path'), current_setting('TimeZone'), current_user = session_user"
        assert connection.execute(settings).fetchone() == ("public", "UTC", True)
    finally:
        connection.execute("drop role migration_guest")


def test_the_history_may_lie_in_a_schema_that_does_not_exist_yet(connection: AutocommitConnection) -> None:
    policy = MigrationPolicy(history_table="ledger.schema_history")
    assert str(apply_migrations(connection, SCHEMA, policy, database="the ledger").current) >= "1"
    assert plan_migrations(connection, SCHEMA, policy).pending == ()
    assert connection.execute("select to_regclass('ledger.operation') is not null").fetchone() == (True,)


def test_a_user_without_rights_is_told_so(database: Target, connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("select 1")
    connection.execute("create role migration_guest")
    try:
        connection.execute("set role migration_guest")
        with pytest.raises(HistoryTableError, match="cannot be made: permission denied for schema public"):
            apply_migrations(connection, tmp_path, POLICY)
    finally:
        connection.execute("reset role; drop role migration_guest")


def test_progress_counts_the_migrations(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("select 1")
    (tmp_path / "V2__b.sql").write_text("select 1")
    heard: list[Progress] = []
    with listening(heard.append):
        apply_migrations(connection, tmp_path, POLICY, database="flights")
    assert [(p.task, p.done, p.total, p.unit) for p in heard] == [
        ("migrate flights", done, 2, "migrations") for done in (0, 1, 2)
    ]


def test_of_two_applies_at_once_one_applies_and_one_finds_nothing(database: Target, tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"V{number}__t.sql").write_text(f"create table t{number} (a int);")
    barrier = threading.Barrier(2)

    def run() -> MigrationReport:
        with connect(database, work="test") as connection:
            barrier.wait()
            return apply_migrations(connection, tmp_path, POLICY)

    with ThreadPoolExecutor(2) as pool:
        reports = [future.result() for future in [pool.submit(run), pool.submit(run)]]
    assert sorted(len(report.migrations) for report in reports) == [0, 5]
    assert {str(report.current) for report in reports} == {"5"}
    with connect(database, work="test") as connection:
        assert [row.installed_rank for row in history(connection, POLICY)] == [1, 2, 3, 4, 5]


def test_the_history_table_is_made_once_by_many_without_the_lock(database: Target) -> None:
    barrier = threading.Barrier(4)
    table = MigrationPolicy(history_table="fresh.history").history_table

    def run() -> None:
        with connect(database, work="test") as connection:
            barrier.wait()
            ensure_history(connection, table)

    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(run) for _ in range(4)]] == [None] * 4
    with connect(database, work="test") as connection:
        assert connection.execute("select count(*) from fresh.history").fetchone() == (0,)


def test_a_held_lock_is_waited_for_with_a_bound_and_nothing_runs(database: Target, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("create table t (a int)")
    with (
        connect(database, work="holder") as holder,
        advisory_lock(holder, LOCK),
        connect(database, work="test") as connection,
    ):
        with pytest.raises(LockNotAcquired, match="migrations lock"):
            apply_migrations(connection, tmp_path, POLICY, lock_wait_ms=0)
        assert tables(connection) == set()


def test_a_table_that_is_locked_makes_the_whole_file_run_again(database: Target, tmp_path: Path) -> None:
    policy = MigrationPolicy(lock_timeout="10 ms")
    (tmp_path / "V1__a.sql").write_text("create table busy (a int);")
    (tmp_path / "V2__b.sql").write_text("create table new (a int);\nalter table busy add b int;")
    with (
        psycopg.connect(database.url) as holder,
        connect(database, work="test") as connection,
    ):
        apply_migrations(connection, tmp_path, policy, target="1")
        holder.execute("lock table busy in share mode")
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                holder.rollback()

        report = apply_migrations(connection, tmp_path, policy, sleep=sleep)
        assert report.migrations[0].tries == 3
        assert len(report.migrations[0].statements) == 2
        assert len(pauses) == 2


def test_a_table_that_stays_locked_fails_after_a_bounded_number_of_tries(database: Target, tmp_path: Path) -> None:
    policy = MigrationPolicy(lock_timeout="10 ms")
    (tmp_path / "V1__a.sql").write_text("create table busy (a int);")
    (tmp_path / "V2__b.sql").write_text("create table new (a int);\nalter table busy add b int;")
    with (
        psycopg.connect(database.url) as holder,
        connect(database, work="test") as connection,
    ):
        apply_migrations(connection, tmp_path, policy, target="1")
        holder.execute("lock table busy in share mode")
        pauses: list[float] = []
        with pytest.raises(MigrationFailed, match="SQLSTATE 55P03") as caught:
            apply_migrations(connection, tmp_path, policy, sleep=pauses.append)
        assert len(pauses) == TRIES - 1
        assert caught.value.line == 2
        assert "lock_timeout" in (caught.value.hint or "")
        assert "new" not in tables(connection)


def test_a_transaction_that_the_server_refuses_points_to_conf(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("create procedure p() language plpgsql as $$ begin commit; end $$;")
    (tmp_path / "V2__b.sql").write_text("call p();")
    with pytest.raises(MigrationFailed, match="SQLSTATE 2D000"):
        apply_migrations(connection, tmp_path, POLICY)
    (tmp_path / "V2__b.sql.conf").write_text("executeInTransaction=false")
    assert len(apply_migrations(connection, tmp_path, POLICY).migrations) == 1
    assert [row.version for row in history(connection, POLICY)] == ["1", "2"]
