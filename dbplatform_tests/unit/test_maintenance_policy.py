"""What may be declared of maintenance, and when it begins nothing: window, budget, limits; all without a server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from dbplatform.maintenance.pace import exceeded
from dbplatform.maintenance.policy import MaintenancePolicy
from dbplatform.postgres.pressure import Pressure


def server(*, active: int = 1, waiting: int = 0, behind_mb: int = 0) -> Pressure:
    return Pressure(
        active_sessions=active, waiting_sessions=waiting, replica="north", replica_lag_bytes=behind_mb << 20
    )


def test_the_four_schedules_have_the_times_of_the_contract() -> None:
    found = MaintenancePolicy()
    assert (found.daily, found.weekly) == ("0 2 * * *", "0 3 * * 0")
    assert (found.monthly, found.quarterly) == ("0 4 1 * *", "0 5 1 1,4,7,10 *")


def test_a_share_of_nothing_or_all_is_refused() -> None:
    for share in (0, 1, 1.5):
        with pytest.raises(ValidationError):
            MaintenancePolicy.model_validate({"due": {"index_bloat": share}})


def test_a_query_of_a_name_may_be_declared_once() -> None:
    twice = [{"name": "totals", "sql": "select 1"}, {"name": "totals", "sql": "select 2"}]
    with pytest.raises(ValidationError, match="the query totals is declared twice"):
        MaintenancePolicy.model_validate({"queries": twice})


def test_the_window_is_by_the_clock_on_the_wall() -> None:
    window = MaintenancePolicy.model_validate({"window": "22:00-05:00 Europe/Vienna"}).window
    assert window is not None
    assert window.is_open(datetime(2026, 7, 1, 20, 30, tzinfo=UTC))
    assert not window.is_open(datetime(2026, 12, 1, 20, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (server(), None),
        (server(active=51), "51 sessions are at work"),
        (server(waiting=4), "4 sessions wait for locks"),
        (server(behind_mb=60), "the replica north has 60 MB of WAL to replay"),
    ],
)
def test_each_limit_is_told_in_words_once_it_is_exceeded(found: Pressure, words: str | None) -> None:
    reason = exceeded(found, MaintenancePolicy().limits)
    assert (reason is None) == (words is None)
    assert (words or "") in (reason or "")
