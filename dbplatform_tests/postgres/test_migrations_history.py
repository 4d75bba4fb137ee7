"""The history: taken over by a baseline, mended by name, equal to what Flyway writes for the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbplatform.migrations.baseline import apply_baseline, plan_baseline
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history, plan_migrations
from dbplatform.migrations.errors import BaselineImpossible, HistoryMismatch, RepairImpossible
from dbplatform.migrations.files import checksum
from dbplatform.migrations.repair import apply_repair, plan_repair
from dbplatform.migrations.undo import apply_undo
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform_tests import flyway

POLICY = MigrationPolicy()


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "V1__one.sql").write_text("create table one (a int);\n")
    (tmp_path / "V2__two.sql").write_text("create table two (a int);\n")
    (tmp_path / "V3__three.sql").write_text("create table three (a int);\n")
    (tmp_path / "R__view.sql").write_text("create or replace view v as select 1 as a;\n")
    return tmp_path


def test_a_baseline_is_flyways_row_and_versions_up_to_it_count_as_applied(
    connection: AutocommitConnection, files: Path
) -> None:
    # DbBaseline and SchemaHistory.addBaselineMarker of github.com/flyway/flyway: the description is the script too.
    planned = apply_baseline(connection, POLICY, version="2")
    assert planned.written
    (row,) = history(connection, POLICY)
    assert (row.installed_rank, row.version, row.description, row.type, row.script, row.checksum) == (
        1,
        "2",
        "<< Flyway Baseline >>",
        "BASELINE",
        "<< Flyway Baseline >>",
        None,
    )
    assert (row.execution_time, row.success) == (0, True)
    assert [p.script for p in plan_migrations(connection, files, POLICY).pending] == ["V3__three.sql", "R__view.sql"]


def test_a_baseline_takes_over_from_another_tool_and_leaves_its_table(
    connection: AutocommitConnection, files: Path
) -> None:
    connection.execute("create table _prisma_migrations (id text); insert into _prisma_migrations values ('a'), ('b')")
    planned = plan_baseline(connection, POLICY, database="shop")
    assert [str(found) for found in planned.taken_over] == ["Prisma (_prisma_migrations, 2 rows)"]
    assert not planned.written
    apply_baseline(connection, POLICY)
    assert [p.script for p in plan_migrations(connection, files, POLICY).pending][:1] == ["V2__two.sql"]
    assert connection.execute("select count(*) from _prisma_migrations").fetchone() == (2,)


def test_the_same_baseline_twice_is_a_no_op_and_another_is_refused(connection: AutocommitConnection) -> None:
    apply_baseline(connection, POLICY, version="1.0")
    assert apply_baseline(connection, POLICY, version="1").written
    assert len(history(connection, POLICY)) == 1
    with pytest.raises(BaselineImpossible, match=r"is version 1\.0"):
        apply_baseline(connection, POLICY, version="2")


def test_a_database_with_migrations_has_no_room_for_a_baseline(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    with pytest.raises(BaselineImpossible, match=r"the first is V1__one\.sql"):
        plan_baseline(connection, POLICY)


def test_repair_finds_nothing_in_a_sound_history(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    before = history(connection, POLICY)
    assert apply_repair(connection, files, POLICY).empty
    assert history(connection, POLICY) == before


def test_repair_removes_the_row_of_a_failed_migration(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    connection.execute("update flyway_schema_history set success = false where version = '3'")
    with pytest.raises(HistoryMismatch, match="failed") as caught:
        plan_migrations(connection, files, POLICY)
    assert "migrate repair" in (caught.value.hint or "")
    assert [row.script for row in apply_repair(connection, files, POLICY).failed] == ["V3__three.sql"]
    assert [p.script for p in plan_migrations(connection, files, POLICY).pending] == ["V3__three.sql"]


def test_repair_marks_what_is_missing_as_deleted_by_flyways_row(connection: AutocommitConnection, files: Path) -> None:
    # JdbcTableSchemaHistory.delete of github.com/flyway/flyway: the row again, of the type DELETE.
    apply_migrations(connection, files, POLICY)
    (files / "V2__two.sql").unlink()
    (files / "R__view.sql").unlink()
    repaired = apply_repair(connection, files, POLICY).as_json()
    assert repaired["deleted"] == ["V2__two.sql", "R__view.sql"]
    rows = [(r.version, r.description, r.type, r.script, r.execution_time) for r in history(connection, POLICY)][4:]
    assert rows == [("2", "two", "DELETE", "V2__two.sql", 0), (None, "view", "DELETE", "R__view.sql", 0)]
    assert plan_migrations(connection, files, POLICY).pending == ()
    assert apply_repair(connection, files, POLICY).empty


def test_repair_rewrites_a_checksum_only_for_the_file_that_is_named(
    connection: AutocommitConnection, files: Path
) -> None:
    apply_migrations(connection, files, POLICY)
    for name in ("V1__one", "V2__two"):
        (files / f"{name}.sql").write_text(f"-- a remark\n{(files / f'{name}.sql').read_text()}")
    before = [row.checksum for row in history(connection, POLICY)]
    assert apply_repair(connection, files, POLICY).realigned == ()
    assert [row.checksum for row in history(connection, POLICY)] == before
    (change,) = apply_repair(connection, files, POLICY, checksums=["V1__one.sql"]).as_json()["realigned"]
    assert change == {
        "script": "V1__one.sql",
        "checksum": before[0],
        "becomes": checksum((files / "V1__one.sql").read_text()),
    }
    assert [row.checksum for row in history(connection, POLICY)] == [change["becomes"], *before[1:]]
    with pytest.raises(HistoryMismatch, match=r"V2__two\.sql has changed"):
        plan_migrations(connection, files, POLICY)


@pytest.mark.parametrize("name", ["V9__nowhere.sql", "V4__pending.sql"])
def test_repair_of_a_file_that_is_not_there_or_not_applied_is_refused(
    connection: AutocommitConnection, files: Path, name: str
) -> None:
    apply_migrations(connection, files, POLICY)
    (files / "V4__pending.sql").write_text("select 1;")
    with pytest.raises(RepairImpossible, match=name.replace(".", r"\.")):
        plan_repair(connection, files, POLICY, checksums=[name])


def test_repair_decides_nothing_that_is_not_in_doubt(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    with pytest.raises(RepairImpossible, match=r"Nothing of V1__one\.sql is in doubt"):
        plan_repair(connection, files, POLICY, did=["V1__one.sql"])


def test_a_whole_life_gives_flyways_table_column_for_column(connection: AutocommitConnection, tmp_path: Path) -> None:
    """What Flyway writes for these files and commands, by its source and documentation; times left out.

    Rows: ``DbMigrate.doMigrateGroup``, ``SchemaHistory.addAppliedMigration``, ``JdbcTableSchemaHistory.delete`` of
    github.com/flyway/flyway; undo rows: documentation, "Undo migrations", where ``info`` shows the type UNDO_SQL.
    """
    texts = {
        "V1__Create_person_table.sql": "create table person (id int);\r\n",
        "V1_1__people.sql": "insert into person values (1);",
        "sub/V2__index.sql": "create index person_id on person (id);\n\n",
        "U2__index.sql": "drop index person_id;",
        "R__people.sql": "create or replace view people as select '${name}' as a from person;",
        "R__another.sql": "create or replace view another as select 1 as a;",
    }
    (tmp_path / "sub").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    policy = MigrationPolicy(placeholders={"name": "x"})
    apply_migrations(connection, tmp_path, policy)
    apply_undo(connection, tmp_path, policy)
    (tmp_path / "R__another.sql").write_text("create or replace view another as select 1 as a, 2 as b;")
    apply_migrations(connection, tmp_path, policy)
    (tmp_path / "R__people.sql").unlink()
    apply_repair(connection, tmp_path, policy)
    person, people, index, undo, view, another, changed = (
        flyway.checksum(text.encode())
        for text in (
            texts["V1__Create_person_table.sql"],
            texts["V1_1__people.sql"],
            texts["sub/V2__index.sql"],
            texts["U2__index.sql"],
            texts["R__people.sql"].replace("${name}", "x"),
            texts["R__another.sql"],
            (tmp_path / "R__another.sql").read_text(),
        )
    )
    user = connection.info.user
    assert [
        (r.installed_rank, r.version, r.description, r.type, r.script, r.checksum, r.installed_by, r.success)
        for r in history(connection, policy)
    ] == [
        (1, "1", "Create person table", "SQL", "V1__Create_person_table.sql", person, user, True),
        (2, "1.1", "people", "SQL", "V1_1__people.sql", people, user, True),
        (3, "2", "index", "SQL", "sub/V2__index.sql", index, user, True),
        (4, None, "another", "SQL", "R__another.sql", another, user, True),
        (5, None, "people", "SQL", "R__people.sql", view, user, True),
        (6, "2", "index", "UNDO_SQL", "U2__index.sql", undo, user, True),
        (7, "2", "index", "SQL", "sub/V2__index.sql", index, user, True),
        (8, None, "another", "SQL", "R__another.sql", changed, user, True),
        (9, None, "people", "DELETE", "R__people.sql", view, user, True),
    ]
