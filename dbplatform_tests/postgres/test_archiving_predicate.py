"""Rows leave by a condition that others keep changing: what left the table is what lies in the archive."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbplatform.archiving import errors
from dbplatform.archiving.pace import Throttle
from dbplatform.archiving.plan import plan_archive
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.postgres.archiving_support import NOW, archive, ask, at, fill, only, policy, restore

#: 600 rows of January 2026: 300 done, 200 open, 100 whose state is not known.
JOBS = """
    create table jobs (id int primary key, at timestamptz not null, state text);
    insert into jobs select i, timestamptz '2026-01-01' + i * interval '1 minute',
        case when i <= 300 then 'done' when i <= 500 then 'open' end
    from generate_series(1, 600) i;
"""


def by_state(**fields: Any) -> ArchivePolicy:
    return policy(table="jobs", **{"column": None, "older_than": None, "where": "state = 'done'", **fields})


def test_a_condition_alone_chooses_the_rows(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, JOBS)
    report = archive(database, ledger, tmp_path, by_state())
    assert (report.deleted, report.cutoff, report.uncovered) == (300, None, 0)
    assert ask(database, "select count(*), count(*) filter (where state = 'done') from jobs") == (300, 0)
    entry = only(ledger)
    assert (entry.column, entry.cutoff, entry.where) == (None, None, "state = 'done'")
    assert restore(database, ledger, entry.id).restored == 300


def test_a_condition_beside_an_age_asks_for_both(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, JOBS)
    fill(database, "insert into jobs values (601, '2026-06-30', 'done')")
    both = by_state(column="at", older_than="1 month", where="state = 'done' or state is null -- or unknown")
    report = archive(database, ledger, tmp_path, both)
    assert report.deleted == 400
    assert ask(database, "select array_agg(distinct state), max(id) from jobs") == (["done", "open"], 601)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("stat = 'done'", 'column "stat" does not exist'),
        ("state", "must be type boolean"),
        ("state = ", "syntax error"),
        ("count(*) > 1", "aggregate functions are not allowed"),
        ("id = 'one'", "invalid input syntax"),
    ],
)
def test_what_is_no_condition_is_refused_before_anything_is_read(database: Target, where: str, words: str) -> None:
    fill(database, JOBS)
    with (
        connect(database, work="test") as connection,
        pytest.raises(errors.UnsuitablePredicate, match=words) as caught,
    ):
        plan_archive(connection, by_state(where=where), now=NOW)
    assert "id, at, state" in str(caught.value)


def test_a_condition_that_changes_its_mind_within_a_snapshot_deletes_nothing(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, JOBS)
    with pytest.raises((errors.ArchiveNotWritten, errors.ReadBackDiffers)):
        archive(database, ledger, tmp_path, by_state(where="random() < 0.5"))
    assert ask(database, "select count(*) from jobs") == 600


def test_rows_that_begin_or_cease_to_match_meanwhile_stay(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, JOBS)
    late = (
        "update jobs set state = 'open' where id <= 10; update jobs set state = 'done' where id between 301 and 310;"
        "insert into jobs values (700, '2020-01-01', 'done')"
    )
    with at("verify", lambda: fill(database, late)):
        report = archive(database, ledger, tmp_path, by_state())
    assert (report.deleted, report.kept) == (290, {"changed": 10})
    assert ask(database, "select count(*), count(*) filter (where state = 'done') from jobs") == (311, 11)


def test_what_left_under_writers_is_exactly_what_is_in_the_archive(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, JOBS)
    over, trouble = threading.Event(), list[BaseException]()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        try:
            with psycopg.connect(database.url, autocommit=True) as session:
                while not over.is_set():
                    session.execute(
                        "update jobs set state = %s where id = %s",
                        (chance.choice(["done", "open", None]), chance.randint(1, 600)),
                    )
        except BaseException as error:
            trouble.append(error)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for writer in writers:
        writer.start()
    try:
        small = Throttle(batch_rows=5, pause_s=0, lock_timeout_ms=2000)
        report = archive(database, ledger, tmp_path, by_state(), throttle=small)
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert trouble == []
    restore(database, ledger, only(ledger).id, into="left_by_archive")
    deleted = report.deleted
    assert deleted + sum(report.kept.values()) == only(ledger).rows
    assert ask(database, "select count(*), count(*) filter (where state = 'done') from left_by_archive") == (
        deleted,
        deleted,
    )
    assert ask(database, "select count(*), count(distinct id) from (table jobs union all table left_by_archive) a") == (
        600,
        600,
    )
