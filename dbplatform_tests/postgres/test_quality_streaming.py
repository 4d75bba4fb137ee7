"""A stream of a table's columns answers exactly what one SQL query per check answers, on any data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, Target, connect, snapshot
from dbplatform.quality.checks import Check
from dbplatform.quality.engine import run_table
from dbplatform.quality.examination import examined, explained
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.streaming import reading, sessions
from dbplatform.quality.streaming.cost import table_of
from dbplatform.quality.streaming.patterns import as_re2
from dbplatform.quality.streaming.plan import Streaming, planned
from dbplatform.quality.streaming.sessions import StreamRefused
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        yield session


def plan_of(connection: SnapshotConnection, policy: TablePolicy) -> Streaming:
    checks: list[Check] = list(policy.checks)
    table = table_of(connection, policy.table)
    return planned(connection, table, checks, {c.name: c.parts for c in checks}, {}, always=True)


def outcome(check: Any) -> tuple[Any, ...]:
    """All that a check found, but an age, which grows; what is not a number is equal to itself."""
    found = (check.name, check.status, check.failed_rows, check.considered_rows)
    if check.type == "freshness":
        return found
    return (*found, "nan" if check.value is not None and check.value != check.value else check.value, check.message)


def assert_equal_to_naive(
    connection: AutocommitConnection, policy: TablePolicy, *, streamed: int | None = None
) -> None:
    """The streamed answers are those of one query per check."""
    with snapshot(connection) as moment:
        plan = plan_of(moment, policy)
    assert plan.refused is None or streamed == 0
    if streamed is not None:
        assert len(plan.checks) == streamed, plan.left_out
    naive = [
        run_table(connection, TablePolicy(table=str(policy.table), checks=[check]), stream=False).checks[0]
        for check in policy.checks
    ]
    found = run_table(connection, policy, stream=True)
    assert [outcome(check) for check in found.checks] == [outcome(check) for check in naive]


DEFECTS = """
    create table parent (id bigint primary key, code text unique);
    insert into parent select i, 'P' || i from generate_series(1, 200) i;
    create table t (
        id bigint, small int2, n int, big int8, price numeric(12,2), wide numeric, ratio float8, single real,
        code text, state varchar(12), fixed char(4), mail text, day date, at timestamptz, local timestamp,
        ref int, link text, ok boolean, doc jsonb, uid uuid, odd text collate "C"
    );
    insert into t
    select i, i % 7, i % 100, i * 1000000000000, i * 0.37, i * 0.123456789, sqrt(i), i / 3.0,
           'P' || i, (array['new', 'paid', 'shipped'])[1 + i % 3], 'ab', 'user' || i || '@example.com',
           date '2024-01-01' + i % 400, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour',
           timestamp '2024-01-01' + i * interval '1 minute', 1 + i % 200, 'P' || 1 + i % 200,
           true, '{}', gen_random_uuid(), 'x' || i
    from generate_series(1, 3000) i;
    update t set id = id - 1 where id % 1000 = 0;
    update t set code = 'P1' where id in (17, 18, 19);
    update t set n = null, price = 'NaN', ratio = 'NaN', single = 'Infinity', state = '' where id % 97 = 0;
    update t set price = -3.01, ratio = '-Infinity', state = 'lost', day = 'infinity', at = '-infinity', ref = 4711
    where id % 101 = 0;
    update t set mail = 'User@' || chr(228), link = 'P' || chr(8364), local = 'infinity' where id % 103 = 0;
    update t set mail = null, day = null, at = null, ref = null, link = null, code = null, doc = null where id % 89 = 0;
    update t set big = 9223372036854775807 where id % 107 = 0;
    update t set big = -9223372036854775808 where id % 109 = 0;
    update t set mail = E'line\\nbreak@x.com', odd = E'\\t%s {} "' where id % 113 = 0;
