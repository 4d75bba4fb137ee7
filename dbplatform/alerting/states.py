"""The life of an alert as a pure function: pending, firing, resolved, and what is said at each change.

    nothing --bad--> pending --bad for `hold`--> firing --good for `keep`--> resolved
                        `--good--> nothing           `--critical for `hold`--> firing, told again

- Each episode has at most three changes: firing at warning, firing at critical, resolved. Back from critical to
  warning is none; what never fired is not resolved.
- `keep` is the hysteresis: what is good for a moment and bad again is one episode, and nobody hears of the moment.
- No observation (it could not be measured) changes nothing: silence is no good news.
- An observation that is older than the last one (the clock went back, or another process was quicker) neither fires
  nor resolves: times held so far are kept, and counting goes on from the new time.

No clock, no database: the ledger keeps the state between two observations, so a restart is not seen here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

Severity = Literal["warning", "critical"]
State = Literal["pending", "firing", "resolved"]
EventKind = Literal["firing", "resolved"]

_RANK: Mapping[Severity | None, int] = {None: 0, "warning": 1, "critical": 2}


def reaches(severity: Severity | None, least: Severity) -> bool:
    """Whether a severity is at least the other."""
    return _RANK[severity] >= _RANK[least]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a source saw of one thing: a metric, a check, a run.

    ``key`` says which thing, and stays the same from one observation to the next; ``severity`` is none when all is
    well. ``limit``, ``cause`` and ``advice`` are words for people. ``labels`` are told, and are no part of the key.
    ``owners`` are those who look after it; ``runbook`` is where its page can be read.
    """

    key: str
    metric: str
    severity: Severity | None
    value: float | None = None
    limit: str = ""
    cause: str = ""
    advice: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    owners: tuple[str, ...] = ()
    runbook: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState:
    """What must be remembered from one observation to the next.

    ``severity`` is that of the last bad observation, ``told`` the worst that was told; ``critical_since`` is set while
    observations are critical without a pause, ``good_since`` while a firing one is good and not resolved yet;
    ``change`` is the number of the last change that was told.
    """

    state: State
    severity: Severity
    told: Severity | None
    change: int
    since: datetime
    critical_since: datetime | None
    seen_at: datetime
    good_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change that must be told."""

    kind: EventKind
    severity: Severity
    change: int


def advance(
    state: AlertState | None,
    observation: Observation | None,
    now: datetime,
    *,
    hold: timedelta = timedelta(0),
    keep: timedelta = timedelta(0),
) -> tuple[AlertState | None, tuple[Event, ...]]:
    """The state after an observation at the time ``now`` (aware), and what must be told.

    ``hold`` is how long it must be bad without a good observation before it fires, ``keep`` how long it must be good
    without a bad one before a firing one is resolved. A state of none means that nothing is wrong and nothing was; a
    resolved one starts a new episode when it turns bad again.
    """
    if now.tzinfo is None:
        raise ValueError("the time of an observation needs its zone")
    if observation is None:
        return state, ()
    if state is None or state.state == "resolved":
        return (state, ()) if observation.severity is None else _bad(None, observation.severity, now, hold)
    if now < state.seen_at:
        return _set_back(state, now), ()
    if observation.severity is None:
        return _good(state, now, keep)
    return _bad(state, observation.severity, now, hold)


def _good(state: AlertState, now: datetime, keep: timedelta) -> tuple[AlertState | None, tuple[Event, ...]]:
    if state.told is None:
        return None, ()
    good_since = state.good_since or now
    if now - good_since < keep:
        return replace(state, good_since=good_since, critical_since=None, seen_at=now), ()
    resolved = replace(state, state="resolved", change=state.change + 1, seen_at=now, good_since=good_since)
    return resolved, (Event(kind="resolved", severity=state.told, change=resolved.change),)


def _bad(
    state: AlertState | None, severity: Severity, now: datetime, hold: timedelta
) -> tuple[AlertState, tuple[Event, ...]]:
    since = now if state is None else state.since
    critical_since = None
    if severity == "critical":
        critical_since = (state.critical_since if state else None) or now
    seen = AlertState(
        state="pending" if state is None else state.state,
        severity=severity,
        told=None if state is None else state.told,
        change=0 if state is None else state.change,
        since=since,
        critical_since=critical_since,
        seen_at=now,
    )
    held = _held(seen, now, hold)
    if _RANK[held] <= _RANK[seen.told]:
        return seen, ()
    assert held is not None
    fired = replace(seen, state="firing", told=held, change=seen.change + 1)
    return fired, (Event(kind="firing", severity=held, change=fired.change),)


def _held(state: AlertState, now: datetime, hold: timedelta) -> Severity | None:
    if state.critical_since is not None and now - state.critical_since >= hold:
        return "critical"
    return "warning" if state.told or now - state.since >= hold else None


def _set_back(state: AlertState, now: datetime) -> AlertState:
    """The same state on a clock that went back: what was held so long stays held so long."""
    back = state.seen_at - now
    return replace(
        state,
        since=state.since - back if state.state == "pending" else state.since,
        critical_since=state.critical_since - back if state.critical_since else None,
        good_since=state.good_since - back if state.good_since else None,
        seen_at=now,
    )
