"""Some of the rows in place of all, where somebody asked for it: what is read is counted, and said; nothing more."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.quality import record
from dbplatform.quality.engine import check_table, run_table
from dbplatform.quality.examination import explained
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, TableResult
from dbplatform.reporting.evidence import load_evidence
from dbplatform.reporting.page import render_report
from dbplatform.reporting.words import headline
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

ROWS = 20_000
TABLE = """
    create table other (id int primary key);
    insert into other select generate_series(1, 20000);
    create table t (id int primary key, n int, kind text, ref int);
    insert into t
    select i, case when i % 3 = 0 then null else i end, case when i % 5 = 0 then 'x' else 'a' end, i * 2
    from generate_series(1, 20000) i;
    analyze t
"""
EACH: list[Any] = [
    {"not_null": "n"},
    {"accepted_values": {"column": "kind", "values": ["a"]}},
    {"range": {"column": "n", "max": ROWS // 2, "where": "kind = 'a'"}},
    {"matches": {"column": "kind", "regex": "^a"}},
    {"length": {"column": "kind", "max": 0}},
    {"relationship": {"column": "ref", "to": "other.id"}},
    {"null_ratio": {"column": "n", "max": 0.01}},
    {"mean": {"column": "id", "min": 0}},
]


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        session.execute(TABLE)
        yield session


def run(connection: AutocommitConnection, *checks: Any, sample: str | None = "20%", table: str = "t") -> TableResult:
    return run_table(connection, TablePolicy(table=table, sample=sample, checks=list(checks)))  # type: ignore[arg-type]


def only(result: TableResult) -> CheckResult:
    (check,) = result.checks
    return check


@pytest.mark.parametrize("sample", ["20%", "20% bernoulli", "5000 rows"])
def test_what_a_sample_finds_is_what_its_own_statement_shows_and_is_said(
    connection: AutocommitConnection, sample: str
) -> None:
    result = run(connection, *EACH, sample=sample)
    read = {check.sampled_rows for check in result.checks}
    assert len(read) == 1, "all read the same rows"
    (rows,) = read
    assert rows is not None
    assert 0 < rows < ROWS
    assert result.row_count is None, "the others were not counted"
    for check in result.checks:
        assert f"Judged by a sample of {rows:,} rows" in check.message
        assert check.sample is not None
        assert check.sample in check.message
        assert check.sql is not None
        if check.failed_rows is not None:
            assert 0 < check.failed_rows <= (check.considered_rows or 0) <= rows
            shown = connection.execute(check.sql.encode()).fetchall()
            assert len(shown) == check.failed_rows
    assert run(connection, *EACH, sample=sample).checks == result.checks, "whoever asks again sees the same rows"


def test_only_the_failing_rows_of_the_sample_are_kept_masked_as_ever(emptied: Target, ledger: Ledger) -> None:
    with psycopg.connect(emptied.url) as session:
        session.execute(TABLE)
    policy = TablePolicy(
        table="t",
        sample="20%",  # type: ignore[arg-type]
        mask={"kind": "redact"},
        checks=[*EACH, {"not_null": {"column": "n", "name": "of_all", "sample": "all"}}],
    )
    run_id = str(uuid.uuid4())
    found = {check.name: check for check in check_table(emptied, ledger, "shop", run_id, policy).checks}
    for name, check in found.items():
        assert check.kept_rows == (check.failed_rows or 0), name
    assert found["of_all"].failed_rows == ROWS // 3
    assert found["of_all"].sample is None
    rows = record.failed_row_samples(ledger, run_id, "public.t", "accepted_values_kind", limit=ROWS)
    assert {row["kind"] for row in rows} == {"***"}
    in_sample = {row["id"] for row in rows}
    assert len(in_sample) == found["accepted_values_kind"].failed_rows
    kept = {check.name: check for check in record.load_run(ledger, run_id).tables[0].checks}
    assert kept["not_null_n"].sampled_rows == found["not_null_n"].sampled_rows
    assert kept["not_null_n"].sample == "20% of the table's blocks"


def test_checks_that_need_all_rows_read_them_beside_the_sample(connection: AutocommitConnection) -> None:
    result = run(
        connection,
        {"not_null": "n"},
        {"unique": "kind"},
        {"row_count": {"min": ROWS}},
        {"sum": {"column": "id", "min": 1}},
    )
    sampled, *others = result.checks
    assert sampled.sampled_rows
    assert result.row_count == ROWS
    assert [check.sample for check in others] == [None] * 3
    assert [check.considered_rows for check in others] == [ROWS] * 3
    assert others[0].failed_rows == ROWS


def test_a_sample_without_a_row_has_not_passed_unless_the_table_is_empty(connection: AutocommitConnection) -> None:
    connection.execute("create table small as select 1 as a; create table nothing (a int)")
    found = only(run(connection, {"not_null": "a"}, sample="0.000001%", table="small"))
    assert (found.status, found.sampled_rows) == ("errored", 0)
    assert found.message.endswith("holds no row: nothing was judged. Take a larger one.")
    empty = only(run(connection, {"not_null": "a"}, table="nothing"))
    assert (empty.status, empty.sampled_rows, empty.considered_rows) == ("passed", 0, 0)


def test_a_table_with_no_more_rows_than_asked_for_is_read_as_a_whole(connection: AutocommitConnection) -> None:
    result = run(connection, {"not_null": "n"}, sample="1,000,000 rows")
    assert result.row_count == ROWS
    assert (only(result).sample, only(result).failed_rows) == (None, ROWS // 3)


def test_a_partitioned_table_is_sampled_over_all_of_its_partitions(connection: AutocommitConnection) -> None:
    connection.execute(
        "create table p (id int, n int) partition by range (id);"
        "create table p_1 partition of p for values from (0) to (10000);"
        "create table p_2 partition of p for values from (10000) to (40000);"
        "insert into p select id, n from t"
    )
    found = only(run(connection, {"range": {"column": "id", "max": ROWS // 2}}, table="p", sample="50% bernoulli"))
    assert found.failed_rows is not None
    assert found.sampled_rows is not None
    assert ROWS // 8 < found.failed_rows < found.sampled_rows < ROWS


def test_a_check_that_the_catalog_proves_is_proven_beside_its_sample(connection: AutocommitConnection) -> None:
    found = only(run(connection, {"not_null": "id"}))
    assert "proven by NOT NULL of id." in found.message
    assert found.considered_rows == found.sampled_rows


def test_explain_says_what_would_be_sampled(connection: AutocommitConnection) -> None:
    policy = TablePolicy(table="t", sample="3%", checks=[{"not_null": "n"}, {"unique": "kind"}])  # type: ignore[arg-type]
    ways = {way.check: way for way in explained(connection, policy).checks}
    assert ways["not_null_n"].how == "sampled"
    assert "3% of the table's blocks" in ways["not_null_n"].why
    assert ways["unique_kind"].how == "own query"


def test_the_report_says_that_a_sample_was_judged_and_does_not_call_the_table_unread(
    emptied: Target, ledger: Ledger
) -> None:
    with psycopg.connect(emptied.url) as session:
        session.execute(TABLE)
    policy = TablePolicy(table="t", sample="20%", checks=[{"not_null": "id"}])  # type: ignore[arg-type]
    check_table(emptied, ledger, "shop", "sampled", policy)
    record.finish_run(ledger, "sampled")
    evidence = load_evidence(ledger, "sampled")
    assert headline(evidence) == "The only check passed on 1 table, 1 of the checks judged by a sample"
    page = render_report(evidence)
    assert "judged by a sample: " in page
    assert "only a sample for 1 of 1 checks" in page
    assert "What could not run" not in page
