"""Messages on their way to a real receiver: once, in order, until they are taken, also after ``kill -9``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text

from dbplatform.alerting.deliver import LONGEST_WAIT, deliver, prove_channel
from dbplatform.alerting.errors import ChannelFailed
from dbplatform.alerting.evaluate import evaluate
from dbplatform.alerting.policy import NotifyPolicy
from dbplatform.alerting.sending import Message, send_by_apprise
from dbplatform.alerting.states import Observation, Severity
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Outbox
from dbplatform_tests.receiver import SECRET, Receiver
from dbplatform_tests.unit.test_alerting_states import START

CHANNEL = NotifyPolicy(url_env="ALERT_URL")


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    monkeypatch.setenv("ALERT_URL", receiver.url)
    yield receiver
    receiver.close()


def see(ledger: Ledger, severity: Severity | None, at: datetime = START, *, key: str = "deadlocks") -> None:
    evaluate(ledger, "flights", [Observation(key=key, metric=key, severity=severity)], [CHANNEL], now=at)


def rows(ledger: Ledger) -> list[Outbox]:
    with ledger.session() as session:
        return list(session.scalars(select(Outbox).order_by(Outbox.id)))


def after(**passed: float) -> datetime:
    return START + timedelta(**passed)


def test_a_breach_arrives_once_its_end_once_and_nothing_else(ledger: Ledger, receiver: Receiver) -> None:
    see(ledger, "critical")
    for minute in range(3):
        deliver(ledger, [CHANNEL], now=after(minutes=minute))
        see(ledger, "critical", after(minutes=minute))
    see(ledger, None, after(minutes=4))
    for minute in (4, 5):
        see(ledger, None, after(minutes=minute))
        deliver(ledger, [CHANNEL], now=after(minutes=minute))
    assert receiver.titles == ["[critical] flights: deadlocks", "[resolved] flights: deadlocks"]
    assert [message["type"] for message in receiver.taken] == ["failure", "success"]
    assert all(row.delivered_at is not None and row.attempts == 1 for row in rows(ledger))


def test_a_restart_in_between_sends_nothing_twice(ledger: Ledger, receiver: Receiver) -> None:
    see(ledger, "warning")
    for _ in range(3):
        restarted = Ledger(ledger.target)
        see(restarted, "warning", after(minutes=1))
        deliver(restarted, [CHANNEL], now=after(minutes=1))
        restarted.engine.dispose()
    assert receiver.titles == ["[warning] flights: deadlocks"]


def test_a_channel_that_is_down_is_tried_until_it_works_then_all_arrive_in_order(
    ledger: Ledger, receiver: Receiver
) -> None:
    receiver.status = 503
    see(ledger, "warning")
    see(ledger, None, after(minutes=1))
    tries = 0
    for second in range(60, 3600, 10):
        tries += len(deliver(ledger, [CHANNEL], now=after(seconds=second)).attempts)
    # At once, after 10, 20, 40, 80, 160, 320 and 640 s, then every 900 s: an hour has few tries.
    assert tries == 10
    first, second_row = rows(ledger)
    assert first.attempts == tries
    assert first.last_error is not None
    assert "503" in first.last_error
    assert second_row.attempts == 0

    receiver.status = 200
    report = deliver(ledger, [CHANNEL], now=after(seconds=3600) + LONGEST_WAIT)
    assert [attempt.delivered for attempt in report.attempts] == [True, True]
    assert report.waiting == 0
    assert receiver.titles == ["[warning] flights: deadlocks", "[resolved] flights: deadlocks"]


def test_nobody_listening_is_an_error_that_is_kept_without_the_url(
    ledger: Ledger, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.close()
    see(ledger, "warning")
    with caplog.at_level("DEBUG"):
        report = deliver(ledger, [CHANNEL], now=START)
    assert [attempt.delivered for attempt in report.attempts] == [False]
    assert report.waiting == 1
    (row,) = rows(ledger)
    assert row.last_error is not None
    assert "onnection error" in row.last_error
    assert SECRET not in row.last_error + caplog.text
    assert row.next_attempt_at == after(seconds=10)


def test_a_variable_that_is_not_set_is_kept_as_the_error_and_tried_again(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALERT_URL")
    see(ledger, "warning")
    deliver(ledger, [CHANNEL], now=START)
    assert rows(ledger)[0].last_error == "the environment variable ALERT_URL is not set."
    monkeypatch.setenv("ALERT_URL", receiver.url)
    deliver(ledger, [CHANNEL], now=after(seconds=10))
    assert receiver.titles == ["[warning] flights: deadlocks"]
    assert rows(ledger)[0].last_error is None


def test_the_url_is_nowhere_in_the_ledger(ledger: Ledger, receiver: Receiver) -> None:
    see(ledger, "warning")
    deliver(ledger, [CHANNEL], now=START)
    receiver.status = 500
    see(ledger, None, after(minutes=1))
    deliver(ledger, [CHANNEL], now=after(minutes=1))
    with ledger.session() as session:
        stored = session.scalars(text("select o::text || coalesce(a::text, '') from ledger.outbox o, ledger.alert a"))
        assert not any(SECRET in row or receiver.url in row for row in stored)


def test_a_channel_that_is_down_does_not_hold_back_the_others(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [NotifyPolicy(url_env="DOWN_URL"), CHANNEL]
    monkeypatch.setenv("DOWN_URL", "json://127.0.0.1:1/")
    for number, key in enumerate(("a", "b", "c")):
        observed = [Observation(key=key, metric=key, severity="warning")]
        evaluate(ledger, "flights", observed, channels, now=after(microseconds=number))
    report = deliver(ledger, channels, now=after(seconds=1))
    assert len(receiver.taken) == 3
    assert Counter(attempt.channel for attempt in report.attempts) == {"ALERT_URL": 3, "DOWN_URL": 1}
    assert report.waiting == 3


def test_a_due_time_that_a_wrong_clock_put_far_away_does_not_lose_the_message(
    ledger: Ledger, receiver: Receiver
) -> None:
    receiver.status = 500
    see(ledger, "warning", after(days=400))
    deliver(ledger, [CHANNEL], now=after(days=400))
    receiver.status = 200
    deliver(ledger, [CHANNEL], now=START)
    assert receiver.titles == ["[warning] flights: deadlocks"]


def test_two_processes_at_once_send_each_message_once(ledger: Ledger) -> None:
    for number in range(12):
        see(ledger, "warning", after(microseconds=number - 12), key=f"key{number}")
    sent: list[str] = []
    together = threading.Barrier(2)

    def send(url: str, message: Message) -> None:
        sent.append(message.key)

    def work() -> None:
        other = Ledger(ledger.target)
        together.wait()
        deliver(other, [CHANNEL], now=START, send=send)
        other.engine.dispose()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALERT_URL", "json://127.0.0.1:1/")
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deliver(ledger, [CHANNEL], now=START, send=send)
    assert len(sent) == len(set(sent)) == 12


def test_a_message_that_another_process_is_sending_is_left_alone(ledger: Ledger, receiver: Receiver) -> None:
    see(ledger, "warning")
    meanwhile: list[int] = []

    def send(url: str, message: Message) -> None:
        other = Ledger(ledger.target)
        meanwhile.append(len(deliver(other, [CHANNEL], now=START).attempts))
        other.engine.dispose()
        send_by_apprise(url, message)

    deliver(ledger, [CHANNEL], now=START, send=send)
    assert meanwhile == [0]
    assert len(receiver.taken) == 1


def test_no_more_than_the_limit_is_sent_in_one_call(ledger: Ledger, receiver: Receiver) -> None:
    for number in range(5):
        see(ledger, "warning", after(microseconds=number - 12), key=f"key{number}")
    assert len(deliver(ledger, [CHANNEL], now=START, limit=3).attempts) == 3
    assert len(deliver(ledger, [CHANNEL], now=START, limit=3).attempts) == 2
    assert len(set(receiver.keys)) == 5


def test_what_is_noticed_at_one_moment_is_one_message_and_its_end_another(ledger: Ledger, receiver: Receiver) -> None:
    keys = ["a", "b", "c", "d"]

    def see_all(*bad: str, at: datetime) -> None:
        observed = [
            Observation(key=key, metric=key, severity="critical" if key == "c" else "warning" if key in bad else None)
            for key in keys
        ]
        evaluate(ledger, "flights", observed, [CHANNEL], now=at)

    see_all(*keys, at=START)
    see(ledger, "warning", after(seconds=1), key="later")
    report = deliver(ledger, [CHANNEL], now=after(seconds=1))
    assert [attempt.changes for attempt in report.attempts] == [4, 1]
    assert receiver.titles == ["[critical] flights: 4 alerts: a, b, c and 1 more", "[warning] flights: later"]
    assert [f"[{word}] flights: {key}" in receiver.taken[0]["message"] for word, key in (
        ("warning", "a"), ("warning", "b"), ("critical", "c"), ("warning", "d")
    )] == [True] * 4  # fmt: skip
    assert receiver.keys[0] == rows(ledger)[0].message_key
    see_all("a", at=after(minutes=1))
    deliver(ledger, [CHANNEL], now=after(minutes=1))
    assert receiver.titles[2:] == ["[resolved] flights: 2 alerts: b, d"]


def test_a_message_about_several_that_is_not_taken_is_tried_again_as_a_whole(
    ledger: Ledger, receiver: Receiver
) -> None:
    receiver.status = 503
    observed = [Observation(key=key, metric=key, severity="warning") for key in ("a", "b")]
    evaluate(ledger, "flights", observed, [CHANNEL], now=START)
    assert deliver(ledger, [CHANNEL], now=START).waiting == 2
    receiver.status = 200
    deliver(ledger, [CHANNEL], now=after(seconds=10))
    assert receiver.titles == ["[warning] flights: 2 alerts: a, b"]
    assert [row.attempts for row in rows(ledger)] == [2, 2]


def test_a_channel_that_is_no_longer_declared_is_sent_nothing(ledger: Ledger, receiver: Receiver) -> None:
    see(ledger, "warning")
    assert deliver(ledger, [], now=START).attempts == ()
    assert receiver.taken == []


def test_a_defect_in_sending_is_raised_and_loses_no_message(ledger: Ledger, receiver: Receiver) -> None:
    see(ledger, "warning")

    def broken(url: str, message: Message) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        deliver(ledger, [CHANNEL], now=START, send=broken)
    deliver(ledger, [CHANNEL], now=START)
    assert len(receiver.taken) == 1


def test_a_test_message_proves_the_channel_and_is_recorded(ledger: Ledger, receiver: Receiver) -> None:
    attempt = prove_channel(ledger, "ALERT_URL", now=START)
    assert attempt.delivered
    assert receiver.titles == ["[test] dbplatform"]
    (row,) = rows(ledger)
    assert (row.kind, row.alert_id, row.delivered_at) == ("test", None, START)
    assert row.message_key == attempt.message_key == receiver.keys[0]


def test_a_test_message_that_fails_says_why_and_is_not_sent_later(ledger: Ledger, receiver: Receiver) -> None:
    receiver.status = 404
    attempt = prove_channel(ledger, "ALERT_URL", now=START)
    assert attempt.error is not None
    assert "404" in attempt.error
    receiver.status = 200
    assert deliver(ledger, [CHANNEL], now=after(days=1)).waiting == 0
    assert receiver.taken == []


def test_a_channel_that_fails_in_a_plugin_is_a_failure_without_secrets(receiver: Receiver) -> None:
    receiver.status = 302
    message = Message(key="k", kind="firing", severity="warning", title="t", body="b")
    with pytest.raises(ChannelFailed) as failure:
        send_by_apprise(receiver.url, message)
    assert SECRET not in str(failure.value)


_VICTIM = """
import os, signal, sys
from datetime import datetime
from dbplatform import progress
from dbplatform.alerting.deliver import deliver
from dbplatform.alerting.evaluate import evaluate
from dbplatform.alerting.policy import NotifyPolicy
from dbplatform.alerting.states import Observation
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target

