"""A window of the day is open by the clock on the wall of its zone, also over midnight and when summer time begins."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.postgres.daily_window import Window


@pytest.mark.parametrize(
    ("words", "at", "is_open"),
    [
        ("22:00-05:00", "2026-07-01 21:59:59", False),
        ("22:00-05:00", "2026-07-01 22:00", True),
        ("22:00-05:00", "2026-07-02 04:59:59", True),
        ("22:00-05:00", "2026-07-02 05:00", False),
        ("9:00-17:30", "2026-07-02 17:29", True),
        ("9:00-17:30", "2026-07-02 08:59", False),
        ("22:00-05:00 Europe/Vienna", "2026-07-01 20:00", True),
        ("22:00-05:00 Europe/Vienna", "2026-01-01 20:00", False),
        ("02:00-03:00 Europe/Vienna", "2026-03-29 01:30", False),
        ("02:00-03:00 Europe/Vienna", "2026-10-25 00:30", True),
        ("02:00-03:00 Europe/Vienna", "2026-10-25 01:30", True),
    ],
)
def test_a_window_is_open_by_the_clock_on_the_wall(words: str, at: str, is_open: bool) -> None:
    assert Window.parse(words).is_open(datetime.fromisoformat(at).replace(tzinfo=UTC)) is is_open


@pytest.mark.parametrize("words", ["night", "22-5", "25:00-05:00", "22:00-22:00", "22:00-05:00 Mars/Olympus", "1:00"])
def test_what_is_no_window_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"no window of the day|closed all day|no time zone"):
        Window.parse(words)


@pytest.mark.parametrize(
    ("words", "bytes_"), [("64MB", 64 * 2**20), ("5 GB", 5 * 2**30), ("100kB", 102_400), ("1TB", 2**40)]
)
def test_a_budget_is_written_in_postgresqls_sizes(words: str, bytes_: int) -> None:
    assert ArchivePolicy(name="old", table="orders", where="done", budget=words).budget == bytes_


@pytest.mark.parametrize("words", ["5", "5 gigabytes", "0MB", "-1GB", "", True])
def test_what_is_no_size_is_refused(words: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        ArchivePolicy(name="old", table="orders", where="done", budget=words)
