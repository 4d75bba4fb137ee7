"""What a run leaves in the ledger: results, failing rows, verdicts; and that it can be recorded again."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.quality import record
from dbplatform.quality.engine import check_table
from dbplatform.quality.examination import examined
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, TableResult
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]


def fill(target: Target, script: str) -> None:
    with psycopg.connect(target.url) as session:
        session.execute(script.encode())


def policy(*checks: Any, table: str = "t") -> TablePolicy:
    return TablePolicy(table=table, checks=list(checks))


def check(ledger: Ledger, target: Target, declared: TablePolicy, run_id: str = "run-1", **options: Any) -> TableResult:
    return check_table(target, ledger, "shop", run_id, declared, **options)


def samples(ledger: Ledger, name: str, table: str = "public.t", run_id: str = "run-1") -> list[dict[str, Any]]:
    return record.failed_row_samples(ledger, run_id, table, name, limit=1000)


def test_failing_rows_are_kept_with_their_key_and_the_offending_values(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        """
        create table t (id int primary key, a text, b int, other text);
        insert into t values (1, 'x', 1, 'z'), (2, null, 5, 'z'), (3, 'x', 1, 'z'), (4, 'y', 9, 'z'), (5, null, 9, 'z');
        create table u (a text);
        insert into u values ('x');
        """,
    )
    result = check(
        ledger,
        emptied,
        policy(
            {"not_null": "a"},
            {"range": {"column": "b", "max": 8}},
            {"unique": ["a", "b"]},
            {"relationship": {"column": "a", "to": "u.a"}},
            {"null_ratio": {"column": "a", "max": 0.1}},
            {"sql": {"name": "q", "rows": "select b, other from t where b = 5"}},
            {"matches": {"column": "other", "regex": "z"}},
        ),
    )
    assert samples(ledger, "not_null_a") == [{"id": 2, "a": None}, {"id": 5, "a": None}]
    assert samples(ledger, "range_b") == [{"id": 4, "b": 9}, {"id": 5, "b": 9}]
    assert sorted(row["id"] for row in samples(ledger, "unique_a_b")) == [1, 3]
    assert samples(ledger, "relationship_a") == [{"id": 4, "a": "y"}]
    assert samples(ledger, "null_ratio_a") == [{"id": 2, "a": None}, {"id": 5, "a": None}]
    assert samples(ledger, "q") == [{"b": 5, "other": "z"}]
    assert samples(ledger, "matches_other") == []
    assert [c.kept_rows for c in result.checks] == [2, 2, 2, 1, 2, 1, 0]
    assert [c.failed_rows for c in result.checks] == [2, 2, 2, 1, 2, 1, 0]


def test_rows_within_a_tolerance_are_kept_and_nulls_of_a_passed_ratio_are_not(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, null), (2, 'x')")
    tolerated, ratio = check(
        ledger, emptied, policy({"not_null": "a", "tolerance": 1}, {"null_ratio": {"column": "a", "max": 0.5}})
    ).checks
    assert (tolerated.status, tolerated.failed_rows, tolerated.kept_rows) == ("passed", 1, 1)
    assert (ratio.status, ratio.failed_rows, ratio.kept_rows) == ("passed", 0, 0)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("create table t (id int unique, b int not null unique, a text)", {"b"}),
        ("create table t (id int unique, b int not null, a text)", {"id"}),
        ("create table t (id int, b int, a text, unique (id, b))", {"id", "b"}),
        ("create table t (id int, b int, a text, primary key (b, id) deferrable)", {"ctid"}),
        ("create table t (id int, b int, a text); create unique index on t (id) where b > 0", {"ctid"}),
        ("create table t (id int, b int, a text); create unique index on t ((id + 1))", {"ctid"}),
        ("create table t (id int, b int, a text); create unique index on t (id) include (b)", {"id"}),
        (
            "create table t (id int, b int, a text) partition by list (b); create table t1 partition of t default",
            {"ctid", "tableoid"},
        ),
    ],
)
def test_a_row_is_known_by_its_best_key_or_its_place(
    emptied: Target, ledger: Ledger, table: str, key: set[str]
) -> None:
    fill(emptied, table)
    fill(emptied, "insert into t values (1, 2, null)")
    check(ledger, emptied, policy({"not_null": "a"}))
    ((row),) = samples(ledger, "not_null_a")
    assert set(row) == {*key, "a"}
    assert row.get("tableoid", "t1") == "t1"


def test_values_that_json_has_no_form_for_are_kept_as_postgresql_writes_them(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        r"""
        create domain positive as int; create type pair as (a int, b text);
        create table "we ird%""t" (
            "we ird%""col" float8 primary key, n numeric, at timestamptz, day date, s text, b bytea, jb jsonb,
            arr int[], p pair, dom positive, r int4range, big numeric
        );
        insert into "we ird%""t"
        select f, 'Infinity', '-infinity', 'infinity', E'q"uo\\te\t\n ü 😀 \\N', '\x00ff', '{"a": 1}', '{1,null}',
               '(1,x)', 7, '[1,3)', 123456789012345678901234567890
        from unnest('{NaN,-Infinity}'::float8[]) f;
        """,
    )
    names = ["n", "at", "day", "s", "b", "jb", "arr", "p", "dom", "r", "big"]
    table = '"we ird%""t"'
    result = check(ledger, emptied, policy({"unique": names, "name": "u"}, table=table))
    assert result.checks[0].kept_rows == 2
    rows = samples(ledger, "u", f"public.{table}")
    assert {row.pop('we ird%"col') for row in rows} == {"NaN", "-Infinity"}
    assert rows[0] == rows[1]
    assert rows[0] == {
        "n": "Infinity",
        "at": "-infinity",
        "day": "infinity",
        "s": 'q"uo\\te\t\n ü 😀 \\N',
        "b": "\\x00ff",
        "jb": {"a": 1},
        "arr": [1, None],
        "p": {"a": 1, "b": "x"},
        "dom": 7,
        "r": "[1,3)",
        "big": 123456789012345678901234567890,
    }


def test_rows_that_jsonb_cannot_hold_are_left_out_with_a_word_and_the_number_stays(
    emptied: Target, ledger: Ledger
) -> None:
    fill(emptied, "create table t (j json, a int); insert into t values ('\"\\u0000\"', null)")
    query, null = check(
        ledger, emptied, policy({"sql": {"name": "q", "rows": "select j from t"}}, {"not_null": "a"})
    ).checks
    assert (query.status, query.failed_rows, query.kept_rows) == ("failed", 1, 0)
    assert "failing rows could not be kept: unsupported Unicode escape sequence" in query.message
    assert record.load_run(ledger, "run-1").tables[0].checks == (query, null)
    assert null.kept_rows == 1


def test_kept_rows_are_bounded_and_the_total_is_exact(emptied: Target, ledger: Ledger) -> None:
    fill(
        emptied,
        "create table t (id int primary key, a text); insert into t select i, null from generate_series(1, 500) i",
    )
    declared = policy(
        {"not_null": "a"},
        {"not_null": "a", "where": "id <= 7", "name": "few"},
        {"relationship": {"column": "id", "to": "t.a"}, "name": "wrong_type"},
        {"sql": {"name": "q", "rows": "select * from t"}},
    )
    record.start_run(ledger, "shop", "run-1")
    with connect(emptied, work="test") as connection, examined(connection, declared) as examination:
        result = record.record_table(ledger, "run-1", examination, bound=10)
    assert [(c.failed_rows, c.kept_rows) for c in result.checks] == [(500, 10), (7, 7), (None, 0), (500, 10)]
    assert [row["id"] for row in samples(ledger, "few")] == list(range(1, 8))
    assert len(samples(ledger, "not_null_a")) == 10


def test_failing_rows_are_read_in_the_snapshot_in_which_they_were_counted(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, null), (2, null)")
    record.start_run(ledger, "shop", "run-1")
    with connect(emptied, work="test") as connection, examined(connection, policy({"not_null": "a"})) as examination:
        fill(emptied, "update t set a = 'mended' where id = 1; insert into t values (3, null)")
        record.record_table(ledger, "run-1", examination)
    assert [row["id"] for row in samples(ledger, "not_null_a")] == [1, 2]


def test_more_than_a_hundred_columns_make_a_key_of_several_objects(emptied: Target, ledger: Ledger) -> None:
    columns = [f"c{i}" for i in range(120)]
    fill(emptied, f"create table t ({', '.join(f'{c} int default 7' for c in columns)})")
    fill(emptied, "insert into t default values; insert into t default values")
    check(ledger, emptied, policy({"unique": columns, "name": "u"}))
    assert set(samples(ledger, "u")[0]) == {"ctid", *columns}


def test_a_run_is_read_back_as_it_was_found(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, null), (2, 'x')")
    declared = policy(
        {"not_null": "a", "severity": "warn", "owner": "team:ops", "tolerance": "1%", "blocking": True},
        {"mean": {"column": "id", "min": 0}},
        {"not_null": "nope"},
    )
    found = check(ledger, emptied, declared)
    assert record.finish_run(ledger, "run-1") == "errored"
    run = record.load_run(ledger, "run-1")
    assert run.tables == (found,)
    assert (run.database, run.verdict) == ("shop", "errored")
    assert run.finished_at is not None
    assert run.finished_at >= run.started_at
    assert json.loads(json.dumps(run.as_json(report="r.html")))["tables"][0]["checks"][0] == {
        "name": "not_null_a",
        "type": "not_null",
        "column": "a",
        "status": "failed",
        "severity": "warn",
        "blocking": True,
        "owner": "team:ops",
        "failed_rows": 1,
        "considered_rows": 2,
        "kept_rows": 1,
        "value": None,
        "tolerance": "1%",
        "message": "a is null in 1 of 2 rows (50 %), more than the tolerance of 1%.",
        "sql": 'select * from "public"."t" where "t"."a" is null',
        "key_columns": ["id"],
        "value_columns": ["a"],
        "masked_columns": [],
        "rows_removed_at": None,
        "quarantined_rows": None,
        "quarantine_table": None,
        "accepted_until": None,
        "accepted_reason": None,
        "sample": None,
        "sampled_rows": None,
    }


def test_a_table_checked_again_in_the_same_run_replaces_its_rows(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, null), (2, null)")
    both = policy({"not_null": "a"}, {"unique": "id"})
    check(ledger, emptied, both)
    assert record.finish_run(ledger, "run-1") == "failed"
    fill(emptied, "update t set a = 'x' where id = 1")
    check(ledger, emptied, both, only={"not_null_a"})
    run = record.load_run(ledger, "run-1")
    assert run.verdict is None, "a run that goes on has no verdict"
    assert {c.name: c.failed_rows for c in run.tables[0].checks} == {"unique_id": 0, "not_null_a": 1}
    assert [row["id"] for row in samples(ledger, "not_null_a")] == [2]
    fill(emptied, "update t set a = 'x'")
    check(ledger, emptied, policy({"not_null": "a"}))
    assert [c.name for c in record.load_run(ledger, "run-1").tables[0].checks] == ["not_null_a"]
    assert record.finish_run(ledger, "run-1") == "passed"
    with ledger.session() as session:
        assert session.connection().exec_driver_sql("select count(*) from ledger.quality_failed_row").scalar() == 0


class Killed(BaseException):
    """Ends the work as a signal would."""


def test_a_killed_recording_leaves_what_was_there_before(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, null)")
    first = check(ledger, emptied, policy({"not_null": "a"}))
    fill(emptied, "insert into t values (2, null)")

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(record, "lines", killed)
        with pytest.raises(Killed):
            check(ledger, emptied, policy({"not_null": "a"}))
    assert record.load_run(ledger, "run-1").tables == (first,)
    assert check(ledger, emptied, policy({"not_null": "a"})).checks[0].kept_rows == 2


def test_a_run_without_results_has_errored_and_an_unknown_one_is_refused(ledger: Ledger) -> None:
    record.start_run(ledger, "shop", "empty")
    assert record.finish_run(ledger, "empty") == "errored"
    with pytest.raises(record.UnknownRun, match="no-such-run"):
        record.finish_run(ledger, "no-such-run")
    with pytest.raises(record.RunOfAnotherDatabase, match="checks the database 'shop', not 'other'"):
        record.start_run(ledger, "other", "empty")


def test_runs_are_listed_and_compared_with_the_one_before(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int primary key, a text); insert into t values (1, null)")
    for run_id in ("first", "second", "third"):
        check(ledger, emptied, policy({"not_null": "a"}, {"not_null": "id"}, {"not_null": "nope"}), run_id=run_id)
        if run_id != "second":
            record.finish_run(ledger, run_id)
    record.start_run(ledger, "other", "elsewhere")
    listed = record.runs(ledger, "shop")
    assert [(r.run_id, r.verdict, r.passed, r.failed, r.errored) for r in listed] == [
        ("third", "errored", 1, 1, 1),
        ("second", None, 1, 1, 1),
        ("first", "errored", 1, 1, 1),
    ]
    assert [r.run_id for r in record.runs(ledger, limit=1)] == ["elsewhere"]
    before = record.previous_run(ledger, "third")
    assert before is not None
    assert before.run_id == "first", "the unfinished one does not count"
    assert record.previous_run(ledger, "first") is None


def test_two_tables_of_one_run_make_one_verdict(emptied: Target, ledger: Ledger) -> None:
    fill(emptied, "create table t (id int); create table u (id int); insert into u values (null)")
    check(ledger, emptied, policy({"not_null": "id"}))
    check(ledger, emptied, policy({"not_null": "id"}, table="u"))
    assert record.finish_run(ledger, "run-1") == "failed"
    run = record.load_run(ledger, "run-1")
    checks: list[CheckResult] = [c for table in run.tables for c in table.checks]
    assert [table.table for table in run.tables] == ["public.t", "public.u"]
    assert [c.status for c in checks] == ["passed", "failed"]
