"""Pools of connections for people's own work on a declared database: a profile per environment, and what a pool does.

The profiles are those that applications of such environments use: few connections where a person works, many where a
service answers. A production statement ends after ten seconds. The pool is SQLAlchemy's ``QueuePool``: ``size``
connections are kept, up to ``max_overflow`` more are opened for a burst and closed behind it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from dbplatform.errors import WorkError
from dbplatform.postgres.connection import Target, sqlalchemy_url
from dbplatform.postgres.words import Policy

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Environment = Literal["development", "test", "staging", "production"]


class PoolPolicy(Policy):
    """What differs from the profile of the environment."""

    size: int | None = Field(default=None, ge=1, le=1000, description="So many connections are kept open.")
    max_overflow: int | None = Field(
        default=None, ge=0, le=1000, description="So many more are opened for a burst, and closed behind it."
    )
    timeout_s: float | None = Field(default=None, gt=0, description="So long a caller waits for a connection.")
    recycle_s: int | None = Field(default=None, ge=1, description="An older connection is replaced before it is used.")
    idle_s: int | None = Field(
        default=None, ge=1, description="One that was idle for longer is replaced before it is used."
    )
    pre_ping: bool | None = Field(
        default=None, description="Ask each connection whether it lives before it is used; a dead one is replaced."
    )
    statement_timeout_s: float | None = Field(
        default=None, ge=0, description="The server ends a statement after so long; 0: never."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """A whole profile; times in seconds, 0 for no statement timeout."""

    size: int
    max_overflow: int
    timeout_s: float
    idle_s: int
    recycle_s: int = 1800
    pre_ping: bool = True
    statement_timeout_s: float = 0

    @property
    def most(self) -> int:
        """The most connections that are ever open."""
        return self.size + self.max_overflow


PROFILES: Final[dict[Environment, PoolSettings]] = {
    "development": PoolSettings(size=1, max_overflow=4, timeout_s=2, idle_s=60),
    "test": PoolSettings(size=1, max_overflow=2, timeout_s=2, idle_s=10),
    "staging": PoolSettings(size=5, max_overflow=15, timeout_s=3, idle_s=30),
    "production": PoolSettings(size=10, max_overflow=40, timeout_s=5, idle_s=30, statement_timeout_s=10),
}


def pool_settings(environment: Environment, overrides: PoolPolicy | None = None) -> PoolSettings:
    """The profile of the environment with what is declared otherwise."""
    return replace(PROFILES[environment], **(overrides.model_dump(exclude_none=True) if overrides else {}))


class PoolExhausted(WorkError):
    """All {most} connections of the pool to {target} were in use for {seconds:g} s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """What a pool holds now, and the most that it ever held; ``refused``: callers that waited in vain."""

    limit: int
    in_use: int
    idle: int
    most_in_use: int
    opened: int
    refused: int
    longest_wait_s: float

    @property
    def used_ratio(self) -> float:
        """The share of the limit that was in use at the worst moment."""
        return self.most_in_use / self.limit

    def as_json(self) -> dict[str, Any]:
        """For metadata and logs."""
        return {**asdict(self), "used_ratio": round(self.used_ratio, 3)}


class DatabasePool:
    """One pool on one target; connections are opened when they are first needed, and ``close`` ends them."""

    def __init__(self, target: Target, settings: PoolSettings, *, work: str = "pool") -> None:
        from sqlalchemy import create_engine, event

        self.target, self.settings = target, settings
        self._most = self._opened = self._refused = 0
        self._longest_wait = 0.0
        self.engine: Engine = create_engine(
            sqlalchemy_url(target),
            pool_size=settings.size,
            max_overflow=settings.max_overflow,
            pool_timeout=settings.timeout_s,
            pool_recycle=settings.recycle_s,
            pool_pre_ping=settings.pre_ping,
            connect_args={"application_name": f"dbplatform {work}", "connect_timeout": 10},
        )
        event.listen(self.engine, "connect", self._prepare)
        event.listen(self.engine, "checkout", self._taken)
        event.listen(self.engine, "checkin", self._given_back)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection of the pool for the block. Raises ``PoolExhausted`` after ``timeout_s``."""
        from sqlalchemy.exc import TimeoutError as Exhausted

        begun = time.monotonic()
        try:
            taken = self.engine.connect()
        except Exhausted:
            self._refused += 1
            raise PoolExhausted(
                most=self.settings.most,
                target=self.target.name,
                seconds=self.settings.timeout_s,
                hint="Give connections back sooner, or raise max_overflow in connection.pool (on a replica: in "
                "connection.replica_pool) as far as the server allows.",
            ) from None
        finally:
            self._longest_wait = max(self._longest_wait, time.monotonic() - begun)
        with taken:
            yield taken

    @property
    def statistics(self) -> PoolStatistics:
        """What it holds now."""
        pool: Any = self.engine.pool
        return PoolStatistics(
            limit=self.settings.most,
            in_use=pool.checkedout(),
            idle=pool.checkedin(),
            most_in_use=self._most,
            opened=self._opened,
            refused=self._refused,
            longest_wait_s=round(self._longest_wait, 3),
        )

    def close(self) -> None:
        """End the idle connections; those in use end when they are given back."""
        self.engine.dispose()

    def _prepare(self, connection: Any, _: Any) -> None:
        self._opened += 1
        milliseconds = round(self.settings.statement_timeout_s * 1000)
        connection.autocommit = True
        connection.execute("select set_config('statement_timeout', %s, false)", (str(milliseconds),))
        connection.autocommit = False

    def _taken(self, _: Any, record: Any, __: Any) -> None:
        from sqlalchemy.exc import DisconnectionError

        if time.monotonic() - record.info.get("idle_since", time.monotonic()) > self.settings.idle_s:
            raise DisconnectionError("it was idle for too long")
        pool: Any = self.engine.pool
        self._most = max(self._most, pool.checkedout())

    def _given_back(self, _: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()
