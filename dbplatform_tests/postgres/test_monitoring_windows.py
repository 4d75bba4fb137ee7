"""What statements cost, from ``pg_stat_statements`` over the ledger to the list: windows, ends, bounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import StatementText, StatementWindow
from dbplatform.monitoring.statements import Count, Counts
from dbplatform.monitoring.windows import (
    MOST_KEPT,
    known_statements,
    record_statements,
    statements_of,
    text_of,
    tidy_statements,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZERO = Count(calls=0, ms=0, rows=0, hit=0, read=0, temp=0)


def counted(calls: int, seconds: float) -> Count:
    return replace(ZERO, calls=calls, ms=seconds * 1000)


def look(minutes: float, counts: dict[int, Count], texts: dict[int, str] | None = None) -> Counts:
    at = NOW + timedelta(minutes=minutes)
    return Counts(at=at, reset=0.0, dealloc=0, whole=True, counts=counts, texts=texts or {})


def listed(ledger: Ledger, minutes: float, *, hours: float = 1) -> dict[int, tuple[int, float]]:
    now = NOW + timedelta(minutes=minutes)
    found = statements_of(ledger, "flights", since=now - timedelta(hours=hours), now=now)
    return {one.queryid: (one.count.calls, one.mean_s) for one in found}


def test_a_window_holds_what_happened_in_it_and_a_statement_leaves_the_list_with_it(ledger: Ledger) -> None:
    record_statements(ledger, "flights", look(0, {1: counted(1000, 5000.0)}, {1: "select slow"}))
    assert listed(ledger, 0) == {}, "what was before the first look is not of this window"
    record_statements(ledger, "flights", look(1, {1: counted(1010, 5030.0)}))
    record_statements(ledger, "flights", look(7, {1: counted(1020, 5050.0)}))
    assert listed(ledger, 8) == {1: (20, 2.5)}
    record_statements(ledger, "flights", look(70, {1: counted(1120, 5051.0)}))
    assert listed(ledger, 70) == {1: (100, 0.01)}, "it was made faster"
    assert listed(ledger, 200) == {}
    assert listed(ledger, 200, hours=24 * 5) == {1: (120, 51 / 120)}, "by the hour"


def test_of_two_looks_that_come_in_the_wrong_order_none_is_counted_twice(ledger: Ledger) -> None:
    record_statements(ledger, "flights", look(0, {1: counted(10, 1.0)}))
    record_statements(ledger, "flights", look(2, {1: counted(30, 3.0)}))
    record_statements(ledger, "flights", look(1, {1: counted(20, 2.0)}))
    record_statements(ledger, "flights", look(2, {1: counted(30, 3.0)}))
    assert listed(ledger, 3) == {1: (20, 0.1)}


def test_a_look_keeps_the_largest_and_no_more_however_many_statements_there_are(ledger: Ledger) -> None:
    record_statements(ledger, "flights", look(0, {}))
    record_statements(ledger, "flights", look(1, {n: counted(n, 1.0 / n) for n in range(1, 500)}))
    with ledger.session() as session:
        kept = session.scalar(select(func.count()).where(StatementWindow.step_s == 300))
    assert kept == sum(MOST_KEPT)


def test_texts_are_kept_once_and_go_with_the_last_window_of_their_statement(ledger: Ledger) -> None:
    record_statements(ledger, "flights", look(0, {}))
    record_statements(ledger, "flights", look(1, {1: counted(1, 1.0)}, {1: "select gone"}))
    record_statements(ledger, "flights", look(2, {2: counted(1, 1.0)}, {2: "select kept"}))
    assert known_statements(ledger, "flights") == {1, 2}
    assert text_of(ledger, "flights", 1) == "select gone"
    tidy_statements(ledger, "flights", now=NOW + timedelta(days=31))
    assert known_statements(ledger, "flights") == {2}, "it is still counted"
    with ledger.session() as session:
        assert session.scalars(select(StatementWindow.queryid)).all() == []
        assert session.scalars(select(StatementText.text)).all() == ["select kept"]
