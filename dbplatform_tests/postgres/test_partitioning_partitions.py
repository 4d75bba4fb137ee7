"""Partitions on a real server: what is planned, what is made, and what stays untouched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from dbplatform.errors import LockNotAcquired, UsageError
from dbplatform.partitioning.apply import PartitionReport, apply_partitions
from dbplatform.partitioning.errors import (
    NameTaken,
    NotPartitioned,
    OutOfCalendar,
    TooManyPartitions,
    WrongKind,
    WrongPartitionKey,
)
from dbplatform.partitioning.plan import PartitionPlan, plan_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.patience import TRIES
from dbplatform.progress import Progress, listening

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
FLIGHTS = "create table flights (id int, time_hour timestamptz not null) partition by range (time_hour)"


def policy(**changes: Any) -> PartitionPolicy:
    return PartitionPolicy.model_validate(
        {"table": "flights", "column": "time_hour", "interval": "1 month", "premake": 2, **changes}
    )


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


def plan(connection: AutocommitConnection, *, now: datetime = NOW, **changes: Any) -> PartitionPlan:
    return plan_partitions(connection, [policy(**changes)], now=now)


def apply(connection: AutocommitConnection, *, now: datetime = NOW, **changes: Any) -> PartitionReport:
    return apply_partitions(connection, [policy(**changes)], now=now)


def bounds(connection: AutocommitConnection, table: str = "flights") -> dict[str, str]:
    """Every partition with its range, by the catalog's own words."""
    return dict(
        connection.execute(
            "select c.relname, pg_get_expr(c.relpartbound, c.oid) from pg_inherits i "
            "join pg_class c on c.oid = i.inhrelid where i.inhparent = to_regclass(%s) order by c.relname",
            (table,),
        ).fetchall()
    )


def span(lower: str, upper: str) -> str:
    return f"FOR VALUES FROM ('{lower}') TO ('{upper}')"


def month(lower: str, upper: str) -> str:
    return span(f"{lower}-01 00:00:00+00", f"{upper}-01 00:00:00+00")


