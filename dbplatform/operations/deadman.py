"""The dead man's switch: the process that tells when the one that watches has stopped, or the ledger itself is gone.

It belongs to the status service, which is another process than Dagster's daemon. While the ledger answers, what it
sees are alerts like any others, told once whatever is restarted. When it does not, the message goes straight to every
declared channel, and is remembered here: told again only after a restart of this process.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from dbplatform.alerting.errors import ChannelFailed
from dbplatform.alerting.policy import NotifyPolicy, one_per_variable
from dbplatform.alerting.sending import Message, Send, send_by_apprise
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, WorkError
from dbplatform.operations import alerts, heartbeats
from dbplatform.operations.platform import Platform

SECONDS: Final = 10.0
#: A server that restarts is away for a moment.
_PATIENCE: Final = timedelta(seconds=45)
#: One that is stopped, or whose network swallows everything, does not even refuse.
_ANSWER_S: Final = 20.0

_log = logging.getLogger(__name__)
A = TypeVar("A")


class LedgerHangs(WorkError):
    """It takes connections or keeps them, and has not answered for {seconds:g} s."""


class DeadMansSwitch:
    """What one process knows of the watch; ``look`` again and again."""

    def __init__(
        self,
        platform: Platform,
        databases: Sequence[Declared],
        *,
        send: Send = send_by_apprise,
        answer_s: float = _ANSWER_S,
    ) -> None:
        self._platform, self._databases, self._send, self._answer_s = platform, databases, send, answer_s
        self._silent_since: datetime | None = None
        self._told: set[str] = set()
        self._asked: Future[tuple[str, ...]] | None = None
        self._judges_from: datetime | None = None
        """A watch gets its time to give a sign after this process began, or the ledger came back."""

    def look(self, now: datetime) -> tuple[str, ...]:
        """Read the signs of life, tell what is missing, and send what the daemon cannot send.

        Returns the problems that are open, in words. What a channel does not take is tried again at the next look.
        Holds no lock and no transaction while it sends straight to a channel. Returns after 20 s, though the ledger
        may not have answered: a question that hangs goes on in its thread, and no second one is asked beside it.
        """
        self._judges_from = self._judges_from or now + heartbeats.WITHIN
        self._asked = self._asked or _started(partial(self._watch, now))
        try:
            found = self._asked.result(timeout=self._answer_s)
        except TimeoutError:
            return self._ledger_silent(LedgerHangs(seconds=self._answer_s), now)
        except (PlatformError, SQLAlchemyError) as error:
            self._asked = None
            return self._ledger_silent(error, now)
        self._asked = None
        self._ledger_answers(now)
        return found

    def daemon_ended(self, now: datetime) -> tuple[str, ...]:
        """The same, by whoever has just seen the daemon end by itself: nobody need wait for it to be overdue."""
        self._judges_from, self._silent_since = now, now - _PATIENCE
        try:
            heartbeats.miss(self._platform.ledger, heartbeats.WATCH)
        except (PlatformError, SQLAlchemyError) as error:
            return self._ledger_silent(error, now)
        found = self.look(now)
        self.sign_off()
        return found

    def sign_off(self, *others: str) -> None:
        """This process ends as somebody wanted it to, and with it the ``others`` that give signs of life."""
        try:
            heartbeats.sign_off(self._platform.ledger, heartbeats.SERVICE, *others)
        except (PlatformError, SQLAlchemyError) as error:
            _log.error("the status service could not sign off: %s", type(error).__name__)

    def _watch(self, now: datetime) -> tuple[str, ...]:
        ledger = self._platform.ledger
        heartbeats.beat(ledger, heartbeats.SERVICE)
        assert self._judges_from is not None
        seen = heartbeats.observations(ledger, heartbeats.WATCH)
        if now < self._judges_from:
            seen = [one for one in seen if one.severity is None]
        elif seen[0].severity is None:  # otherwise nobody looks at the queue, and nothing is known of it
            seen += heartbeats.observations(ledger, heartbeats.QUEUE)
        alerts.judge_heartbeats(ledger, seen, self._channels, now=now)
        late = tuple(one.cause for one in seen if one.severity is not None)
        if late:
            failed = alerts.tell(self._platform, self._databases, now=now, send=self._send)
            late += tuple(f"{channel}: {why}" for channel, why in failed.items())
        return late

    @property
    def _channels(self) -> tuple[NotifyPolicy, ...]:
        return one_per_variable(one for declared in self._databases for one in declared.database.notify)

    def _ledger_silent(self, error: Exception, now: datetime) -> tuple[str, ...]:
        self._silent_since = self._silent_since or now
        # Of a driver's error the kind alone: its text could name hosts and users.
        reason = error.message if isinstance(error, PlatformError) else type(getattr(error, "orig", error)).__name__
        if now - self._silent_since >= _PATIENCE:
            words = (
                f"The ledger does not answer since {self._silent_since:%Y-%m-%d %H:%M:%S} UTC: {reason.rstrip('.')}.\n"
                "Nothing is watched, recorded or run until it does. Start its server: dbplatform server start; "
                "dbplatform doctor says more."
            )
            self._straight("firing", "[critical] dbplatform: the ledger does not answer", words)
        return (f"the ledger does not answer: {reason}",)

    def _ledger_answers(self, now: datetime) -> None:
        if self._silent_since is None:
            return
        self._judges_from = now + heartbeats.WITHIN
        if self._told:
            words = f"The ledger answers again. It was silent from {self._silent_since:%Y-%m-%d %H:%M:%S} to "
            words += f"{now:%Y-%m-%d %H:%M:%S} UTC."
            self._straight("resolved", "[resolved] dbplatform: the ledger answers", words)
        if not self._told:
            self._silent_since = None

    def _straight(self, kind: str, title: str, words: str) -> None:
        """Send to every channel that has not heard it yet; for an end, to those that have heard of the beginning."""
        assert self._silent_since is not None
        key = f"{heartbeats.PLATFORM}/ledger/{self._silent_since:%Y%m%dT%H%M%SZ}/{kind}"
        body = f"{words}\nMessage {key}"
        message = Message(key=key, kind=kind, severity="critical", title=title, body=body)
        for channel in self._channels:
            name = channel.url_env
            if (name in self._told) == (kind == "firing"):
                continue
            try:
                if not (url := os.environ.get(name)):
                    raise ChannelFailed(reason=f"the environment variable {name} is not set")
                self._send(url, message)
            except ChannelFailed as failure:
                _log.error("%s was not told: %s", name, failure.message)
            else:
                self._told ^= {name}


def _started(work: Callable[[], A]) -> Future[A]:
    """The work in a thread of its own, which ends with the process whatever it waits for."""
    future: Future[A] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="dead man's question", daemon=True).start()
    return future


def watch_the_watch(switch: DeadMansSwitch, ended: threading.Event) -> threading.Thread:
    """Look every ten seconds in a thread of this process, until ``ended`` is set; then sign off."""

    def work() -> None:
        while not ended.wait(SECONDS):
            try:
                problems = switch.look(datetime.now(UTC))
            except Exception:
                # Whatever it is, the next look must happen: this thread is the last one that watches.
                _log.exception("the dead man's switch could not look")
            else:
                for problem in problems:
                    _log.error("%s", problem)
        switch.sign_off()

    thread = threading.Thread(target=work, name="dead man's switch", daemon=True)
    thread.start()
    return thread
