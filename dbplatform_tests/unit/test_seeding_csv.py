"""CSV into COPY's text format, without a database; Python's csv module is the second opinion."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbplatform.seeding import csv_text
from dbplatform.seeding.csv_text import Block, Shape, blocks, copy_lines, header_of
from dbplatform.seeding.errors import BadCsv

TEXT = st.text(st.one_of(st.sampled_from('",\\\n\r\t.N é'), st.characters(exclude_characters="\0", codec="utf-8")))
TABLES = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1, max_size=12)
)


def lines_of(data: bytes, nulls: frozenset[bytes] | None = None, **changes: Any) -> list[bytes]:
    parts = blocks(io.BytesIO(data), "f.csv")
    names, block = header_of(parts, "f.csv")
    shape = Shape(width=len(names), picked=range(len(names)), nulls=nulls, changed={})
    for name, value in changes.items():
        shape = Shape(**{**{field: getattr(shape, field) for field in Shape.__slots__}, name: value})
    lines = copy_lines(block, shape, "f.csv")
    for block in parts:
        lines += copy_lines(block, shape, "f.csv")
    return lines


def unescaped(line: bytes) -> list[str | None]:
    """What PostgreSQL reads from a line of COPY's text format."""
    values: list[str | None] = []
    for field in line.split(b"\t"):
        text = field.decode()
        if text == "\\N":
            values.append(None)
            continue
        plain, position = "", 0
        while position < len(text):
            if text[position] == "\\":
                position += 1
                plain += {"t": "\t", "n": "\n", "r": "\r"}.get(text[position], text[position])
            else:
                plain += text[position]
            position += 1
        values.append(plain)
    return values


@given(TABLES, st.sampled_from(["\n", "\r\n"]), st.sampled_from([1, 7, 64, 1 << 18]))
def test_every_text_arrives_as_it_was_written(table: list[list[str]], end: str, block_bytes: int) -> None:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow([f"c{i}" for i in range(len(table[0]))])
    writer.writerows(table)
    before = csv_text._BLOCK_BYTES
    csv_text._BLOCK_BYTES = block_bytes
    try:
        lines = lines_of(written.getvalue().encode())
    finally:
        csv_text._BLOCK_BYTES = before
    assert [unescaped(line) for line in lines] == table


@given(TABLES)
def test_minimal_quoting_reads_as_the_csv_module_reads_it(table: list[list[str]]) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows([["c"] * len(table[0]), *table])
    lines = lines_of(written.getvalue().encode(), nulls=frozenset())
    assert [unescaped(line) for line in lines] == table


def test_by_default_an_empty_field_is_null_unless_it_is_quoted() -> None:
    assert lines_of(b'a,b,c\n,"",NA\n1,,\n') == [rb"\N" + b"\t\tNA", b"1\t" + rb"\N" + b"\t" + rb"\N"]


def test_declared_nulls_are_null_quoted_or_not_and_nothing_else_is() -> None:
    assert lines_of(b'a,b,c\nNA,"NA",\n', frozenset((b"NA",))) == [rb"\N" + b"\t" + rb"\N" + b"\t"]


def test_a_byte_order_mark_and_blank_lines_are_left_out_and_a_missing_last_line_end_is_no_matter() -> None:
    assert lines_of(b"\xef\xbb\xbfa,b\n1,2\n\n3,4") == [b"1\t2", b"3\t4"]
    assert header_of(blocks(io.BytesIO(b"\xef\xbb\xbfa,b\n"), "f"), "f")[0] == ["a", "b"]


def test_columns_are_picked_in_the_order_asked_for() -> None:
    assert lines_of(b"a,b,c\n1,2,3\n", picked=[2, 0]) == [b"3\t1"]


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (b"a,b\n1,2\n1,2,3\n", 3, "3 fields, the header has 2"),
        (b'a,b\n"x\ny",2\n1\n', 4, "1 field, the header has 2"),
        (b'a,b\n1,2\n1,"2\n3,4\n', 3, "never closed"),
        (b'a,b\n1,2\n1,5"" pipe\n', 3, "a quote stands inside"),
        (b"", None, "is empty"),
    ],
)
def test_a_broken_file_is_refused_with_the_line(data: bytes, line: int | None, says: str) -> None:
    with pytest.raises(BadCsv, match=says) as caught:
        lines_of(data)
    assert (caught.value.file, caught.value.line) == ("f.csv", line)


def test_the_line_of_a_record_counts_the_line_ends_inside_quotes() -> None:
    assert Block(10, [b'"a\nb"', b"c", b"d"], False).line_of(2) == 13


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "_LONGEST_RECORD_BYTES", 1000)
    monkeypatch.setattr(csv_text, "_BLOCK_BYTES", 100)
    stream = io.BytesIO(b'a,b\n"' + b"x,y\n" * 10_000)
    with pytest.raises(BadCsv, match="longer than"):
        list(blocks(stream, "f.csv"))
    assert stream.tell() < 2000