task, done, now = sys.argv[1], int(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
ledger, channel = Ledger(Target("ledger", os.environ["LEDGER_URL"])), NotifyPolicy(url_env="ALERT_URL")

def die(fact):
    if fact.task == task and fact.done >= done:
        os.kill(os.getpid(), signal.SIGKILL)

with progress.listening(die):
    evaluate(ledger, "flights", [Observation(key="a", metric="a", severity="warning")], [channel], now=now)
    deliver(ledger, [channel], now=now)
"""


@pytest.mark.parametrize(
    ("task", "done", "copies"),
    [
        pytest.param("alerts flights", 0, 1, id="before the change"),
        pytest.param("alerts flights", 1, 1, id="changed, not committed"),
        pytest.param("alerts flights", 2, 1, id="committed, not sent"),
        pytest.param("alerts claimed", 1, 1, id="claimed, not sent"),
        pytest.param("alerts sent", 1, 2, id="sent, not marked"),
        pytest.param("alerts recorded", 1, 1, id="sent and marked"),
    ],
)
def test_killed_here_the_message_arrives_and_a_second_copy_has_the_same_key(
    ledger: Ledger, receiver: Receiver, task: str, done: int, copies: int
) -> None:
    environment = {**os.environ, "LEDGER_URL": ledger.target.url}
    command = [sys.executable, "-c", _VICTIM, task, str(done), START.isoformat()]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The next tick: the same observation, a minute later.
    see(ledger, "warning", after(minutes=1), key="a")
    deliver(ledger, [CHANNEL], now=after(minutes=1))
    assert len(receiver.taken) == copies
    assert len(set(receiver.keys)) == 1
    assert all(re.fullmatch(r"flights/\d+/1/\d{8}T\d{6}Z", key) for key in receiver.keys)
    assert [row.delivered_at is not None for row in rows(ledger)] == [True]
