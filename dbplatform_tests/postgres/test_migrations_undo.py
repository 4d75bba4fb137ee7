"""Undo takes versions back, the newest applied first, and says so in the history as Flyway does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history, plan_migrations
from dbplatform.migrations.errors import MigrationFailed, TargetUnknown, UndoImpossible
from dbplatform.migrations.files import checksum
from dbplatform.migrations.undo import apply_undo, plan_undo
from dbplatform.postgres.connection import AutocommitConnection, Target, connect

POLICY = MigrationPolicy()


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for number, name in ((1, "one"), (2, "two"), (3, "three")):
        (tmp_path / f"V{number}__{name}.sql").write_text(f"create table {name} (a int);\n")
        (tmp_path / f"U{number}__{name}.sql").write_text(f"drop table {name};\n")
    return tmp_path


def tables(connection: AutocommitConnection) -> set[str]:
    rows = connection.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    )
    return {row[0] for row in rows} - {"flyway_schema_history"}


def test_without_a_target_the_newest_version_is_undone(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    report = apply_undo(connection, files, POLICY, database="shop").as_json()
    assert [(m["version"], m["script"], m["status"]) for m in report["migrations"]] == [
        ("3", "U3__three.sql", "undone")
    ]
    assert (report["current"], report["target"]) == ("2", "2")
    assert tables(connection) == {"one", "two"}


def test_the_history_keeps_the_version_and_gets_flyways_row(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    apply_undo(connection, files, POLICY)
    rows = [(r.installed_rank, r.version, r.description, r.type, r.script) for r in history(connection, POLICY)]
    assert rows[2:] == [(3, "3", "three", "SQL", "V3__three.sql"), (4, "3", "three", "UNDO_SQL", "U3__three.sql")]
    assert history(connection, POLICY)[3].checksum == checksum("drop table three;")


def test_a_target_is_undone_too_with_all_above_it_newest_first(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    assert [p.script for p in plan_undo(connection, files, POLICY, target="2").pending] == [
        "U3__three.sql",
        "U2__two.sql",
    ]
    apply_undo(connection, files, POLICY, target="2")
    assert tables(connection) == {"one"}


def test_what_was_undone_is_pending_again(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    apply_undo(connection, files, POLICY, target="1")
    assert len(plan_migrations(connection, files, POLICY).pending) == 3
    apply_migrations(connection, files, POLICY)
    assert tables(connection) == {"one", "two", "three"}
    assert [p.script for p in plan_undo(connection, files, POLICY).pending] == ["U3__three.sql"]


def test_with_versions_out_of_order_the_last_applied_is_the_first_undone(
    connection: AutocommitConnection, files: Path
) -> None:
    policy = MigrationPolicy(out_of_order=True)
    apply_migrations(connection, files, policy)
    (files / "V1_5__late.sql").write_text("create table late (a int);")
    (files / "U1_5__late.sql").write_text("drop table late;")
    apply_migrations(connection, files, policy)
    assert [p.script for p in plan_undo(connection, files, policy).pending] == ["U1_5__late.sql"]


def test_a_missing_undo_file_stops_all_of_it_beforehand(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    (files / "U2__two.sql").unlink()
    with pytest.raises(UndoImpossible, match=r"V2__two\.sql\) has no undo file") as caught:
        apply_undo(connection, files, POLICY, target="1")
    assert "U2__two.sql" in (caught.value.hint or "")
    assert tables(connection) == {"one", "two", "three"}


def test_a_baseline_cannot_be_undone(connection: AutocommitConnection, files: Path) -> None:
    (files / "B3__all.sql").write_text("create table one (a int);")
    apply_migrations(connection, files, POLICY)
    with pytest.raises(UndoImpossible, match="Version 3 is the baseline"):
        plan_undo(connection, files, POLICY)


def test_an_unknown_target_is_refused(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    with pytest.raises(TargetUnknown, match="version 7"):
        plan_undo(connection, files, POLICY, target="7")


def test_with_nothing_applied_there_is_nothing_to_undo(connection: AutocommitConnection, files: Path) -> None:
    assert plan_undo(connection, files, POLICY).pending == ()
    assert apply_undo(connection, files, POLICY).migrations == ()


def test_an_undo_that_fails_leaves_the_version_applied(connection: AutocommitConnection, files: Path) -> None:
    apply_migrations(connection, files, POLICY)
    (files / "U3__three.sql").write_text("drop table three;\ndrop table nowhere;\n")
    with pytest.raises(MigrationFailed, match=r"U3__three\.sql failed") as caught:
        apply_undo(connection, files, POLICY)
    assert caught.value.line == 2
    assert "three" in tables(connection)
    assert [row.type for row in history(connection, POLICY)] == ["SQL", "SQL", "SQL"]


def test_an_undo_file_may_need_no_transaction(connection: AutocommitConnection, files: Path) -> None:
    (files / "V4__index.sql").write_text("create index concurrently one_a on one (a);")
    (files / "U4__index.sql").write_text("drop index concurrently one_a;")
    apply_migrations(connection, files, POLICY)
    apply_undo(connection, files, POLICY)
    assert connection.execute("select to_regclass('one_a')").fetchone() == (None,)
    assert [row.type for row in history(connection, POLICY)][-1] == "UNDO_SQL"
