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
_MOST_PAUSE_S = 5.0


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
        pause = 0.2
        for _ in range(TRIES - 1):
            try:
                return once()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                self.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, _MOST_PAUSE_S)
        try:
            return once()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise LockNotAcquired(
                lock=f"a lock on {relations}",
                waited_ms=TRIES * self.lock_timeout_ms,
                hint="Find in pg_stat_activity the transaction that holds it, then try again.",
            ) from error

    def _once(self, action: Callable[[], T]) -> T:
        with self.connection.transaction():
            self.connection.execute("select set_config('lock_timeout', %s, true)", (str(self.lock_timeout_ms),))
            return action()
