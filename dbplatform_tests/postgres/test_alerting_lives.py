"""What arrives at a channel over the life of an alert: a table of silences, words of people, quiet hours and failures.

Each step is a minute and a letter: ``w`` ``c`` ``g`` ``-`` are observations (warning, critical, good, not measured)
with the delivery behind them; ``S`` silences for an hour, ``U`` ends that; ``A`` acknowledges; ``D`` and ``P``: the
channel goes down, and is up again; ``R``: another process goes on; ``T``: two processes do the next step at once.
Minute 0 is noon in UTC. An arrival is written as the minute and the title's word.
"""

from __future__ import annotations

import re
import threading
from datetime import UTC, timedelta

import pytest

from dbplatform.alerting.deliver import deliver
from dbplatform.alerting.errors import ChannelFailed
from dbplatform.alerting.evaluate import evaluate
from dbplatform.alerting.policy import NotifyPolicy, quiet_now
from dbplatform.alerting.record import acknowledge, list_alerts
from dbplatform.alerting.sending import Message
from dbplatform.alerting.silences import end_silence, list_silences, silence
from dbplatform.alerting.states import Observation
from dbplatform.ledger.ledger import Ledger
from dbplatform_tests.unit.test_alerting_states import SEVERITIES, START

_QUIET = {"quiet_hours": "13:00-20:00"}
_HOURLY = {"repeat_interval": "1 hour"}
_NEVER = {"repeat_interval": None}

#: name: (how the channel is declared, minutes of for, the steps, what arrives)
LIVES: dict[str, tuple[dict[str, object], int, str, str]] = {
    # silences
    "in a silence nothing is told": ({}, 0, "0S 1w 2w 3c", ""),
    "what still fires when it ends is told then": ({}, 0, "0S 1w 59w 60w 61w", "60:warning"),
    "what was over before it ends is never told": ({}, 0, "0S 1w 30g 60g", ""),
    "an end is told to whoever heard of the beginning": ({}, 0, "0w 1S 2w 3g", "0:warning 3:resolved"),
    "growing worse in a silence is told at its end": ({}, 0, "0w 1S 2c 30c 61c", "0:warning 61:critical"),
    "grown worse and back in a silence is told as what it was": ({}, 0, "0S 1w 2c 3w 60w", "60:critical"),
    "a silence that is ended is ended": ({}, 0, "0S 1w 10U 11w", "11:warning"),
    "a silence that begins later tells no end twice": ({}, 0, "0w 1g 2S 3g", "0:warning 1:resolved"),
    "for goes on in a silence": ({}, 5, "0S 57w 60w 61w 62w", "62:warning"),
    "a restart in a silence": ({}, 0, "0S 1w R 2w R 60w", "60:warning"),
    "two silences one behind the other": ({}, 0, "0S 1w 59S 60w 118w 119w", "119:warning"),
    "a new episode after a silence": ({}, 0, "0S 1w 2g 61w", "61:warning"),
    "no repeats in a silence": (_HOURLY, 0, "0w 30S 61w 89w 90w", "0:warning 90:warning"),
    # the word of a person
    "acknowledged is not told again": (_HOURLY, 0, "0w 1A 60w 61w 200w", "0:warning"),
    "acknowledged and worse is told": (_HOURLY, 0, "0w 1A 5c", "0:warning 5:critical"),
    "acknowledged and over is told": (_HOURLY, 0, "0w 1A 5g", "0:warning 5:resolved"),
    "the next episode is not acknowledged": (
        _HOURLY,
        0,
        "0w 1A 5g 6w 66w",
        "0:warning 5:resolved 6:warning 66:warning",
    ),
    "acknowledged across a restart": (_HOURLY, 0, "0w 1A R 61w R 122w", "0:warning"),
    # repeats
    "what goes on is repeated": (_HOURLY, 0, "0w 59w 60w 61w 120w", "0:warning 60:warning 120:warning"),
    "never is never": (_NEVER, 0, "0w 60w 100000w", "0:warning"),
    "a day by default": ({}, 0, "0w 1439w 1440w 1441w", "0:warning 1440:warning"),
    "a repeat is told once by two processes": (_HOURLY, 0, "0w T 60w 61w", "0:warning 60:warning"),
    "no repeat of what is over": (_HOURLY, 0, "0w 59g 60g 120g", "0:warning 59:resolved"),
    "growing worse begins the interval anew": (_HOURLY, 0, "0w 30c 60c 89c 90c", "0:warning 30:critical 90:critical"),
    "a repeat while it is not measured": (_HOURLY, 0, "0w 60-", "0:warning 60:warning"),
    "the clock back repeats nothing": (_HOURLY, 0, "60w 10w 61w", "60:warning"),
    "a restart does not begin the interval anew": (_HOURLY, 0, "0w R 59w R 60w", "0:warning 60:warning"),
    # quiet hours, from minute 60 to 480
    "a warning waits for the morning": (_QUIET, 0, "61w 200w 479w 480w", "480:warning"),
    "a warning that is over by then is never told": (_QUIET, 0, "61w 200g 480g", ""),
    "a critical one is told at once": (_QUIET, 0, "61c", "61:critical"),
    "one that grows critical is told then": (_QUIET, 0, "61w 100c", "100:critical"),
    "the end of a warning from before waits, too": (_QUIET, 0, "0w 61g 200g 480g", "0:warning 480:resolved"),
    "the end of a critical one does not": (_QUIET, 0, "61c 100g", "61:critical 100:resolved"),
    "bad again while the end waits": (_QUIET, 0, "0w 61g 100c", "0:warning 100:critical"),
    "no repeats in quiet hours": (_QUIET | _HOURLY, 0, "0w 61w 300w 480w", "0:warning 480:warning"),
    "a restart in quiet hours": (_QUIET, 0, "61w R 200w R 480w", "480:warning"),
    # a channel that is down
    "an hour down, then all in order": ({}, 0, "0D 1w 20c 40g 60P 61g", "61:warning 61:critical 61:resolved"),
    "down and up while it fires": ({}, 0, "0D 1w 2w 59w 60P 61w 62w", "61:warning"),
    "nothing is repeated that was never taken": (_HOURLY, 0, "0D 1w 61w 121w 122P 140w 199w", "140:warning"),
    "down across a restart": ({}, 0, "0D 1w R 30w R 60P 61w", "61:warning"),
    "down in quiet hours, critical": (_QUIET, 0, "60D 61w 62c 100P 101c", "101:critical"),
    "down before quiet hours, worse within": (_QUIET, 0, "0D 1w 70P 71c 100c 480c", "71:critical"),
    "down, then quiet, then worse and over": (_QUIET, 0, "50D 55w 65P 70c 90g 480g", "70:critical 90:resolved"),
    "down and silenced: the end is told": ({}, 0, "0D 1w 2S 3w 4g 5P 20g", "20:warning 20:resolved"),
    # two processes
    "two at once tell it once": ({}, 0, "T 0w T 1w", "0:warning"),
    "two at once tell the end once": ({}, 0, "T 0w T 1g T 2g", "0:warning 1:resolved"),
    "two at once, for": ({}, 5, "T 0w T 5w T 6w", "5:warning"),
    "two at once at the end of a silence": ({}, 0, "0S T 1w T 60w T 61w", "60:warning"),
    "two at once after the quiet hours": (_QUIET, 0, "T 61w T 480w", "480:warning"),
}


