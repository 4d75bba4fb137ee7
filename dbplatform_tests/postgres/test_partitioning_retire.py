"""Retirement: which partitions go, when they are dropped, and that a killed run is gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dbplatform.errors import LockNotAcquired
from dbplatform.partitioning.apply import PartitionReport, apply_partitions
from dbplatform.partitioning.bounds import Bounds
from dbplatform.partitioning.fates import Expected, Kept, NoArchives, RetirementReport, exact_rows
from dbplatform.partitioning.plan import plan_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retire import apply_retirement, plan_retirement
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.drills.matrix import cases

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
SALE = "create table sale (id int, at timestamptz not null, primary key (id, at)) partition by range (at)"
LOSS = {"keep": "2 months", "then": "drop_without_archive"}
TABLE = Relation("public", "sale")


def policy(**changes: Any) -> PartitionPolicy:
    return PartitionPolicy.model_validate(
        {"table": "sale", "column": "at", "interval": "1 month", "premake": 1, "retain": "2 months", **changes}
    )


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


@pytest.fixture
def sale(connection: AutocommitConnection) -> AutocommitConnection:
    """Partitions from November 2025 on, a row in each month but December; those of 2025 are due."""
    connection.execute(SALE)
    make(connection, start="2025-11-01", retain=None)
    connection.execute("insert into sale values (1, '2025-11-05'), (2, '2026-01-05'), (3, '2026-02-05')")
    return connection


def make(connection: AutocommitConnection, *, now: datetime = NOW, **changes: Any) -> PartitionReport:
    return apply_partitions(connection, [policy(**changes)], now=now)


def retire(
    connection: AutocommitConnection, *, now: datetime = NOW, archived: bool = False, **changes: Any
) -> RetirementReport:
    return apply_retirement(connection, [policy(**changes)], Waiting() if archived else None, now=now)


class Waiting(NoArchives):
    """The answers where an archive by rows is declared."""

    def expects(self, policy: PartitionPolicy, bounds: Bounds, rows: int) -> tuple[Expected, str]:
        return "waiting", "its rows are not all archived yet"


def fates(report: RetirementReport) -> dict[str, str]:
    return {one.relation.name: one.fate for table in report.tables for one in table.partitions}


def attached(connection: AutocommitConnection | psycopg.Connection[Any], table: str = "sale") -> list[str]:
    return [
        name
        for (name,) in connection.execute(
            "select inhrelid::regclass::text from pg_inherits where inhparent = to_regclass(%s) order by 1", (table,)
        ).fetchall()
    ]


def one(connection: AutocommitConnection | psycopg.Connection[Any], question: str) -> Any:
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def test_the_plan_says_what_would_become_of_each_and_only_reads(sale: AutocommitConnection) -> None:
    plan = plan_retirement(sale, [policy()], now=NOW).as_json()["tables"][0]
    assert plan["cutoff"] == "2026-01-15T12:00:00+00:00"
    assert [(p["name"], p["rows"], p["fate"]) for p in plan["retire"]] == [
        ("sale_p2025_11", 1, "detach"),
        ("sale_p2025_12", 0, "drop"),
    ]
    due = plan_partitions(sale, [policy()], now=NOW).as_json()["tables"][0]["retire"]
    assert [p["name"] for p in due] == ["sale_p2025_11", "sale_p2025_12"]
    assert len(attached(sale)) == 6
    assert one(sale, "select to_regclass('dbplatform.retired_partition')") is None


def test_an_empty_partition_is_dropped_and_one_with_rows_stays_beside_the_table(sale: AutocommitConnection) -> None:
    assert fates(retire(sale)) == {"sale_p2025_11": "detached", "sale_p2025_12": "dropped"}
    assert attached(sale) == ["sale_p2026_01", "sale_p2026_02", "sale_p2026_03", "sale_p2026_04"]
    assert one(sale, "select count(*) from sale_p2025_11") == 1
    assert one(sale, "select to_regclass('sale_p2025_12')") is None
    assert fates(retire(sale)) == {"sale_p2025_11": "detached"}
    sale.execute("delete from sale_p2025_11")
    assert fates(retire(sale)) == {"sale_p2025_11": "dropped"}
    assert fates(retire(sale)) == {}


def test_where_an_archive_is_declared_a_partition_waits_for_it(sale: AutocommitConnection) -> None:
    assert fates(retire(sale, archived=True)) == {"sale_p2025_11": "waiting", "sale_p2025_12": "dropped"}
    assert one(sale, "select count(*) from sale where at < '2025-12-01'") == 1
    sale.execute("delete from sale where at < '2025-12-01'")
    assert fates(retire(sale, archived=True)) == {"sale_p2025_11": "dropped"}


def test_rows_are_lost_only_where_the_declaration_says_so(sale: AutocommitConnection) -> None:
    assert fates(retire(sale, retain=LOSS)) == {"sale_p2025_11": "dropped", "sale_p2025_12": "dropped"}
    assert one(sale, "select count(*) from sale") == 2


def test_what_was_retired_is_not_made_again_unless_it_is_asked_for(sale: AutocommitConnection) -> None:
    retire(sale, retain=LOSS)
    assert make(sale, start="2025-11-01").created == 0
    report = apply_partitions(sale, [policy(start="2025-11-01")], now=NOW, again=True)
    assert [new.relation.name for new in report.tables[0].created] == ["sale_p2025_11", "sale_p2025_12"]
    assert fates(retire(sale)) == {"sale_p2025_11": "dropped", "sale_p2025_12": "dropped"}


def test_late_rows_of_a_retired_range_get_their_partition_back(sale: AutocommitConnection) -> None:
    retire(sale, retain=LOSS)
    sale.execute("create table late partition of sale default; insert into sale values (9, '2025-12-24')")
    report = make(sale, start="2025-11-01")
    assert [new.relation.name for new in report.tables[0].created] == ["sale_p2025_12"]
    assert fates(retire(sale)) == {"sale_p2025_12": "detached"}


def test_pg_partman_776_a_wide_partition_stays_as_long_as_any_row_of_it_is_kept(
    connection: AutocommitConnection,
) -> None:
    connection.execute(SALE)
    connection.execute("create table sale_legacy partition of sale for values from (minvalue) to ('2026-02-01')")
    connection.execute("insert into sale values (1, '2020-01-01'), (2, '2026-01-31')")
    assert fates(retire(connection, retain=LOSS)) == {}
    assert fates(retire(connection, retain=LOSS, now=NOW + timedelta(days=15))) == {}
    assert one(connection, "select count(*) from sale") == 2
    assert fates(retire(connection, retain=LOSS, now=NOW + timedelta(days=17))) == {"sale_legacy": "dropped"}


def test_a_table_that_only_has_the_name_of_a_partition_is_never_touched(sale: AutocommitConnection) -> None:
    retire(sale)
    sale.execute("create table sale_p2025_12 (precious text)")
    sale.execute("alter table sale_p2025_11 rename to mine; create table sale_p2025_11 (id int)")
    assert fates(retire(sale, retain=LOSS)) == {}
    assert one(sale, "select count(*) from mine") == 1
    assert one(sale, "select to_regclass('sale_p2025_11') is not null") is True


def test_numbers_are_retired_by_their_distance_from_the_greatest(connection: AutocommitConnection) -> None:
    connection.execute("create table sale (at bigint) partition by range (at)")
    make(connection, interval=100, start=-100, retain=None)
    connection.execute("insert into sale values (99)")
    make(connection, interval=100, retain=None)
    report = retire(connection, interval=100, retain={"keep": 50, "then": "drop_without_archive"})
    assert fates(report) == {"sale_pm100": "dropped"}
    assert report.as_json()["tables"][0]["cutoff"] == "49"


def test_a_default_partition_forces_the_plain_form(sale: AutocommitConnection) -> None:
    sale.execute("create table rest partition of sale default")
    assert fates(retire(sale)) == {"sale_p2025_11": "detached", "sale_p2025_12": "dropped"}
    assert "rest" in attached(sale)


def test_rows_that_others_refer_to_are_not_retired_and_the_next_partition_is(sale: AutocommitConnection) -> None:
    sale.execute("create table refund (id int, at timestamptz, foreign key (id, at) references sale)")
    sale.execute("insert into refund values (1, '2025-11-05')")
    report = retire(sale, retain=LOSS)
    assert fates(report) == {"sale_p2025_11": "refused", "sale_p2025_12": "dropped"}
    assert "refund" in report.tables[0].partitions[0].reason
    assert report.refused == 1
    assert one(sale, "select count(*) from sale") == 3


def test_what_was_refused_and_is_then_detached_by_hand_belongs_to_whoever_did(sale: AutocommitConnection) -> None:
    sale.execute("create table refund (id int, at timestamptz, foreign key (id, at) references sale)")
    sale.execute("insert into refund values (1, '2025-11-05')")
    assert fates(retire(sale, retain=LOSS))["sale_p2025_11"] == "refused"
    sale.execute("drop table refund; alter table sale detach partition sale_p2025_11")
    assert fates(retire(sale, retain=LOSS)) == {}
    assert one(sale, "select count(*) from sale_p2025_11") == 1


class Comparing(NoArchives):
    """The answers where an archive holds every row; counts how often rows were compared."""

    compared = 0

    def release(
        self, connection: AutocommitConnection, policy: PartitionPolicy, partition: Relation, bounds: Bounds
    ) -> Kept:
        self.compared += 1
        rows = exact_rows(connection, partition)
        return Kept(rows=rows, kept=rows)


def test_a_busy_table_that_a_partition_refers_to_is_waited_for_and_rows_are_compared_once(
    database: Target, sale: AutocommitConnection
) -> None:
    sale.execute("create table item (id int primary key); insert into item values (1), (2), (3)")
    sale.execute("alter table sale add foreign key (id) references item")
    answers, waited = Comparing(), []
    with psycopg.connect(database.url) as reader:
        reader.execute("select count(*) from item")

        def give_way(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                reader.rollback()

        report = apply_retirement(sale, [policy()], answers, now=NOW, lock_timeout_ms=10, sleep=give_way)
    assert fates(report) == {"sale_p2025_11": "dropped", "sale_p2025_12": "dropped"}
    assert report.tables[0].partitions[0].reason == "its 1 rows are archived"
    assert (len(waited), answers.compared) == (3, 2), "once for each partition"


def test_a_table_that_is_never_free_stops_the_drop_and_the_next_run_goes_on(
    database: Target, sale: AutocommitConnection
) -> None:
    sale.execute("create table item (id int primary key); insert into item values (1), (2), (3)")
    sale.execute("alter table sale add foreign key (id) references item")
    with psycopg.connect(database.url) as reader:
        reader.execute("select count(*) from item")
        with pytest.raises(LockNotAcquired, match="sale_p2025_11 refers to"):
            apply_retirement(sale, [policy()], Comparing(), now=NOW, lock_timeout_ms=10, sleep=lambda _: None)
    assert one(sale, "select count(*) from sale_p2025_11") == 1
    assert fates(apply_retirement(sale, [policy()], Comparing(), now=NOW)) == {
        "sale_p2025_12": "dropped",
        "sale_p2025_11": "dropped",
    }


def test_a_view_on_a_partition_keeps_it_from_being_dropped(sale: AutocommitConnection) -> None:
    sale.execute("create view december as select * from sale_p2025_12")
    report = retire(sale)
    assert fates(report)["sale_p2025_12"] == "refused"
    assert "december" in report.tables[0].partitions[1].reason
    assert fates(retire(sale))["sale_p2025_12"] == "refused"
    sale.execute("drop view december")
    assert fates(retire(sale))["sale_p2025_12"] == "dropped"


def test_rows_that_row_security_hides_are_not_taken_for_none(sale: AutocommitConnection) -> None:
    role = f"owner_{sale.info.dbname}"
    sale.execute(
        f"create role {role}; grant all on schema public to {role};"
        f"grant create on database {sale.info.dbname} to {role}"
    )
    try:
        sale.execute(f"alter table sale owner to {role}")
        for name in attached(sale):
            sale.execute(f"alter table {name} owner to {role}".encode())
        for action in ("enable", "force"):
            sale.execute(f"alter table sale_p2025_11 {action} row level security")
        sale.execute(f"set role {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            retire(sale)
        sale.execute("reset role")
        assert one(sale, "select count(*) from sale") == 3
    finally:
        sale.execute(f"reset role; drop owned by {role} cascade; drop role {role}")


def test_readers_and_writers_of_the_table_go_on_while_a_partition_is_detached(
    database: Target, sale: AutocommitConnection
) -> None:
    with psycopg.connect(database.url) as reader, psycopg.connect(database.url, autocommit=True) as writer:
        reader.execute("select count(*) from sale where at >= '2026-01-01'")
        worker = threading.Thread(target=lambda: retire_beside(database))
        worker.start()
        wait_until(writer, "select exists (select from pg_inherits where inhdetachpending)")
        writer.execute("insert into sale values (7, '2026-03-05')")
        assert one(writer, "select count(*) from sale where at >= '2026-01-01'") == 3
        reader.rollback()
        worker.join()
    assert attached(sale) == ["sale_p2026_01", "sale_p2026_02", "sale_p2026_03", "sale_p2026_04"]


def retire_beside(database: Target) -> None:
    with connect(database, work="test") as mine:
        apply_retirement(mine, [policy()], now=NOW, lock_timeout_ms=30_000)


def test_a_reader_that_never_ends_is_told_and_the_interrupted_detachment_is_finished_later(
    database: Target, sale: AutocommitConnection
) -> None:
    with psycopg.connect(database.url) as reader:
        reader.execute("select count(*) from sale")
        with pytest.raises(LockNotAcquired):
            apply_retirement(sale, [policy()], now=NOW, lock_timeout_ms=10, sleep=lambda _: None)
    assert one(sale, "select count(*) from pg_inherits where inhdetachpending") == 1
    assert fates(retire(sale)) == {"sale_p2025_11": "detached", "sale_p2025_12": "dropped"}


def test_an_interrupted_detachment_of_somebody_else_is_finished_and_its_table_kept(
    database: Target, sale: AutocommitConnection
) -> None:
    with psycopg.connect(database.url) as reader:
        reader.execute("select count(*) from sale")
        sale.execute("set lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            sale.execute("alter table sale detach partition sale_p2026_04 concurrently")
        sale.execute("reset lock_timeout")
    assert fates(retire(sale)) == {"sale_p2025_11": "detached", "sale_p2025_12": "dropped"}
    assert "sale_p2026_04" not in attached(sale)
    assert one(sale, "select count(*) from sale_p2026_04") == 0


CHILD = """
import os, signal, sys
from datetime import datetime
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retire import apply_retirement
from dbplatform.postgres.connection import Target, connect
from dbplatform.progress import listening
policy = PartitionPolicy(table="sale", column="at", interval="1 month", premake=1, retain="2 months")
def heard(progress):
    if progress.task == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
