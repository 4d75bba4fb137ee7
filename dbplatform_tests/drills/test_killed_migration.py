"""``kill -9`` between any two statements of a file that cannot have a transaction: the next apply finishes it, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.migrations_support import apply_and_die

POLICY = MigrationPolicy()
SCRIPT = "V2__twelve.sql"
DONE = f"{SCRIPT}: done"

FIRST = """\
create table t (a int, b int);
insert into t select i, i from generate_series(1, 1000) i;
create index t_old on t (a, b);
create table ran (statement int);
"""
TWELVE = """\
set maintenance_work_mem = '64MB';
insert into ran values (2);
create index concurrently t_a on t (a);
insert into ran values (4);
alter table t add column c int;
insert into ran values (6);
create unique index concurrently if not exists t_b on t (b);
insert into ran values (8);
drop index concurrently t_old;
insert into ran values (10);
vacuum t;
do $$ begin insert into ran values (12); end $$;
"""


@pytest.mark.parametrize(
    ("task", "done"),
    cases(
        *((SCRIPT, done) for done in range(13)),
        *((DONE, done) for done in (3, 7, 9, 11)),
        sample=((SCRIPT, 1), (SCRIPT, 7), (SCRIPT, 12), (DONE, 3), (DONE, 9)),
    ),
)
def test_a_file_killed_here_is_finished_by_the_next_apply(
    database: Target, tmp_path: Path, task: str, done: int
) -> None:
    (tmp_path / "V1__first.sql").write_text(FIRST)
    (tmp_path / SCRIPT).write_text(TWELVE)
    apply_and_die(database, tmp_path, task, done)
    with connect(database, work="test") as connection:
        assert [row.version for row in history(connection, POLICY)] == ["1"]

        report = apply_migrations(connection, tmp_path, POLICY)

        assert [m.script for m in report.migrations] == [SCRIPT]
        assert [(row.version, row.success) for row in history(connection, POLICY)] == [("1", True), ("2", True)]
        ran = connection.execute("select statement, count(*) from ran group by 1 order by 1").fetchall()
        assert ran == [(number, 1) for number in (2, 4, 6, 8, 10, 12)]
        indexes = connection.execute(
            "select indexrelid::regclass::text, indisvalid from pg_index where indrelid = 't'::regclass order by 1"
        ).fetchall()
        assert indexes == [("t_a", True), ("t_b", True)]
        assert connection.execute("select count(*) from dbplatform.migration_progress").fetchone() == (0,)
        assert apply_migrations(connection, tmp_path, POLICY).migrations == ()
