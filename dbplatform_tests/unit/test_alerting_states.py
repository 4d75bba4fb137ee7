"""The life of an alert: which observations lead to which messages.

A sequence is written as minutes and what was seen: ``0w 5w 9g`` is a warning at minute 0 and 5, all well at 9. ``c`` is
critical, ``-`` could not be measured, ``R`` a restart of everything. The messages expected are written likewise:
``5:firing/warning``. The same table is run through the ledger in ``postgres/test_alerting_evaluate.py``.
"""

from __future__ import annotations

import pickle
import re
from datetime import UTC, datetime, timedelta

import pytest

from dbplatform.alerting.states import AlertState, Event, Observation, Severity, advance, reaches

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SEVERITIES: dict[str, Severity | None] = {"w": "warning", "c": "critical", "g": None}

#: name: (hold in minutes, observations, messages)
SEQUENCES: dict[str, tuple[int, str, str]] = {
    # at once
    "all well says nothing": (0, "0g 1g 2g", ""),
    "a warning is told at once": (0, "0w", "0:firing/warning"),
    "a critical one is told at once": (0, "0c", "0:firing/critical"),
    "a warning that stays is told once": (0, "0w 1w 2w 3w", "0:firing/warning"),
    "a critical one that stays is told once": (0, "0c 1c 2c", "0:firing/critical"),
    "the end is told": (0, "0w 1g", "0:firing/warning 1:resolved/warning"),
    "the end is told once": (0, "0w 1g 2g 3g", "0:firing/warning 1:resolved/warning"),
    "it may begin again": (0, "0w 1g 2w", "0:firing/warning 1:resolved/warning 2:firing/warning"),
    "each episode ends": (
        0,
        "0w 1g 2c 3g",
        "0:firing/warning 1:resolved/warning 2:firing/critical 3:resolved/critical",
    ),
    # growing worse, and better again
    "a warning that grows critical is told again": (0, "0w 1c", "0:firing/warning 1:firing/critical"),
    "back to warning is not told": (0, "0c 1w 2w", "0:firing/critical"),
    "up and down is told once each": (0, "0w 1c 2w 3c 4w 5c", "0:firing/warning 1:firing/critical"),
    "the end speaks of the worst": (0, "0w 1c 2w 3g", "0:firing/warning 1:firing/critical 3:resolved/critical"),
    "three messages are the most": (
        0,
        "0w 1c 2w 3c 4w 5g 6g",
        "0:firing/warning 1:firing/critical 5:resolved/critical",
    ),
    # for
    "inside for nothing is told": (5, "0w 1w 4w", ""),
    "when for is over it fires": (5, "0w 1w 5w", "5:firing/warning"),
    "for is counted from the first bad one": (5, "0g 3w 7w 8w", "8:firing/warning"),
    "a good one inside for starts anew": (5, "0w 4g 5w 9w", ""),
    "a good one inside for starts anew and then fires": (5, "0w 4g 5w 10w", "10:firing/warning"),
    "flapping inside for says nothing": (5, "0w 1g 2w 3g 4w 5g 6w 7g 8w 9g", ""),
    "a critical flap inside for says nothing": (5, "0c 1g 2c 3g 4c 5g", ""),
    "what never fired is not resolved": (5, "0w 4w 5g", ""),
    "the end needs no for": (5, "0w 5w 6g", "5:firing/warning 6:resolved/warning"),
    "flapping after it fired tells each end, and for holds the next": (
        5,
        "0w 5w 6g 7w 8g 9w",
        "5:firing/warning 6:resolved/warning",
    ),
    "critical all along fires critical": (5, "0c 5c", "5:firing/critical"),
    "bad all along and critical late fires as a warning": (5, "0w 3c 5c", "5:firing/warning"),
    "and grows when it was critical for so long": (5, "0w 3c 5c 8c", "5:firing/warning 8:firing/critical"),
    "a critical flap inside a warning is not told": (5, "0w 5w 6c 8w 9c 13c", "5:firing/warning"),
    "one that lasts is": (5, "0w 5w 6c 8w 9c 14c", "5:firing/warning 14:firing/critical"),
    "critical that turns to warning fires as a warning": (5, "0c 4w 5w", "5:firing/warning"),
    "ticks further apart than for fire at the second": (5, "0w 60w", "60:firing/warning"),
    # not measured
    "not measured is not bad": (0, "0- 1-", ""),
    "not measured is not the end": (0, "0w 1- 2-", "0:firing/warning"),
    "the end comes when it is measured again": (0, "0w 1- 2g", "0:firing/warning 2:resolved/warning"),
    "bad again after not measured is the same episode": (0, "0w 1- 2w", "0:firing/warning"),
    "not measured inside for does not stop it": (5, "0w 3- 5w", "5:firing/warning"),
    "not measured does not fire": (5, "0w 5- 6-", ""),
    # the clock
    "the clock back does not resolve": (0, "10w 5g", "10:firing/warning"),
    "but the next good one does": (0, "10w 5g 6g", "10:firing/warning 6:resolved/warning"),
    "the clock back does not fire": (5, "10w 4w", ""),
    "the clock back keeps what was held": (5, "10w 13w 4w 5w 6w", "6:firing/warning"),
    "the clock back does not make it longer": (5, "10w 13w 4w 5w", ""),
    "the clock back does not grow worse": (0, "10w 5c", "10:firing/warning"),
    "but the next one does": (0, "10w 5c 6c", "10:firing/warning 6:firing/critical"),
    "a good one from before inside for does not stop it": (5, "10w 9g 14w", "14:firing/warning"),
    "the clock back twice": (5, "10w 12w 8w 6w 9w", "9:firing/warning"),
    "the clock back before anything was wrong": (5, "10g 2w 7w", "7:firing/warning"),
    "the clock back after the end": (0, "10w 11g 5w", "10:firing/warning 11:resolved/warning 5:firing/warning"),
    "the same moment twice": (0, "3w 3w", "3:firing/warning"),
    # restarts
    "a restart says nothing": (0, "0w R 1w R 2w", "0:firing/warning"),
    "a restart does not forget to resolve": (0, "0w R 1g R 2g", "0:firing/warning 1:resolved/warning"),
    "a restart does not start for anew": (5, "0w R 4w R 5w", "5:firing/warning"),
    "a restart inside a flap": (5, "0w R 1g R 2w R 6w", ""),
    "a restart keeps the worst": (0, "0c R 1w R 2c R 3g", "0:firing/critical 3:resolved/critical"),
    "a restart and the clock back": (5, "10w R 13w R 4w R 6w", "6:firing/warning"),
    "a restart while it cannot be measured": (0, "0w R 1- R 2-", "0:firing/warning"),
    "a restart after the end": (0, "0w 1g R 2g R 3w", "0:firing/warning 1:resolved/warning 3:firing/warning"),
}