"""
CHECKS: list[Any] = [
    *({"not_null": column} for column in ("id", "n", "price", "mail", "day", "at", "doc", "ok")),
    *(
        {"unique": column}
        for column in ("id", "code", "n", "at", "day", "link", "wide", "uid", "price", "odd", "fixed")
    ),
    {"unique": ["n", "small"]},
    {"unique": ["n", "day"]},
    {"unique": ["code", "at"], "where": "small > 2"},
    {"unique": ["big", "id"]},
    {"unique": ["state", "n"], "name": "unique_state_paid", "where": "state = 'paid'"},
    {"accepted_values": {"column": "state", "values": ["new", "paid", "shipped"]}},
    {"accepted_values": {"column": "mail", "values": ["user1@example.com"]}},
    {"accepted_values": {"column": "n", "values": [*range(90)]}},
    {"accepted_values": {"column": "fixed", "values": ["ab"]}},
    {"accepted_values": {"column": "price", "values": [0.37, -3.01]}},
    {"accepted_values": {"column": "ok", "values": [True]}},
    {"range": {"column": "n", "min": 3, "max": 95.5}},
    {"range": {"column": "small", "max": 5}},
    {"range": {"column": "big", "min": -9223372036854775807, "max": 9223372036854775806}},
    {"range": {"column": "price", "min": 0.38, "max": 1000.001}},
    {"range": {"column": "price", "min": 0.38}, "name": "price_low"},
    {"range": {"column": "price", "max": 1000}, "name": "price_high"},
    {"range": {"column": "wide", "min": 1, "max": 300}},
    {"range": {"column": "ratio", "min": 2, "max": 50.5}},
    {"range": {"column": "single", "min": 0.3333333, "max": 900}},
    {"range": {"column": "day", "min": "2024-02-01", "max": "2024-12-24"}},
    {"range": {"column": "at", "min": "2024-01-02 03:04", "max": "now"}},
    {"range": {"column": "local", "max": "2024-01-02 03:04:05.678901"}},
    {"range": {"column": "local", "max": "now"}, "name": "local_now"},
    {"range": {"column": "code", "min": "P2", "max": "P9"}},
    {"matches": {"column": "mail", "regex": r"^[a-z0-9]+@[a-z]+\.com$"}},
    {"matches": {"column": "mail", "regex": "^user"}, "name": "mail_user"},
    {"matches": {"column": "mail", "regex": "^.*$"}, "name": "mail_any"},
    {"matches": {"column": "mail", "regex": r"\d+@"}, "name": "mail_digit"},
    {"matches": {"column": "state", "regex": "^(new|paid)$"}},
    {"matches": {"column": "fixed", "regex": "b $"}},
    {"matches": {"column": "link", "regex": "^P[0-9]{1,3}$"}, "where": "state = 'new'"},
    {"length": {"column": "mail", "min": 8, "max": 20}},
    {"length": {"column": "link", "max": 4}},
    {"length": {"column": "state", "min": 1}},
    {"length": {"column": "fixed", "min": 3}},
    {"null_ratio": {"column": "n", "max": 0.001}},
    {"null_ratio": {"column": "doc", "max": 0.5}},
    *({"mean": {"column": column, "min": 0}} for column in ("small", "n", "big", "price", "wide")),
    *({"sum": {"column": column, "min": 0}} for column in ("small", "n", "big", "price", "wide")),
    {"mean": {"column": "price", "min": 0}, "name": "mean_known", "where": "price <> 'NaN'"},
    {"sum": {"column": "n", "min": 0}, "name": "sum_none", "where": "n = 4711"},
    {"relationship": {"column": "ref", "to": "parent.id"}},
    {"relationship": {"column": "link", "to": "parent.code"}},
    {"relationship": {"column": "big", "to": "parent.id"}},
    {
        "relationship": {"column": "ref", "to": "parent.id"},
        "name": "ref_paid",
        "where": "state = 'paid'",
        "tolerance": "2%",
    },
    {"row_count": {"min": 1, "max": 5000}},
    {"row_count": {"min": 1}, "name": "count_some", "where": "small in (1, 2) and ok"},
    {"freshness": {"column": "day", "max_age": "20 years"}},
    {"not_null": "mail", "name": "null_where_unknown", "where": "n > 50"},
    {"sql": {"name": "query", "rows": "select * from t where n is null"}},
    {"schema": {"columns": {"id": "bigint"}}},
]


def with_defects(connection: AutocommitConnection, ddl: str = DEFECTS) -> TablePolicy:
    connection.execute(ddl.encode())
    return TablePolicy(table="t", checks=CHECKS)


def test_planted_defects_of_every_type_are_counted_as_one_query_per_check_counts_them(
    connection: AutocommitConnection,
) -> None:
    policy = with_defects(connection)
    assert_equal_to_naive(connection, policy)
    failed = run_table(connection, policy, stream=True)
    assert sum(check.status == "failed" for check in failed.checks) > 35
    assert not [check for check in failed.checks if check.status == "errored" and "no sum" not in check.message]


def test_only_what_the_client_cannot_know_is_left_out_of_the_stream(connection: AutocommitConnection) -> None:
    policy = with_defects(connection)
    with snapshot(connection) as moment:
        plan = plan_of(moment, policy)
    assert set(plan.left_out) == {"mean_wide", "sum_wide", "local_now"}
    assert len(plan.targets) == 4
    assert {"unique_wide", "unique_uid", "unique_price", "unique_fixed"}.isdisjoint(plan.keys)
    assert plan.place is not None
    assert plan.place.ranges > 1


def test_a_partitioned_table_is_streamed_as_one(connection: AutocommitConnection) -> None:
    connection.execute(DEFECTS.encode())
    connection.execute(
        """
        alter table t rename to old;
        create table t (like old) partition by range (n);
        create table t_1 partition of t for values from (0) to (30);
        create table t_2 partition of t for values from (30) to (60) partition by list (small);
        create table t_2_1 partition of t_2 for values in (1, 2, 3);
        create table t_2_2 partition of t_2 default;
        create table t_3 partition of t default;
        insert into t select * from old;
        """
    )
    assert_equal_to_naive(connection, TablePolicy(table="t", checks=[c for c in CHECKS if "sql" not in c]))


def test_children_of_a_table_are_streamed_with_it(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int); create table child (b text) inherits (t)")
    connection.execute("insert into t select generate_series(1, 5000); insert into child values (1, 'x'), (null, 'y')")
    policy = TablePolicy(table="t", checks=[{"unique": "a"}, {"not_null": "a"}, {"sum": {"column": "a", "min": 0}}])
    assert_equal_to_naive(connection, policy, streamed=3)
    assert run_table(connection, policy, stream=True).row_count == 5002


def test_row_level_security_hides_rows_from_a_stream_too(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int); insert into t select generate_series(1, 5000)")
    connection.execute("alter table t enable row level security; create policy few on t using (a <= 40)")
    role = f"reader_{connection.info.dbname}"
    connection.execute(
        f"create role {role}; grant usage on schema public to {role}; grant select on t to {role}".encode()
    )
    try:
        connection.execute(f"set role {role}".encode())
        policy = TablePolicy(table="t", checks=[{"range": {"column": "a", "max": 30}}])
        found = run_table(connection, policy, stream=True)
        assert (found.row_count, found.checks[0].failed_rows) == (40, 10)
    finally:
        connection.execute(f"reset role; drop owned by {role}; drop role {role}".encode())


def test_a_stream_sees_the_moment_of_the_snapshot(connection: AutocommitConnection, emptied: Target) -> None:
    connection.execute("create table t (a int); insert into t select generate_series(1, 1000)")
    policy = TablePolicy(table="t", checks=[{"range": {"column": "a", "max": 1000}}])
    with snapshot(connection) as moment:
        moment.execute("select 1")
        with psycopg.connect(emptied.url) as writer:
            writer.execute("insert into t values (2000)")
        found = reading.streamed(moment, plan_of(moment, policy), tell=lambda: None)
    assert found.rows == 1000


def test_an_error_in_the_data_spoils_the_stream_and_then_one_check_alone(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int); insert into t select generate_series(0, 1000)")
    policy = TablePolicy(table="t", checks=[{"not_null": "a", "where": "1 / a >= 0"}, {"unique": "a"}])
    found = run_table(connection, policy, stream=True)
    assert [check.status for check in found.checks] == ["errored", "passed"]
    assert found.checks[0].message == "division by zero."


def test_a_moment_beyond_the_clients_calendar_is_asked_of_the_server(connection: AutocommitConnection) -> None:
    connection.execute("create table t (day date); insert into t values ('2024-01-01'), ('12000-01-01')")
    policy = TablePolicy(table="t", checks=[{"freshness": {"column": "day", "max_age": "1 day"}}, {"not_null": "day"}])
    found = run_table(connection, policy, stream=True)
    assert [check.status for check in found.checks] == ["passed", "passed"]
    assert "12000-01-01" in found.checks[0].message


def test_a_server_without_room_for_another_session_is_asked_by_sql(
    connection: AutocommitConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("create table t (a int); insert into t values (1), (1), (null)")
    monkeypatch.setattr(sessions, "make_conninfo", lambda *_, **__: "host=127.0.0.1 port=1 connect_timeout=1")
    policy = TablePolicy(table="t", checks=[{"not_null": "a"}, {"unique": "a"}])
    assert [check.failed_rows for check in run_table(connection, policy, stream=True).checks] == [1, 2]


def test_an_interrupted_stream_leaves_no_query_on_the_server(connection: AutocommitConnection, emptied: Target) -> None:
    """Interrupted in the middle: each session's query is cancelled, and both sessions are gone."""
    connection.execute("create table t (a int); insert into t select generate_series(1, 200000)")
    policy = TablePolicy(table="t", checks=[{"row_count": {"min": 1, "where": "length(repeat('x', a % 2000)) >= 0"}}])

    def interrupt() -> None:
        raise KeyboardInterrupt

    with snapshot(connection) as moment, pytest.raises(KeyboardInterrupt):
        reading.streamed(moment, plan_of(moment, policy), tell=interrupt)
    left = connection.execute(
        "select count(*) from pg_stat_activity where application_name = 'dbplatform check stream' and state = 'active'"
    ).fetchone()
    assert left == (0,)
    assert not [thread for thread in threading.enumerate() if "work" in thread.name]


