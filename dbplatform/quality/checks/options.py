"""Options of a check that are more than a word: until when its failure is accepted, and where its rows are moved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from dbplatform.postgres.words import Policy, RelationName
from dbplatform.quality.checks.tolerance import ToleranceWords

_ACCEPTED = 'accepted_until: {date: 2026-12-31, reason: "..."}'


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Somebody answers for a failure until a day, and says why."""

    until: date
    reason: str

    @classmethod
    def parse(cls, value: Any) -> Self:
        """``{date: 2026-12-31, reason: ...}``; raises ValueError with a sentence."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"accepted_until needs a reason; write {_ACCEPTED}")
        if unknown := [key for key in value if key not in ("date", "reason")]:
            raise ValueError(f"accepted_until has no key {unknown[0]!r}; write {_ACCEPTED}")
        reason = value.get("reason")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"accepted_until needs a reason; write {_ACCEPTED}")
        return cls(_day(value.get("date")), " ".join(reason.split()))

    def holds(self, day: date) -> bool:
        """Whether a failure on that day (UTC) is accepted: from the beginning of ``until`` on it is not."""
        return day < self.until

    def words(self, day: date) -> str:
        """What is said of a failure on that day, as a sentence."""
        if not self.holds(day):
            return f"Its acceptance ran out on {self.until}: {self.reason}"
        days = (self.until - day).days
        left = f" (in {days} day{'' if days == 1 else 's'})" if days <= SOON_DAYS else ""
        return f"Accepted until {self.until}{left}: {self.reason}"

    def __str__(self) -> str:
        return f"{self.until}: {self.reason}"


SOON_DAYS = 14
"""An acceptance that runs out within so many days is told with the days that are left."""


def _day(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"{str(value)!r} is not a day; write it as 2026-12-31") from None


class QuarantinePolicy(Policy):
    """Where failing rows are moved, and how many at most: when more fail, none is moved."""

    to: RelationName | None = None
    at_most: ToleranceWords | None = None

    def __str__(self) -> str:
        place = f"to {self.to}" if self.to else "to a table of the schema dbplatform"
        return f"{place}, at most {self.at_most}" if self.at_most else place


def _quarantine(value: Any) -> Any:
    if value is True:
        return QuarantinePolicy()
    if value is False:
        return None
    if not isinstance(value, dict | QuarantinePolicy):
        raise ValueError("write quarantine: true, or quarantine: {to: schema.table, at_most: 5%}")
    return value


#: An acceptance as people write it.
AcceptanceWords = Annotated[
    Acceptance,
    BeforeValidator(Acceptance.parse),
    PlainSerializer(str),
    WithJsonSchema({"type": "object", "description": _ACCEPTED}),
]
#: ``true``, ``false`` or where and how many at most.
QuarantineWords = Annotated[QuarantinePolicy | None, BeforeValidator(_quarantine)]
