"""Alerts in the ledger: the table of lives once more, two processes at once, lists, the word of a person."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from dbplatform.alerting.errors import AlreadyResolved, UnknownAlert
from dbplatform.alerting.evaluate import Evaluation, evaluate
from dbplatform.alerting.policy import NotifyPolicy
from dbplatform.alerting.record import acknowledge, alerts_json, list_alerts
from dbplatform.alerting.silences import list_silences, silence
from dbplatform.alerting.states import Observation
from dbplatform.alerting.tidying import tidy
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert, Outbox
from dbplatform_tests.unit.test_alerting_states import SEQUENCES, SEVERITIES, START, observed, steps

CHANNEL = NotifyPolicy(url_env="ALERT_URL")
CRITICAL_ONLY = NotifyPolicy(url_env="PAGER_URL", min_severity="critical")


def see(ledger: Ledger, letter: str, minute: int = 0, *, key: str = "deadlocks", hold: int = 0) -> Evaluation:
    """One observation in the database ``flights``."""
    return evaluate(
        ledger,
        "flights",
        [Observation(key=key, metric=key, severity=SEVERITIES[letter], value=3.0, limit="> 0", cause=f"{key} is 3")],
        [CHANNEL, CRITICAL_ONLY],
        now=START + timedelta(minutes=minute),
        hold={key: timedelta(minutes=hold)},
    )


def outbox(ledger: Ledger, database: str = "flights") -> list[str]:
    """The messages of a database: minute, kind, severity, channel."""
    statement = (
        select(Outbox).join(Alert, Alert.id == Outbox.alert_id).where(Alert.database == database).order_by(Outbox.id)
    )
    with ledger.session() as session:
        return [
            f"{(row.created_at - START) // timedelta(minutes=1)}:{row.kind}/{row.severity}@{row.channel}"
            for row in session.scalars(statement)
        ]


def test_every_life_of_an_alert_is_the_same_when_the_ledger_remembers_it(ledger: Ledger) -> None:
    told: dict[str, list[str]] = {}
    for number, (name, (hold, written, _)) in enumerate(SEQUENCES.items()):
        database, reader = f"case{number}", ledger
        for now, letter in steps(written):
            if now is None:
                # Another process: it knows only what the ledger holds.
                reader = Ledger(ledger.target)
                continue
            observation = observed(letter)
            observations = [observation] if observation else []
            evaluate(reader, database, observations, [CHANNEL], now=now, hold={"deadlocks": timedelta(minutes=hold)})
            if reader is not ledger:
                reader.engine.dispose()
        told[name] = outbox(ledger, database)
    assert told == {
        name: [f"{message}@ALERT_URL" for message in expected.split()] for name, (_, _, expected) in SEQUENCES.items()
    }


def test_a_channel_hears_what_it_asked_for_and_the_end_of_what_it_heard(ledger: Ledger) -> None:
    see(ledger, "w", 0)
    see(ledger, "g", 1)
    see(ledger, "w", 2)
    see(ledger, "c", 3)
    see(ledger, "w", 4)
    see(ledger, "g", 5)
    assert outbox(ledger) == [
        "0:firing/warning@ALERT_URL",
        "1:resolved/warning@ALERT_URL",
        "2:firing/warning@ALERT_URL",
        "3:firing/critical@ALERT_URL",
        "3:firing/critical@PAGER_URL",
        "5:resolved/critical@ALERT_URL",
        "5:resolved/critical@PAGER_URL",
    ]


def test_a_message_names_value_limit_cause_next_step_and_key(ledger: Ledger) -> None:
    change = see(ledger, "w").changes[0]
    see(ledger, "c", 1)
    see(ledger, "g", 2)
    with ledger.session() as session:
        first, _, worse, over, *_ = session.scalars(select(Outbox).order_by(Outbox.change, Outbox.channel)).all()
    assert first.title == "[warning] flights: deadlocks"
    assert first.body == (
        "deadlocks is 3. The limit is > 0.\n"
        "Since 2026-03-01 12:00:00 UTC.\n"
        f"Next: dbplatform alerts list flights; dbplatform alerts ack {change.alert_id}\n"
        f"Message flights/{change.alert_id}/1/20260301T120000Z"
    )
    assert "It was a warning before." in worse.body
    assert over.title == "[resolved] flights: deadlocks"
    assert "It was critical from 2026-03-01 12:00:00 UTC to 2026-03-01 12:02:00 UTC." in over.body


def test_what_was_told_is_read_without_the_bodies_of_the_messages(ledger: Ledger) -> None:
    see(ledger, "w", 0)
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(ledger.engine, "before_cursor_execute", note)
    see(ledger, "c", 1)
    see(ledger, "c", 2)
    event.remove(ledger.engine, "before_cursor_execute", note)
    read = [one for one in statements if one.startswith("SELECT") and "ledger.outbox" in one]
    assert len(read) == 2
    assert not [one for one in read if "body" in one or "max(" not in one]
    assert len(outbox(ledger)) == 3, "each channel was told once of each"


def test_two_processes_at_once_tell_it_once(ledger: Ledger) -> None:
    others = [Ledger(ledger.target) for _ in range(4)]
    together = threading.Barrier(len(others))
    failures: list[BaseException] = []

    def work(other: Ledger, letter: str, minute: int) -> None:
        try:
            together.wait()
            see(other, letter, minute)
        except BaseException as error:
            failures.append(error)

    for minute, letter in enumerate("wcg"):
        threads = [threading.Thread(target=work, args=(other, letter, minute)) for other in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for other in others:
        other.engine.dispose()
    assert failures == []
    assert outbox(ledger) == [
        "0:firing/warning@ALERT_URL",
        "1:firing/critical@ALERT_URL",
        "1:firing/critical@PAGER_URL",
        "2:resolved/critical@ALERT_URL",
        "2:resolved/critical@PAGER_URL",
    ]


def test_an_error_in_the_middle_leaves_neither_alert_nor_message(ledger: Ledger) -> None:
    good = Observation(key="a", metric="a", severity="warning")
    broken = Observation(key="b", metric="b", severity="warning", labels={"not": object()})  # type: ignore[dict-item]
    with pytest.raises(Exception, match="not JSON serializable"):
        evaluate(ledger, "flights", [good, broken], [CHANNEL], now=START)
    assert list_alerts(ledger) == ()
    assert outbox(ledger) == []


def test_a_key_seen_twice_at_once_is_refused(ledger: Ledger) -> None:
    one = Observation(key="a", metric="a", severity="warning")
    with pytest.raises(ValueError, match="twice"):
        evaluate(ledger, "flights", [one, one], [], now=START)


def test_the_same_key_in_two_databases_is_two_alerts(ledger: Ledger) -> None:
    for database in ("flights", "other"):
        evaluate(ledger, database, [Observation(key="a", metric="a", severity="warning")], [], now=START)
    assert {alert.database for alert in list_alerts(ledger)} == {"flights", "other"}
    assert len(list_alerts(ledger, "other")) == 1


def test_with_no_channel_the_alert_is_still_kept(ledger: Ledger) -> None:
    evaluate(ledger, "flights", [Observation(key="a", metric="a", severity="critical")], [], now=START)
    assert [(alert.state, alert.severity) for alert in list_alerts(ledger)] == [("firing", "critical")]


def test_the_list_has_the_fields_of_the_contract(ledger: Ledger) -> None:
    see(ledger, "w", hold=5)
    (alert,) = alerts_json(list_alerts(ledger, "flights"))["alerts"]
    assert {key: alert[key] for key in ("metric", "state", "severity", "since", "value", "limit", "cause")} == {
        "metric": "deadlocks",
        "state": "pending",
        "severity": "warning",
        "since": "2026-03-01T12:00:00+00:00",
        "value": 3.0,
        "limit": "> 0",
        "cause": "deadlocks is 3",
    }
    assert isinstance(alert["id"], int)


def test_a_resolved_alert_is_listed_only_when_asked_for_and_says_what_was_wrong(ledger: Ledger) -> None:
    see(ledger, "w")
    gone = Observation(key="deadlocks", metric="deadlocks", severity=None, cause="no longer declared")
    evaluate(ledger, "flights", [gone], [], now=START + timedelta(minutes=1))
    assert list_alerts(ledger) == ()
    (past,) = list_alerts(ledger, resolved=True)
    assert (past.state, past.cause) == ("resolved", "deadlocks is 3")
    assert past.resolved_at == START + timedelta(minutes=1)


def test_an_alert_can_be_acknowledged_once_and_is_resolved_all_the_same(ledger: Ledger) -> None:
    alert_id = see(ledger, "w").changes[0].alert_id
    acknowledge(ledger, alert_id, by="anna", now=START)
    again = acknowledge(ledger, alert_id, by="ben", now=START + timedelta(minutes=1))
    assert (again.acknowledged_by, again.acknowledged_at, again.state) == ("anna", START, "firing")
    see(ledger, "g", 2)
    assert outbox(ledger)[-1] == "2:resolved/warning@ALERT_URL"
    with pytest.raises(AlreadyResolved):
        acknowledge(ledger, alert_id, by="ben", now=START)


def test_an_alert_that_is_not_there_cannot_be_acknowledged(ledger: Ledger) -> None:
    with pytest.raises(UnknownAlert):
        acknowledge(ledger, 4711, by="anna", now=START)


def test_what_has_been_over_for_400_days_is_let_go_once_it_was_told(ledger: Ledger) -> None:
    for key in ("told", "waits"):
        see(ledger, "w", 0, key=key)
        see(ledger, "g", 1, key=key)
    see(ledger, "w", 2, key="fires")
    now = datetime.now(UTC)
    back = START - (now - timedelta(days=401))
    with ledger.session() as session:
        told = select(Alert.id).where(Alert.key == "told").scalar_subquery()
        session.execute(update(Outbox).where(Outbox.alert_id == told).values(delivered_at=START))
        session.execute(update(Alert).values(since=Alert.since - back, resolved_at=Alert.resolved_at - back))
    for length in (timedelta(hours=1), timedelta(days=31)):
        silence(ledger, database=None, metric=None, length=length, reason="x", by="x", now=START - back)

    tidy(ledger, ["another"], now=now)
    assert len(list_alerts(ledger, resolved=True)) == 3
    for _ in range(2):
        tidy(ledger, ["flights"], now=now)
    assert {alert.key for alert in list_alerts(ledger, resolved=True)} == {"waits", "fires"}
    assert len(outbox(ledger)) == 3
    assert [one.ends_at for one in list_silences(ledger, now=now, past=True)] == [START - back + timedelta(days=31)]
