"""PostgreSQL's words in a declaration: types of names, intervals, sizes and the strict model that holds them.

Pydantic stands at the border: what people write is validated here, frozen, and every mistake is one sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from dbplatform.postgres.identifiers import Relation, split_name

if TYPE_CHECKING:
    from dateutil.relativedelta import relativedelta


class Policy(BaseModel):
    """The base of all that people write: unknown keys are refused, values do not change."""

    # A secret that was written where it does not belong is in no error, not even in a traceback.
    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True, hide_input_in_errors=True
    )


_ISO = re.compile(r"P(?=.)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_UNITS = {
    "microsecond": ("microseconds", 1),
    "millisecond": ("microseconds", 1000),
    "ms": ("microseconds", 1000),
    "second": ("seconds", 1),
    "sec": ("seconds", 1),
    "s": ("seconds", 1),
    "minute": ("minutes", 1),
    "min": ("minutes", 1),
    "m": ("minutes", 1),
    "hour": ("hours", 1),
    "h": ("hours", 1),
    "day": ("days", 1),
    "d": ("days", 1),
    "week": ("days", 7),
    "w": ("days", 7),
    "month": ("months", 1),
    "mon": ("months", 1),
    "quarter": ("months", 3),
    "year": ("months", 12),
    "y": ("months", 12),
}


@dataclass(frozen=True, slots=True)
class Interval:
    """A PostgreSQL interval: calendar months and days kept apart from seconds."""

    months: int = 0
    days: int = 0
    microseconds: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """``12 months``, ``2s``, ``1 day 6 hours`` or ISO 8601 ``P1M``; raises ValueError with a sentence."""
        parts = {"months": 0, "days": 0, "hours": 0, "minutes": 0, "seconds": 0, "microseconds": 0}
        text = text.strip()
        iso = _ISO.fullmatch(text)
        if iso:
            numbers = [int(n or 0) for n in iso.groups()]
            years, parts["months"], weeks, parts["days"] = numbers[:4]
            parts["hours"], parts["minutes"], parts["seconds"] = numbers[4:]
            parts["months"] += 12 * years
            parts["days"] += 7 * weeks
        else:
            rest = re.fullmatch(r"(?:\d+\s*[A-Za-z]+\s*)+", text)
            found = re.findall(r"(\d+)\s*([A-Za-z]+)", text) if rest else []
            known = [(int(n), _unit(unit)) for n, unit in found]
            if not known or any(unit is None for _, unit in known):
                raise ValueError(
                    f"{text!r} is not an interval; write PostgreSQL's words, such as '1 month', '90 days', '2s', "
                    "or ISO 8601, such as P1M"
                )
            for number, unit in known:
                assert unit is not None
                parts[unit[0]] += number * unit[1]
        seconds = parts["seconds"] + 60 * parts["minutes"] + 3600 * parts["hours"]
        return cls(parts["months"], parts["days"], parts["microseconds"] + 1_000_000 * seconds)

    @property
    def relativedelta(self) -> relativedelta:
        """The same length for calendar arithmetic on datetimes."""
        from dateutil.relativedelta import relativedelta

        return relativedelta(months=self.months, days=self.days, microseconds=self.microseconds)

    @property
    def timedelta(self) -> timedelta:
        """The length as a duration; raises ValueError when it has months, whose length varies."""
        if self.months:
            raise ValueError("months have no fixed length; write days")
        return timedelta(days=self.days, microseconds=self.microseconds)

    @property
    def milliseconds(self) -> int:
        """The length of an interval without months, for settings such as ``lock_timeout``."""
        return round(self.timedelta.total_seconds() * 1000)

    @property
    def approximate_days(self) -> float:
        """The length in days, with 30.4 days to a month: for ratios and charts only."""
        return self.months * 30.4375 + self.days + self.microseconds / 86_400_000_000

    def __str__(self) -> str:
        words = []
        for number, unit in ((self.months, "month"), (self.days, "day")):
            if number:
                words.append(f"{number} {unit}{'s' if number != 1 else ''}")
        if self.microseconds:
            words.append(f"{self.microseconds / 1_000_000:g} seconds")
        return " ".join(words) or "0"


def _unit(word: str) -> tuple[str, int] | None:
    lower = word.lower()
    return _UNITS.get(lower) or _UNITS.get(lower.removesuffix("s"))


def _interval(value: Any) -> Interval:
    if isinstance(value, Interval):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not an interval; write a number with its unit, such as '1 month' or '2s'")
    return Interval.parse(value)


def _positive_interval(value: Any) -> Interval:
    interval = _interval(value)
    if interval == Interval():
        raise ValueError("the interval must be longer than zero")
    return interval


def _duration(value: Any) -> Interval:
    interval = _positive_interval(value)
    if interval.months:
        raise ValueError(f"{value!r} has months, whose length varies; write days, hours or seconds")
    return interval


_SIZE = re.compile(r"(\d+)\s*(kB|MB|GB|TB)")
_SIZE_UNITS = {"kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not int(found[1]):
        raise ValueError(f"{value!r} is no size; write PostgreSQL's words, such as '64MB' or '5 GB'")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def _relation(value: Any) -> Relation:
    if isinstance(value, Relation):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not the name of a table; write schema.table")
    return Relation.parse(value)


def _column(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not the name of a column")
    parts = split_name(value)
    if len(parts) != 1:
        raise ValueError(f"{value!r} is not the name of one column")
    return parts[0]


def _aware(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an ISO 8601 time, such as 2026-01-31T12:00:00+00:00") from None
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _cron(value: str) -> str:
    from croniter import CroniterBadDateError, croniter  # not for a declaration without a schedule

    if len(value.split()) != 5 or not croniter.is_valid(value):
        raise ValueError(f"{value!r} is no cron schedule; write minute, hour, day, month and weekday, as '0 2 * * *'")
    try:
        croniter(value).get_next()
    except CroniterBadDateError:
        raise ValueError(f"the cron schedule {value!r} never comes; correct day and month") from None
    return value


def _time_zone(value: Any) -> ZoneInfo:
    if isinstance(value, ZoneInfo):
        return value
    try:
        # A path, such as "../UTC", is a ValueError; a folder of zones, such as "America", may be an OSError.
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(f"{value!r} is no time zone; write one such as Europe/Vienna, or UTC") from None


_TEXT = WithJsonSchema({"type": "string"})

#: An interval longer than zero: ``1 month``, ``P1M``.
IntervalWords = Annotated[Interval, BeforeValidator(_positive_interval), PlainSerializer(str), _TEXT]
#: An interval of fixed length (no months): ``2s``, ``1 day``.
DurationWords = Annotated[Interval, BeforeValidator(_duration), PlainSerializer(str), _TEXT]
#: A number of bytes: ``64MB``, ``5 GB``.
SizeWords = Annotated[int, BeforeValidator(_size), _TEXT]
#: A table: ``public.flights``; without a schema it is in ``public``.
RelationName = Annotated[Relation, BeforeValidator(_relation), PlainSerializer(str), _TEXT]
#: A column: ``time_hour``, in double quotes where the name needs them.
ColumnName = Annotated[str, BeforeValidator(_column)]
#: An aware time; one without a zone is UTC.
AwareTime = Annotated[datetime, BeforeValidator(_aware)]
#: A time zone of the IANA: ``Europe/Vienna``.
TimeZone = Annotated[ZoneInfo, BeforeValidator(_time_zone), PlainSerializer(str), _TEXT]
#: A schedule of five cron words, in the database's time zone, that comes at least once.
Cron = Annotated[str, AfterValidator(_cron)]
#: The same, or ``false``: it never comes by itself.
CronOrNever = Annotated[Cron | None, BeforeValidator(lambda value: None if value is False else value)]
