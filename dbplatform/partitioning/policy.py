"""What a person declares about one partitioned table."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

from dbplatform.partitioning.bounds import Step, check_interval
from dbplatform.postgres.words import ColumnName, Interval, IntervalWords, Policy, RelationName

_LENGTH = TypeAdapter[Interval](IntervalWords)


def _step(value: Any) -> Any:
    """An interval, or how many numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value < 2**62:
            raise ValueError(f"{value} is no width; write a positive number, such as 1000000")
        return value
    return _LENGTH.validate_python(value)


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"{value!r} is no time zone; write a name such as Europe/Berlin") from None
    return value


def _start(value: Any) -> Any:
    """``auto``, a number, a time, or an interval back from now; YAML gives an unquoted date as a date."""
    if value == "auto" or isinstance(value, Interval | int):
        return value
    if isinstance(value, str):
        value = _moment(value) or _interval(value) or value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, Interval):
        return value
    raise ValueError(f"{value!r} is no start; write auto, a date such as 2025-01-01, or how far back: 13 months")


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _interval(text: str) -> Interval | None:
    try:
        return Interval.parse(text)
    except ValueError:
        return None


def _start_words(start: Interval | datetime | str) -> str:
    return start.isoformat() if isinstance(start, datetime) else str(start)


#: ``auto``, a number, a date or time, or an interval back from now.
Start = Annotated[
    Interval | datetime | int | Literal["auto"],
    BeforeValidator(_start),
    PlainSerializer(_start_words),
    WithJsonSchema({"type": "string"}),
]
#: A length of time, or how many numbers.
StepWords = Annotated[
    Step,
    BeforeValidator(_step),
    PlainSerializer(lambda step: step if isinstance(step, int) else str(step)),
    WithJsonSchema({"type": ["string", "integer"]}),
]


class RetainPolicy(Policy):
    """How long partitions stay in their table, and what then becomes of them."""

    keep: StepWords = Field(
        description="A partition is retired when its every row is older than this, or as far below the greatest number."
    )
    then: Literal["drop_archived", "drop_without_archive"] = Field(
        default="drop_archived",
        description="drop_archived: it is detached, and dropped when its rows are all archived; else it stays beside "
        "the table. drop_without_archive: it is detached and dropped, and rows that are in no archive are lost.",
    )


def _retain(value: Any) -> Any:
    return {"keep": value} if isinstance(value, str | int) else value


class PartitionPolicy(Policy):
    """A table partitioned by range of one column, of times or whole numbers: how wide, how far ahead, from where on."""

    table: RelationName = Field(description="The partitioned table: schema.table.")
    column: ColumnName = Field(
        description="The column it is partitioned by: timestamptz, timestamp, date, or a whole number."
    )
    interval: Annotated[StepWords, AfterValidator(check_interval)] = Field(
        description="How wide each partition is: whole months, or days, hours and minutes; for a whole number, how "
        "many numbers: 1000000."
    )
    premake: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=4,
        description="How many partitions are kept ready after the one that covers now, or the greatest number.",
    )
    start: Start = Field(
        default="auto",
        description="The history to build: a date, how far back from now (13 months), a number, or auto: from the "
        "oldest row.",
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Where months and days of a timestamptz column begin: Europe/Berlin."
    )
    default: bool = Field(
        default=False, description="Whether a default partition is made for rows that find no partition of their own."
    )
    move_at_most: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=250_000,
        description="The most rows that are moved out of the default partition in one transaction, for which readers "
        "and writers of the table wait; a range that holds more stays there and is reported.",
    )
    retain: Annotated[RetainPolicy | None, BeforeValidator(_retain)] = Field(
        default=None,
        description="When partitions are retired, and what becomes of them: 9 months, or {keep: 9 months, then: ...}.",
    )

    @property
    def zone(self) -> tzinfo:
        """The time zone of the grid."""
        return UTC if self.time_zone == "UTC" else ZoneInfo(self.time_zone)

    @model_validator(mode="after")
    def _of_one_kind(self) -> PartitionPolicy:
        numbers = isinstance(self.interval, int)
        if self.start != "auto" and isinstance(self.start, int) != numbers:
            raise ValueError("interval and start are of two kinds; write both as numbers, or both as times")
        if self.retain and isinstance(self.retain.keep, int) != numbers:
            raise ValueError("interval and retain are of two kinds; write both as numbers, or both as times")
        if numbers and self.time_zone != "UTC":
            raise ValueError("numbers have no time zone; leave time_zone out")
        if isinstance(self.interval, Interval) and self.interval.microseconds and self.time_zone != "UTC":
            raise ValueError("a part of a day is counted in UTC; leave time_zone out, or write days or months")
        return self
