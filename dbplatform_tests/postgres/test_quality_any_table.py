"""Whatever a table holds and a declaration says: the answers are the naive ones, and nothing is changed by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.quality.engine import run_table
from dbplatform.quality.policy import TablePolicy
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.quality_support import emptied, kept_database
from dbplatform_tests.postgres.test_quality_streaming import assert_equal_to_naive
from dbplatform_tests.postgres.test_quality_unchanged import CHECKS, TABLE, Checked

__all__ = ["emptied", "kept_database"]


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        yield session


def examples(number: int, **strategies: Any) -> Callable[[Callable[..., None]], None]:
    """Run a function with so many examples, at once; a failing one is made smaller first."""

    def run(function: Callable[..., None]) -> None:
        phases = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
        checks = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.nested_given)
        settings(max_examples=number, deadline=None, phases=phases, suppress_health_check=checks)(
            given(**strategies)(function)
        )()

    return run


#: A type, and values of it as text.
TYPES: dict[str, list[str]] = {
    "boolean": ["t", "f"],
    "smallint": ["0", "-32768", "32767"],
    "integer": ["0", "-2147483648", "2147483647", "7"],
    "bigint": ["0", "-9223372036854775808", "9223372036854775807"],
    "numeric": ["0", "NaN", "Infinity", "-Infinity", "1e-20", "123456789012345678901234567890.5", "-0.00"],
    "numeric(15,3)": ["0", "NaN", "999999999999.999", "-0.001"],
    "numeric(20,10)": ["0", "NaN", "1234567890.0123456789"],
    "real": ["0", "-0", "NaN", "Infinity", "-Infinity", "1e-40", "3.4e38"],
    "double precision": ["0", "-0", "NaN", "Infinity", "-Infinity", "5e-324", "1.7e308"],
    "money": ["0", "-12.34"],
    "text": ["", " ", "%s", "{}", "a'b", 'quo"te', "back\\slash", "é", "😀", "line\nbreak", "x" * 3000],
    "varchar(5)": ["", "ab", "äöü"],
    "char(4)": ["", "ab", "ab  "],
    "bytea": ["\\x", "\\x00ff"],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "2024-02-29", "5874897-12-31"],
    "timestamp": ["infinity", "-infinity", "2024-02-29 12:00:00.000001", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["infinity", "-infinity", "2024-03-31 01:30:00+01", "4713-11-24 00:00:00+00 BC"],
    "time": ["00:00", "24:00"],
    "interval": ["0", "1 month", "-3 days 04:05", "178000000 years"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "json": ["null", "{}", "[1, null]", '"a"'],
    "jsonb": ["null", "{}", "[1, null]", '"a"'],
    "inet": ["127.0.0.1", "::1/64"],
    "bit(3)": ["101", "000"],
    "int[]": ["{}", "{1,NULL}", "{{1,2},{3,4}}"],
    "int4range": ["empty", "[1,5)", "(,)"],
    "point": ["(1,2)", "(NaN,Infinity)"],
    "mood": ["good", "very bad; drop table victim"],
    "small_number": ["1", "9"],
    "pair": ["(,)", "(1,)", "(1,x)"],
    "xid": ["0", "4294967295"],
    'text collate "C"': ["", "a", "B", "é"],
    "text collate loose": ["", "a", "A", "é"],
}
OWN_TYPES = """
    create type mood as enum ('good', 'very bad; drop table victim');
    create domain small_number as int check (value < 10);
    create type pair as (a int, b text);
