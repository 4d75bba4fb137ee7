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

    table: RelationName
    column: ColumnName
    interval: Annotated[IntervalWords, AfterValidator(check_interval)]
    #: Partitions kept ready after the one that covers now.
    premake: Annotated[int, Field(strict=True, ge=1)] = 4
    start: Start = "auto"
    retain: IntervalWords | None = None
