"""Verdicts on a machine that has other work to do: silence on twenty equal pairs, and a planted fifth is found.

Here alone a test rests on time: what it proves is that the statistics bear that. The load are other sessions that
compute and write without a pause.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dbplatform.benchmarking.statistics import Comparison
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.benchmark_run import Run, on
from dbplatform.operations.benchmark_sides import Side
from dbplatform.operations.benchmark_wanted import Wanted, chosen_of
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target

#: How much of the work is done is a setting of the session, so that a regression can be planted in one of two sides.
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: development}
  benchmarks:
    busy: 1000
    budget: 1 hour
    seconds: 20s
    queries:
      - name: computes
        sql: "select sum(i % 7) from generate_series(1, (20000 * current_setting('bench.work')::float8)::int) i"
      - name: reads
        sql: >-
          select count(note) from orders
          where id between :id and :id + (10000 * current_setting('bench.work')::float8)::int
        params: {id: "select id from orders where id % 100 = 0 order by id limit 100"}
    scripts:
      - name: looks_up
        file: looks_up.sql
        clients: 2
"""
LOOKS_UP = """\\set id random(1, 10000)
select count(note) from orders where id between :id and :id + (10000 * current_setting('bench.work')::float8)::int;
"""
SCHEMA = """
    create table orders (id int primary key, note text);
    insert into orders select g, repeat('x', 40) from generate_series(1, 40000) g
"""
_LOAD = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    connection.execute("create temporary table scrap (id int)")
    while True:
        connection.execute("insert into scrap select (random() * g)::int from generate_series(1, 20000) g")
        connection.execute("select count(distinct id) from scrap")
        connection.execute("truncate scrap")
"""


@contextmanager
def loaded(database: Target, sessions: int) -> Iterator[None]:
    """Sessions of others that never rest."""
    command = [sys.executable, "-c", _LOAD, database.url]
    others = [subprocess.Popen(command) for _ in range(sessions)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.fixture
def run(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Run:
    folder = tmp_path / "defs" / "shop"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(DECLARATION)
    (folder / "looks_up.sql").write_text(LOOKS_UP)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    with psycopg.connect(database.url, autocommit=True) as connection:
        for statement in (*SCHEMA.split(";"), "vacuum (analyze) orders"):
            connection.execute(statement.encode())
    platform = Platform(Project.at(tmp_path))
    declared = platform.declarations.get("shop")
    policy, _ = chosen_of(declared, Wanted())
    return Run(platform, declared, policy, Wanted())


def compared(run: Run, database: Target, work: float) -> dict[str, Comparison]:
    """Each benchmark with all the work on one side and ``work`` times as much on the other."""
    _, chosen = chosen_of(run.declared, Wanted())
    plain = Side(target=database, words="as it is", settings={"bench.work": "1"})
    other = Side(target=database, words="planted", settings={"bench.work": str(work)})
    found = {}
    for one in on(run, plain, other, chosen):
        assert one.error is None, one.error
        assert one.comparison is not None
        found[one.name] = one.comparison
    return found


@pytest.mark.drill
@pytest.mark.parametrize("sessions", [0, 2])
def test_a_planted_fifth_is_found_and_twenty_equal_pairs_are_passed_over(
    run: Run, database: Target, sessions: int, capsys: pytest.CaptureFixture[str]
) -> None:
    order = [1.0] * 20 + [1.2] * 2 + [1 / 1.2] * 2
    random.Random(sessions).shuffle(order)
    with loaded(database, sessions):
        verdicts = [(work, name, one) for work in order for name, one in compared(run, database, work).items()]
    with capsys.disabled():
        for work, name, one in verdicts:
            words = f"{100 * one.change:+.1f} % ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
            print(f"{sessions} {work:.2f} {name}: {one.verdict} {words} noise {100 * one.noise:.1f} n={one.rounds}")
    assert {one.verdict for work, _, one in verdicts if work == 1.0} <= {"no difference", "too noisy"}
    assert {one.verdict for work, _, one in verdicts if work > 1.0} == {"worse"}
    assert {one.verdict for work, _, one in verdicts if work < 1.0} == {"better"}
