"""A run that is killed leaves a file applied and recorded, or neither; the next run finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.postgres.connection import Target, connect

POLICY = MigrationPolicy(lock_timeout="1 minute")

_VICTIM = """
import sys
from pathlib import Path
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations
from dbplatform.postgres.connection import Target, connect

with connect(Target("victim", sys.argv[1]), work="victim") as connection:
    apply_migrations(connection, Path(sys.argv[2]), MigrationPolicy(lock_timeout="1 minute"))
"""

_WAITING = """
    select count(*) from pg_stat_activity
    where application_name = 'dbplatform victim' and wait_event_type = 'Lock' and query like %s
"""
_ALIVE = "select count(*) from pg_stat_activity where application_name = 'dbplatform victim'"


def until(condition: Callable[[], bool]) -> None:
    """Poll for an event; the bound is only there so that a broken test ends."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the event did not come"
        time.sleep(0.01)


@contextmanager
def victim(database: Target, files: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", _VICTIM, database.url, str(files)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_when_waiting(database: Target, files: Path, statement: str) -> None:
    """Start a run, kill -9 it when its backend waits in the statement, return when the backend has ended.

    The lock that it waits for is held on: the server must notice by itself that the client is gone.
    """
    with psycopg.connect(database.url, autocommit=True) as watcher, victim(database, files) as process:

        def waits() -> bool:
            assert process.poll() is None, "the victim ended by itself"
            row = watcher.execute(_WAITING, (f"%{statement}%",)).fetchone()
            return row == (1,)

        until(waits)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        until(lambda: watcher.execute(_ALIVE).fetchone() == (0,))


def test_a_run_killed_in_the_middle_of_a_file_leaves_nothing_of_it(database: Target, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("create table first (a int);")
    (tmp_path / "V2__b.sql").write_text(
        "create table second (a int);\ninsert into second values (1);\nalter table busy add b int;\n"
    )
    with psycopg.connect(database.url) as holder:
        holder.execute("create table busy (a int)")
        holder.commit()
        holder.execute("lock table busy in access share mode")
        kill_when_waiting(database, tmp_path, "alter table busy")
        holder.rollback()
    with connect(database, work="test") as connection:
        assert [row.version for row in history(connection, POLICY)] == ["1"]
        assert connection.execute("select to_regclass('second')").fetchone() == (None,)
        report = apply_migrations(connection, tmp_path, POLICY)
        assert [m.script for m in report.migrations] == ["V2__b.sql"]
        assert connection.execute("select count(*) from second").fetchone() == (1,)
        assert [row.version for row in history(connection, POLICY)] == ["1", "2"]


def test_a_run_killed_while_it_builds_an_index_concurrently_is_finished_by_the_next(
    database: Target, tmp_path: Path
) -> None:
    (tmp_path / "V1__a.sql").write_text("create table t (a int);\ninsert into t select generate_series(1, 1000);")
    (tmp_path / "V2__b.sql").write_text("create index concurrently if not exists t_a on t (a);")
    (tmp_path / "V3__c.sql").write_text("create table after_index (a int);")
    with connect(database, work="test") as connection:
        apply_migrations(connection, tmp_path, POLICY, target="1")
        with psycopg.connect(database.url) as holder:
            # A writer's open transaction: the build waits for its end after it has made the index, still invalid.
            holder.execute("insert into t values (0)")
            kill_when_waiting(database, tmp_path, "create index concurrently")
        left = "select indisvalid from pg_index where indexrelid = 't_a'::regclass"
        assert connection.execute(left).fetchone() == (False,)
        assert [row.version for row in history(connection, POLICY)] == ["1"]
        report = apply_migrations(connection, tmp_path, POLICY)
        assert [m.script for m in report.migrations] == ["V2__b.sql", "V3__c.sql"]
        assert connection.execute(left).fetchone() == (True,)
        assert [row.version for row in history(connection, POLICY)] == ["1", "2", "3"]


def test_a_run_killed_between_the_index_and_its_row_is_recorded_by_the_next(database: Target, tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_text("create table t (a int);")
    (tmp_path / "V2__b.sql").write_text("create index concurrently t_a on t (a);")
    with connect(database, work="test") as connection:
        apply_migrations(connection, tmp_path, POLICY, target="1")
        with psycopg.connect(database.url) as holder:
            # Reading goes on, writing the row does not.
            holder.execute("lock table flyway_schema_history in share mode")
            kill_when_waiting(database, tmp_path, "insert into")
        assert [row.version for row in history(connection, POLICY)] == ["1"]
        before = connection.execute("select 't_a'::regclass::oid").fetchone()
        report = apply_migrations(connection, tmp_path, POLICY)
        assert report.migrations[0].found_done
        assert connection.execute("select 't_a'::regclass::oid").fetchone() == before
        assert [row.version for row in history(connection, POLICY)] == ["1", "2"]


@pytest.mark.parametrize(
    ("statement", "blocked_by", "after"),
    [
        ("drop index concurrently t_a", "select * from t", "select to_regclass('t_a') is null"),
        (
            "reindex index concurrently t_a",
            "insert into t values (0)",
            "select bool_and(indisvalid) and count(*) = 1 from pg_index where indrelid = 't'::regclass",
        ),
        (
            "alter table p detach partition p1 concurrently",
            "select * from p",
            "select not relispartition from pg_class where relname = 'p1'",
        ),
    ],
)
def test_a_run_killed_within_a_concurrent_statement_is_finished_by_the_next(
    database: Target, tmp_path: Path, statement: str, blocked_by: str, after: str
) -> None:
    (tmp_path / "V1__a.sql").write_text(
        "create table t (a int);\ncreate index t_a on t (a);\ncreate table p (a int) partition by range (a);\n"
        "create table p1 partition of p for values from (1) to (2);\ncreate table ran (statement int);\n"
    )
    (tmp_path / "V2__b.sql").write_text(
        "\n".join(("insert into ran values (1);", f"{statement};", "insert into ran values (3);"))
    )
    with connect(database, work="test") as connection:
        apply_migrations(connection, tmp_path, POLICY, target="1")
        with psycopg.connect(database.url) as holder:
            holder.execute(blocked_by.encode())
            kill_when_waiting(database, tmp_path, statement)
        apply_migrations(connection, tmp_path, POLICY)
        assert connection.execute(after.encode()).fetchone() == (True,)
        assert connection.execute("select statement from ran order by 1").fetchall() == [(1,), (3,)]
        assert [row.version for row in history(connection, POLICY)] == ["1", "2"]
