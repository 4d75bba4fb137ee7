"""Checksums equal Flyway's for files of every shape: line ends, byte order marks, empty lines, other alphabets.

Flyway itself is not run here. Its numbers come from what it published or wrote (the address stands beside each), and
from its algorithm, transcribed in ``dbplatform_tests.flyway`` with the source named there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbplatform.migrations.files import checksum, discover
from dbplatform_tests import flyway

BOM = b"\xef\xbb\xbf"

#: Each file with the checksum that Flyway's algorithm gives it.
FILES = {
    "empty": (b"", 0),
    "only_a_mark": (BOM, 0),
    "only_line_ends": (b"\n\r\n\r\n\n", 0),
    "one_line": (b"create table t (a int);", 1971800875),
    "one_line_lf": (b"create table t (a int);\n", 1971800875),
    "one_line_crlf": (b"create table t (a int);\r\n", 1971800875),
    "one_line_cr": (b"create table t (a int);\r", 1971800875),
    "mark_and_crlf": (BOM + b"create table t (a int);\r\ninsert into t values (1);\r\n", -762337937),
    "no_mark_and_lf": (b"create table t (a int);\ninsert into t values (1);\n", -762337937),
    "no_last_line_end": (b"create table t (a int);\ninsert into t values (1);", -762337937),
    "empty_lines": (b"\n\ncreate table t (a int);\n\n\n\ninsert into t values (1);\n\n", -762337937),
    "mixed_line_ends": (b"select 1;\nselect 2;\r\nselect 3;\rselect 4;", 1677856402),
    "lf_cr": (b"select 1;\n\rselect 2;", -593479011),
    "mark_twice": (BOM + BOM + b"select 1;", 1918699538),
    "mark_on_the_second_line": (b"\n" + BOM + b"select 1;", 1918699538),
    "mark_inside": (b"select '" + BOM + b"';", -2006920197),
    "leading_and_trailing_spaces": (b"  select 1;  \n\tselect 2;\t\n", -1825723967),
    "german": ("insert into city values ('Zürich', 'Köln');\r\n".encode(), 792262694),
    "japanese": ("-- 東京\nselect '大阪';\n".encode(), 1965745160),
    "cyrillic_crlf": ("select 'Привет';\r\n-- мир\r\n".encode(), 103933401),
    "emoji": ("select '🛫 🛬';".encode(), -2046568358),
    "combining": ("select 'e\u0301' <> 'é';\n".encode(), -840384767),
    "next_line_character": ("select 1;\x85select 2;".encode(), 1245886275),
    "line_separator": ("select 1;\u2028select 2;\u2029".encode(), -1833611102),
    "form_feed_and_vertical_tab": (b"select 1;\x0cselect 2;\x0bselect 3;\x1c", -1183518790),
    "nul": (b"select '\x00';", -1529713624),
    "long_line": (b"insert into t values " + b"(1), " * 5000 + b"(1);\n", -101417360),
    "dollar_quotes": (b"do $$\r\nbegin\r\n  perform 1;\r\nend\r\n$$;\r\n", 891090774),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_flyways_checksum(tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    (tmp_path / f"V1__{name}.sql").write_bytes(content)
    (migration,) = discover(tmp_path)
    assert checksum(migration.text) == flyway.checksum(content) == expected


@pytest.mark.parametrize(
    ("text", "published"),
    [
        # https://github.com/flyway/flyway/issues/2474: this script, and "Resolved locally" by Flyway 6.0.0.
        ("alter table location_history add column valid_until timestamp with time zone;", -1039259818),
    ],
)
def test_the_checksum_is_the_one_that_flyway_published(text: str, published: int) -> None:
    assert checksum(text) == flyway.checksum(text.encode()) == published


def test_as_flyways_own_tests_say_line_ends_and_the_mark_do_not_count() -> None:
    # SqlMigrationResolverSmallTest.calculateChecksum, and migration/cr/V1__utf8_bom_win.txt beside V2__utf8_unix.txt.
    assert checksum("abc\ndef efg\nxyz") == checksum("abc\r\ndef efg\nxyz\r\n")
    unix = b"Test checksum calculation here\nIgnoring bom and cr symbols\n"
    windows = BOM + unix.replace(b"\n", b"\r\n")
    assert flyway.checksum(unix) == flyway.checksum(windows) == checksum(unix.decode())


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), max_size=60))
def test_any_text_has_flyways_checksum(text: str) -> None:
    assert checksum(text) == flyway.checksum(text.encode())
