"""Generated values without a database: in their ranges, the same ones each time, unique where they are to be."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbplatform.seeding.generators import BLOCK_ROWS, Block, Column, bijection, numbered, spread, values, with_nulls


def block(start: int = 0, rows: int = BLOCK_ROWS, stream: str = "1/public.t") -> Block:
    return Block(stream=stream, start=start, rows=rows)


def made(column: dict[str, Any], part: Block) -> list[Any]:
    found = values("c", Column.model_validate(column), part, {})
    return list(found.to_pylist() if hasattr(found, "to_pylist") else found)


KINDS: list[dict[str, Any]] = [
    {"integer": {"min": -5, "max": 5}},
    {"integer": {"min": 0, "max": 10**12}, "unique": True},
    {"number": {"min": 0, "max": 1, "digits": 3}},
    {"boolean": 0.5},
    {"choice": ["a", "b", None]},
    {"choice": {"a": 1, "b": 2}},
    {"date": {"from": "2024-01-01", "to": "2024-02-01"}},
    {"timestamp": {"from": "2024-01-01", "to": "2024-02-01"}},
    {"uuid": True},
    {"text": "row {n:04}"},
    {"sequence": {"start": 5, "step": -2}},
]


@pytest.mark.parametrize("column", KINDS, ids=[next(iter(kind)) for kind in KINDS])
def test_a_row_does_not_depend_on_how_many_there_are(column: dict[str, Any]) -> None:
    assert made(column, block(rows=10)) == made(column, block())[:10]
    assert made(column, block(start=BLOCK_ROWS, rows=5)) == made(column, block(start=BLOCK_ROWS))[:5]


@pytest.mark.parametrize("column", KINDS[2:9], ids=[next(iter(kind)) for kind in KINDS[2:9]])
def test_another_seed_or_block_gives_other_values(column: dict[str, Any]) -> None:
    first = made(column, block())
    assert first != made(column, block(stream="2/public.t"))
    assert first != made(column, block(start=BLOCK_ROWS))


@given(st.integers(1, 10_000), st.text(max_size=5))
def test_unique_numbers_come_once_each_before_any_comes_again(span: int, stream: str) -> None:
    found = spread("c", block(stream=stream, rows=min(span, BLOCK_ROWS)), span, unique=True).tolist()
    assert len(set(found)) == len(found)
    assert 0 <= min(found) <= max(found) < span


@given(st.integers(1, 1 << 62))
def test_the_order_of_unique_numbers_has_no_common_factor_with_their_count(span: int) -> None:
    factor, offset = bijection("s", span)
    assert 0 <= offset < span
    assert pow(factor, -1, span) is not None if span > 1 else factor == 1


@given(st.integers(1, 1 << 62))
def test_numbers_stay_in_their_span(span: int) -> None:
    found = spread("c", block(rows=200), span)
    assert 0 <= int(found.min()) <= int(found.max()) < span


@given(st.lists(st.from_regex(r"[a-z.]{1,6}(@[a-z]{1,4})?", fullmatch=True), min_size=1, max_size=8, unique=True))
def test_words_that_begin_again_are_new(words: list[str]) -> None:
    found = [numbered(words, n) for n in range(5 * len(words))]
    assert len(set(found)) == len(found)
    assert found[: len(words)] == words


def test_uuids_are_of_version_4() -> None:
    found = [uuid.UUID(text) for text in made({"uuid": True}, block(rows=500))]
    assert {(one.version, one.variant) for one in found} == {(4, uuid.RFC_4122)}
    assert len(set(found)) == 500


def test_nulls_come_as_often_as_declared() -> None:
    for value in ([1] * BLOCK_ROWS, values("c", Column.model_validate({"sequence": 1}), block(), {})):
        found = with_nulls("c", Column.model_validate({"value": 1, "null_ratio": 0.25}), block(), value)
        share = sum(one is None or (hasattr(one, "as_py") and one.as_py() is None) for one in found) / BLOCK_ROWS
        assert 0.22 < share < 0.28


def test_weights_are_shares() -> None:
    found = made({"choice": {"often": 9, "rarely": 1}}, block())
    assert 0.08 < found.count("rarely") / BLOCK_ROWS < 0.12