class Life:
    """One alert of one database, one channel, and what arrived there."""

    def __init__(self, ledger: Ledger, database: str, declared: dict[str, object], hold: int) -> None:
        self.ledger, self.database, self.hold = ledger, database, timedelta(minutes=hold)
        self.channel = NotifyPolicy.model_validate({"url_env": f"{database.upper()}_URL", **declared})
        self.readers = [ledger]
        self.down, self.minute = False, 0
        self.arrived: list[str] = []

    @property
    def reader(self) -> Ledger:
        return self.readers[-1]

    def send(self, _: str, message: Message) -> None:
        if self.down:
            raise ChannelFailed(reason="the receiver is down")
        self.arrived.append(f"{self.minute}:{message.title.partition(']')[0].lstrip('[')}")

    def see(self, ledger: Ledger, letter: str) -> None:
        now = START + timedelta(minutes=self.minute)
        seen = [] if letter == "-" else [Observation(key="m", metric="m", severity=SEVERITIES[letter], value=1.0)]
        evaluate(ledger, self.database, seen, [self.channel], now=now, hold={"m": self.hold})
        quiet = quiet_now(self.database, [self.channel], now)
        deliver(ledger, [self.channel], now=now, send=self.send, quiet=quiet)

    def see_twice(self, letter: str) -> None:
        """Two processes at the same step; both must end well."""
        other, failures = Ledger(self.ledger.target), list[BaseException]()
        gate = threading.Barrier(2)

        def work(ledger: Ledger) -> None:
            try:
                gate.wait()
                self.see(ledger, letter)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(one,)) for one in (self.reader, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.engine.dispose()
        assert failures == []

    def say(self, letter: str) -> None:
        """A word of a person, or what happens to the channel."""
        now = START + timedelta(minutes=self.minute)
        if letter == "S":
            hour = timedelta(hours=1)
            silence(self.reader, database=self.database, metric=None, length=hour, reason="work", by="ann", now=now)
        elif letter == "U":
            (one,) = [one for one in list_silences(self.reader, now=now) if one.database == self.database]
            end_silence(self.reader, one.id, now=now)
        elif letter == "A":
            (alert,) = list_alerts(self.reader, self.database)
            acknowledge(self.reader, alert.id, by="ann", now=now)
        else:
            self.down = letter == "D"

    def live(self, written: str) -> list[str]:
        """Go through the steps; what arrived."""
        twice = False
        for word in written.split():
            step = re.fullmatch(r"(\d*)([wcg\-SUADPRT])", word)
            assert step is not None, word
            self.minute, letter = int(step[1] or self.minute), step[2]
            if letter == "T":
                twice = True
            elif letter == "R":
                self.readers.append(Ledger(self.ledger.target))
            elif letter in "wcg-":
                self.see_twice(letter) if twice else self.see(self.reader, letter)
                twice = False
            else:
                self.say(letter)
        for reader in self.readers[1:]:
            reader.engine.dispose()
        return self.arrived


def test_every_life_sends_exactly_these_messages(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = {}
    for number, (name, (declared, hold, written, _)) in enumerate(LIVES.items()):
        monkeypatch.setenv(f"LIFE{number}_URL", "json://127.0.0.1")
        arrived[name] = " ".join(Life(ledger, f"life{number}", declared, hold).live(written))
    assert arrived == {name: expected for name, (_, _, _, expected) in LIVES.items()}
    assert len(LIVES) >= 40


def test_the_state_that_people_read_is_silenced_or_acknowledged(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFE_URL", "json://127.0.0.1")
    life = Life(ledger, "life", {}, 0)
    life.live("0w")
    states = [list_alerts(ledger, "life", now=START)[0].shown_state]
    life.live("1A")
    states.append(list_alerts(ledger, "life", now=START)[0].shown_state)
    life.live("2S")
    (silenced,) = list_alerts(ledger, "life", now=START + timedelta(minutes=3))
    assert [*states, silenced.shown_state] == ["firing", "acknowledged", "silenced"]
    assert silenced.silenced_until is not None
    assert silenced.silenced_until.astimezone(UTC) == START + timedelta(minutes=62)


def test_a_channel_of_an_owner_hears_what_that_owner_has_and_nothing_is_told_to_nobody(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [
        NotifyPolicy.model_validate({"url_env": "DATA_URL", "owners": ["team:data"]}),
        NotifyPolicy.model_validate({"url_env": "SHOP_URL", "owners": ["team:shop"]}),
    ]
    heard: list[str] = []
    for name in ("DATA", "SHOP"):
        monkeypatch.setenv(f"{name}_URL", f"json://{name}")
    for key, owners in (("a", ("team:data",)), ("b", ("team:shop", "team:data")), ("c", ("team:other",))):
        seen = [Observation(key=key, metric=key, severity="critical", owners=owners)]
        evaluate(ledger, "flights", seen, channels, now=START)
        deliver(ledger, channels, now=START, send=lambda url, message: heard.append(f"{message.title[-1]}@{url[7:]}"))
    assert sorted(heard) == ["a@DATA", "b@DATA", "b@SHOP", "c@DATA", "c@SHOP"]


def test_the_likely_cause_is_asked_for_once_and_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_URL", "json://127.0.0.1")
    channel, asked, bodies = NotifyPolicy(url_env="ALERT_URL"), [], []
    for minute, severity in enumerate(("warning", "critical", None)):
        now = START + timedelta(minutes=minute)
        seen = [Observation(key="m", metric="m", severity=severity)]  # type: ignore[arg-type]
        evaluate(
            ledger,
            "flights",
            seen,
            [channel],
            now=now,
            preceding=lambda _, since: asked.append(since) or "Changed shortly before: migrate (3 min before, by ann).",
        )
        deliver(ledger, [channel], now=now, send=lambda _, message: bodies.append(message.body))
    assert asked == [START]
    assert ["Changed shortly before: migrate" in body for body in bodies] == [True, True, False]
