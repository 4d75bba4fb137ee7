"""Failing rows that are old leave the ledger, and no others; those that are kept can be had as files."""

from __future__ import annotations

import csv
import io
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityFailedRow, QualityResult, QualityRun
from dbplatform.postgres.connection import Target
from dbplatform.quality import export, retention
from dbplatform.quality.engine import check_table
from dbplatform.quality.policy import FailedRowsPolicy, TablePolicy
from dbplatform.quality.retention import Removed, remove_old_rows
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = FailedRowsPolicy(retain="30 days", retain_unreviewed="90 days")
CHECKS = [("public.t", "c")]


def put(ledger: Ledger, run_id: str, *, days: int, rows: int = 3, name: str = "c", verdict: str = "failed") -> int:
    """A run so many days ago with one check that failed; the id of its result."""
    with ledger.session() as session:
        started = NOW - timedelta(days=days)
        session.add(
            QualityRun(run_id=run_id, database="shop", started_at=started, finished_at=started, verdict=verdict)
        )
        session.flush()
        result = QualityResult(
            run_id=run_id, table_name="public.t", name=name, type="not_null", status="failed", severity="error",
            blocking=False, failed_rows=rows, kept_rows=rows, message="",
        )  # fmt: skip
        session.add(result)
        session.flush()
        session.add_all(QualityFailedRow(result_id=result.id, ordinal=i + 1, row={"id": i}) for i in range(rows))
        return result.id


def kept(ledger: Ledger) -> dict[str, int]:
    """The runs that still have rows, and how many."""
    with psycopg.connect(ledger.target.url) as session:
        return dict(
            session.execute(
                "select r.run_id, count(*)::int from ledger.quality_failed_row f "
                "join ledger.quality_result r on r.id = f.result_id group by 1"
            ).fetchall()
        )


def test_rows_are_removed_by_age_but_those_of_the_newest_run_and_the_results_stay(ledger: Ledger) -> None:
    put(ledger, "old", days=50)
    put(ledger, "older", days=400)
    put(ledger, "young", days=29)
    put(ledger, "gone", days=50, name="no_longer_declared")
    put(ledger, "newest_of_its_check", days=500, name="seldom")
    checks = [*CHECKS, ("public.t", "seldom")]
    removed = remove_old_rows(ledger, "shop", POLICY, checks=checks, now=NOW, unreviewed=[])
    assert removed == Removed(results=3, rows=9, more=False)
    assert kept(ledger) == {"young": 3, "newest_of_its_check": 3}
    with ledger.session() as session:
        result = session.query(QualityResult).filter_by(run_id="old").one()
        assert (result.failed_rows, result.kept_rows) == (3, 0)
        assert result.rows_removed_at is not None
    assert remove_old_rows(ledger, "shop", POLICY, checks=checks, now=NOW, unreviewed=[]).rows == 0
    assert remove_old_rows(ledger, "other", POLICY, checks=[], now=NOW, unreviewed=[]).rows == 0


def test_a_failing_run_that_nobody_reviewed_keeps_its_rows_longer_and_not_for_ever(ledger: Ledger) -> None:
    for days, run_id in ((80, "unread"), (81, "read"), (100, "unread_for_long"), (1, "newest")):
        put(ledger, run_id, days=days)
    put(ledger, "tolerated", days=82, verdict="passed")
    remove_old_rows(ledger, "shop", POLICY, checks=CHECKS, now=NOW, unreviewed=["unread", "unread_for_long"])
    assert set(kept(ledger)) == {"newest", "unread"}


def test_without_reviews_each_failing_run_counts_as_unread(ledger: Ledger) -> None:
    put(ledger, "unread", days=80)
    put(ledger, "tolerated", days=81, verdict="passed")
    put(ledger, "newest", days=1)
    remove_old_rows(ledger, "shop", POLICY, checks=CHECKS, now=NOW)
    assert set(kept(ledger)) == {"newest", "unread"}


