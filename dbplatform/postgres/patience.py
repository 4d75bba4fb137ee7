"""Waiting for locks a short time, often."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from dbplatform.errors import LockNotAcquired
from dbplatform.postgres.connection import AutocommitConnection

T = TypeVar("T")

TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How often a lock is asked for, and how long others have between two tries."""

    tries: int = TRIES
    first_s: float = 0.2
    growth: float = 2.0
    most_s: float = 5.0
    spread: float = 0.2


def tried(
    once: Callable[[], T],
    *,
    relations: str,
    waited_ms: int,
    sleep: Callable[[float], None],
    pauses: Pauses | None = None,
    again_on: tuple[type[Exception], ...] = (),
    hint: str = "Find in pg_stat_activity the transaction that holds it, then try again.",
) -> T:
    """The result of the first try that got its locks in time; ``LockNotAcquired`` after the last.

    ``once`` waits ``waited_ms`` for a lock. A deadlock is tried again, too, and what is named in ``again_on``.
    """
    pauses = pauses or Pauses()
    again: tuple[type[Exception], ...] = (
        psycopg.errors.LockNotAvailable,
        psycopg.errors.DeadlockDetected,
        *again_on,
    )
    pause = pauses.first_s
    for turn in range(1, pauses.tries + 1):
        try:
            return once()
        except again as error:
            if turn == pauses.tries:
                raise LockNotAcquired(
                    lock=f"a lock on {relations}", waited_ms=pauses.tries * waited_ms, hint=hint
                ) from error
        sleep(pause * random.uniform(1 - pauses.spread, 1 + pauses.spread))
        pause = min(pause * pauses.growth, pauses.most_s)
    raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Waits for locks a short time, often: a queued lock request stops everybody who comes after it."""

    connection: AutocommitConnection
    lock_timeout_ms: int
    sleep: Callable[[float], None]

    def run(self, relations: str, action: Callable[[], T]) -> T:
        """The action's result, from one transaction that had its locks in time."""
        return self._tried(relations, lambda: self._once(action))

    def run_outside(self, relations: str, action: Callable[[], T]) -> T:
        """The same for what PostgreSQL refuses inside a transaction."""
        return self._tried(relations, lambda: self.once_outside(action))

    def once_outside(self, action: Callable[[], T]) -> T:
        """One try of it, whose errors are the caller's."""
        before = self.connection.execute("select current_setting('lock_timeout')").fetchone()
        assert before is not None
        self.connection.execute("select set_config('lock_timeout', %s, false)", (str(self.lock_timeout_ms),))
        try:
            return action()
        finally:
            self.connection.execute("select set_config('lock_timeout', %s, false)", before)

    def _tried(self, relations: str, once: Callable[[], T]) -> T:
        return tried(once, relations=relations, waited_ms=self.lock_timeout_ms, sleep=self.sleep)

    def _once(self, action: Callable[[], T]) -> T:
        with self.connection.transaction():
            self.connection.execute("select set_config('lock_timeout', %s, true)", (str(self.lock_timeout_ms),))
            return action()
