"""``kill -9`` while rows are moved aside or given back: no row is lost or doubled, and the next call finishes it."""

from __future__ import annotations

import signal
import subprocess
import sys

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.quality.engine import check_table
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.quarantine.giving_back import Choice, give_back
from dbplatform_tests.drills.matrix import cases

POLICY = TablePolicy(table="t", checks=[{"range": {"column": "n", "min": 1}, "quarantine": True}])

_VICTIM = """
import os, signal, sys
from dbplatform import progress
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.quality.engine import check_table
from dbplatform.quality.quarantine import giving_back, move
from dbplatform_tests.drills.test_killed_quarantine import POLICY, Choice

move.ROWS_PER_BATCH = giving_back.ROWS_PER_BATCH = 10

def die(fact):
    if fact.task == sys.argv[3] and fact.done >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

target = Target("victim", sys.argv[1])
with progress.listening(die):
    if sys.argv[3].startswith("return"):
        with connect(target, work="victim") as connection:
            giving_back.give_back(connection, Choice())
    else:
        check_table(target, Ledger(Target("the ledger", sys.argv[2])), "shop", "run-1", POLICY)
"""


def killed(database: Target, ledger: Ledger, task: str, done: int) -> None:
    """Work in a process that ends itself by SIGKILL when ``task`` has reached ``done`` rows."""
    victim = subprocess.run(
        [sys.executable, "-c", _VICTIM, database.url, ledger.target.url, task, str(done)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert victim.returncode == -signal.SIGKILL, f"the point was not reached: {victim.stderr}"


def counts(database: Target) -> tuple[int, int, int]:
    """Rows in the table, rows aside, different rows of both."""
    with psycopg.connect(database.url) as session:
        row = session.execute(
            "select (select count(*) from t), (select count(*) from dbplatform.quarantine_t),"
            " (select count(*) from (select id from t union select id from dbplatform.quarantine_t) as every)"
        ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


@pytest.mark.parametrize(
    ("task", "done"),
    cases(
        *(("move aside t", done) for done in (10, 20, 50, 90)),
        *(("return rows of t", done) for done in (10, 50, 90)),
        sample=(("move aside t", 20),),
    ),
)
def test_no_row_is_lost_or_doubled_wherever_the_process_is_killed(
    database: Target, ledger: Ledger, task: str, done: int
) -> None:
    with psycopg.connect(database.url) as session:
        session.execute("create table t (id int primary key, n int)")
        session.execute("insert into t select i, i % 3 from generate_series(1, 300) i")
    if task.startswith("return"):
        check_table(database, ledger, "shop", "run-1", POLICY)
        killed(database, ledger, task, done)
        assert counts(database) == (200 + done, 100 - done, 300)
        with connect(database, work="test") as connection:
            assert [one.rows for one in give_back(connection, Choice())] == [100 - done]
        assert counts(database) == (300, 0, 300)
    else:
        killed(database, ledger, task, done)
        assert counts(database) == (300 - done, done, 300)
        (found,) = check_table(database, ledger, "shop", "run-1", POLICY).checks
        assert (found.failed_rows, found.quarantined_rows) == (100 - done, 100 - done)
        assert counts(database) == (200, 100, 300)
