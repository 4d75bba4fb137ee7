"""``kill -9`` at each phase of a conversion and at statements within its swaps: run again, or undone, it ends right."""

from __future__ import annotations

import pytest

from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.conversion_support import (
    PLAIN,
    RICH,
    back,
    contents,
    forward,
    kind,
    left_over,
    run_and_die,
)

CONVERT, SWAP, UNDO, UNSWAP = "convert event", "swap event", "undo event", "unswap event"
SETUPS = {"plain": PLAIN, "rich": RICH}
UNVALIDATED = "select conname from pg_constraint where not convalidated and conparentid = 0"
FORWARD = (
    *((CONVERT, phase, setup) for phase in range(8) for setup in SETUPS),
    *((SWAP, statement, "plain") for statement in (0, 4, 8, 12, 16)),
    *((SWAP, statement, "rich") for statement in (0, 5, 10, 15, 20, 25, 30, 35)),
)
BACKWARD = (
    *((UNDO, phase, setup) for phase in range(3) for setup in SETUPS),
    *((UNSWAP, statement, "plain") for statement in (0, 4, 8, 12)),
    *((UNSWAP, statement, "rich") for statement in (0, 5, 10, 15, 20, 25)),
)


@pytest.mark.parametrize(("task", "done", "setup"), cases(*FORWARD, sample=((CONVERT, 1), (CONVERT, 4), (SWAP, 15))))
def test_a_conversion_killed_here_is_finished_by_the_next(database: Target, task: str, done: int, setup: str) -> None:
    with connect(database, work="test") as connection:
        connection.execute(SETUPS[setup].encode())
        rows = contents(connection)
        run_and_die(database, "forward", task, done)
        assert contents(connection) == rows
        connection.execute("insert into event (at) values ('2026-03-15'), ('2026-05-31')")

        forward(connection)

        assert kind(connection) == "p"
        assert contents(connection)[0] == rows[0] + 2
        connection.execute("insert into event (at) values ('2026-06-01')")
        assert forward(connection).phases == ()
        assert connection.execute(UNVALIDATED).fetchall() == []


@pytest.mark.parametrize(("task", "done", "setup"), cases(*FORWARD, sample=((CONVERT, 2), (CONVERT, 5))))
def test_a_conversion_killed_here_can_be_undone(database: Target, task: str, done: int, setup: str) -> None:
    with connect(database, work="test") as connection:
        connection.execute(SETUPS[setup].encode())
        run_and_die(database, "forward", task, done)
        connection.execute("insert into event (at) values ('2026-03-15'), ('2026-05-31')")
        rows = contents(connection)
        if (task, done) != (CONVERT, 0):
            back(connection)
        assert kind(connection) == "r"
        assert contents(connection) == rows
        assert left_over(connection) == []
        connection.execute("insert into event (at) values ('2030-01-01')")


@pytest.mark.parametrize(("task", "done", "setup"), cases(*BACKWARD, sample=((UNDO, 1), (UNSWAP, 20))))
def test_an_undo_killed_here_is_finished_by_the_next(database: Target, task: str, done: int, setup: str) -> None:
    with connect(database, work="test") as connection:
        connection.execute(SETUPS[setup].encode())
        forward(connection)
        connection.execute("insert into event (at) values ('2026-06-01'), ('2026-01-01')")
        rows = contents(connection)
        run_and_die(database, "back", task, done)
        assert contents(connection) == rows
        back(connection)
        assert kind(connection) == "r"
        assert contents(connection) == rows
        assert left_over(connection) == []
        assert connection.execute(UNVALIDATED).fetchall() == []
