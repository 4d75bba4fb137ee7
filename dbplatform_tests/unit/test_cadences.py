"""The table of what comes daily, weekly, monthly and quarterly: each work once, all of it told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbplatform.declaration.database import Database
from dbplatform.orchestration.cadences import CADENCES, CALENDAR, is_harmless, work_of

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "schedules.md"


def database(**about: Any) -> Database:
    return Database.model_validate({"name": "shop", **about})


def assets(of: Database, cadence: str) -> set[str]:
    return {work.asset for work in work_of(of, cadence)}  # type: ignore[arg-type]


def test_no_work_is_in_two_cadences() -> None:
    every = [(work.asset, work.check) for cadence in CADENCES for work in CALENDAR[cadence]]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("cadence", CADENCES)
def test_the_page_of_schedules_tells_each_work_of_a_cadence(cadence: str) -> None:
    [row] = [line for line in _PAGE.read_text().splitlines() if line.startswith(f"| {cadence} |")]
    for work in CALENDAR[cadence]:  # type: ignore[index]
        assert f"`{work.asset}`" in row


def test_what_has_a_schedule_of_its_own_is_left_to_it() -> None:
    backups = {"backup", "restore_drill", "backup_retention"}
    assert backups <= assets(database(backups={}), "daily")
    own = database(backups={"logical": {"schedule": "0 2 * * *"}})
    assert not backups & assets(own, "daily")
    physical = {"physical_backup", "recovery_drill", "physical_retention"}
    assert physical <= assets(database(backups={"physical": {}}), "weekly")
    assert not physical & assets(database(backups={"physical": {"schedule": "0 3 * * 0"}}), "weekly")


def test_the_page_of_schedules_says_how_what_a_freeze_left_out_is_made_up() -> None:
    [told] = [part for part in _PAGE.read_text().split("\n- ") if "is left out this time" in part]
    assert "it comes at its next time" in told
    assert "`dbplatform run shop --job shop_monthly`" in told


def test_what_changes_the_database_is_left_out_in_a_freeze() -> None:
    every = [work for cadence in CADENCES for work in CALENDAR[cadence]]
    going_on = {work.asset for work in every if not work.waits and work.check is None}
    changing = ("partitions/", "archive/", "retirement/", "maintenance/", "benchmarks")
    assert {asset for asset in going_on if asset.startswith(changing)} == {"maintenance/report"}, "it only reads"
    assert {"tables/*", "metrics", "alerts", "backup", "restore_drill", "capacity"} <= going_on


@pytest.mark.parametrize(
    ("job", "harmless"),
    [("shop", False), ("shop_migrate", False), ("shop_daily", False), ("shop_backup", True), ("shop_quality", True)],
)
def test_a_job_that_changes_nothing_in_the_database_is_known(job: str, harmless: bool) -> None:
    assert is_harmless("shop", job) is harmless
