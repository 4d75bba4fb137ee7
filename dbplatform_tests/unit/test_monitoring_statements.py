"""What statements cost between two looks, what stands out in them, and that no value is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbplatform.monitoring.statements import Count, Counts, Statement, explained, growth
from dbplatform.monitoring.texts import without_values

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def count(calls: int, ms: float = 0.0, *, rows: int = 0, since: float | None = None, **more: int) -> Count:
    return Count(calls=calls, ms=ms, rows=rows, hit=more.get("hit", 0), read=more.get("read", 0), temp=0, since=since)


def look(minute: int, counts: dict[int, Count], *, reset: float = 0.0, whole: bool = True) -> Counts:
    return Counts(at=NOW + timedelta(minutes=minute), reset=reset, dealloc=0, whole=whole, counts=counts)


def test_a_first_look_says_nothing_of_what_was_before() -> None:
    assert growth(None, look(0, {1: count(5, 10.0)})) == {}


def test_the_growth_is_the_difference_and_what_did_not_run_is_left_out() -> None:
    before = look(0, {1: count(5, 10.0, rows=7), 2: count(3, 1.0)})
    assert growth(before, look(1, {1: count(7, 16.0, rows=9), 2: count(3, 1.0)})) == {1: count(2, 6.0, rows=2)}


def test_a_statement_that_was_not_there_before_is_new() -> None:
    assert growth(look(0, {}), look(1, {1: count(2, 6.0)})) == {1: count(2, 6.0)}


def test_a_statement_that_an_incomplete_look_may_have_left_out_is_not_counted_at_first_sight() -> None:
    assert growth(look(0, {}, whole=False), look(1, {1: count(2, 6.0)})) == {}


def test_the_server_s_own_word_on_since_when_it_counts_decides() -> None:
    earlier, later = NOW.timestamp() - 60, NOW.timestamp() + 30
    old, new = count(2, 6.0, since=earlier), count(2, 6.0, since=later)
    assert growth(look(0, {}, whole=False), look(1, {1: old, 2: new})) == {2: new}
    again = count(9, 9.0, since=later)
    assert growth(look(0, {1: count(5, 5.0, since=earlier)}), look(1, {1: again})) == {1: again}


def test_after_a_reset_everything_that_is_counted_is_new() -> None:
    before = look(0, {1: count(5, 10.0)})
    assert growth(before, look(1, {1: count(6, 12.0)}, reset=99.0)) == {1: count(6, 12.0)}


def test_a_statement_that_was_let_go_and_came_again_is_counted_from_its_new_beginning() -> None:
    assert growth(look(0, {1: count(500, 10.0)}), look(1, {1: count(2, 1.0)})) == {1: count(2, 1.0)}


def test_a_look_at_the_same_moment_or_before_counts_nothing() -> None:
    assert growth(look(1, {1: count(1, 1.0)}), look(1, {1: count(5, 5.0)})) == {}
    assert growth(look(1, {1: count(1, 1.0)}), look(0, {1: count(5, 5.0)})) == {}


def statement(queryid: int, text: str, counted: Count) -> Statement:
    return Statement(queryid=queryid, text=text, count=counted)


def found(*statements: Statement) -> dict[int, tuple[str, ...]]:
    return {one.queryid: one.findings for one in explained(statements)}


@pytest.mark.parametrize("text", ["select * from t", "SELECT t.* FROM t", 'select distinct "T".* from "T"'])
def test_a_statement_that_selects_all_columns_is_pointed_out(text: str) -> None:
    assert "all columns" in found(statement(1, text, count(1, 1.0)))[1][0]


@pytest.mark.parametrize("text", ["select count(*) from t", "select a, 2 * b from t", "delete from t", "call p()"])
def test_a_statement_that_does_not_is_not(text: str) -> None:
    assert found(statement(1, text, count(1, 1.0))) == {1: ()}


def test_an_offset_is_deep_by_what_it_reads_and_not_by_its_word() -> None:
    text = "select a from t order by a limit $1 offset $2"
    deep, shallow = count(10, 1.0, rows=100, hit=60_000), count(10, 1.0, rows=100, hit=300)
    assert "6,000 blocks are read for 10 rows" in found(statement(1, text, deep))[1][0]
    assert found(statement(1, text, shallow)) == {1: ()}
    assert found(statement(1, "select a from t order by a limit $1", deep)) == {1: ()}


def test_a_statement_that_is_called_once_for_each_row_of_another_is_n_plus_one() -> None:
    notes = statement(1, "select id, provider_id from notes where day = $1", count(10, 1.0, rows=1_000))
    users = statement(2, "select name from users where id = $1", count(1_000, 5.0, rows=1_000))
    other = statement(3, "select name from plans where id = $1", count(333, 5.0, rows=333))
    findings = found(notes, users, other)
    assert "about once for each of the 1,000 rows of statement 1" in findings[2][0]
    assert (findings[1], findings[3]) == ((), ())


def test_many_calls_without_a_statement_that_calls_for_them_are_no_pattern() -> None:
    users = statement(2, "select name from users where id = $1", count(1_000, 5.0, rows=1_000))
    assert found(users) == {2: ()}


def in_steps(*counted: tuple[int, int]) -> dict[datetime, Count]:
    """Calls and rows of each step of five minutes."""
    return {NOW + timedelta(minutes=5 * place): count(calls, rows=rows) for place, (calls, rows) in enumerate(counted)}


def test_calls_that_follow_the_rows_of_another_step_by_step_are_n_plus_one() -> None:
    notes = statement(1, "select id, provider_id from notes where day = $1", count(12, rows=1_200))
    users = statement(2, "select name from users where id = $1", count(1_200, rows=1_200))
    steps = {1: in_steps((1, 100), (5, 500), (6, 600)), 2: in_steps((100, 100), (505, 505), (595, 595))}
    (words,) = {one.queryid: one.findings for one in explained([notes, users], steps)}[2]
    assert "in each of 3 steps of the window" in words


def test_sums_that_are_alike_by_chance_are_no_pattern() -> None:
    report = statement(1, "select id, provider_id from notes where day = $1", count(12, rows=1_200))
    users = statement(2, "select name from users where id = $1", count(1_200, rows=1_200))
    steps = {1: in_steps((0, 0), (12, 1_200), (0, 0)), 2: in_steps((400, 400), (400, 400), (400, 400))}
    assert {one.queryid: one.findings for one in explained([report, users], steps)}[2] == ()


def test_a_lookup_that_is_called_far_more_often_than_anything_else_is_called_in_a_loop() -> None:
    page = statement(1, "select id from orders order by at desc limit $1", count(40, rows=800))
    insert = statement(2, "insert into orders values ($1)", count(9_000, rows=9_000))
    users = statement(3, "select name from users where id = $1", count(20_000, 100.0, rows=20_000))
    (words,) = found(page, insert, users)[3]
    assert "500 times as often as any other reading statement" in words
    slow = statement(3, "select name from users where id = $1", count(20_000, 60_000.0, rows=20_000))
    assert found(page, insert, slow)[3] == (), "no lookup by an index takes 3 ms"


def test_the_lookup_of_each_request_beside_its_page_is_no_loop() -> None:
    page = statement(1, "select id from orders order by at desc limit $1", count(9_000, rows=90_000))
    login = statement(2, "select id from sessions where token = $1", count(20_000, 100.0, rows=20_000))
    assert found(page, login)[2] == ()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("select a from t where b = 'secret' and c = 42", "select a from t where b = ? and c = ?"),
        ("alter role r password 'it''s'", "alter role r password ?"),
        (r"select E'a\'b' , U&'x', x'1F', b'01'", "select ? , ?, ?, ?"),
        ("select $$secret$$, $tag$ sec$ret $tag$ from t", "select ?, ? from t"),
        ("select 1.5e-3, .5, 1_000 from t1 where c2 = $1", "select ?, ?, ? from t1 where c2 = $1"),
        ("select a -- secret\nfrom t /* secret */ where b", "select a from t where b"),
        ('select "Total 2024" from "a""b" where x = \'s', 'select "Total 2024" from "a""b" where x = ?'),
        ("select a from t where b = $x$ cut off", "select a from t where b = ?"),
        ("select a from t /* cut off 'secret", "select a from t"),
        ("select date'2024-01-01', interval '1 day'", "select date?, interval ?"),
        ("select größe from t where n'x'", "select größe from t where ?"),
    ],
)
def test_a_text_has_no_values(text: str, kept: str) -> None:
    assert without_values(text) == kept


@pytest.mark.parametrize(
    "value",
    ["$q1$ QQ $q1$", "$ä$ QQ $ä$", "$€2$ QQ $€2$", "$_$ $1$ QQ $_$", "0xCAFE_17", "0o17", "0B1_01", "0XFF"],
)
def test_every_way_to_write_a_value_is_hidden(value: str) -> None:
    assert without_values(f"alter role a1 set x to {value}, $2") == "alter role a1 set x to ?, $2"


def test_a_text_without_values_stays_as_it_is() -> None:
    text = "select a from t where b = $1 and c = ? order by d limit $2"
    assert without_values(without_values(text)) == without_values(text) == text


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="'\0"), max_size=30), st.integers(0, 60))
def test_a_string_never_comes_through_wherever_the_text_is_cut(secret: str, cut: int) -> None:
    begin = "select a from t where b = '"
    text = begin + "QQ" + secret + "QQ' and c = 'x'"
    assert "QQ" not in without_values(text[: max(len(begin), cut)])