def test_a_call_is_bounded_and_the_next_one_goes_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_BATCH", 2)
    put(ledger, "a", days=60, rows=5)
    put(ledger, "b", days=50, rows=5)
    put(ledger, "newest", days=1)

    def call() -> Removed:
        return remove_old_rows(ledger, "shop", POLICY, checks=CHECKS, now=NOW, unreviewed=[], at_most=3)

    assert call() == Removed(results=0, rows=3, more=True)
    assert kept(ledger) == {"a": 2, "b": 5, "newest": 3}
    assert call() == Removed(results=1, rows=3, more=True)
    assert kept(ledger) == {"b": 4, "newest": 3}
    assert (call().rows, call().rows) == (3, 1)
    assert kept(ledger) == {"newest": 3}


def test_rows_that_somebody_else_removes_are_not_waited_for(ledger: Ledger) -> None:
    result = put(ledger, "old", days=60)
    put(ledger, "newest", days=1)
    with psycopg.connect(ledger.target.url) as other:
        other.execute("select from ledger.quality_result where id = %s for update", (result,))
        assert remove_old_rows(ledger, "shop", POLICY, checks=CHECKS, now=NOW, unreviewed=[]).rows == 0
    assert remove_old_rows(ledger, "shop", POLICY, checks=CHECKS, now=NOW, unreviewed=[]).rows == 3


def test_rows_are_exported_as_they_are_in_both_formats(emptied: Target, ledger: Ledger, tmp_path: Path) -> None:
    with psycopg.connect(emptied.url) as session:
        session.execute('create table t (id int primary key, "Odd ""c" text)')
        session.execute("insert into t values (1, ''), (2, null), (3, %s), (4, 'ok')", ('a,"b"\nü\t\\N',))
    declared = TablePolicy(
        table="t",
        checks=[
            {"sql": {"name": "q", "rows": 'select id, "Odd ""c", \'NaN\'::float8 as n from t where id < 4'}},
            {"not_null": "id"},
        ],
    )
    check_table(emptied, ledger, "shop", "run-1", declared)
    found = export.kept_rows(ledger, "shop", "q")
    assert (found.failed_rows, found.kept_rows, found.columns) == (3, 3, ("id", 'Odd "c', "n"))
    out = io.BytesIO()
    export.write_csv(ledger, found, out)
    assert out.getvalue().decode().splitlines()[:3] == ['id,"Odd ""c",n', '1,"",NaN', "2,,NaN"]
    assert list(csv.reader(io.StringIO(out.getvalue().decode())))[3] == ["3", 'a,"b"\nü\t\\N', "NaN"]
    path = tmp_path / "rows.parquet"
    with export.new_file(path) as file:
        export.write_parquet(ledger, found, file)
    assert pq.read_table(path).to_pydict() == {
        "id": ["1", "2", "3"],
        'Odd "c': ["", None, 'a,"b"\nü\t\\N'],
        "n": ["NaN"] * 3,
    }
    passed = export.kept_rows(ledger, "shop", "not_null_id")
    assert (passed.status, passed.kept_rows, passed.columns) == ("passed", 0, ())
    for write in (export.write_csv, export.write_parquet):
        with export.new_file(path) as file:
            write(ledger, passed, file)
    assert pq.read_table(path).num_rows == 0


def test_rows_of_an_unknown_check_or_of_two_tables_are_refused_with_what_to_do(ledger: Ledger) -> None:
    put(ledger, "one", days=1)
    with ledger.session() as session:
        session.add(
            QualityResult(
                run_id="one", table_name="public.u", name="c", type="not_null", status="passed", severity="error",
                blocking=False, message="",
            )
        )  # fmt: skip
    with pytest.raises(export.SeveralTables, match=r"public\.t, public\.u"):
        export.kept_rows(ledger, "shop", "c")
    found = export.kept_rows(ledger, "shop", "c", table="public.t")
    assert (found.kept_rows, found.columns) == (3, ("id",)), "a run from before the order was kept"
    with pytest.raises(export.NoSuchResult, match="in the run nope"):
        export.kept_rows(ledger, "shop", "c", run_id="nope")


def test_a_file_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    half = ExitStack()
    half.enter_context(export.new_file(path)).write(b"half")
    assert half.__exit__(RuntimeError, RuntimeError(), None) is False
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(export.NotWritten, match="No such file or directory"), export.new_file(tmp_path / "no" / "x"):
        pass
