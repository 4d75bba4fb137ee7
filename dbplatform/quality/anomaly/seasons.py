"""The calendar of a series: which values are comparable, and which of them are one.

Hours and days are those of a time zone, so that nine o'clock in summer is comparable with nine o'clock in winter, and a
day is a day when it has 23 hours.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol, TypeVar
from zoneinfo import ZoneInfo

Season = Literal["none", "hour_of_day", "day_of_week", "hour_of_week", "day_of_month"]

#: What comparable values have in common.
WORDS: dict[Season, str] = {
    "none": "",
    "hour_of_day": " of that hour",
    "day_of_week": " of that weekday",
    "hour_of_week": " of that weekday and hour",
    "day_of_month": " of that day of the month",
}
#: How many values a full turn of the season has.
CYCLE: dict[Season, int] = {"none": 7, "hour_of_day": 24, "day_of_week": 7, "hour_of_week": 168, "day_of_month": 30}
#: How many comparable values are needed before a value is judged, where nothing is declared.
LEAST: dict[Season, int] = {"none": 10, "hour_of_day": 7, "day_of_week": 4, "hour_of_week": 4, "day_of_month": 3}
#: How many values are looked at: enough for the season, its level and a hundred past errors.
WALKED: dict[Season, int] = {
    "none": 200,
    "hour_of_day": 504,
    "day_of_week": 210,
    "hour_of_week": 1_008,
    "day_of_month": 430,
}
_COUNTED_FROM_THE_END = 26  # From this day of a month on: its last day is comparable with the last of any other.


class Timed(Protocol):
    """Something with a moment."""

    @property
    def at(self) -> datetime:
        """The moment; aware."""


_Timed = TypeVar("_Timed", bound=Timed)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The hours and days of a time zone."""

    zone: ZoneInfo

    def key(self, season: Season, at: datetime) -> int:
        """Moments of the same key are comparable."""
        local = at.astimezone(self.zone)
        match season:
            case "none":
                return 0
            case "hour_of_day":
                return local.hour
            case "day_of_week":
                return local.weekday()
            case "hour_of_week":
                return local.weekday() * 24 + local.hour
            case "day_of_month":
                days = monthrange(local.year, local.month)[1]
                return local.day if local.day < _COUNTED_FROM_THE_END else local.day - days - 1

    def slot(self, season: Season, at: datetime) -> str:
        """The day or the hour that a value stands for."""
        if season in ("day_of_week", "day_of_month"):
            return at.astimezone(self.zone).date().isoformat()
        return at.astimezone(UTC).strftime("%Y-%m-%d %H")

    def last_of_each_slot(self, values: Iterable[_Timed], season: Season) -> list[_Timed]:
        """Of the values of one day or hour, oldest first, only the last: runs in quick succession are one evidence."""
        return list({self.slot(season, value.at): value for value in values}.values())
