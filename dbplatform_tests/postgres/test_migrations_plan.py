"""A plan compares the files with the history, and refuses what does not fit; it only reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbplatform.errors import NotBuiltYet
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history, plan_migrations
from dbplatform.migrations.errors import (
    DestructiveStatement,
    HistoryMismatch,
    HistoryTableError,
    MigrationFileError,
    ScriptError,
    TargetUnknown,
)
from dbplatform.migrations.observe import UNSEEN
from dbplatform.postgres.connection import AutocommitConnection, Target, connect, snapshot

POLICY = MigrationPolicy()


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "V1__one.sql").write_text("create table one (a int);\n")
    (tmp_path / "V2__two.sql").write_text("create table two (a int);\n")
    (tmp_path / "R__view.sql").write_text("create or replace view v as select a from one;\n")
    return tmp_path


def planned(connection: AutocommitConnection, files: Path, target: str | None = None) -> list[str]:
    return [p.script for p in plan_migrations(connection, files, POLICY, target=target).pending]


def test_plan_of_a_fresh_database_has_every_file_and_writes_nothing(
    connection: AutocommitConnection, files: Path
) -> None:
    with snapshot(connection) as reading:
        plan = plan_migrations(reading, files, POLICY)
        assert reading.execute("select 1").fetchone() == (1,)
    assert [p.script for p in plan.pending] == ["V1__one.sql", "V2__two.sql", "R__view.sql"]
    assert (plan.current, str(plan.target), plan.applied) == (None, "2", ())
    assert connection.execute("select count(*) from pg_class where relname like 'flyway%%'", ()).fetchone() == (0,)


def test_plan_as_json_has_the_shape_of_the_contract(connection: AutocommitConnection, files: Path) -> None:
    document = plan_migrations(connection, files, POLICY, target="1", database="flights").as_json()
    assert {key: document[key] for key in ("database", "current", "target")} == {
        "database": "flights",
        "current": None,
        "target": "1",
    }
    assert document["migrations"][0] == {
        "version": "1",
        "description": "one",
        "script": "V1__one.sql",
        "status": "pending",
        "seconds": None,
        "statements": [{"sql": "create table one (a int)", **UNSEEN, "seconds": None}],
        "findings": [],
    }
    assert [(m["script"], m["status"]) for m in document["migrations"]] == [
        ("V1__one.sql", "pending"),
        ("R__view.sql", "pending"),
        ("V2__two.sql", "skipped"),
    ]


def test_plan_of_an_applied_database_is_empty_and_costs_one_query(
    connection: AutocommitConnection, files: Path
) -> None:
    apply_migrations(connection, files, POLICY)
    sent: list[str] = []

    class Counting(psycopg.Cursor[tuple[object, ...]]):
        def execute(self, query, *args, **options):  # type: ignore[no-untyped-def]
            sent.append(str(query))
            return super().execute(query, *args, **options)

    connection.cursor_factory = Counting
    report = apply_migrations(connection, files, POLICY)
    assert report.migrations == ()
    assert len(sent) == 1


def test_plan_names_what_is_applied_and_what_was_superseded(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    (files / "R__view.sql").write_text("create or replace view v as select a from one where a > 0;\n")
    assert planned(connection, files) == ["R__view.sql"]
    apply_migrations(connection, files, POLICY)
    plan = plan_migrations(connection, files, POLICY)
    assert [row.installed_rank for row in plan.applied] == [1, 2, 4]
    assert [row.installed_rank for row in plan.superseded] == [3]


def test_target_stops_after_its_version(connection: AutocommitConnection, files: Path) -> None:
    assert planned(connection, files, "1.0") == ["V1__one.sql", "R__view.sql"]
    assert planned(connection, files, "latest") == ["V1__one.sql", "V2__two.sql", "R__view.sql"]


@pytest.mark.parametrize("target", ["3", "one"])
def test_a_target_that_is_no_version_here_is_refused(
    connection: AutocommitConnection, files: Path, target: str
) -> None:
    with pytest.raises(TargetUnknown, match=target):
        plan_migrations(connection, files, POLICY, target=target)


def test_a_target_below_the_current_version_points_to_undo(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    with pytest.raises(TargetUnknown, match="lies before version 2") as caught:
        plan_migrations(connection, files, POLICY, target="1")
    assert "migrate undo" in (caught.value.hint or "")


def test_a_changed_file_is_refused_with_both_checksums(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    before = history(connection, POLICY)[0].checksum
    (files / "V1__one.sql").write_text("create table one (a bigint);\n")
    with pytest.raises(HistoryMismatch, match=r"V1__one\.sql has changed") as caught:
        plan_migrations(connection, files, POLICY)
    assert str(before) in caught.value.message
    assert caught.value.file == str(files / "V1__one.sql")
    assert "Put the file back" in (caught.value.hint or "")


def test_a_file_with_other_line_ends_is_not_changed(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    for file in files.glob("*.sql"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert planned(connection, files) == []


@pytest.mark.parametrize("name", ["V1__one.sql", "R__view.sql"])
def test_an_applied_file_that_is_missing_is_refused(connection: AutocommitConnection, files: Path, name: str) -> None:
    apply_migrations(connection, files, POLICY)
    (files / name).unlink()
    with pytest.raises(HistoryMismatch, match=f"{name} was applied .* no such file"):
        plan_migrations(connection, files, POLICY)


def test_an_applied_file_that_was_renamed_is_refused(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    (files / "V1__one.sql").rename(files / "V1__other_words.sql")
    with pytest.raises(HistoryMismatch, match=r"was applied as V1__one\.sql"):
        plan_migrations(connection, files, POLICY)


def test_a_version_below_the_newest_applied_is_refused(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    (files / "V1_5__late.sql").write_text("select 1;")
    with pytest.raises(HistoryMismatch, match=r"V1_5__late\.sql is pending, but version 2 is applied"):
        plan_migrations(connection, files, POLICY)


def test_a_failed_row_is_refused_with_its_rank(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    connection.execute("update flyway_schema_history set success = false where version = '2'")
    with pytest.raises(HistoryMismatch, match=r"V2__two\.sql failed .*row 2 of public\.flyway_schema_history"):
        plan_migrations(connection, files, POLICY)


def add_row(connection: AutocommitConnection, rank: int, version: str | None, kind: str, description: str) -> None:
    connection.execute(
        "insert into flyway_schema_history values (%s, %s, %s, %s, %s, null, 'flyway', now(), 1, true)",
        (rank, version, description, kind, description),
    )


def test_versions_up_to_flyways_baseline_are_not_pending(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    connection.execute("truncate flyway_schema_history")
    add_row(connection, 0, None, "SCHEMA", "<< Flyway Schema Creation >>")
    add_row(connection, 1, "1", "BASELINE", "<< Flyway Baseline >>")
    plan = plan_migrations(connection, files, POLICY)
    assert str(plan.current) == "1"
    assert [p.script for p in plan.pending] == ["V2__two.sql", "R__view.sql"]


@pytest.mark.parametrize("kind", ["UNDO_SQL", "DELETE"])
def test_a_version_that_flyway_undid_or_deleted_is_pending_again(
    connection: AutocommitConnection, files: Path, kind: str
) -> None:
    apply_migrations(connection, files, POLICY)
    add_row(connection, 4, "2", kind, "two")
    assert planned(connection, files) == ["V2__two.sql"]


def test_a_version_newer_than_every_file_is_told_and_tolerated(connection: AutocommitConnection, files: Path) -> None:
    # Flyway's state "Future", which its default ignoreMigrationPatterns lets pass.
    apply_migrations(connection, files, POLICY)
    (files / "V2__two.sql").unlink()
    plan = plan_migrations(connection, files, POLICY)
    assert plan.pending == ()
    assert [row.script for row in plan.future] == ["V2__two.sql"]
    assert plan.as_json()["future"] == ["V2__two.sql"]


def test_a_folder_without_any_version_is_not_taken_for_an_older_one(
    connection: AutocommitConnection, files: Path
) -> None:
    apply_migrations(connection, files, POLICY)
    for file in files.glob("V*.sql"):
        file.unlink()
    with pytest.raises(HistoryMismatch, match="no such file"):
        plan_migrations(connection, files, POLICY)


def test_a_version_below_the_newest_applied_runs_where_that_is_declared(
    connection: AutocommitConnection, files: Path
) -> None:
    policy = MigrationPolicy(out_of_order=True)
    apply_migrations(connection, files, policy)
    (files / "V1_5__late.sql").write_text("create table late (a int);")
    plan = plan_migrations(connection, files, policy)
    assert ([p.script for p in plan.pending], str(plan.target)) == (["V1_5__late.sql"], "2")
    apply_migrations(connection, files, policy)
    assert [row.version for row in history(connection, policy)] == ["1", "2", None, "1.5"]
    assert planned(connection, files) == []


def test_a_fresh_database_begins_with_the_newest_baseline_file(connection: AutocommitConnection, files: Path) -> None:
    # Flyway's documentation, "Baseline migrations": of several the newest, and no version up to it.
    (files / "B1__old.sql").write_text("create table one (a int);\n")
    (files / "B2__both.sql").write_text("create table one (a int);\ncreate table two (a int);\n")
    (files / "V3__three.sql").write_text("create table three (a int);\n")
    assert planned(connection, files) == ["B2__both.sql", "V3__three.sql", "R__view.sql"]
    apply_migrations(connection, files, POLICY)
    rows = [(row.version, row.type, row.description) for row in history(connection, POLICY)]
    assert rows == [("2", "SQL_BASELINE", "both"), ("3", "SQL", "three"), (None, "SQL", "view")]
    assert planned(connection, files) == []


def test_a_baseline_file_is_ignored_where_migrations_were_applied(
    connection: AutocommitConnection, files: Path
) -> None:
    apply_migrations(connection, files, POLICY, target="1")
    (files / "B2__both.sql").write_text("create table one (a int);\ncreate table two (a int);\n")
    assert planned(connection, files) == ["V2__two.sql"]


def test_a_java_migration_of_flyway_needs_no_file(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    add_row(connection, 4, "3", "JDBC", "in java")
    plan = plan_migrations(connection, files, POLICY)
    assert (str(plan.current), plan.pending) == ("3", ())


@pytest.mark.parametrize(
    ("sql", "error", "line"),
    [
        ("select 1;\ndrop table one;", DestructiveStatement, 2),
        ("begin;\nselect 1;\ncommit;", ScriptError, 1),
        ("select 1;\n\\echo hello", ScriptError, 2),
        ("\nselect ${nowhere};", ScriptError, 2),
        ("select 1;\nselect '${flyway:environment}';", NotBuiltYet, 2),
        ("create index concurrently on one (a);", ScriptError, 1),
        ("select 1;\ndiscard all;", ScriptError, 2),
        ("select 1;\nalter table one alter a type bigint;", DestructiveStatement, 2),
    ],
)
def test_what_must_not_run_is_refused_with_file_and_line(
    connection: AutocommitConnection, files: Path, sql: str, error: type[Exception], line: int
) -> None:
    apply_migrations(connection, files, POLICY)
    (files / "V3__x.sql").write_text(sql)
    with pytest.raises(error) as caught:
        plan_migrations(connection, files, POLICY)
    assert caught.value.place == f"{files / 'V3__x.sql'}:{line}"  # type: ignore[attr-defined]


def test_a_destructive_statement_runs_where_the_policy_allows_it(connection: AutocommitConnection, files: Path) -> None:
    (files / "V3__x.sql").write_text("drop table two;")
    assert len(plan_migrations(connection, files, MigrationPolicy(allow_destructive=True)).pending) == 4


@pytest.mark.parametrize(
    ("change", "rewrites"),
    [
        ("alter a type bigint", True),
        ("alter column b set data type varchar(5)", True),
        ("alter column b type varchar(20)", False),
        ("alter b type text, alter c type numeric(10, 2)", False),
        ("alter column c type numeric(10, 3)", True),
        ("alter a set not null", False),
        ("alter column a type text using (a::text || ',')", True),
    ],
)
def test_a_change_of_type_is_refused_where_it_rewrites_the_table(
    connection: AutocommitConnection, tmp_path: Path, change: str, rewrites: bool
) -> None:
    (tmp_path / "V1__t.sql").write_text("create table t (a int, b varchar(10), c numeric(8, 2));")
    (tmp_path / "V2__change.sql").write_text(f"alter table t {change};")
    (tmp_path / "V3__after.sql").write_text("create table after_it (a int);")
    # Whether its table is there already, or comes with a file before it, does not change the answer.
    if not rewrites:
        assert len(apply_migrations(connection, tmp_path, POLICY).migrations) == 3
        return
    with pytest.raises(DestructiveStatement, match="alter column type"):
        apply_migrations(connection, tmp_path, POLICY)
    assert [row.version for row in history(connection, POLICY)] == ["1"]
    with pytest.raises(DestructiveStatement, match="alter column type"):
        plan_migrations(connection, tmp_path, POLICY)
    text = (tmp_path / "V2__change.sql").read_text()
    (tmp_path / "V2__change.sql").write_text(f"-- dbplatform:allow alter column type\n{text}")
    assert len(apply_migrations(connection, tmp_path, POLICY).migrations) == 2


@pytest.mark.parametrize(
    ("ddl", "tool"),
    [
        ("create table _prisma_migrations (id text)", "Prisma"),
        ("create table schema_migrations (version bigint, dirty boolean)", "golang-migrate"),
        ("create table schema_migrations (version text, inserted_at timestamp)", "Ecto"),
        ("create table schema_migrations (version text)", "dbmate"),
        (
            "create table schema_migrations (version text); create table ar_internal_metadata (key text, value text)",
            "Rails",
        ),
        ("create table alembic_version (version_num text)", "Alembic"),
        ("create schema app; create table app.knex_migrations (id int)", "Knex"),
    ],
)
def test_a_database_of_another_tool_is_recognised_and_not_migrated_from_the_start(
    connection: AutocommitConnection, files: Path, ddl: str, tool: str
) -> None:
    connection.execute(ddl.encode())
    with pytest.raises(HistoryMismatch, match=f"was migrated by {tool}") as caught:
        plan_migrations(connection, files, POLICY)
    assert "migrate baseline" in (caught.value.hint or "")


def test_conf_may_not_ask_for_a_transaction_where_none_can_be(connection: AutocommitConnection, files: Path) -> None:
    (files / "V3__x.sql").write_text("vacuum one;")
    (files / "V3__x.sql.conf").write_text("executeInTransaction=true")
    with pytest.raises(MigrationFileError, match="VACUUM cannot run in a transaction"):
        plan_migrations(connection, files, POLICY)


def test_placeholders_are_replaced_whatever_their_case(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("select '${Region}', '${REGION}', ${empty}1; -- ${region}")
    plan = plan_migrations(connection, tmp_path, MigrationPolicy(placeholders={"region": "eu", "Empty": ""}))
    assert plan.pending[0].statements[0].sql == "select 'eu', 'eu', 1"


def test_flyways_own_placeholders_have_their_values(connection: AutocommitConnection, tmp_path: Path) -> None:
    names = ("defaultSchema", "user", "database", "filename", "table")
    (tmp_path / "V1__a.sql").write_text("select " + ", ".join(f"'${{flyway:{name}}}'" for name in names))
    plan = plan_migrations(connection, tmp_path, POLICY)
    row = connection.execute(plan.pending[0].statements[0].sql.encode()).fetchone()
    assert row == (
        "public",
        connection.info.user,
        connection.info.dbname,
        "V1__a.sql",
        "flyway_schema_history",
    )


def test_placeholders_stay_where_conf_says_so(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("select '${region}'")
    (tmp_path / "V1__a.sql.conf").write_text("placeholderReplacement=false")
    assert plan_migrations(connection, tmp_path, POLICY).pending[0].statements[0].sql == "select '${region}'"


def test_a_changed_placeholder_runs_a_repeatable_again_but_no_version(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    (tmp_path / "V1__a.sql").write_text("create table ${name} (a int)")
    (tmp_path / "R__v.sql").write_text("create or replace view v as select '${name}' as name")
    apply_migrations(connection, tmp_path, MigrationPolicy(placeholders={"name": "x"}))
    plan = plan_migrations(connection, tmp_path, MigrationPolicy(placeholders={"name": "y"}))
    assert [p.script for p in plan.pending] == ["R__v.sql"]


def test_a_table_that_is_not_flyways_is_refused(connection: AutocommitConnection, files: Path) -> None:
    connection.execute("create table flyway_schema_history (a int)")
    with pytest.raises(HistoryTableError, match=r"public\.flyway_schema_history cannot be read"):
        plan_migrations(connection, files, POLICY)