"""
LOOSE = "create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
NAMES = ["a", "select", "A b", 'quo"te', "per%cent", "%s", "{}", "ä€" * 12, "x" * 63, "t; drop table victim", "--", "'"]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def of_every_type(connection: AutocommitConnection) -> dict[str, list[str]]:
    """Makes the types of the test; a server without ICU has no collation that takes a for A."""
    connection.execute(OWN_TYPES.encode())
    try:
        connection.execute(LOOSE.encode())
    except psycopg.errors.FeatureNotSupported:
        return {type_: values for type_, values in TYPES.items() if "loose" not in type_}
    return TYPES


@pytest.mark.parametrize("number", cases(2, 60, sample={2}))
def test_a_table_of_every_type_is_answered_as_by_one_query_per_check(
    connection: AutocommitConnection, number: int
) -> None:
    types = of_every_type(connection)
    cell = {type_: st.sampled_from(values) | st.none() for type_, values in types.items()}

    @examples(number, rows=st.lists(st.tuples(*cell.values()), min_size=1, max_size=12), bound=st.data())
    def compare(rows: list[tuple[str | None, ...]], bound: Any) -> None:
        names = [f"{NAMES[place % len(NAMES)][:60]}{place}" for place in range(len(types))]
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_))  # type: ignore[arg-type]
            for name, type_ in zip(names, types, strict=True)
        )
        connection.execute("drop table if exists t")
        connection.execute(sql.SQL("create table t ({})").format(columns))
        with connection.cursor().copy("copy t from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        checks: list[Any] = []
        for place, (name, (type_, values)) in enumerate(zip(names, types.items(), strict=True)):
            column, value = quoted(name), bound.draw(st.sampled_from(values), label=type_)
            checks += [
                {"not_null": {"column": column, "name": f"null{place}"}},
                {"unique": {"columns": [column], "name": f"unique{place}"}},
                {"null_ratio": {"column": column, "max": 0.3, "name": f"ratio{place}"}},
                {"accepted_values": {"column": column, "values": [value], "name": f"accepted{place}"}},
                {"range": {"column": column, "min": value, "name": f"low{place}"}},
                {"range": {"column": column, "max": value, "name": f"high{place}"}},
                {"matches": {"column": column, "regex": "^[a-zé]*$", "name": f"matches{place}"}},
                {"length": {"column": column, "min": 1, "max": 3, "name": f"length{place}"}},
                {"mean": {"column": column, "min": 0, "name": f"mean{place}"}},
                {"sum": {"column": column, "min": 0, "name": f"sum{place}"}},
            ]
        assert_equal_to_naive(connection, TablePolicy(table="t", checks=checks))


EVIL = [
    "'; drop table victim; --",
    "\\'; drop table victim; --",
    '"; drop table victim; --',
    "); drop table victim; --",
    "a); delete from victim where (true",
    "true) or (true",
    "1; drop table victim",
    "$$; drop table victim; $$",
    "%s",
    "%(a)s",
    "{}",
    "*/ drop table victim /*",
    "x'y",
    "a\n--",
    "E'\\''; drop table victim; --",
    "set_config('transaction_read_only', 'off', true)",
    "public.victim",
    "victim; commit; drop table victim",
]
DECLARATIONS: list[Callable[[str], Any]] = [
    lambda evil: {"not_null": {"column": quoted(evil)}},
    lambda evil: {"not_null": {"column": "a", "where": evil}},
    lambda evil: {"unique": {"columns": ["a", quoted(evil)]}},
    lambda evil: {"accepted_values": {"column": "a", "values": [evil, "x"]}},
    lambda evil: {"accepted_values": {"column": "n", "values": [1, evil]}},
    lambda evil: {"range": {"column": "a", "min": evil}},
    lambda evil: {"range": {"column": "n", "max": evil}},
    lambda evil: {"range": {"column": "at", "max": evil, "where": evil}},
    lambda evil: {"matches": {"column": "a", "regex": evil}},
    lambda evil: {"relationship": {"column": "a", "to": f"public.{quoted(evil)}.{quoted(evil)}"}},
    lambda evil: {"relationship": {"column": "a", "to": "t.a", "where": evil}},
    lambda evil: {"mean": {"column": "n", "min": 0, "where": evil}},
    lambda evil: {"row_count": {"min": 0, "where": evil}},
    lambda evil: {"freshness": {"column": quoted(evil), "max_age": "1 day"}},
    lambda evil: {"schema": {"columns": {quoted(evil): evil, "a": evil}}},
    lambda evil: {"sql": {"rows": evil}},
    lambda evil: {"sql": {"rows": f"select 1 from t where a = '{evil}'"}},  # noqa: S608
    lambda evil: {"sql": {"rows": f"with d as (delete from victim returning *) select * from d -- {evil}"}},  # noqa: S608
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("evil", cases(*EVIL, sample={EVIL[0], EVIL[3], EVIL[4], EVIL[15]}))
def test_no_value_of_a_declaration_changes_anything(connection: AutocommitConnection, evil: str, stream: bool) -> None:
    connection.execute("create table victim as select 7 as seven; create table t (a text, n int, at timestamptz)")
    connection.execute("insert into t values (%s, 1, now()), ('x', null, null)", (evil,))
    checks = []
    for place, declare in enumerate(DECLARATIONS):
        declaration = {**declare(evil), "name": f"c{place}"}
        try:
            checks += TablePolicy(table="t", checks=[declaration]).checks
        except ValueError:
            continue  # refused before anything is asked
    found = run_table(connection, TablePolicy(table="t", checks=checks), stream=stream)
    assert found.row_count == 2
    assert {check.status for check in found.checks} <= {"passed", "failed", "errored"}
    assert connection.execute("select seven from victim").fetchall() == [(7,)]
    assert connection.execute("select a from t order by n").fetchall() == [(evil,), ("x",)]


CHANGES = [
    "insert into t values (-1, '2024-02-02', null, 0, 'x', 1)",
    "insert into t values (-2, '2030-01-01', 29, 'NaN', null, 'NaN')",
    "update t set n = null where id % 37 = 3",
    "update t set at = at + interval '1 month' where id in (5, 400)",
    "delete from t where id % 101 = 7",
    "truncate t_1",
    "delete from t_2; insert into t_2 select id, at + interval '1 month', n, price, kind, score from t_1",
    "begin; update t set n = 3; rollback",
    "vacuum (freeze) t_1",
    "vacuum full t_2",
    "analyze t; select pg_stat_reset()",
    "set track_counts = off; delete from t_3 where id % 11 = 1",
    "alter table t detach partition t_3; "
    "alter table t attach partition t_3 for values from ('2024-03-01') to ('2024-04-01')",
    "update kinds set kind = 'q' where kind = 'c'",
    "insert into kinds values ('x') on conflict do nothing",
    "create index on t_1 (n)",
    "alter table t_1 set (fillfactor = 50)",
]


@pytest.mark.parametrize("number", cases(1, 25, sample={1}))
def test_any_history_of_a_partitioned_table_is_answered_as_by_reading_all_of_it(
    emptied: Target, ledger: Ledger, number: int
) -> None:
    checked = Checked(emptied, ledger, checks=list(CHECKS))

    @examples(number, history=st.lists(st.lists(st.sampled_from(CHANGES), max_size=3), min_size=2, max_size=4))
    def compare(history: list[list[str]]) -> None:
        checked.do("drop table if exists t, kinds", *filter(str.strip, TABLE.split(";")))
        checked.run()
        for changes in history:
            for change in changes:
                checked.do(*([change] if change.startswith("begin") else change.split("; ")))
            checked.run()
