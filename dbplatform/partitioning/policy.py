"""What a person declares about one partitioned table."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from dbplatform.partitioning.bounds import check_interval
from dbplatform.postgres.words import ColumnName, Interval, IntervalWords, Policy, RelationName


def _start(value: Any) -> Any:
    """``auto``, a time, or an interval back from now; YAML gives an unquoted date as a date."""
    if value == "auto" or isinstance(value, Interval):
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


#: ``auto``, a date or time, or an interval back from now.
Start = Annotated[
    Interval | datetime | Literal["auto"],
    BeforeValidator(_start),
    PlainSerializer(_start_words),
    WithJsonSchema({"type": "string"}),
]


class PartitionPolicy(Policy):
    """A table partitioned by range of one time column: how wide, how far ahead, and from where on."""

    table: RelationName = Field(description="The partitioned table: schema.table.")
    column: ColumnName = Field(description="The column it is partitioned by: timestamptz, timestamp or date.")
    interval: Annotated[IntervalWords, AfterValidator(check_interval)] = Field(
        description="How wide each partition is: whole months, or days, hours and minutes; bounds are in UTC."
    )
    premake: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=4, description="How many partitions are kept ready after the one that covers now."
    )
    start: Start = Field(
        default="auto",
        description="The history to build: a date, how far back from now (13 months), or auto: from the oldest row.",
    )
    retain: IntervalWords | None = Field(default=None, description="When partitions are retired; not built yet.")
