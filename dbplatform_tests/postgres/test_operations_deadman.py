"""The dead man's switch: a watch that stopped, a ledger that is gone, and a status service that ended are told once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from dbplatform.alerting.errors import ChannelFailed
from dbplatform.alerting.record import list_alerts
from dbplatform.alerting.sending import Message
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Heartbeat
from dbplatform.operations import alerts, heartbeats
from dbplatform.operations.deadman import DeadMansSwitch
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform_tests.drills.breaking import no_room
from dbplatform_tests.installation import free_port

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  notify: [{url_env: ALERT_URL, quiet_hours: "00:00-23:59"}]
"""
_NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Channel:
    """What arrived; ``down`` makes it refuse."""

    def __init__(self) -> None:
        self.arrived: list[Message] = []
        self.down = False

    @property
    def titles(self) -> list[str]:
        return [message.title for message in self.arrived]

    def __call__(self, _: str, message: Message) -> None:
        if self.down:
            raise ChannelFailed(reason="the receiver is down")
        self.arrived.append(message)


@pytest.fixture
def platform(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_DECLARATION)
    monkeypatch.setenv("ALERT_URL", "json://127.0.0.1")
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    platform = Platform(Project.at(tmp_path))
    yield platform
    platform.ledger.engine.dispose()


def overdue(ledger: Ledger, name: str, *, seconds: int = 110) -> None:
    """Its last sign was so long ago."""
    with ledger.session() as session:
        at = datetime.now(UTC) - timedelta(seconds=seconds)
        session.execute(update(Heartbeat).where(Heartbeat.name == name).values(at=at))


def after(seconds: int) -> datetime:
    return _NOW + timedelta(seconds=seconds)


def test_a_watch_that_stopped_is_told_once_whatever_restarts_and_its_return_too(platform: Platform) -> None:
    channel = Channel()
    databases = platform.declarations.databases
    switch = DeadMansSwitch(platform, databases, send=channel)
    assert switch.look(after(0)) == (), "a watch that never was is missed by nobody"
    heartbeats.beat(platform.ledger, heartbeats.WATCH)
    assert switch.look(after(10)) == ()

    overdue(platform.ledger, heartbeats.WATCH)
    assert switch.look(after(20)) == (), "the watch gets its time after a start, for its last sign may be of yesterday"
    (problem,) = switch.look(after(110))
    assert "the watch over the databases has stopped" in problem
    switch.look(after(120))
    restarted = DeadMansSwitch(platform, databases, send=channel)
    for seconds in (130, 240):
        restarted.look(after(seconds))
    assert channel.titles == ["[critical] dbplatform: watch"]
    assert "dbplatform dev" in channel.arrived[0].body
    assert [alert.key for alert in list_alerts(platform.ledger)] == ["heartbeat:watch"]

    heartbeats.beat(platform.ledger, heartbeats.WATCH)
    assert switch.look(after(250)) == ()
    overdue(platform.ledger, heartbeats.QUEUE)  # it never gave a sign: nobody waits for it
    switch.look(after(260))
    alerts.tell(platform, databases, now=after(260), send=channel)
    assert channel.titles[1:] == ["[resolved] dbplatform: watch"]


def test_the_switch_sends_what_the_dead_daemon_left_in_the_outbox(platform: Platform) -> None:
    channel = Channel()
    channel.down = True
    switch = DeadMansSwitch(platform, platform.declarations.databases, send=channel)
    heartbeats.beat(platform.ledger, heartbeats.WATCH)
    switch.look(after(0))
    overdue(platform.ledger, heartbeats.WATCH)
    switch.look(after(110))
    channel.down = False
    switch.look(after(115))
    assert channel.titles == [], "the channel is given its time"
    switch.look(after(125))
    assert channel.titles == ["[critical] dbplatform: watch"]


def test_a_daemon_that_was_seen_to_end_is_told_at_once_and_nobody_is_left_to_wait_for(platform: Platform) -> None:
    channel = Channel()
    heartbeats.beat(platform.ledger, heartbeats.WATCH)
    switch = DeadMansSwitch(platform, platform.declarations.databases, send=channel)
    switch.look(after(0))
    (problem,) = switch.daemon_ended(after(1))
    assert "the watch over the databases has stopped" in problem
    assert channel.titles == ["[critical] dbplatform: watch"]
    with platform.ledger.session() as session:
        assert [row.name for row in session.scalars(select(Heartbeat))] == [heartbeats.WATCH]


def test_a_daemon_that_ended_with_the_ledger_is_told_straight_at_once(platform: Platform) -> None:
    channel = Channel()
    switch = DeadMansSwitch(platform, platform.declarations.databases, send=channel)
    assert platform.ledger is not None
    platform.__dict__["ledger"] = Ledger(Target("the ledger", f"postgresql://127.0.0.1:{free_port()}/gone"))
    switch.daemon_ended(after(0))
    assert channel.titles == ["[critical] dbplatform: the ledger does not answer"]


