"""Planted defects are found by every type of check, in whatever holds the rows; what holds none proves nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.quality.checks import CHECK_TYPES
from dbplatform.quality.engine import run_table
from dbplatform.quality.policy import TablePolicy
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

COLUMNS = "id int, n int, x float8, p numeric, at timestamptz, s text, k int"
ROWS = """
    insert into {table} values
        (1, 1, 1.5, 1, now(), 'a', 1), (2, 2, 'NaN', 'NaN', 'infinity', 'b', 1),
        (3, 3, 'Infinity', 'Infinity', '-infinity', '', 2), (4, null, null, null, null, null, null),
        (5, 5, '-Infinity', '-Infinity', now(), 'É', 2)
"""
#: How the table ``d`` is made, and what it is made of.
MADE = {
    "table": ("create table d ({columns})", "d"),
    "partitioned table": (
        "create table d ({columns}) partition by list (k); create table d_1 partition of d for values in (1);"
        "create table d_rest partition of d default",
        "d",
    ),
    "table with children": ("create table d ({columns}); create table child (more text) inherits (d)", "child"),
}
#: A check, how many rows fail it, and its status where there is no row.
PLANTED: list[tuple[dict[str, Any], int | None, str]] = [
    ({"not_null": "n"}, 1, "passed"),
    ({"not_null": "x"}, 1, "passed"),
    ({"range": {"column": "x", "min": 0, "max": 100}}, 3, "passed"),
    ({"range": {"column": "p", "min": 0, "max": 100}}, 3, "passed"),
    ({"range": {"column": "at", "min": "2020-01-01", "max": "9999-12-31"}}, 2, "passed"),
    ({"accepted_values": {"column": "x", "values": [1.5]}}, 3, "passed"),
    ({"accepted_values": {"column": "s", "values": ["a", "b"]}}, 2, "passed"),
    ({"matches": {"column": "s", "regex": "^[a-z]+$"}}, 2, "passed"),
    ({"length": {"column": "s", "min": 1, "max": 1}}, 1, "passed"),
    ({"unique": "k"}, 4, "passed"),
    ({"relationship": {"column": "k", "to": "one.k"}}, 2, "passed"),
    ({"null_ratio": {"column": "n", "max": 0.1}}, 1, "passed"),
    ({"mean": {"column": "x", "min": -1e300, "max": 1e300}}, None, "errored"),
    ({"mean": {"column": "p", "min": -100, "max": 100}}, None, "errored"),
    ({"sum": {"column": "x", "min": -1e300, "max": 1e300}}, None, "errored"),
    ({"sum": {"column": "p", "min": -100, "max": 100}}, None, "errored"),
    ({"row_count": {"min": 6}}, None, "failed"),
    ({"freshness": {"column": "at", "max_age": "1 day", "where": "k = 1 and s = 'b'"}}, None, "failed"),
    ({"schema": {"columns": {"n": "bigint"}}}, None, "failed"),
    ({"sql": {"name": "query", "rows": "select * from d where x = 'NaN'"}}, 1, "passed"),
    ({"anomaly": {"metric": "mean", "column": "x"}}, None, "errored"),
]


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        yield session


def made(connection: AutocommitConnection, kind: str, *, filled: bool) -> TablePolicy:
    statements, holds = MADE[kind]
    connection.execute("create table one as select 1 as k")
    connection.execute(statements.format(columns=COLUMNS).encode())
    if filled:
        connection.execute(ROWS.format(table=holds).encode())
    return TablePolicy(table="d", checks=[check for check, _, _ in PLANTED])


def test_a_defect_is_planted_for_every_type() -> None:
    assert {next(iter(check)) for check, _, _ in PLANTED} == set(CHECK_TYPES)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", MADE)
def test_every_planted_defect_is_found(connection: AutocommitConnection, kind: str, stream: bool) -> None:
    found = run_table(connection, made(connection, kind, filled=True), stream=stream)
    assert found.row_count == 5
    for check, (declared, failed, _) in zip(found.checks, PLANTED, strict=True):
        assert check.status == ("errored" if "anomaly" in declared else "failed"), (declared, check.message)
        assert failed is None or check.failed_rows == failed, (declared, check.message)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", MADE)
def test_without_rows_nothing_is_measured_and_nothing_fresh(
    connection: AutocommitConnection, kind: str, stream: bool
) -> None:
    found = run_table(connection, made(connection, kind, filled=False), stream=stream)
    assert found.row_count == 0
    for check, (declared, _, status) in zip(found.checks, PLANTED, strict=True):
        assert (check.status, check.failed_rows or 0) == (status, 0), (declared, check.message)


@pytest.mark.parametrize("kind", ["view", "materialized view"])
def test_what_is_no_table_is_refused(connection: AutocommitConnection, kind: str) -> None:
    connection.execute(f"create {kind} d as select 1 as n".encode())
    with pytest.raises(TableMissing):
        run_table(connection, TablePolicy(table="d", checks=[{"not_null": "n"}]))
