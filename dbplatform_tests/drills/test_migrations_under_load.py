"""Migrations while eight clients write and one transaction keeps row locks: nobody fails, nobody waits for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.words import Interval
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.writers import CLIENTS, SETUP, Writers, row_locks

#: Each is what PostgreSQL's manual calls cheap once it has its lock.
ONLINE_SAFE = (
    "alter table account add column note text;",
    "create index concurrently account_balance on account (balance);",
    "alter table account add constraint balance_is_sane check (balance > -1000000) not valid;",
    "alter table account validate constraint balance_is_sane;",
    "alter table account alter column note set default '';\ncomment on table account is 'migrated';",
    "create index concurrently entry_account on entry (account);\nalter table entry add column kind text;",
)


@pytest.mark.parametrize(("held_s", "lock_timeout"), cases((4, "500 ms"), (30, "2s"), sample=(4,)))
def test_writers_neither_fail_nor_wait_longer_than_the_lock_timeout(
    database: Target, tmp_path: Path, held_s: int, lock_timeout: str
) -> None:
    """The bound is the issue's own: the declared lock timeout and half a second, by the clients' own record."""
    for number, sql in enumerate(ONLINE_SAFE, start=1):
        (tmp_path / f"V{number}__online.sql").write_text(sql)
    policy = MigrationPolicy(lock_timeout=Interval.parse(lock_timeout))
    with connect(database, work="test") as connection:
        connection.execute(SETUP.encode())
        with Writers(database.url).writing() as writers, row_locks(database.url, held_s) as long_transaction:
            report = apply_migrations(connection, tmp_path, policy)
            assert not long_transaction.is_alive(), "the migrations waited for the long transaction, or ran past it"
        print(writers.summary)

        assert [m.script for m in report.migrations] == [f"V{n}__online.sql" for n in range(1, 7)]
        assert report.migrations[0].tries > 1, "the long transaction was in the way of the first"
        assert len(history(connection, policy)) == 6
        assert writers.failures == []
        assert len(writers.seconds) > 10 * CLIENTS
        assert max(writers.seconds) < policy.lock_timeout.milliseconds / 1000 + 0.5, writers.summary
        deadlocks = connection.execute(
            "select pg_stat_force_next_flush(), deadlocks from pg_stat_database where datname = current_database()"
        ).fetchone()
        assert deadlocks is not None
        assert deadlocks[1] == 0
        invalid = "select count(*) from pg_index where not indisvalid"
        assert connection.execute(invalid.encode()).fetchone() == (0,)


def test_a_migration_that_holds_a_lock_gives_way_before_a_writer_is_chosen_as_a_deadlocks_victim(
    database: Target, tmp_path: Path
) -> None:
    """The writer holds ``entry`` and wants ``account``; the file holds ``account`` and wants ``entry``."""
    (tmp_path / "V1__both.sql").write_text(
        "alter table account add column note text;\nalter table entry add column note text;"
    )
    policy = MigrationPolicy(lock_timeout=Interval.parse("1 minute"))
    with (
        connect(database, work="test") as connection,
        connect(database, work="writer") as writer,
        connect(database, work="watcher") as watcher,
    ):
        connection.execute(SETUP.encode())
        writer.execute("begin")
        writer.execute("insert into entry (account, amount) values (1, 1)")
        asked: list[str] = []

        def sleep(seconds: float) -> None:
            # The file has given way: nothing keeps the writer from its second row any more.
            held = "select count(*) from pg_locks where relation = 'account'::regclass and granted"
            assert watcher.execute(held.encode()).fetchone() == (0,)
            if not asked:
                writer.execute("update account set balance = 1 where id = 1")
                writer.execute("commit")
                asked.append("committed")

        (applied,) = apply_migrations(connection, tmp_path, policy, sleep=sleep).migrations
        assert applied.tries == 2
        assert asked == ["committed"]
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        assert connection.execute(deadlocks.encode()).fetchone() == (0,)