def test_apply_makes_the_current_partition_and_premake_more(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    report = apply(connection)
    assert bounds(connection) == {
        "flights_p2026_03": month("2026-03", "2026-04"),
        "flights_p2026_04": month("2026-04", "2026-05"),
        "flights_p2026_05": month("2026-05", "2026-06"),
    }
    table = report.as_json()["tables"][0]
    assert table["table"] == "public.flights"
    assert table["create"][0] == {
        "name": "flights_p2026_03",
        "lower": "2026-03-01T00:00:00+00:00",
        "upper": "2026-04-01T00:00:00+00:00",
        "rows": 0,
    }
    assert table["existing"] == 3
    assert [{**one, "rows": 0} for one in table["partitions"]] == table["create"]
    assert table["horizon_days"] == 77.5
    assert (table["retire"], table["default_rows"]) == ([], 0)


def test_plan_only_reads(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    before = plan(connection)
    assert len(before.tables[0].create) == 3
    assert before.tables[0].horizon_days == 0
    assert bounds(connection) == {}
    assert connection.execute("select to_regnamespace('dbplatform')").fetchone() == (None,)


def test_a_second_apply_makes_nothing(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    apply(connection)
    there = bounds(connection)
    assert apply(connection).created == 0
    assert plan(connection).is_empty
    assert bounds(connection) == there


def test_start_builds_history(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    apply(connection, start="13 months", premake=1)
    names = list(bounds(connection))
    assert names[0] == "flights_p2025_02"
    assert names[-1] == "flights_p2026_04"
    assert len(names) == 15


def test_start_may_be_a_date(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    apply(connection, start="2026-01-20", premake=1)
    assert list(bounds(connection)) == [f"flights_p2026_0{n}" for n in (1, 2, 3, 4)]


def test_a_start_beyond_reason_is_refused(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    with pytest.raises(TooManyPartitions, match="10000"):
        plan(connection, start="0100-01-01", interval="1 day")


def test_partitions_of_other_widths_and_names_are_understood_and_gaps_filled(
    connection: AutocommitConnection,
) -> None:
    connection.execute(FLIGHTS)
    connection.execute(
        "create table oldest partition of flights for values from (minvalue) to ('2025-12-10');"
        "create table x1 partition of flights for values from ('2026-01-05') to ('2026-01-20');"
        "create table x2 partition of flights for values from ('2026-02-01') to ('2026-04-01')"
    )
    apply(connection)
    made = bounds(connection)
    assert {name: made[name] for name in made if name.startswith("flights")} == {
        "flights_p2025_12_10": span("2025-12-10 00:00:00+00", "2026-01-01 00:00:00+00"),
        "flights_p2026_01": span("2026-01-01 00:00:00+00", "2026-01-05 00:00:00+00"),
        "flights_p2026_01_20": span("2026-01-20 00:00:00+00", "2026-02-01 00:00:00+00"),
        "flights_p2026_04": month("2026-04", "2026-05"),
        "flights_p2026_05": month("2026-05", "2026-06"),
    }


def test_a_partition_without_end_needs_nothing_more(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    connection.execute("create table rest partition of flights for values from ('2026-01-01') to (maxvalue)")
    table = plan(connection).tables[0]
    assert table.create == ()
    assert table.horizon_days is not None
    assert table.horizon_days > 1_000_000
    assert table.as_json()["partitions"][0]["upper"] is None


def test_bounds_before_christ_beyond_9999_and_infinite_are_read(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    connection.execute(
        "create table a partition of flights for values from ('-infinity') to ('0044-03-15 BC');"
        "create table b partition of flights for values from ('0044-03-15 BC') to ('2026-03-01');"
        "create table c partition of flights for values from ('2026-04-01') to ('12026-01-01');"
        "create table d partition of flights for values from ('12026-01-01') to ('infinity')"
    )
    assert [new.relation.name for new in plan(connection, start="2026-01-01").tables[0].create] == ["flights_p2026_03"]


def test_partitions_made_in_local_time_through_summer_time_are_not_overlapped(
    connection: AutocommitConnection,
) -> None:
    connection.execute(FLIGHTS)
    connection.execute("set timezone = 'Europe/Berlin'")
    connection.execute(
        "create table x1 partition of flights for values from ('2026-03-01') to ('2026-04-01');"
        "create table x2 partition of flights for values from ('2026-05-01') to ('2026-06-01')"
    )
    connection.execute("set timezone = 'UTC'")
    apply(connection)
    made = bounds(connection)
    assert made["flights_p2026_03_31_2200"] == span("2026-03-31 22:00:00+00", "2026-04-01 00:00:00+00")
    assert made["flights_p2026_04"] == span("2026-04-01 00:00:00+00", "2026-04-30 22:00:00+00")
    assert plan(connection).is_empty
    connection.execute(
        "insert into flights select 1, t from generate_series(timestamptz '2026-03-05', '2026-05-31', '1 hour') t"
    )


def test_days_over_the_change_to_summer_time_stay_24_hours_of_utc(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    apply(connection, interval="1 day", premake=2, now=datetime(2026, 3, 28, 23, 30, tzinfo=UTC))
    assert list(bounds(connection).values()) == [
        span("2026-03-28 00:00:00+00", "2026-03-29 00:00:00+00"),
        span("2026-03-29 00:00:00+00", "2026-03-30 00:00:00+00"),
        span("2026-03-30 00:00:00+00", "2026-03-31 00:00:00+00"),
    ]


@pytest.mark.parametrize(
    ("type_", "lower", "upper"),
    [("date", "2026-01-01", "2026-02-01"), ("timestamp", "2026-01-01 00:00:00", "2026-02-01 00:00:00")],
)
def test_dates_and_timestamps_without_zone_work_too(
    connection: AutocommitConnection, type_: str, lower: str, upper: str
) -> None:
    connection.execute(f"create table flights (time_hour {type_}) partition by range (time_hour)")
    now = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
    apply(connection, now=now)
    made = bounds(connection)
    assert list(made) == ["flights_p2026_01", "flights_p2026_02", "flights_p2026_03"]
    assert made["flights_p2026_01"] == span(lower, upper)
    assert apply(connection, now=now).created == 0


def test_auto_starts_at_the_oldest_existing_partition(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    connection.execute("create table x partition of flights for values from ('2025-12-01') to ('2026-01-01')")
    apply(connection, premake=1)
    assert list(bounds(connection)) == [f"flights_p2026_0{n}" for n in (1, 2, 3, 4)] + ["x"]


def test_rows_in_the_default_partition_elsewhere_are_counted_and_stay(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    connection.execute("create table flights_rest partition of flights default")
    connection.execute("insert into flights values (1, '2025-12-31'), (2, 'infinity'), (3, '-infinity')")
    report = apply(connection, start="2026-03-01")
    assert report.created == 3
    assert report.as_json()["tables"][0]["default_rows"] == 3


def test_a_plain_table_is_refused(connection: AutocommitConnection) -> None:
    connection.execute("create table flights (time_hour timestamptz)")
    with pytest.raises(NotPartitioned) as caught:
        plan(connection)
    assert "partition convert" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("ddl", "error"),
    [
        ("create table flights (a int, time_hour timestamptz) partition by list (a)", WrongPartitionKey),
        ("create table flights (a int, time_hour timestamptz) partition by range (time_hour, a)", WrongPartitionKey),
        (
            "create table flights (time_hour timestamptz) partition by range (date_trunc('day', time_hour, 'x'))",
            WrongPartitionKey,
        ),
        ("create table flights (a timestamptz, time_hour timestamptz) partition by range (a)", WrongPartitionKey),
        ("create table flights (time_hour text) partition by range (time_hour)", UsageError),
        ("create table flights (time_hour bigint) partition by range (time_hour)", WrongKind),
        ("create table elsewhere (time_hour timestamptz)", TableMissing),
    ],
)
def test_what_is_no_time_partitioned_table_is_refused(
    connection: AutocommitConnection, ddl: str, error: type[UsageError]
) -> None:
    connection.execute(ddl)
    with pytest.raises(error):
        plan(connection)


def test_hours_cannot_divide_a_date(connection: AutocommitConnection) -> None:
    connection.execute("create table flights (time_hour date) partition by range (time_hour)")
    with pytest.raises(UsageError, match="is a date"):
        plan(connection, interval="6 hours")


def test_a_name_that_something_else_has_is_refused(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    connection.execute("create view flights_p2026_04 as select 1")
    with pytest.raises(NameTaken, match=r"public\.flights_p2026_04"):
        apply(connection)
    assert bounds(connection) == {}


def test_row_security_holds_through_the_table_and_nobody_gets_around_it_by_a_partition(
    connection: AutocommitConnection,
) -> None:
    role = f"tenant_{connection.info.dbname}"
    connection.execute(
        f"create role {role}; {FLIGHTS}; alter table flights enable row level security;"
        f"create policy own on flights using (id = 1); grant select, insert on flights to {role}"
    )
    try:
        apply(connection, premake=1)
        connection.execute("insert into flights values (1, '2026-03-03'), (2, '2026-03-04')")
        connection.execute(f"set role {role}")
        assert connection.execute("select id from flights").fetchall() == [(1,)]
        assert connection.execute("select id from flights_p2026_03").fetchall() == []
        for statement in (
            "insert into flights values (3, '2026-03-03')",
            "insert into flights_p2026_03 values (1, '2026-03-03')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                connection.execute(statement)
        # Another policy on the table holds for every partition at once.
        connection.execute("reset role; drop policy own on flights; create policy own on flights using (id = 2)")
        connection.execute(f"set role {role}")
        assert connection.execute("select id from flights").fetchall() == [(2,)]
        assert connection.execute("select id from flights_p2026_03").fetchall() == []
    finally:
        connection.execute(f"reset role; drop owned by {role}; drop role {role}")


def test_indexes_constraints_grants_owner_and_row_security_follow_the_parent(
    connection: AutocommitConnection,
) -> None:
    role = f"reader_{connection.info.dbname}"
    connection.execute(f"create role {role}")
    try:
        connection.execute(
            "create schema air; create table air.planes (tailnum text primary key);"
            "create table air.flights (id bigint generated always as identity, tailnum text references air.planes,"
            " distance int default 7 check (distance > 0), km int generated always as (distance * 2) stored,"
            " time_hour timestamptz, primary key (id, time_hour)) partition by range (time_hour);"
            "create index on air.flights (tailnum); create index on air.flights (lower(tailnum)) where distance > 5;"
            "comment on column air.flights.distance is 'miles';"
            "create function air.f() returns trigger language plpgsql as 'begin return new; end';"
            "create trigger t before insert on air.flights for each row execute function air.f();"
            "alter table air.flights enable row level security; alter table air.flights force row level security"
        )
        connection.execute(
            f"alter default privileges in schema air grant delete on tables to public;"
            f"grant select on air.flights to {role}; grant insert on air.flights to {role} with grant option;"
            f"grant update (distance) on air.flights to {role}; grant usage, create on schema air to {role};"
            f"alter table air.flights owner to {role}; grant select on air.flights to public"
        )
        apply(connection, table="air.flights", premake=1)
        child = "'air.flights_p2026_03'::regclass"
        parent = "'air.flights'::regclass"

        def of(question: str, relation: str) -> list[Any]:
            return connection.execute(question.replace("$", relation)).fetchall()  # type: ignore[arg-type]

        for question in (
            "select count(*), count(*) filter (where indisprimary) from pg_index where indrelid = $",
            "select contype, pg_get_constraintdef(oid) from pg_constraint where conrelid = $ order by 1, 2",
            "select tgname from pg_trigger where tgrelid = $ and not tgisinternal",
            "select relowner, relrowsecurity, relforcerowsecurity from pg_class where oid = $",
            "select g.grantee, g.privilege_type, g.is_grantable from pg_class, aclexplode(relacl) g where oid = $"
            " and g.grantee <> relowner order by 1, 2",
            "select attname, g.grantee, g.privilege_type from pg_attribute, aclexplode(attacl) g"
            " where attrelid = $ and g.grantee <> (select relowner from pg_class where oid = $) order by 1, 2",
            "select attname, attnotnull, attgenerated from pg_attribute where attrelid = $ and attnum > 0 order by 1",
            "select col_description($, 3)",
        ):
            assert of(question, child) == of(question, parent), question
        assert of("select count(*) from pg_inherits i join pg_index x on x.indexrelid = i.inhrelid"
                  " where x.indrelid = $", child) == [(3,)]  # fmt: skip
        connection.execute("insert into air.planes values ('N1')")
        connection.execute("insert into air.flights (tailnum, time_hour) values ('N1', '2026-03-03')")
        assert connection.execute("select id, km from air.flights").fetchall() == [(1, 14)]
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("insert into air.flights (tailnum, time_hour) values ('N2', '2026-03-03')")
    finally:
        connection.execute(f"drop owned by {role} cascade; drop role {role}")


def test_grants_to_other_roles_follow_and_default_privileges_add_none(connection: AutocommitConnection) -> None:
    role = f"reader_{connection.info.dbname}"
    connection.execute(f"create role {role}")
    try:
        connection.execute(FLIGHTS)
        connection.execute(
            f"grant select on flights to {role}; grant insert on flights to {role} with grant option;"
            f"grant update (id) on flights to {role}; grant select on flights to public;"
            "alter default privileges in schema public grant delete on tables to public"
        )
        apply(connection, premake=1)

        def may(privilege: str) -> bool:
            question = "select has_table_privilege(%s, 'flights_p2026_03', %s)"
            row = connection.execute(question, (role, privilege)).fetchone()
            assert row is not None
            return bool(row[0])

        assert may("select")
        assert may("insert with grant option")
        assert not may("delete")
        assert not may("update")
        assert connection.execute(
            "select has_column_privilege(%s, 'flights_p2026_03', 'id', 'update')", (role,)
        ).fetchone() == (True,)
    finally:
        connection.execute(f"drop owned by {role}; drop role {role}")


def test_statistics_targets_and_storage_options_follow(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    connection.execute(
        "alter table flights alter column id set statistics 500; alter table flights alter id set (n_distinct = -0.5);"
        "create table x partition of flights for values from ('2026-02-01') to ('2026-03-01')"
        " with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_enabled = false)"
    )
    apply(connection, premake=1)
    options = "select reloptions from pg_class where relname = 'flights_p2026_03'"
    assert connection.execute(options).fetchone() == (["fillfactor=70", "autovacuum_vacuum_scale_factor=0.01"],)
    column = "select attstattarget, attoptions from pg_attribute where attrelid = 'flights_p2026_03'::regclass"
    assert connection.execute(column + " and attname = 'id'").fetchone() == (500, ["n_distinct=-0.5"])


def test_months_may_begin_at_midnight_elsewhere(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    apply(connection, time_zone="Europe/Berlin", premake=1)
    assert bounds(connection) == {
        "flights_p2026_03": span("2026-02-28 23:00:00+00", "2026-03-31 22:00:00+00"),
        "flights_p2026_04": span("2026-03-31 22:00:00+00", "2026-04-30 22:00:00+00"),
    }
    assert apply(connection, time_zone="Europe/Berlin", premake=1).created == 0


def test_a_changed_time_zone_leaves_no_gap(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    apply(connection, premake=1)
    apply(connection, time_zone="Europe/Berlin", premake=2)
    assert list(bounds(connection).values())[-1] == span("2026-05-01 00:00:00+00", "2026-05-31 22:00:00+00")


def test_whole_numbers_are_partitioned_by_their_greatest(connection: AutocommitConnection) -> None:
    connection.execute("create table flights (time_hour bigint) partition by range (time_hour)")
    assert apply(connection, interval=1000, start=-1500).created == 3
    assert bounds(connection)["flights_pm2000"] == span("-2000", "-1000")
    connection.execute("insert into flights values (999), (-1)")
    report = apply(connection, interval=1000).as_json()["tables"][0]
    assert [(new["name"], new["lower"], new["upper"]) for new in report["create"]] == [
        ("flights_p1000", 1000, 2000),
        ("flights_p2000", 2000, 3000),
    ]
    assert report["horizon_numbers"] == 2001
    connection.execute("create table last partition of flights for values from (9000) to (maxvalue)")
    connection.execute("insert into flights values (9223372036854775807)")
    assert [one.relation.name for one in plan(connection, interval=1000).tables[0].create] == [
        f"flights_p{n}000" for n in range(3, 9)
    ]


@pytest.mark.parametrize(("type_", "greatest"), [("smallint", 32767), ("integer", 2147483647)])
def test_a_partition_beyond_the_numbers_of_its_type_is_refused(
    connection: AutocommitConnection, type_: str, greatest: int
) -> None:
    connection.execute(f"create table flights (time_hour {type_}) partition by range (time_hour)")
    with pytest.raises(OutOfCalendar, match="the numbers of its type"):
        plan(connection, interval=10_000, start=greatest - 1)


def test_numbers_cannot_be_divided_by_months(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    with pytest.raises(WrongKind, match="Write a length of time"):
        plan(connection, interval=1000)


def test_readers_and_writers_of_the_table_do_not_stop_apply(database: Target, connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    connection.execute("create table x partition of flights for values from ('2026-02-01') to ('2026-03-01')")
    with psycopg.connect(database.url) as user:
        user.execute("insert into flights values (1, '2026-02-03')")
        assert user.execute("select count(*) from flights").fetchone() == (1,)
        report = apply_partitions(connection, [policy()], now=NOW, lock_timeout_ms=50, sleep=no_pause)
        assert report.created == 3
        user.execute("insert into flights values (2, '2026-03-03')")
        assert user.execute("select count(*) from flights").fetchone() == (2,)


def no_pause(_: float) -> None:
    raise AssertionError("apply had to wait")


def test_a_lock_that_is_released_in_time_is_waited_for(database: Target, connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    pauses: list[float] = []
    with psycopg.connect(database.url) as other:
        other.execute("lock table flights in access exclusive mode")

        def release(seconds: float) -> None:
            pauses.append(seconds)
            other.rollback()

        report = apply_partitions(connection, [policy()], now=NOW, lock_timeout_ms=20, sleep=release)
    assert report.created == 3
    assert len(pauses) == 1


def test_a_lock_that_is_never_released_ends_in_an_error_with_the_next_step(
    database: Target, connection: AutocommitConnection
) -> None:
    connection.execute(FLIGHTS)
    pauses: list[float] = []
    with psycopg.connect(database.url) as other:
        other.execute("lock table flights in share mode")
        with pytest.raises(LockNotAcquired) as caught:
            apply_partitions(connection, [policy()], now=NOW, lock_timeout_ms=10, sleep=pauses.append)
    assert caught.value.hint
    assert len(pauses) == TRIES - 1
    assert bounds(connection) == {}


def test_progress_is_told(connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    heard: list[Progress] = []
    with listening(heard.append):
        apply(connection)
    assert [(one.task, one.done, one.total) for one in heard] == [("partition flights", n, 3) for n in range(4)]


def test_two_at_once_make_each_partition_once(database: Target, connection: AutocommitConnection) -> None:
    connection.execute(FLIGHTS)
    created: list[int] = []

    def one() -> None:
        with connect(database, work="test") as mine:
            created.append(apply_partitions(mine, [policy(start="20 months")], now=NOW).created)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [0, 23]
    assert len(bounds(connection)) == 23


CHILD = """
import os, sys
from datetime import datetime
from dbplatform.partitioning.apply import apply_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import Target, connect
from dbplatform.progress import listening
policy = PartitionPolicy(table="flights", column="time_hour", interval="1 month", premake=2)
def heard(progress):
    print(progress.done, flush=True)
    if progress.done == int(sys.argv[1]):
        sys.stdin.read()
with connect(Target("t", os.environ["TEST_URL"]), work="test") as connection, listening(heard):
    apply_partitions(connection, [policy], now=datetime.fromisoformat(sys.argv[2]), lock_timeout_ms=600000)
"""


def start_child(database: Target, pause_at: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(pause_at), NOW.isoformat()],
        env={**os.environ, "TEST_URL": database.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_apply_killed_between_two_partitions_is_completed_by_the_next(
    database: Target, connection: AutocommitConnection
) -> None:
    connection.execute(FLIGHTS)
    with start_child(database, pause_at=2) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != "2":
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert len(bounds(connection)) == 2
    assert apply(connection).created == 1
    assert len(bounds(connection)) == 3


def test_apply_killed_while_it_waits_for_a_lock_leaves_no_half_partition(
    database: Target, connection: AutocommitConnection
) -> None:
    connection.execute(FLIGHTS)
    with psycopg.connect(database.url) as holder:
        holder.execute("lock table flights in share mode")
        with start_child(database, pause_at=99) as child:
            wait_until(connection, "select exists (select from pg_locks where not granted and relation is not null)")
            child.send_signal(signal.SIGKILL)
    assert apply(connection).created in (2, 3)
    assert len(bounds(connection)) == 3
    assert connection.execute("select count(*) from pg_class where relname like 'flights_p%'").fetchone() == (3,)


def wait_until(connection: AutocommitConnection, question: str) -> None:
    """Ask until the answer is yes, 30 seconds at most."""
    gave_up = threading.Event()
    timer = threading.Timer(30, gave_up.set)
    timer.start()
    try:
        while connection.execute(question.encode()).fetchone() != (True,):
            assert not gave_up.is_set(), question
    finally:
        timer.cancel()
