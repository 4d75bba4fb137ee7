"""Every check type on a real server: what passes, what fails, and how many rows, against one naive query each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.progress import Progress, listening
from dbplatform.quality.engine import run_table
from dbplatform.quality.examination import UnknownCheck
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, TableResult
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

TABLE = """
    create table flights (
        id int, carrier text, origin text, distance numeric, delay float8, tailnum varchar(10),
        day date, at timestamptz, code char(3), ok boolean, doc json
    );
    insert into flights
    select i, case i % 4 when 0 then null else 'C' || i % 4 end, (array['EWR', 'JFK', 'LGA', 'XXX'])[1 + i % 4],
           case when i % 10 = 0 then null else i * 0.1 end, case when i % 7 = 0 then null else i - 50 end,
           case when i % 5 = 0 then null when i % 3 = 0 then 'bad' || i else 'N' || i end,
           date '2020-01-01' + i, now() - i * interval '1 hour', 'ab', i % 2 = 0, '{}'
    from generate_series(1, 100) i;
    create table planes (tailnum text);
    insert into planes select 'N' || i from generate_series(1, 50) i union all select null;
"""


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        session.execute(TABLE)
        yield session


def run(connection: AutocommitConnection, *checks: Any, table: str = "public.flights", **options: Any) -> TableResult:
    return run_table(connection, TablePolicy(table=table, checks=list(checks)), **options)


def one(connection: AutocommitConnection, check: Any, **options: Any) -> CheckResult:
    return run(connection, check, **options).checks[0]


def number(connection: AutocommitConnection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("check", "failing"),
    [
        ({"not_null": "carrier"}, "carrier is null"),
        ({"not_null": "id"}, "id is null"),
        ({"not_null": "doc"}, "doc is null"),
        ({"not_null": "carrier", "where": "id > 50 -- the newer ones"}, "id > 50 and carrier is null"),
        (
            {"accepted_values": {"column": "origin", "values": ["EWR", "JFK", "LGA"]}},
            "origin not in ('EWR', 'JFK', 'LGA')",
        ),
        ({"accepted_values": {"column": "carrier", "values": ["C1"]}}, "carrier <> 'C1'"),
        ({"accepted_values": {"column": "id", "values": [1, 2, "3"]}}, "id > 3"),
        ({"accepted_values": {"column": "ok", "values": [True]}}, "not ok"),
        ({"range": {"column": "distance", "min": 1, "max": 6.5}}, "distance < 1 or distance > 6.5"),
        ({"range": {"column": "distance", "min": 1}}, "distance < 1"),
        ({"range": {"column": "delay", "max": -10}}, "delay > -10"),
        ({"range": {"column": "day", "min": "2020-02-01", "max": "now"}}, "day < '2020-02-01'"),
        ({"range": {"column": "at", "max": "now", "where": "at < now() + interval '1 day'"}}, "at > now()"),
        ({"range": {"column": "carrier", "min": "C2"}}, "carrier < 'C2'"),
        ({"matches": {"column": "tailnum", "regex": "^N[0-9]+$"}}, "tailnum !~ '^N[0-9]+$'"),
        ({"matches": {"column": "tailnum", "regex": r"\d{2}"}}, r"tailnum !~ '\d{2}'"),
        ({"length": {"column": "tailnum", "min": 3, "max": 4}}, "length(tailnum) not between 3 and 4"),
        ({"length": {"column": "code", "max": 2}}, "false"),
        ({"unique": "id"}, "false"),
        (
            {"unique": ["carrier", "origin"]},
            "(carrier, origin) in (select carrier, origin from flights group by 1, 2 having count(*) > 1)",
        ),
        (
            {"unique": "carrier", "where": "id <= 5"},
            "id <= 5 and carrier in (select carrier from flights where id <= 5 group by 1 having count(*) > 1)",
        ),
        (
            {"relationship": {"column": "tailnum", "to": "public.planes.tailnum"}},
            "tailnum is not null and not exists (select from planes p where p.tailnum = flights.tailnum)",
        ),
        (
            {"relationship": {"column": "id", "to": "flights.id", "where": "id > 3"}},
            "false",
        ),
        ({"sql": {"name": "q", "rows": "select * from flights where ok limit 7;"}}, "ok and id <= 14"),
        ({"sql": {"name": "q", "rows": "with x as (select 1) select from x where false -- none"}}, "false"),
    ],
)
def test_a_check_counts_the_rows_that_a_naive_query_counts(
    connection: AutocommitConnection, check: Any, failing: str
) -> None:
    expected = number(connection, f"select count(*) from flights where {failing}")  # noqa: S608
    found = one(connection, check)
    assert found.failed_rows == expected
    assert found.status == ("failed" if expected else "passed")
    assert re.search(rf"\b{expected} (of 100 |of \d+ )?rows" if expected else r"\b(none of|no row)", found.message)


@pytest.mark.parametrize(
    ("check", "status", "measure"),
    [
        ({"null_ratio": {"column": "carrier", "max": 0.25}}, "passed", "0.25"),
        ({"null_ratio": {"column": "carrier", "max": 0.24}}, "failed", "0.25"),
        ({"null_ratio": {"column": "carrier", "min": 0.26}}, "failed", "0.25"),
        ({"null_ratio": {"column": "carrier", "max": 0, "where": "id % 4 <> 0"}}, "passed", "0"),
        ({"mean": {"column": "distance", "min": 5, "max": 5}}, "passed", "avg(distance)"),
        ({"mean": {"column": "delay", "min": 0.5}}, "failed", "avg(delay)"),
        ({"mean": {"column": "id", "max": 10, "where": "id < 20"}}, "passed", "avg(id) filter (where id < 20)"),
        ({"sum": {"column": "id", "min": 5050, "max": 5050}}, "passed", "sum(id)"),
        ({"sum": {"column": "id", "max": 5049.5}}, "failed", "sum(id)"),
        ({"row_count": {"min": 100, "max": 100}}, "passed", "count(*)"),
        ({"row_count": {"min": 101}}, "failed", "count(*)"),
        ({"row_count": {"max": 9, "where": "id < 10"}}, "passed", "9"),
    ],
)
def test_a_measure_is_the_servers_own_and_judged_by_inclusive_bounds(
    connection: AutocommitConnection, check: Any, status: str, measure: str
) -> None:
    found = one(connection, check)
    assert found.status == status
    assert found.value == pytest.approx(float(number(connection, f"select {measure} from flights limit 1")))  # noqa: S608


def test_a_sum_of_decimals_is_compared_as_decimals(connection: AutocommitConnection) -> None:
    connection.execute("create table money (a numeric); insert into money values (0.1), (0.2)")
    assert one(connection, {"sum": {"column": "a", "min": 0.3, "max": 0.3}}, table="money").status == "passed"


def test_a_mean_or_sum_of_nothing_has_errored_because_there_is_no_evidence(connection: AutocommitConnection) -> None:
    for kind in ("mean", "sum"):
        found = one(connection, {kind: {"column": "id", "min": 0, "where": "id > 1000"}})
        assert (found.status, found.value) == ("errored", None)
        assert "no value in 0 rows" in found.message


def test_a_mean_with_nan_is_within_no_bounds(connection: AutocommitConnection) -> None:
    connection.execute("update flights set delay = 'NaN', distance = 'NaN' where id = 1")
    for column in ("delay", "distance"):
        found = one(connection, {"mean": {"column": column, "max": 1e308}})
        assert found.status == "failed"
        assert found.as_json()["value"] is None


@pytest.mark.parametrize(("column", "kind"), [("at", "timestamptz"), ("at", "timestamp"), ("day", "date")])
def test_freshness_judges_the_newest_finite_moment(connection: AutocommitConnection, column: str, kind: str) -> None:
    connection.execute("drop table flights; create table flights (at " + kind + ", day date)")
    assert one(connection, {"freshness": {"column": column, "max_age": "2 days"}}).status == "failed"
    connection.execute(
        "insert into flights values (now() - interval '1 month 1 day', now() - interval '1 month 1 day')"
    )
    connection.execute("insert into flights values ('infinity', 'infinity'), (null, null)")
    old, young, filtered = run(
        connection,
        {"freshness": {"column": column, "max_age": "3 weeks"}},
        {"freshness": {"column": column, "max_age": "1 month 3 days"}, "name": "young"},
        {"freshness": {"column": column, "max_age": "9 months"}, "name": "filtered", "where": "at is null"},
    ).checks
    assert (old.status, young.status, filtered.status) == ("failed", "passed", "failed")
    assert old.value is not None
    assert 28 * 86_400 < old.value < 33 * 86_400
    assert "days old; at most 21 days is allowed" in old.message
    assert "no moment in 1 rows" in filtered.message


@pytest.mark.parametrize(
    ("columns", "status", "words"),
    [
        ({"id": "int4", "at": "timestamptz", "delay": "float", "ok": "bool"}, "passed", "4 columns"),
        ({"tailnum": "varchar(10)", "code": "char(3)", "day": "date"}, "passed", "3 columns"),
        ({"tailnum": "character varying(10)", "distance": "decimal"}, "passed", "2 columns"),
        ({"tailnum": "varchar"}, "failed", "tailnum is character varying(10), not character varying"),
        ({"tailnum": "varchar(11)"}, "failed", "not character varying(11)"),
        ({"nothing": "int"}, "failed", "nothing is missing"),
        ({"id": "bigint", "nothing": "int"}, "failed", "id is integer, not bigint; nothing is missing"),
        ({"id": "integre"}, "errored", "no type named integre"),
        ({"id": "int; drop table flights"}, "errored", ""),
        ({"id": "int, now()"}, "errored", ""),
    ],
)
def test_a_schema_check_knows_types_by_their_aliases(
    connection: AutocommitConnection, columns: dict[str, str], status: str, words: str
) -> None:
    found = one(connection, {"schema": {"columns": columns}})
    assert found.status == status
    assert words in found.message
    assert number(connection, "select count(*) from flights") == 100


def test_a_schema_check_knows_domains_and_arrays(connection: AutocommitConnection) -> None:
    connection.execute("create domain positive as int not null check (value > 0); create domain short as varchar(5)")
    connection.execute("create table odd (a positive, b short, c varchar(3)[], d numeric(12, 2), e timestamp(3))")
    wanted = {"a": "positive", "b": "short", "c": "varchar(3)[]", "d": "numeric(12,2)", "e": "timestamp(3)"}
    found = one(connection, {"schema": {"columns": wanted}}, table="odd")
    assert (found.status, found.message) == ("passed", "5 columns have their declared types.")


@pytest.mark.parametrize(
    ("tolerance", "status"),
    [(25, "passed"), (24, "failed"), ("25%", "passed"), ("24.99%", "failed"), (0, "failed"), ("100%", "passed")],
)
def test_a_tolerance_lets_so_many_rows_or_percent_fail(
    connection: AutocommitConnection, tolerance: Any, status: str
) -> None:
    found = one(connection, {"not_null": "carrier", "tolerance": tolerance})
    assert (found.status, found.failed_rows, found.considered_rows) == (status, 25, 100)
    assert "the tolerance of" in found.message


def test_a_percentage_is_of_the_rows_that_pass_where(connection: AutocommitConnection) -> None:
    check = {"not_null": "carrier", "where": "id <= 40", "tolerance": "25%"}
    assert (one(connection, check).status, one(connection, check).considered_rows) == ("passed", 40)


def test_a_null_violates_only_not_null(connection: AutocommitConnection) -> None:
    connection.execute("create table empty (a text, b text); insert into empty values (null, null), (null, null)")
    found = run(
        connection,
        {"not_null": "a"},
        {"unique": ["a", "b"]},
        {"accepted_values": {"column": "a", "values": ["x"]}},
        {"range": {"column": "a", "min": "x"}},
        {"matches": {"column": "a", "regex": "x"}},
        {"length": {"column": "a", "min": 1}},
        {"relationship": {"column": "a", "to": "empty.b"}},
        table="empty",
    )
    assert [check.failed_rows for check in found.checks] == [2, 0, 0, 0, 0, 0, 0]


def test_row_checks_pass_on_an_empty_table(connection: AutocommitConnection) -> None:
    connection.execute("truncate flights")
    found = run(
        connection,
        {"not_null": "id"},
        {"unique": "id"},
        {"null_ratio": {"column": "id", "max": 0}},
        {"row_count": {"max": 0}},
    )
    assert found.row_count == 0
    assert {check.status for check in found.checks} == {"passed"}


def test_a_partitioned_table_is_checked_as_one(connection: AutocommitConnection) -> None:
    connection.execute(
        """
        create table parts (id int, v text) partition by range (id);
        create table parts_1 partition of parts for values from (0) to (10);
        create table parts_2 partition of parts for values from (10) to (20);
        insert into parts values (1, 'a'), (2, null), (11, 'a'), (12, 'b');
        """
    )
    found = run(connection, {"not_null": "v"}, {"unique": "v"}, {"row_count": {"min": 4}}, table="parts")
    assert [check.failed_rows for check in found.checks] == [1, 2, None]
    assert found.row_count == 4


def test_odd_identifiers_are_only_names(connection: AutocommitConnection) -> None:
    connection.execute(
        """
        create schema "S %s"; create table "S %s"."we ird%""t" ("we ird%""col" text, "{}" int, "select" text);
        insert into "S %s"."we ird%""t" values (null, 1, 'x'), ('y', 1, null);
        """
    )
    table = '"S %s"."we ird%""t"'
    found = run(
        connection,
        {"not_null": '"we ird%""col"'},
        {"unique": '"{}"'},
        {"not_null": '"select"', "where": '"we ird%""col" like \'%y%\''},
        {"relationship": {"column": '"we ird%""col"', "to": f'{table}."select"'}},
        table=table,
    )
    assert [check.failed_rows for check in found.checks] == [1, 2, 1, 1]
    assert found.table == table


def test_a_column_that_is_missing_is_never_taken_for_the_row_of_its_table(connection: AutocommitConnection) -> None:
    found = one(connection, {"not_null": "flights"})
    assert found.status == "errored"
    assert "does not exist" in found.message


def test_only_the_named_checks_run_and_an_unknown_name_is_refused(connection: AutocommitConnection) -> None:
    policy = TablePolicy(table="flights", checks=[{"not_null": "id"}, {"not_null": "carrier"}])
    assert [check.name for check in run_table(connection, policy, only={"not_null_carrier"}).checks] == [
        "not_null_carrier"
    ]
    with pytest.raises(UnknownCheck, match="It has: not_null_id, not_null_carrier"):
        run_table(connection, policy, only=["nope"])


def test_the_statement_of_a_result_shows_the_failing_rows_to_a_person(
    connection: AutocommitConnection, emptied: Target
) -> None:
    found = run(
        connection,
        {"not_null": "carrier", "where": "id > 10"},
        {"unique": ["carrier", "origin"]},
        {"relationship": {"column": "tailnum", "to": "planes.tailnum"}},
        {"null_ratio": {"column": "carrier", "max": 0}},
        {"accepted_values": {"column": "carrier", "values": ["it's", "100%"]}},
    )
    with psycopg.connect(emptied.url) as person:
        for check in found.checks:
            assert check.sql is not None
            assert len(person.execute(check.sql.encode()).fetchall()) == check.failed_rows
        for check in run(
            connection, {"mean": {"column": "id", "max": 1}}, {"freshness": {"column": "at", "max_age": "1 day"}}
        ).checks:
            assert check.sql is not None
            assert person.execute(check.sql.encode()).fetchone() is not None


def test_progress_counts_the_checks(connection: AutocommitConnection) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        run(connection, {"not_null": "id"}, {"not_null": "nope"}, {"unique": "id"})
    assert [(p.task, p.done, p.total, p.unit) for p in heard] == [
        ("check flights", done, 3, "checks") for done in (0, 1, 2, 3)
    ]


def test_more_checks_than_one_scan_can_return_are_all_counted(
    connection: AutocommitConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbplatform.quality.asking.CHECKS_PER_SCAN", 3)
    checks = [{"range": {"column": "id", "max": limit}, "name": f"c{limit}"} for limit in range(90, 100)]
    assert [check.failed_rows for check in run(connection, *checks).checks] == list(range(10, 0, -1))


TEXTS = st.one_of(st.none(), st.text(alphabet="ab'\\%é\"{", max_size=4))
ROWS = st.lists(st.tuples(st.one_of(st.none(), st.integers(-5, 5)), TEXTS), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS, low=st.integers(-6, 6), values=st.lists(TEXTS.filter(lambda t: t is not None), min_size=1, max_size=3)
)
def test_row_checks_count_what_python_counts_on_any_table(
    connection: AutocommitConnection, rows: list[tuple[int | None, str | None]], low: int, values: list[str]
) -> None:
    connection.execute("drop table if exists random_rows; create table random_rows (n int, t text)")
    if rows:
        connection.cursor().executemany("insert into random_rows values (%s, %s)", rows)
    found = run(
        connection,
        {"not_null": "t"},
        {"range": {"column": "n", "min": low, "max": low + 2}},
        {"accepted_values": {"column": "t", "values": values}},
        {"length": {"column": "t", "min": 1, "max": 2}, "where": "n is null or n >= 0"},
        {"matches": {"column": "t", "regex": "a"}},
        {"unique": ["n", "t"]},
        {"null_ratio": {"column": "n", "max": 0}},
        table="random_rows",
    )
    numbers, texts = [n for n, _ in rows], [t for _, t in rows if t is not None]
    assert [check.failed_rows for check in found.checks] == [
        len(rows) - len(texts),
        sum(n is not None and not low <= n <= low + 2 for n in numbers),
        sum(t not in values for t in texts),
        sum(t is not None and (n is None or n >= 0) and not 1 <= len(t) <= 2 for n, t in rows),
        sum(re.search("a", t) is None for t in texts),
        sum(None not in row and rows.count(row) > 1 for row in rows),
        numbers.count(None),
    ]
    assert found.row_count == len(rows)