with connect(Target("t", os.environ["TEST_URL"]), work="test") as connection, listening(heard):
    apply_retirement(connection, [policy], now=datetime.fromisoformat(sys.argv[2]))
"""


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize(
    "point",
    cases(
        "public.sale_p2025_11 detach",
        "public.sale_p2025_11 detached",
        "public.sale_p2025_12 detach",
        "public.sale_p2025_12 detached",
        "public.sale_p2025_12 drop",
        "public.sale_p2025_12 dropped",
        sample=["public.sale_p2025_12 detached"],
    ),
)
def test_killed_at_any_point_and_run_again_it_ends_the_same(
    database: Target, sale: AutocommitConnection, point: str, default: bool
) -> None:
    if default:
        sale.execute("create table rest partition of sale default")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, f"retire {point}", NOW.isoformat()],
        env={**os.environ, "TEST_URL": database.url},
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    retire(sale)
    kept = ["rest"] if default else []
    assert attached(sale) == [*kept, "sale_p2026_01", "sale_p2026_02", "sale_p2026_03", "sale_p2026_04"]
    assert one(sale, "select count(*) from sale_p2025_11") == 1
    assert one(sale, "select to_regclass('sale_p2025_12')") is None
    assert fates(retire(sale)) == {"sale_p2025_11": "detached"}
    assert make(sale, start="2025-11-01").created == 0


def test_killed_in_the_middle_of_a_detachment_it_is_finished_by_the_next(
    database: Target, sale: AutocommitConnection
) -> None:
    with psycopg.connect(database.url) as reader:
        reader.execute("select count(*) from sale")
        worker = subprocess.Popen(
            [sys.executable, "-c", CHILD, "never", NOW.isoformat()], env={**os.environ, "TEST_URL": database.url}
        )
        wait_until(sale, "select exists (select from pg_inherits where inhdetachpending)")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert fates(retire(sale)) == {"sale_p2025_11": "detached", "sale_p2025_12": "dropped"}
    assert one(sale, "select count(*) from sale_p2025_11") == 1


def wait_until(session: AutocommitConnection | psycopg.Connection[Any], question: str) -> None:
    """Ask until the answer is yes, 30 seconds at most."""
    gave_up = threading.Event()
    timer = threading.Timer(30, gave_up.set)
    timer.start()
    try:
        while one(session, question) is not True:
            assert not gave_up.is_set(), question
    finally:
        timer.cancel()