def test_hashes_that_collide_are_not_believed(
    connection: AutocommitConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(
        "create table t (a text, b text); insert into t select 'k' || i, i % 50 from generate_series(1, 100) i"
    )
    monkeypatch.setattr("dbplatform.quality.streaming.texts.hashes", lambda array: np.ones(len(array), dtype=np.uint64))
    policy = TablePolicy(table="t", checks=[{"unique": "a"}, {"unique": "b"}, {"unique": ["a", "b"]}])
    assert [check.failed_rows for check in run_table(connection, policy, stream=True).checks] == [0, 100, 0]


def test_a_small_table_is_not_streamed(connection: AutocommitConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.execute("create table t (a int); insert into t values (1)")
    monkeypatch.setattr(reading, "sessions", None)
    assert run_table(connection, TablePolicy(table="t", checks=[{"not_null": "a"}])).checks[0].status == "passed"


def test_a_session_that_waits_for_the_stream_is_not_ended_for_being_idle(
    connection: AutocommitConnection, emptied: Target
) -> None:
    connection.execute("create table t (a int); insert into t select generate_series(1, 1000)")
    policy = TablePolicy(table="t", checks=[{"range": {"column": "a", "max": 1000}}])
    waited = threading.Event()
    with connect(emptied, work="test") as other:
        other.execute("select set_config('idle_in_transaction_session_timeout', '20', false)")

        def tell() -> None:
            waited.wait(0.1)

        with snapshot(other) as moment:
            assert reading.streamed(moment, plan_of(moment, policy), tell=tell).rows == 1000
            assert moment.execute("select count(*) from t").fetchone() == (1000,)


def test_a_stream_does_not_wait_behind_who_waits_for_the_checks(
    connection: AutocommitConnection, emptied: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ALTER TABLE that queues between plan and stream would be a deadlock that no server can see."""
    monkeypatch.setattr(sessions, "_LOCK_TIMEOUT", "100ms")
    connection.execute("create table t (a int); insert into t select generate_series(1, 1000)")
    policy = TablePolicy(table="t", checks=[{"range": {"column": "a", "max": 1000}}])
    waiting = "select count(*) from pg_locks where not granted and relation = 't'::regclass"
    with psycopg.connect(emptied.url) as owner, psycopg.connect(emptied.url, autocommit=True) as watcher:
        with snapshot(connection) as moment:
            plan = plan_of(moment, policy)
            moment.execute("select from t limit 1")
            queued = threading.Thread(target=owner.execute, args=("lock table t in access exclusive mode",))
            queued.start()
            while watcher.execute(waiting).fetchone() == (0,):
                pass
            with pytest.raises(StreamRefused, match="lock timeout"):
                reading.streamed(moment, plan, tell=lambda: None)
            assert moment.execute("select count(*) from t").fetchone() == (1000,)
        queued.join()


@pytest.mark.parametrize(
    "where",
    [
        "at < now()",
        "at < current_timestamp",
        "at < 'yesterday'::timestamptz",
        "random() > 0.5",
        "pg_backend_pid() > 0",
        "current_user = 'x'",
        "a in (select 1)",
        "mine(a)",
        '"Mine"(a)',
    ],
)
def test_a_condition_that_another_session_may_answer_otherwise_is_not_streamed(
    connection: AutocommitConnection, where: str
) -> None:
    connection.execute(
        """
        create table t (a int, at timestamptz);
        create function mine(int) returns boolean stable return true;
        create function "Mine"(int) returns boolean volatile return true;
        """
    )
    policy = TablePolicy(table="t", checks=[{"row_count": {"min": 0, "where": where}}, {"not_null": "a"}])
    with snapshot(connection) as moment:
        assert set(plan_of(moment, policy).left_out) == {"row_count"}


NASTY_NAMES = ["a", "select", "user", "A b", 'quo"te', "per%cent", "{}", "%s", "ä€" * 12, "x" * 63, "ctid2", "t"]
NUMBERS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, -1])
TEXTS = st.text(alphabet="abzAB09 %'\"\\{}é€\n😀@.", max_size=20)
FLOATS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 1.5])
DECIMALS = st.just("NaN") | st.integers(-(10**11), 10**11).map(lambda n: f"{n}e-3")
MOMENTS = st.sampled_from(
    ["infinity", "-infinity", "4713-01-01 BC", "294000-01-01", "2000-01-01", "1969-12-31 23:59:59.999999"]
) | st.datetimes().map(lambda moment: moment.isoformat(sep=" "))
ROW = st.tuples(*(st.none() | values for values in (NUMBERS, TEXTS, FLOATS, DECIMALS, MOMENTS)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROW, max_size=30),
    names=st.permutations(NASTY_NAMES),
    low=NUMBERS,
    bound=st.floats(-10, 10) | st.integers(-(10**4), 10**4).map(lambda n: n / 100),
    values=st.lists(TEXTS, min_size=1, max_size=3),
    regex=st.sampled_from(
        ["^a", "[a-z]+$", "^[^a]*$", "a|b", "(ab){1,2}", ".", "^$", r"\.", "é", r"\w", "^[A-Z0-9]+ ?$"]
    ),
    moment=MOMENTS,
)
def test_any_table_is_answered_as_by_one_query_per_check(
    connection: AutocommitConnection,
    rows: list[tuple[Any, ...]],
    names: list[str],
    low: int,
    bound: float,
    values: list[str],
    regex: str,
    moment: str,
) -> None:
    number, text, real, decimal, at = names[:5]
    table = names[5]
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in zip(names[:5], ("int", "text", "float8", "numeric(12,3)", "timestamptz"), strict=True)
    )
    connection.execute("drop schema public cascade; create schema public")
    connection.execute(sql.SQL("create table {} ({})").format(sql.Identifier(table), columns))
    with connection.cursor().copy(sql.SQL("copy {} from stdin").format(sql.Identifier(table))) as copy:
        for row in rows:
            copy.write_row(row)

    def q(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def equals(value: str) -> str:
        return f"{q(text)} = " + sql.Literal(value).as_string(connection).strip()

    checks: list[Any] = [
        *({"not_null": {"column": q(name), "name": f"null{i}"}} for i, name in enumerate(names[:5])),
        *({"unique": {"columns": [q(name)], "name": f"unique{i}"}} for i, name in enumerate(names[:5])),
        {"unique": {"columns": [q(number), q(text)], "name": "unique_pair"}},
        {"unique": {"columns": [q(text), q(at)], "name": "unique_where", "where": equals(values[0])}},
        {"range": {"column": q(number), "min": low, "name": "range_n"}},
        {"range": {"column": q(number), "max": bound, "name": "range_n_float"}},
        {"range": {"column": q(real), "min": bound, "name": "range_real"}},
        {"range": {"column": q(real), "max": bound, "name": "range_real_max"}},
        {"range": {"column": q(decimal), "min": bound, "name": "range_decimal"}},
        {"range": {"column": q(decimal), "max": bound, "name": "range_decimal_max"}},
        {"range": {"column": q(at), "min": moment, "name": "range_at"}},
        {"range": {"column": q(text), "max": values[0], "name": "range_text"}},
        {"accepted_values": {"column": q(text), "values": values, "name": "accepted"}},
        {"accepted_values": {"column": q(number), "values": [low, 0], "name": "accepted_n"}},
        {"matches": {"column": q(text), "regex": regex, "name": "regex"}},
        {"matches": {"column": q(text), "regex": regex, "name": "regex_where", "where": f"{q(number)} = 0"}},
        {"length": {"column": q(text), "min": 1, "max": 4, "name": "length"}},
        {"null_ratio": {"column": q(real), "max": 0.25, "name": "ratio"}},
        {"mean": {"column": q(number), "min": 0, "name": "mean_n"}},
        {"sum": {"column": q(decimal), "min": 0, "name": "sum_decimal"}},
        {"mean": {"column": q(decimal), "min": 0, "name": "mean_decimal", "where": equals(values[0])}},
        {"relationship": {"column": q(number), "to": f"{q(table)}.{q(number)}", "name": "ref"}},
        {"row_count": {"min": 0, "name": "count", "where": equals(values[0])}},
    ]
    policy = TablePolicy(table=q(table), checks=checks)
    assert_equal_to_naive(connection, policy)


def test_failing_rows_are_read_in_the_moment_of_the_stream(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int); insert into t select generate_series(1, 1000)")
    policy = TablePolicy(table="t", checks=[{"range": {"column": "a", "max": 990}}])
    with examined(connection, policy, stream=True) as examination:
        assert examination.result.checks[0].failed_rows == 10
        assert examination.connection.execute("select count(*) from t where a > 990").fetchone() == (10,)


def test_the_way_of_each_check_is_told_with_its_reason(connection: AutocommitConnection) -> None:
    connection.execute(
        "create table p (id int); create table t (id int primary key, s text, w numeric, at timestamptz)"
    )
    checks: list[Any] = [
        {"unique": "id"},
        {"not_null": "s"},
        {"unique": "s"},
        {"matches": {"column": "s", "regex": r"\d"}},
        {"mean": {"column": "w", "min": 0}},
        {"unique": "w"},
        {"relationship": {"column": "id", "to": "p.id"}},
        {"sql": {"name": "query", "rows": "select 1"}},
        {"not_null": "nope"},
    ]
    policy = TablePolicy(table="t", checks=checks)
    streamed = explained(connection, policy, stream=True)
    assert [(way.check, way.how) for way in streamed.checks] == [
        ("unique_id", "proven"),
        ("not_null_s", "streamed"),
        ("unique_s", "streamed"),
        ("matches_s", "streamed"),
        ("mean_w", "fused"),
        ("unique_w", "own query"),
        ("relationship_id", "streamed"),
        ("query", "own query"),
        ("not_null_nope", "error"),
    ]
    why = {way.check: way.why for way in streamed.checks}
    assert streamed.stream is None
    assert "unique index t_pkey" in why["unique_id"]
    assert "the server evaluates" in why["matches_s"]
    assert "hashes" in why["unique_s"]
    assert "exact avg" in why["mean_w"]
    assert "column t.nope does not exist" in why["not_null_nope"]
    as_it_chooses = explained(connection, policy)
    assert as_it_chooses.stream == "the table is small, about 0 rows"
    assert {way.how for way in as_it_chooses.checks} == {"proven", "fused", "own query", "error"}


def test_a_large_table_is_streamed_where_that_costs_less(connection: AutocommitConnection) -> None:
    """By the statistics: the same checks of few rows are fused, of many streamed; a single count never is."""
    connection.execute("create table t (a bigint, s text)")
    many = TablePolicy(
        table="t", checks=[{"unique": "a"}, {"unique": "s"}, {"matches": {"column": "s", "regex": "^x"}}]
    )
    one = TablePolicy(table="t", checks=[{"row_count": {"min": 0}}])
    for rows, streamed in ((1_000, False), (20_000_000, True)):
        connection.execute("update pg_class set reltuples = %s where oid = 't'::regclass", (rows,))
        assert (explained(connection, many).stream is None) is streamed
        assert explained(connection, one).stream is not None


ATOMS = st.sampled_from(
    ["a", "b", "1", "Z", " ", "@", r"\.", r"\$", ".", "[a-c]", "[^a]", "[0-9A-Z]", "[.b-]", "[^ab]"]
)
PIECES = st.tuples(ATOMS, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{0,2}"])).map("".join)
SEQUENCES = st.lists(PIECES, min_size=1, max_size=4).map("".join)
GROUPS = st.lists(SEQUENCES, min_size=1, max_size=3).map(lambda branches: f"({'|'.join(branches)})")
REGEXES = st.tuples(
    st.sampled_from(["", "^"]),
    st.lists(SEQUENCES | st.tuples(GROUPS, st.sampled_from(["", "*", "{1,2}"])).map("".join), min_size=1, max_size=3),
    st.sampled_from(["", "$"]),
).map(lambda parts: parts[0] + "".join(parts[1]) + parts[2])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(regex=REGEXES, texts=st.lists(st.text(alphabet="ab1Z @.$\n-é😀", max_size=8), min_size=1, max_size=40))
def test_an_expression_for_re2_matches_what_it_matches_in_postgresql(
    connection: AutocommitConnection, regex: str, texts: list[str]
) -> None:
    same = as_re2(regex)
    assert same is not None
    row = connection.execute("select array(select t ~ %s from unnest(%s::text[]) as t)", (regex, texts)).fetchone()
    assert row is not None
    assert pc.match_substring_regex(pa.array(texts), same).to_pylist() == row[0]
