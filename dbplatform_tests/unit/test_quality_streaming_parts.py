"""The parts of a stream by themselves: keys in bounded memory, hashes of texts, expressions that mean the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbplatform.quality.streaming.keys import Keys, repeating
from dbplatform.quality.streaming.patterns import as_re2, prefix
from dbplatform.quality.streaming.texts import hashes, lengths, mixed

NUMBERS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**56, 2**63, 2**64 - 1])


@settings(deadline=None)
@given(st.lists(st.lists(st.lists(NUMBERS, min_size=1, max_size=20), max_size=4), min_size=1, max_size=3))
def test_keys_that_repeat_are_counted_over_batches_and_sessions(sessions: list[list[list[int]]]) -> None:
    seen = [Keys() for _ in sessions]
    for keys, batches in zip(seen, sessions, strict=True):
        for batch in batches:
            keys.add(np.array(batch, dtype=np.uint64))
    counts = Counter(number for batches in sessions for batch in batches for number in batch)
    assert repeating(seen) == sum(count for count in counts.values() if count > 1)
    for keys in seen:
        keys.close()


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50))
def test_scattering_is_one_to_one(numbers: list[int]) -> None:
    assert len(set(mixed(np.array(numbers, dtype=np.uint64)).tolist())) == len(numbers)


TEXTS = st.lists(st.none() | st.text(alphabet="abé€😀\n ", max_size=20), max_size=30)


@settings(deadline=None)
@given(TEXTS, st.integers(0, 5))
def test_equal_texts_have_equal_hashes_and_others_another(texts: list[str | None], start: int) -> None:
    array = pa.array(["before"] * start + texts, type=pa.string())[start:]
    numbers = hashes(array).tolist()
    known = [(text, number) for text, number in zip(texts, numbers, strict=True) if text is not None]
    assert len({text for text, _ in known}) == len(set(known)) == len({number for _, number in known})
    assert [n for n, text in zip(lengths(array).tolist(), texts, strict=True) if text is not None] == [
        len(text) for text, _ in known
    ]


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 17])
def test_texts_of_one_length_are_hashed_as_among_others(width: int) -> None:
    alone = pa.array([f"{n:0{width}d}"[-width:] for n in range(9)])
    assert hashes(alone).tolist() == hashes(pa.concat_arrays([alone, pa.array(["", "x" * 40])])).tolist()[:9]


@pytest.mark.parametrize(
    "regex",
    [
        "^[a-z0-9]+@[a-z]+\\.com$",
        "^ORD-[0-9]{9}$",
        "^(new|paid)$",
        "[^a-c]{2,}",
        ".",
        "a b",
        "^N[0-9A-Z]+$",
        "^((a|b)c)*$",
        "x{0,3}",
        "[a-]",
        "^",
    ],
)
def test_an_expression_of_plain_parts_is_for_re2_too(regex: str) -> None:
    assert as_re2(regex) == f"(?s){regex}"


@pytest.mark.parametrize(
    "regex",
    [
        r"\d+", r"\w", r"\mword", r"(a)\1", "a**", "a+?", "a{2}{3}", "(?i)a", "(?=a)", "***=a", "*a", "a|", "|a", "()",
        "(a", "a)", "[[:alpha:]]", "[]a]", "[a", "[z-a]", r"[\d]", "é", "[é]", "a{", "a{3,2}", "a{999}", "^*", "a\nb",
        "", "[a-Z]", "[+--]", "[-]",
    ],
)  # fmt: skip
def test_any_other_expression_is_left_to_the_server(regex: str) -> None:
    assert as_re2(regex) is None


def test_only_a_literal_behind_an_anchor_is_a_prefix() -> None:
    assert prefix("^user") == "user"
    assert [prefix(regex) for regex in ("user", "^user$", "^us.r", "^u+", "^")] == [None] * 5