#: The same with `keep` of five minutes: what must be good for so long before it is over.
KEPT: dict[str, tuple[int, str, str]] = {
    "good for a moment is not the end": (0, "0w 1g 2w 3g 4w", "0:firing/warning"),
    "good for keep is the end": (0, "0w 1g 3g 6g", "0:firing/warning 6:resolved/warning"),
    "the end is told once": (0, "0w 1g 6g 7g 12g", "0:firing/warning 6:resolved/warning"),
    "a bad one inside keep starts it anew": (0, "0w 1g 4w 5g 9g 10g", "0:firing/warning 10:resolved/warning"),
    "growing worse inside keep is told": (0, "0w 1g 2c", "0:firing/warning 2:firing/critical"),
    "a critical flap inside keep is told once": (0, "0c 1g 2c 3g 4c", "0:firing/critical"),
    "pending needs no keep": (5, "0w 1g 3w 7w", ""),
    "not measured inside keep is neither": (0, "0w 1g 3- 6g", "0:firing/warning 6:resolved/warning"),
    "a restart inside keep": (0, "0w 1g R 6g", "0:firing/warning 6:resolved/warning"),
    "the clock back inside keep keeps what was held": (0, "10w 11g 14g 5g 7g", "10:firing/warning 7:resolved/warning"),
    "a new episode after keep": (0, "0w 1g 6g 7w", "0:firing/warning 6:resolved/warning 7:firing/warning"),
    "ticks further apart than keep end at the second": (0, "0w 10g 20g", "0:firing/warning 20:resolved/warning"),
}


def observed(letter: str, key: str = "deadlocks") -> Observation | None:
    """The observation that a letter stands for."""
    return None if letter == "-" else Observation(key=key, metric=key, severity=SEVERITIES[letter], value=1.0)


def steps(written: str) -> list[tuple[datetime | None, str]]:
    """Each step with its time; a restart has none."""
    found = [re.fullmatch(r"(\d*)([wcgR-])", word) for word in written.split()]
    assert all(found), written
    return [(START + timedelta(minutes=int(m[1])) if m[1] else None, m[2]) for m in found if m is not None]


def said(now: datetime, event: Event) -> str:
    """An event as the table writes it."""
    return f"{(now - START) // timedelta(minutes=1)}:{event.kind}/{event.severity}"


@pytest.mark.parametrize(
    ("table", "keep", "name"), [(SEQUENCES, 0, n) for n in SEQUENCES] + [(KEPT, 5, n) for n in KEPT]
)
def test_the_observations_lead_to_these_messages_and_no_others(
    table: dict[str, tuple[int, str, str]], keep: int, name: str
) -> None:
    hold_minutes, written, expected = table[name]
    state: AlertState | None = None
    messages: list[str] = []
    for now, letter in steps(written):
        if now is None:
            state = pickle.loads(pickle.dumps(state))
            continue
        hold, kept = timedelta(minutes=hold_minutes), timedelta(minutes=keep)
        state, events = advance(state, observed(letter), now, hold=hold, keep=kept)
        messages += [said(now, event) for event in events]
    assert messages == expected.split()


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(SEQUENCES) >= 40
    assert sum("R" in written for _, written, _ in SEQUENCES.values()) >= 8


def test_the_messages_of_an_episode_are_numbered() -> None:
    changes = []
    state: AlertState | None = None
    for now, letter in steps("0w 1c 2g"):
        assert now is not None
        state, events = advance(state, observed(letter), now)
        changes += [event.change for event in events]
    assert changes == [1, 2, 3]


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        advance(None, observed("w"), datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("severity", "least", "expected"),
    [
        ("warning", "warning", True),
        ("warning", "critical", False),
        ("critical", "warning", True),
        ("critical", "critical", True),
        (None, "warning", False),
    ],
)
def test_a_channel_hears_its_severity_and_worse(severity: Severity | None, least: Severity, expected: bool) -> None:
    assert reaches(severity, least) is expected
