"""Bounds as people write them: numbers, moments and ``now``; a lower one, an upper one, or both."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from dbplatform.quality.checks.base import WrongField, storable


def _number(value: Any) -> int | float:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(f"{value!r} is not a number; write a finite one without quotes")


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of at least 0")
    return value


def _ratio(value: Any) -> int | float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{value!r} is not a ratio between 0 and 1")
    return number


def _bound(value: Any) -> int | float | str:
    """Moments become text, which PostgreSQL reads as the column's type."""
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, str):
        return _number(value)
    return storable(value)


def _scalar(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool) else _bound(value)


Number = Annotated[int | float, BeforeValidator(_number)]
RowNumber = Annotated[int, BeforeValidator(_count), Field(ge=0)]
Ratio = Annotated[int | float, BeforeValidator(_ratio)]
Scalar = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
#: A number, a date or time in text, or ``now``: the start of the server's transaction.
Bound = Annotated[int | float | str, BeforeValidator(_bound)]


class _Bounded(BaseModel):
    """At least one of ``min`` and ``max``, both inclusive, not crossed."""

    @model_validator(mode="after")
    def _some_and_in_order(self) -> Self:
        low, high = getattr(self, "min", None), getattr(self, "max", None)
        if low is None and high is None:
            raise ValueError("give min, max or both")
        if low is not None and high is not None:
            if isinstance(low, str) != isinstance(high, str):
                raise WrongField("min", f"min {low!r} and max {high!r} are of different kinds")
            if _crossed(low, high):
                raise WrongField("min", f"min {low!r} is greater than max {high!r}")
        return self

    @property
    def bounds_words(self) -> str:
        """``1 to 6000``, ``at least 1`` or ``at most 6000``."""
        low, high = getattr(self, "min", None), getattr(self, "max", None)
        if high is None:
            return f"at least {low}"
        return f"at most {high}" if low is None else f"{low} to {high}"


class NumberBounds(_Bounded):
    """Bounds of a number that is measured."""

    min: Number | None = None
    max: Number | None = None


class RatioBounds(_Bounded):
    """Bounds of a share between 0 and 1."""

    min: Ratio | None = None
    max: Ratio | None = None


class RowNumberBounds(_Bounded):
    """Bounds of a number of rows or characters."""

    min: RowNumber | None = None
    max: RowNumber | None = None


class ValueBounds(_Bounded):
    """Bounds of the values of a column."""

    min: Bound | None = None
    max: Bound | None = None


def within(value: Decimal | float | int, low: float | None, high: float | None) -> bool:
    """Whether low <= value <= high, compared as decimals where the value is one: 0.3 is 0.3. NaN is not."""
    if value != value:
        return False

    def like(bound: float) -> Decimal | float:
        return Decimal(str(bound)) if isinstance(value, Decimal) else bound

    return (low is None or value >= like(low)) and (high is None or value <= like(high))


def _crossed(low: Any, high: Any) -> bool:
    """Whether the bounds leave nothing between them; unknown where only PostgreSQL knows the order of their texts."""
    if not isinstance(low, str):
        return bool(low > high)
    try:
        return _moment(low) > _moment(high)
    except ValueError:
        return False


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
