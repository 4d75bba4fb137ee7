"""Words and waits of sending: no secret in an error, and a bound to every wait."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from dbplatform.alerting.deliver import LONGEST_WAIT, wait_after
from dbplatform.alerting.errors import ChannelFailed
from dbplatform.alerting.messages import message_key
from dbplatform.alerting.policy import NotifyPolicy, channels_for
from dbplatform.alerting.sending import Message, fitted, send_by_apprise, without_secrets

MESSAGE = Message(key="flights/1/1", kind="firing", severity="critical", title="title", body="body")


def test_an_error_shows_no_part_of_the_url() -> None:
    url = "slack://T0KEN0001/B0KEN%2F002/s3cr3t-piece?footer=maybe"
    text = "cannot reach T0KEN0001 with B0KEN/002 and s3cr3t-piece (B0KEN%2F002)"
    shown = without_secrets(text, url)
    assert shown.startswith("cannot reach *** with ")
    assert not any(part in shown for part in ("T0KEN", "B0KEN", "s3cr3t"))


def test_a_url_that_apprise_does_not_know_fails_without_showing_it(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ChannelFailed) as failure:
        send_by_apprise("nothing-of-this-kind://tok3n@example.invalid", MESSAGE)
    assert "one receiver" in failure.value.message
    shown = failure.value.message + caplog.text + "".join(capfd.readouterr())
    assert "tok3n" not in shown


def test_a_variable_with_two_receivers_is_refused() -> None:
    with pytest.raises(ChannelFailed, match="one receiver"):
        send_by_apprise("json://127.0.0.1:1/a, json://127.0.0.1:1/b", MESSAGE)


def test_the_wait_doubles_up_to_its_bound() -> None:
    waits = [wait_after(attempts) for attempts in (1, 2, 3, 4)]
    assert waits == [timedelta(seconds=seconds) for seconds in (10, 20, 40, 80)]
    assert wait_after(8) == wait_after(1_000_000) == LONGEST_WAIT


def test_a_message_key_names_database_alert_change_and_time() -> None:
    assert message_key("flights", 12, 2, datetime(2026, 1, 31, 12, tzinfo=UTC)) == "flights/12/2/20260131T120000Z"


def test_a_channel_declared_twice_is_told_once() -> None:
    channels = [
        NotifyPolicy(url_env="A", min_severity="critical"),
        NotifyPolicy(url_env="B"),
        NotifyPolicy(url_env="A"),
    ]
    assert [one.url_env for one in channels_for(channels, "warning")] == ["B", "A"]
    assert [one.url_env for one in channels_for(channels[:2], "critical")] == ["A", "B"]


@pytest.mark.parametrize("written", [{"url_env": "slack://token"}, {"url_env": "A", "min_severity": "bad"}, {}])
def test_a_channel_that_is_none_is_refused(written: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        NotifyPolicy.model_validate(written)


def test_what_is_too_long_for_the_receiver_is_cut_and_keeps_its_key() -> None:
    body = "\n".join(["x" * 50] * 60 + ["Message flights/1/1/20260131T120000Z"])
    cut = fitted(body, 1000)
    assert len(cut) == 1000
    assert cut.endswith("(cut; all of it: dbplatform alerts list)\nMessage flights/1/1/20260131T120000Z")
    assert fitted(body, len(body)) == body
