"""When work may begin: the window, the budget, and what others feel. Nothing that has begun is stopped by them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from dbplatform.errors import LockNotAcquired
from dbplatform.maintenance.model import NotPossible
from dbplatform.maintenance.policy import LimitsPolicy, MaintenancePolicy
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.pressure import Pressure, pressure, sees_others

_LOOK_S = 1.0


@dataclass(slots=True, kw_only=True)
class Pace:
    """What one run has taken so far."""

    policy: MaintenancePolicy
    sleep: Callable[[float], None]
    clock: Callable[[], float]
    now: Callable[[], datetime]
    started: float
    resting: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while it waits for a calmer server: what others may have meanwhile."""
    in_window: bool = True
    """Whether the declared window counts: a person may work outside of it."""
    spent_bytes: int = 0
    paused_s: float = 0.0
    stopped: str | None = None

    @property
    def remaining_s(self) -> float:
        """Of the budget of time."""
        return self.policy.budget.time.timedelta.total_seconds() - (self.clock() - self.started)

    def begins(self, connection: AnyConnection) -> bool:
        """Whether the next item may begin; returns once the server is calm, or ``stopped`` says why not."""
        self.stopped = self._over() or self._calm(connection) or self._over()
        return self.stopped is None

    def _over(self) -> str | None:
        policy = self.policy
        if self.in_window and policy.window is not None and not policy.window.is_open(self.now()):
            return f"it is outside the window {policy.window}"
        if self.remaining_s <= 0:
            return f"the budget of {policy.budget.time} is spent"
        if policy.budget.size is not None and self.spent_bytes >= policy.budget.size:
            return f"the budget of {policy.budget.size:,} bytes is spent"
        return None

    def _calm(self, connection: AnyConnection) -> str | None:
        """Wait, with no transaction and no lock; the reason where that took too long."""
        if exceeded(pressure(connection), self.policy.limits) is None:
            return None
        began = self.clock()
        try:
            with self.resting():
                return self._waited(connection, began)
        except LockNotAcquired as error:
            return f"others began to write while it paused: {str(error).rstrip('.')}"
        finally:
            self.paused_s += self.clock() - began

    def _waited(self, connection: AnyConnection, began: float) -> str | None:
        most = self.policy.limits.pause.timedelta.total_seconds()
        while (reason := exceeded(pressure(connection), self.policy.limits)) is not None:
            if self.clock() - began >= most:
                return f"{reason}, for {self.policy.limits.pause}"
            if (over := self._over()) is not None:
                return f"{over}; {reason}"
            self.sleep(_LOOK_S)
        return None


def unseen(connection: AnyConnection, database: str) -> tuple[NotPossible, ...]:
    """That limits hold nothing back, where the user who asks for them cannot see what they are about."""
    if sees_others(connection):
        return ()
    return (
        NotPossible(
            kind="limits",
            subject=database,
            reason="the user cannot see other sessions and replicas, so active_sessions and replica_lag hold nothing "
            "back",
            hint=f"GRANT pg_monitor TO {sql.Identifier(connection.info.user).as_string()}",
        ),
    )


def exceeded(found: Pressure, limits: LimitsPolicy) -> str | None:
    """Which limit the server is beyond, in words; none: it is calm. Pure."""
    if found.waiting_sessions > limits.waiting_sessions:
        return f"{found.waiting_sessions} sessions wait for locks (waiting_sessions: {limits.waiting_sessions})"
    if found.active_sessions > limits.active_sessions:
        return f"{found.active_sessions} sessions are at work (active_sessions: {limits.active_sessions})"
    if found.replica_lag_bytes > limits.replica_lag:
        behind, most = found.replica_lag_bytes >> 20, limits.replica_lag >> 20
        return f"the replica {found.replica} has {behind:,} MB of WAL to replay (replica_lag: {most:,} MB)"
    return None
