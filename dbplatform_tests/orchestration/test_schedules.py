"""Schedules on a turned clock: as often as declared, whatever summer time, a stopped daemon or a freeze does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from pathlib import Path
from unittest import mock
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus
from dagster._utils.schedules import schedule_execution_time_iterator

from dbplatform.declaration.project import Project
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import schedules
from dbplatform.orchestration.component import ManagedDatabase
from dbplatform.orchestration.schedules import DUE, FREEZE, schedules_of
from dbplatform_tests.orchestration.turned_clock import Clock, scheduler

_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: production}
  migrations: {}
  partitioned_tables: [{table: sale, column: at, interval: 1 month}]
  backups: {logical: {schedule: "30 2 * * *"}}
  quality: [{table: sale, checks: [{not_null: at}]}]
"""
#: At half past two, which summer time skips, or lets come twice.
_AT_HALF_PAST_TWO = """\
  maintenance: {daily: "30 2 * * *", weekly: "30 2 * * 0", monthly: "30 2 1 * *", quarterly: "30 2 1 1,4,7,10 *"}
"""
_ZONES = [
    "UTC",
    "Europe/Vienna",
    "America/New_York",
    "America/Santiago",  # the night it skips begins at midnight
    "Africa/Cairo",
    "Asia/Kolkata",
    "Australia/Sydney",
    "Australia/Lord_Howe",  # half an hour
    "Pacific/Auckland",
    "Pacific/Chatham",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "defs" / "shop" / "migrations").mkdir(parents=True)
    monkeypatch.setenv("SHOP_URL", "postgresql://nobody@127.0.0.1:1/shop")
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    overrides = {
        "run_launcher": {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"},
        "event_log_storage": {"module": "dagster._core.storage.event_log", "class": "InMemoryEventLogStorage"},
        "telemetry": {"enabled": False},
    }
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(overrides=overrides, temp_dir=str(tmp_path / "dagster")) as made:
        yield made


def declare(folder: Path, more: str = "", of: str = _SHOP) -> None:
    (folder / "defs" / "shop" / "defs.yaml").write_text(of + more)


def days_of_2027() -> list[date]:
    return [date(2027, 1, 1) + timedelta(days=day) for day in range(365)]


@pytest.mark.parametrize("zone", _ZONES)
def test_a_year_has_each_task_exactly_as_often_as_declared(folder: Path, zone: str) -> None:
    every = days_of_2027()
    expected = {
        "shop_daily": every,
        "shop_weekly": [day for day in every if day.isoweekday() == 7],
        "shop_monthly": [day for day in every if day.day == 1],
        "shop_quarterly": [day for day in every if day.day == 1 and day.month in (1, 4, 7, 10)],
        "shop_backup_schedule": every,
    }
    clock = ZoneInfo(zone)
    begins, ends = datetime(2027, 1, 1, tzinfo=clock), datetime(2028, 1, 1, tzinfo=clock)
    # The hours at which clocks are turned somewhere, and their edges.
    for hour in ("30 2", "0 2", "0 3", "15 0", "0 0", "59 1", "45 3"):
        declare(folder, f"  time_zone: {zone}\n" + _AT_HALF_PAST_TWO.replace("30 2", hour))
        platform = Platform(Project.at(folder))
        jobs = [dg.define_asset_job(f"shop_{job}") for job in ("daily", "weekly", "monthly", "quarterly", "backup")]
        found = {}
        for schedule in schedules_of(platform, platform.declarations.get("shop"), jobs):
            ticks = schedule_execution_time_iterator(
                begins.timestamp(), schedule.cron_schedule, schedule.execution_timezone
            )
            within = takewhile(lambda tick: tick.timestamp() < ends.timestamp(), ticks)
            found[schedule.name] = [datetime.fromtimestamp(tick.timestamp(), clock).date() for tick in within]
        assert found == expected, hour


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Vienna", date(2027, 3, 28)),
        ("Australia/Sydney", date(2027, 4, 4)),
        pytest.param("Europe/Vienna", date(2027, 10, 31), marks=pytest.mark.drill),
        pytest.param("Australia/Sydney", date(2027, 10, 3), marks=pytest.mark.drill),
    ],
)
def test_the_daemon_begins_one_run_on_the_day_when_clocks_are_turned(
    folder: Path, instance: dg.DagsterInstance, zone: str, day: date
) -> None:
    declare(folder, f"  time_zone: {zone}\n" + _AT_HALF_PAST_TWO)
    begins = datetime.combine(day, time(), ZoneInfo(zone))
    with scheduler(folder, instance, Clock(begins.astimezone(UTC))) as daemon:
        daemon.pass_time(begins + timedelta(days=1))
        begun = {job: len(daemon.runs(job)) for job in ("shop_daily", "shop_weekly", "shop_backup")}
        assert begun == {"shop_daily": 1, "shop_weekly": 1, "shop_backup": 1}


