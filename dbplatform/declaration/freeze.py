"""A change freeze: a time in which nothing changes a database by itself, and people are asked before they do.

Schedules and automation leave what changes the database for later; backups, their proofs, checks, metrics and alerts
go on. Times without an offset are by the clock on the wall of the database's time zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from dbplatform.postgres.words import Policy


def _moment(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time.min)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no time; write a day, such as 2026-12-20, or 2026-12-20 18:00")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value!r} is no time; write a day, such as 2026-12-20, or 2026-12-20 18:00") from None


#: A day, which is its beginning, or a time; with an offset, or by the clock of the database's time zone.
LocalTime = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string"})]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """One freeze on the clock of its database, half-open: ``[starts_at, ends_at)``, both aware."""

    starts_at: datetime
    ends_at: datetime
    reason: str

    def is_in_force(self, now: datetime) -> bool:
        """Whether the aware time is within it."""
        return self.starts_at <= now < self.ends_at

    def as_json(self) -> dict[str, Any]:
        """One freeze of ``list --json`` and ``health --json``."""
        return {"from": self.starts_at.isoformat(), "to": self.ends_at.isoformat(), "reason": self.reason}

    def __str__(self) -> str:
        return f"until {self.ends_at:%Y-%m-%d %H:%M} {self.ends_at.tzinfo}: {self.reason}"


class FreezePolicy(Policy):
    """A time in which nothing changes the database by itself."""

    from_: LocalTime = Field(
        alias="from",
        description="When it begins: 2026-12-20 is the beginning of that day, 2026-12-20 18:00 a time, both in the "
        "database's time_zone; or a time with its offset.",
    )
    to: LocalTime = Field(
        description="When changes are allowed again, written in the same way: 2027-01-04 leaves the whole third frozen."
    )
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="Why; whoever is kept waiting reads it."
    )

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> FreezePolicy:
        if (self.from_.tzinfo is None) != (self.to.tzinfo is None):
            raise ValueError("from and to are on two clocks; write both with an offset, or both without")
        if self.to <= self.from_:
            raise ValueError(f"it ends at {self.to}, and begins at {self.from_}; write a 'to' that comes after 'from'")
        return self

    def on_clock(self, zone: ZoneInfo) -> Freeze:
        """The freeze by the clock of this time zone."""
        return Freeze(starts_at=_aware(self.from_, zone), ends_at=_aware(self.to, zone), reason=self.reason)


def _aware(moment: datetime, zone: tzinfo) -> datetime:
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)
