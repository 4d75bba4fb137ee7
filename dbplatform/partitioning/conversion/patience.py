"""Short waits for hard locks, often: whoever waits for a lock stops everybody who comes after.

A first lock, SHARE UPDATE EXCLUSIVE, stops neither readers nor writers, so it may be waited for longer: long enough for
PostgreSQL to end an autovacuum that is in the way. Then nobody but readers and writers holds what the hard lock needs,
and it is asked for in waits of ``lock_timeout_ms``, shorter than ``deadlock_timeout``: in a deadlock the conversion
gives way, never a client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dbplatform import progress
from dbplatform.partitioning.conversion.steps import Step
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.patience import Pauses, tried

SOFT_LOCK_MS = 2000
#: No statement behind a hard lock touches rows, so none takes long.
HARD_STATEMENT_MS = 5000
PAUSES = Pauses(tries=60, first_s=0.1, growth=1.5, most_s=2.0, spread=0.5)


class Changed(Exception):
    """The catalog changed between reading and locking: try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Transactions that get their locks in time, or leave and come back."""

    connection: AutocommitConnection
    lock_timeout_ms: int
    sleep: Callable[[float], None] = time.sleep

    def run(self, relations: str, work: Callable[[], None]) -> None:
        """Do the work in one transaction, tried again after a pause; raises ``LockNotAcquired`` in the end."""

        def once() -> None:
            with self.connection.transaction():
                self.soft()
                work()

        tried(
            once,
            relations=relations,
            waited_ms=self.lock_timeout_ms,
            sleep=self.sleep,
            pauses=PAUSES,
            again_on=(Changed,),
            hint="Find in pg_stat_activity the transaction that holds it, then run the command again: it goes on where "
            "it was.",
        )

    def soft(self) -> None:
        """What is locked next stops nobody else's reading and writing."""
        self._timeouts(SOFT_LOCK_MS, 0)

    def hard(self) -> None:
        """What is locked next stops readers or writers."""
        self._timeouts(self.lock_timeout_ms, HARD_STATEMENT_MS)

    def unhurried(self) -> None:
        """The locks are there; what comes next takes as long as it takes."""
        self._timeouts(self.lock_timeout_ms, 0)

    def _timeouts(self, lock_ms: int, statement_ms: int) -> None:
        self.connection.execute(
            "select set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
            (str(lock_ms), str(statement_ms)),
        )

    def execute(self, steps: Iterable[Step], *, task: str | None = None) -> None:
        """The statements, one by one."""
        listed = list(steps)
        for number, step in enumerate(listed):
            if task is not None:
                progress.report(task, done=number, total=len(listed), unit="statements")
            self.connection.execute(step.statement)
        if task is not None:
            progress.report(task, done=len(listed), total=len(listed), unit="statements")