@pytest.mark.drill
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Auckland"])
def test_the_daemon_begins_each_task_of_a_year_as_often_as_declared(
    folder: Path, instance: dg.DagsterInstance, zone: str
) -> None:
    declare(folder, f"  time_zone: {zone}\n" + _AT_HALF_PAST_TWO)
    clock = ZoneInfo(zone)
    days = [datetime(2027, 1, 1, tzinfo=clock) + timedelta(days=number) for number in range(365)]
    with scheduler(folder, instance, Clock(days[0].astimezone(UTC))) as daemon:
        for day in days:
            if day.utcoffset() == (day + timedelta(days=1)).utcoffset():
                daemon.look(day.replace(hour=2, minute=30))
                daemon.end_runs()
            else:
                daemon.pass_time(day.replace(hour=6), step=timedelta(minutes=10))
        expected = {"shop_daily": 365, "shop_weekly": 52, "shop_monthly": 12, "shop_quarterly": 4, "shop_backup": 365}
        begun = {job: len(daemon.runs(job)) for job in daemon.jobs}
        assert begun == {job: expected[job] for job in begun}
        assert {"shop_daily", "shop_weekly", "shop_monthly", "shop_backup"} <= begun.keys()
        assert not any(DUE in run.tags for run in daemon.runs("shop_daily"))