def test_a_ledger_that_hangs_is_told_as_one_that_refuses(platform: Platform) -> None:
    channel = Channel()
    there = platform.ledger
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        platform.__dict__["ledger"] = Ledger(
            Target("the ledger", f"postgresql://127.0.0.1:{deaf.getsockname()[1]}/deaf?connect_timeout=2")
        )
        switch = DeadMansSwitch(platform, platform.declarations.databases, send=channel, answer_s=0.01)
        for seconds in (0, 50):
            assert "does not answer" in switch.look(after(seconds))[0]
    assert channel.titles == ["[critical] dbplatform: the ledger does not answer"]
    platform.__dict__["ledger"] = there


def test_a_ledger_that_does_not_answer_is_told_straight_to_the_channels_and_its_return_too(platform: Platform) -> None:
    channel = Channel()
    switch = DeadMansSwitch(platform, platform.declarations.databases, send=channel)
    there = platform.ledger
    away = Ledger(Target("the ledger", f"postgresql://nobody:s3cret@127.0.0.1:{free_port()}/gone"))
    platform.__dict__["ledger"] = away
    for seconds in (0, 40):
        assert switch.look(after(seconds))[0].startswith("the ledger does not answer")
    assert channel.titles == [], "a server that restarts is away for a moment"
    channel.down = True
    switch.look(after(50))
    channel.down = False
    for seconds in (60, 70, 80):
        switch.look(after(seconds))
    assert channel.titles == ["[critical] dbplatform: the ledger does not answer"]
    assert "dbplatform server start" in channel.arrived[0].body
    assert "s3cret" not in channel.arrived[0].body

    platform.__dict__["ledger"] = there
    for seconds in (90, 100):
        assert switch.look(after(seconds)) == ()
    assert channel.titles[1:] == ["[resolved] dbplatform: the ledger answers"]


def test_a_ledger_that_was_away_for_a_moment_is_not_told(platform: Platform) -> None:
    channel = Channel()
    switch = DeadMansSwitch(platform, platform.declarations.databases, send=channel)
    there = platform.ledger
    for away_at, back_at in ((0, 20), (40, 60)):
        platform.__dict__["ledger"] = Ledger(Target("the ledger", f"postgresql://127.0.0.1:{free_port()}/gone"))
        switch.look(after(away_at))
        platform.__dict__["ledger"] = there
        switch.look(after(back_at))
    assert channel.arrived == []


def test_the_watch_tells_of_a_status_service_that_was_killed_and_not_of_one_that_was_ended(platform: Platform) -> None:
    channel = Channel()
    databases = platform.declarations.databases
    switch = DeadMansSwitch(platform, databases, send=channel)
    switch.look(after(0))
    overdue(platform.ledger, heartbeats.SERVICE)
    alerts.watch_all(platform, databases, now=after(10), runs={}, send=channel)
    assert channel.titles == ["[critical] dbplatform: status_service"]

    switch.look(after(20))
    switch.sign_off()
    alerts.watch_all(platform, databases, now=after(200), runs={}, send=channel)
    about_the_platform = [title for title in channel.titles if "dbplatform" in title]
    assert about_the_platform == ["[critical] dbplatform: status_service", "[resolved] dbplatform: status_service"]
    assert list_alerts(platform.ledger, heartbeats.PLATFORM) == ()


def test_a_ledger_whose_disk_is_full_is_told_straight_to_the_channels_and_what_it_missed_is_told_later(
    platform: Platform, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are there can still be changed: signs of life go on, and only alerts find no room."""
    monkeypatch.setenv("SHOP_URL", database.url)
    channel, databases = Channel(), platform.declarations.databases
    switch = DeadMansSwitch(platform, databases, send=channel)

    def tick(seconds: int) -> None:
        """As the sensor does it."""
        alerts.watch_all(platform, databases, now=after(seconds), runs={}, send=channel)
        heartbeats.beat(platform.ledger, heartbeats.WATCH)

    switch.look(after(0))
    tick(1)
    assert channel.arrived == []
    monkeypatch.setenv("SHOP_URL", f"postgresql://127.0.0.1:{free_port()}/gone")
    with no_room(platform.ledger.target, "ledger.alert", "ledger.outbox", "ledger.metric_collection"):
        for seconds in (60, 120, 180, 240, 300):
            with suppress(SQLAlchemyError):
                tick(seconds)
        overdue(platform.ledger, heartbeats.WATCH)
        for seconds in (310, 320, 360):
            switch.look(after(seconds))
        assert channel.titles == ["[critical] dbplatform: the ledger does not answer"]
        assert "DiskFull" in channel.arrived[0].body
    tick(420)
    switch.look(after(430))
    assert channel.titles[1:] == ["[resolved] dbplatform: the ledger answers"]
    for seconds in (480, 540):
        tick(seconds)
    assert [title for title in channel.titles if "shop" in title] == ["[critical] shop: reachable"]
