"""CREATE INDEX CONCURRENTLY: what an earlier, killed run left behind is recognised by the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.migrations.errors import IndexInTheWay, MigrationFailed
from dbplatform.postgres.connection import AutocommitConnection, Target, connect

POLICY = MigrationPolicy()


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute("create table t (a int, b text)")
        connection.execute("insert into t select i, 'x' || i from generate_series(1, 100) i")
        yield connection


def is_valid(connection: AutocommitConnection, index: str) -> bool | None:
    row = connection.execute("select indisvalid from pg_index where indexrelid = to_regclass(%s)", (index,)).fetchone()
    return None if row is None else bool(row[0])


def invalid_index(connection: AutocommitConnection, sql: str) -> None:
    """What a failed build leaves: a unique index over rows that are not unique."""
    connection.execute("insert into t values (1, 'x1')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(sql.encode())
    connection.execute("delete from t where ctid in (select max(ctid) from t where a = 1)")


def test_an_index_is_built_concurrently_and_recorded(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__i.sql").write_text("-- outside of a transaction\ncreate index concurrently t_a on t (a);")
    report = apply_migrations(connection, tmp_path, POLICY)
    assert is_valid(connection, "t_a") is True
    assert not report.migrations[0].found_done
    assert [row.script for row in history(connection, POLICY)] == ["V1__i.sql"]


@pytest.mark.parametrize("words", ["", "if not exists"])
def test_an_invalid_leftover_is_dropped_and_built_again(
    connection: AutocommitConnection, tmp_path: Path, words: str
) -> None:
    invalid_index(connection, "create unique index concurrently t_a on t (a)")
    assert is_valid(connection, "t_a") is False
    (tmp_path / "V1__i.sql").write_text(f"create unique index concurrently {words} t_a on public.t (a);")
    apply_migrations(connection, tmp_path, POLICY)
    assert is_valid(connection, "t_a") is True
    assert len(history(connection, POLICY)) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "create index concurrently t_a on t (a)",
        "create unique index concurrently if not exists t_a on only public.t using btree (a desc) include (b)",
        "create index concurrently t_a on t (lower(b) text_pattern_ops, (a % 10)) with (fillfactor=90) where b > 'a'",
        'create index concurrently "T a" on t (a) where a in (1, 2)',
    ],
)
def test_a_finished_index_without_its_row_is_recorded_not_built(
    connection: AutocommitConnection, tmp_path: Path, sql: str
) -> None:
    connection.execute(sql.encode())
    (tmp_path / "V1__i.sql").write_text(sql)
    report = apply_migrations(connection, tmp_path, POLICY)
    assert report.migrations[0].found_done
    assert len(history(connection, POLICY)) == 1
    assert connection.execute("select count(*) from pg_index where indrelid = 't'::regclass").fetchone() == (1,)


@pytest.mark.parametrize("other", ["(b)", "(a desc)", "(a) where a > 1", "using hash (a)"])
def test_an_index_of_that_name_with_another_definition_is_not_taken_for_it(
    connection: AutocommitConnection, tmp_path: Path, other: str
) -> None:
    connection.execute(f"create index t_a on t {other}".encode())
    (tmp_path / "V1__i.sql").write_text("create index concurrently if not exists t_a on t (a);")
    with pytest.raises(IndexInTheWay, match="another definition") as caught:
        apply_migrations(connection, tmp_path, POLICY)
    assert caught.value.place == f"{tmp_path / 'V1__i.sql'}:1"
    assert history(connection, POLICY) == []


def test_a_unique_index_is_not_taken_for_one_that_is_not(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create unique index t_a on t (a)")
    (tmp_path / "V1__i.sql").write_text("create index concurrently t_a on t (a);")
    with pytest.raises(IndexInTheWay):
        apply_migrations(connection, tmp_path, POLICY)
    assert history(connection, POLICY) == []


@pytest.mark.parametrize("ddl", ["create table t_a (a int)", "create table u (a int); create index t_a on u (a)"])
def test_a_name_that_is_taken_by_something_else_is_refused(
    connection: AutocommitConnection, tmp_path: Path, ddl: str
) -> None:
    connection.execute(ddl.encode())
    (tmp_path / "V1__i.sql").write_text("create index concurrently if not exists t_a on t (a);")
    with pytest.raises(IndexInTheWay, match="no index of t"):
        apply_migrations(connection, tmp_path, POLICY)
    assert history(connection, POLICY) == []


def test_a_build_that_fails_is_not_recorded_and_can_be_tried_again(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    (tmp_path / "V1__i.sql").write_text("create unique index concurrently t_a on t (a);")
    connection.execute("insert into t values (1, 'twice')")
    with pytest.raises(MigrationFailed, match="SQLSTATE 23505"):
        apply_migrations(connection, tmp_path, POLICY)
    assert history(connection, POLICY) == []
    connection.execute("delete from t where b = 'twice'")
    apply_migrations(connection, tmp_path, POLICY)
    assert is_valid(connection, "t_a") is True


def test_a_concurrent_statement_waits_longer_than_lock_timeout_and_statement_timeout(
    database: Target, connection: AutocommitConnection, tmp_path: Path
) -> None:
    connection.execute("select set_config('statement_timeout', '90s', false)")
    (tmp_path / "V1__i.sql").write_text("create index concurrently t_a on t (timeouts(a));")
    connection.execute(
        """create function timeouts(a int) returns text language plpgsql immutable as $$ begin
           if current_setting('lock_timeout') <> '0' or current_setting('statement_timeout') <> '0' then
               raise 'a timeout is set'; end if;
           return a; end $$"""
    )
    apply_migrations(connection, tmp_path, MigrationPolicy(lock_timeout="1 ms"))
    assert is_valid(connection, "t_a") is True
    assert connection.execute("show statement_timeout").fetchone() == ("90s",)


@pytest.mark.parametrize(
    "sql", ["vacuum t", "reindex table concurrently t", "drop index concurrently if exists t_a", "analyze t"]
)
def test_other_single_statements_run_without_a_transaction(
    connection: AutocommitConnection, tmp_path: Path, sql: str
) -> None:
    (tmp_path / "V1__x.sql").write_text(sql)
    (tmp_path / "V1__x.sql.conf").write_text("executeInTransaction=false")
    assert [len(m.statements) for m in apply_migrations(connection, tmp_path, POLICY).migrations] == [1]
    assert len(history(connection, POLICY)) == 1