def test_a_daemon_that_was_down_for_days_makes_up_one_run_that_says_when_it_was_due(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    declare(folder)
    with scheduler(folder, instance, Clock(datetime(2027, 5, 3, tzinfo=UTC))) as daemon:
        daemon.pass_time(datetime(2027, 5, 3, 4, tzinfo=UTC))
        assert len(daemon.runs("shop_daily")) == 1
    with scheduler(folder, instance, Clock(datetime(2027, 5, 7, 14, tzinfo=UTC))) as restarted:
        restarted.pass_time(datetime(2027, 5, 7, 16, tzinfo=UTC))
        on_time, late = restarted.runs("shop_daily")
        assert (on_time.tags.get(DUE), late.tags[DUE]) == (None, "2027-05-07T02:00:00+00:00")
        restarted.look(datetime(2027, 5, 8, 2, tzinfo=UTC))
        assert len(restarted.runs("shop_daily")) == 3, "and goes on as before"


def test_a_run_that_goes_on_is_not_doubled_and_the_tick_says_so(folder: Path, instance: dg.DagsterInstance) -> None:
    declare(folder)
    with scheduler(folder, instance, Clock(datetime(2027, 5, 3, 1, tzinfo=UTC))) as daemon:
        daemon.look(daemon.clock.now)
        daemon.look(datetime(2027, 5, 3, 2, tzinfo=UTC))
        [run] = daemon.runs("shop_daily")
        assert not run.is_finished
        daemon.look(datetime(2027, 5, 4, 2, tzinfo=UTC))
        assert [one.run_id for one in daemon.runs("shop_daily")] == [run.run_id]
        begun, skipped = daemon.ticks("shop_daily")
        assert (begun.status, skipped.status) == (TickStatus.SUCCESS, TickStatus.SKIPPED)
        assert str(skipped.skip_reason).startswith(f"Run {run.run_id} of shop_daily goes on")
        daemon.end_runs()
        daemon.look(datetime(2027, 5, 5, 2, tzinfo=UTC))
        assert len(daemon.runs("shop_daily")) == 2


def test_a_freeze_leaves_what_changes_the_database_and_does_the_rest(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    declare(
        folder,
        "  time_zone: Europe/Vienna\n  archives: [{name: old, table: sale, column: at, older_than: 1 year}]\n"
        '  freeze: [{from: 2027-05-04, to: 2027-05-06, reason: "the great sale"}]\n',
    )
    with scheduler(folder, instance, Clock(datetime(2027, 5, 2, 20, tzinfo=UTC))) as daemon:
        daemon.pass_time(datetime(2027, 5, 6, 12, tzinfo=UTC), step=timedelta(hours=4))
        before, first, second, after = daemon.runs("shop_daily")
        words = "until 2027-05-06 00:00 Europe/Vienna: the great sale"
        assert [run.tags.get(FREEZE) for run in (before, first, second, after)] == [None, words, words, None]
        changing = {dg.AssetKey(["shop", "partitions", "sale"]), dg.AssetKey(["shop", "archive", "old"])}
        assert before.asset_selection is None
        assert after.asset_selection is None
        for frozen in (first, second):
            assert frozen.asset_selection is not None
            assert not changing & frozen.asset_selection
            assert {dg.AssetKey(["shop", "tables", "sale"]), dg.AssetKey(["shop", "health"])} <= frozen.asset_selection
            checks = {(one.asset_key.path[1], one.name) for one in frozen.asset_check_selection or ()}
            looking = {("tables", "not_null_at"), ("health", "structure"), ("migrations", "drift")}
            assert looking | {("partitions", "runs_out")} <= checks
        assert len(daemon.runs("shop_backup")) == 4, "backups go on"
        assert all(FREEZE not in run.tags for run in daemon.runs("shop_backup"))


def test_a_schedule_with_nothing_that_may_go_on_says_which_freeze_it_waits_for(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    declare(folder, '  freeze: [{from: 2027-05-01, to: 2027-06-01, reason: "year end"}]\n')
    platform = Platform(Project.at(folder))
    declared = platform.declarations.get("shop")
    context = dg.build_schedule_context(instance, scheduled_execution_time=datetime(2027, 5, 3, 2, tzinfo=UTC))
    with mock.patch.object(schedules, "_in_a_freeze", return_value=([], [])):
        found = schedules.begin(platform, declared, "shop_monthly", context, datetime(2027, 5, 3, 2, tzinfo=UTC))
    assert isinstance(found, dg.SkipReason)
    assert found.skip_message == "shop is frozen until 2027-06-01 00:00 UTC: year end."


def test_a_schedule_that_was_stopped_stays_stopped_when_the_project_is_loaded_again(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    declare(folder)
    with scheduler(folder, instance, Clock(datetime(2027, 5, 3, tzinfo=UTC))) as daemon:
        daemon.look(daemon.clock.now)
        assert daemon.is_running("shop_daily")
        daemon.stop("shop_daily")
        daemon.pass_time(datetime(2027, 5, 5, tzinfo=UTC), step=timedelta(hours=12))
    declare(folder, '  maintenance: {daily: "0 3 * * *"}\n')
    with scheduler(folder, instance, Clock(datetime(2027, 5, 5, tzinfo=UTC))) as again:
        assert not again.is_running("shop_daily")
        again.pass_time(datetime(2027, 5, 7, 12, tzinfo=UTC), step=timedelta(hours=12))
        assert (again.runs("shop_daily"), len(again.runs("shop_backup"))) == ([], 5)


def test_a_database_that_is_not_there_yet_is_left_alone_with_a_word(folder: Path, instance: dg.DagsterInstance) -> None:
    declare(folder, of=_SHOP.replace("url_env: SHOP_URL, ", ""))
    with scheduler(folder, instance, Clock(datetime(2027, 5, 3, tzinfo=UTC))) as daemon:
        daemon.pass_time(datetime(2027, 5, 3, 2, tzinfo=UTC))
        assert daemon.runs("shop_daily") == []
        [tick] = daemon.ticks("shop_daily")
        assert tick.skip_reason == "shop is not there yet; dbplatform run shop makes it."


@pytest.mark.parametrize(
    ("environment", "running"), [("development", True), ("test", False), ("staging", True), ("production", True)]
)
def test_schedules_start_by_themselves_but_in_an_environment_of_tests(
    folder: Path, environment: str, running: bool
) -> None:
    declare(folder, of=_SHOP.replace("production", environment))
    platform = Platform(Project.at(folder))
    found = ManagedDatabase(platform, platform.declarations.get("shop")).build_defs().schedules
    statuses = {one.default_status for one in found or () if isinstance(one, dg.ScheduleDefinition)}
    assert statuses == {dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED}


def test_a_cadence_that_is_turned_off_has_a_job_and_no_schedule(folder: Path) -> None:
    declare(folder, "  maintenance: {daily: false}\n")
    platform = Platform(Project.at(folder))
    definitions = ManagedDatabase(platform, platform.declarations.get("shop")).build_defs()
    assert definitions.get_job_def("shop_daily").name == "shop_daily"
    assert "shop_daily" not in {one.name for one in definitions.schedules or ()}
