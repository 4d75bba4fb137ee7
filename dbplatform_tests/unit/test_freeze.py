"""Freezes as they are declared: half-open, on the clock of the database, refused with a sentence where wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dbplatform.declaration.database import Database
from dbplatform.declaration.loading import load_project
from dbplatform.declaration.project import Project

_SHOP = "type: dbplatform.ManagedDatabase\nattributes:\n  name: shop\n"


def shop(**about: Any) -> Database:
    return Database.model_validate({"name": "shop", **about})


def test_a_freeze_is_half_open_and_on_the_clock_of_the_database() -> None:
    freeze = {"from": "2026-12-20", "to": "2027-01-04", "reason": "year end"}
    found = shop(time_zone="Europe/Vienna", freeze=[freeze])
    times = {
        datetime(2026, 12, 19, 22, 59, tzinfo=UTC): None,
        datetime(2026, 12, 19, 23, 0, tzinfo=UTC): "until 2027-01-04 00:00 Europe/Vienna: year end",
        datetime(2027, 1, 3, 22, 59, tzinfo=UTC): "until 2027-01-04 00:00 Europe/Vienna: year end",
        datetime(2027, 1, 3, 23, 0, tzinfo=UTC): None,
    }
    freezes = {now: found.frozen(now) for now in times}
    assert {now: one and str(one) for now, one in freezes.items()} == times


def test_of_several_freezes_the_one_that_ends_last_is_told() -> None:
    found = shop(
        freeze=[
            {"from": "2026-12-20", "to": "2027-01-04", "reason": "long"},
            {"from": "2026-12-24 18:00", "to": "2026-12-27", "reason": "short"},
        ]
    )
    freeze = found.frozen(datetime(2026, 12, 25, tzinfo=UTC))
    assert freeze is not None
    assert freeze.reason == "long"
    assert [one.reason for one in found.freezes] == ["long", "short"]


def test_a_freeze_may_be_written_with_its_offset() -> None:
    found = shop(
        time_zone="America/New_York",
        freeze=[{"from": "2026-12-20T00:00+01:00", "to": "2026-12-21T00:00+01:00", "reason": "r"}],
    )
    assert found.frozen(datetime(2026, 12, 19, 23, 0, tzinfo=UTC)) is not None
    assert found.frozen(datetime(2026, 12, 20, 23, 0, tzinfo=UTC)) is None


def test_work_may_hang_on_the_alert_of_a_limit_that_is_declared() -> None:
    found = shop(
        on_breach={"analyze_due_tables": "maintenance/analyze"},
        thresholds=[{"metric": "analyze_due_tables", "warn": "> 3"}],
    )
    assert found.on_breach == {"analyze_due_tables": "maintenance/analyze"}


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ("  freeze:\n    - {from: 2027-01-03, to: 2026-12-20, reason: x}\n", 5, "comes after"),
        ("  freeze:\n    - {from: 2026-12-20, to: 2026-12-20, reason: x}\n", 5, "comes after"),
        ("  freeze:\n    - {from: 2026-12-20, reason: x}\n", 5, "'to'"),
        ("  freeze:\n    - {from: 2026-12-20, to: 2027-01-03}\n", 5, "'reason'"),
        ('  freeze:\n    - {from: 2026-12-20, to: 2027-01-03, reason: " "}\n', 5, "reason"),
        ("  freeze:\n    - {from: tomorrow, to: 2027-01-03, reason: x}\n", 5, "2026-12-20"),
        ('  freeze:\n    - {from: 2026-12-20, to: "2027-01-03T00:00+01:00", reason: x}\n', 5, "two clocks"),
        ("  time_zone: Europe/Wien\n", 4, "Europe/Vienna"),
        ("  time_zone: 1\n", 4, "time zone"),
        ("  on_breach: {dead_tuples: maintenance/vacuum}\n", 4, "dead_tuple_ratio"),
        ("  on_breach:\n    dead_tuple_ratio: maintenance/vacum\n", 5, "maintenance/vacuum"),
        ("  on_breach: {backup_age_s: backup}\n", 2, "backups: {}"),
        ("  on_breach: {analyze_due_tables: maintenance/analyze}\n", 2, "analyze_due_tables has no limit, so no alert"),
    ],
)
def test_a_wrong_time_or_target_is_refused_with_its_line(tmp_path: Path, lines: str, line: int, words: str) -> None:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_SHOP + lines)
    [broken] = load_project(Project.at(tmp_path)).broken
    assert words in str(broken.error)
    assert broken.error.line == line
