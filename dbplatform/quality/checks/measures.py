"""Checks on one number or moment measured over a table. All those of a table are measured in one scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar, Literal

from psycopg import sql

from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import ColumnName, IntervalWords
from dbplatform.quality.checks.base import Blaming, Filtered, Outcome, Sampleable, check_type, count_of, every
from dbplatform.quality.checks.bounds import NumberBounds, RatioBounds, RowNumberBounds, within
from dbplatform.quality.checks.conditions import Count, Finite, IsNull, Measured, Part


class Measure(Filtered):
    """A check of what the rows that pass ``where`` add up to."""

    def statement(self, relation: Relation) -> sql.Composable:
        """What is measured, without the platform."""
        measured = sql.SQL(", ").join(part.sql(relation) for part in self.parts)
        return sql.SQL("select {} from {}").format(measured, relation.identifier)


class ColumnMeasure(Measure):
    """A measure of one column."""

    column: ColumnName

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)


@check_type
class NullRatio(ColumnMeasure, Sampleable, Blaming, RatioBounds):
    """The share of nulls among the rows that pass ``where`` is within ``min`` and ``max``; of no rows it is 0.

    Above ``max`` the nulls are the failing rows; below ``min`` no row can be blamed.
    """

    type = "null_ratio"
    example = "null_ratio: {column: dep_time, max: 0.03}"
    fusable_rows = True

    @property
    def parts(self) -> tuple[Part, ...]:
        """Rows considered, nulls."""
        return (Count(self.passing()), Count(self.passing(IsNull(self.column))))

    def failing(self, relation: Relation) -> sql.Composable:
        """The nulls."""
        return every(self.where_sql, IsNull(self.column).sql(relation))

    def statement(self, relation: Relation) -> sql.Composable:
        """The nulls, as rows."""
        return sql.SQL("select * from {} where {}").format(relation.identifier, self.failing(relation))

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """Compared exactly, not as floats."""
        considered, nulls = fused
        ratio = Decimal(nulls) / considered if considered else Decimal(0)
        passed = within(ratio, self.min, self.max)
        too_many = not passed and within(ratio, self.min, None)
        share = count_of(nulls, considered, self.of_rows)
        return Outcome(
            status="passed" if passed else "failed",
            message=f"{self.column} is null in {share}; the ratio must be {self.bounds_words}.",
            failed_rows=nulls if too_many else 0,
            considered_rows=considered,
            value=float(ratio),
        )


class Aggregate(ColumnMeasure, NumberBounds):
    """An aggregate of the values that are not null. Without any there is no evidence, and the check has errored."""

    tells_values = True
    function: ClassVar[Literal["avg", "sum"]]
    words: ClassVar[str] = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The aggregate, rows considered."""
        return (Measured(self.function, self.column, self.passing()), Count(self.passing()))

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """NaN is within no bounds."""
        value, considered = fused
        if value is None:
            message = f"there is no {self.words} of {self.column}: it has no value in {considered:,} {self.of_rows}."
            return Outcome(status="errored", message=message, considered_rows=considered)
        if not isinstance(value, int | float | Decimal):
            message = f"the {self.words} of {self.column} is not a number."
            return Outcome(status="errored", message=message, considered_rows=considered)
        return Outcome(
            status="passed" if within(value, self.min, self.max) else "failed",
            message=f"the {self.words} of {self.column} is {number_words(value)} over {considered:,} {self.of_rows}; "
            f"it must be {self.bounds_words}.",
            considered_rows=considered,
            value=float(value),
        )


@check_type
class Mean(Aggregate, Sampleable):
    """The mean of the values that are not null is within ``min`` and ``max``. Without values it has errored."""

    type = "mean"
    example = "mean: {column: dep_delay, min: -5, max: 30}"
    function: ClassVar[Literal["avg", "sum"]] = "avg"
    words: ClassVar[str] = "mean"


@check_type
class Sum(Aggregate):
    """The sum of the values that are not null is within ``min`` and ``max``. Without values it has errored."""

    type = "sum"
    example = "sum: {column: distance, min: 1}"
    no_sample = "its sum is that of the rows that were read"
    function: ClassVar[Literal["avg", "sum"]] = "sum"
    words: ClassVar[str] = "sum"


@check_type
class RowCount(Measure, RowNumberBounds):
    """The number of rows that pass ``where`` is within ``min`` and ``max``."""

    type = "row_count"
    no_sample = "it would count the rows of the sample"
    example = "row_count: {min: 300000}"

    @property
    def parts(self) -> tuple[Part, ...]:
        """Rows considered."""
        return (Count(self.passing()),)

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """The exact number, not the planner's estimate."""
        count = fused[0]
        return Outcome(
            status="passed" if within(count, self.min, self.max) else "failed",
            message=f"there are {count:,} {self.of_rows}; there must be {self.bounds_words}.",
            considered_rows=count,
            value=float(count),
        )


@check_type
class Freshness(ColumnMeasure):
    """The newest value of a date or timestamp column is at most ``max_age`` old by the server's ``now()``.

    Months are calendar months. A time without a zone is UTC. ``infinity`` is no moment and does not count; a newest
    value in the future passes. Without any value it fails. The value of the result is the age in seconds.
    """

    type = "freshness"
    no_sample = "the newest value may lie outside of it"
    tells_values = True
    example = "freshness: {column: time_hour, max_age: 1 day}"

    max_age: IntervalWords

    @property
    def parts(self) -> tuple[Part, ...]:
        """Whether it is fresh, its age in seconds, the newest value, rows considered."""
        age = self.max_age
        limit = sql.Literal(f"{age.months} months {age.days} days {age.microseconds} microseconds")
        shown = (
            lambda newest: sql.SQL("{} >= now() - {}::interval").format(newest, limit),
            lambda newest: sql.SQL("extract(epoch from now() - {})::float8").format(newest),
            lambda newest: sql.SQL("({})::text").format(newest),
        )
        finite = self.passing(Finite(self.column))
        return (*(Measured("max", self.column, finite, how) for how in shown), Count(self.passing()))

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """Failed when the newest value is too old, or there is none."""
        fresh, seconds, newest, considered = fused
        if newest is None:
            message = f"{self.column} has no moment in {considered:,} {self.of_rows}."
            return Outcome(status="failed", message=message, considered_rows=considered)
        return Outcome(
            status="passed" if fresh else "failed",
            message=f"the newest {self.column} is {newest}, {age_words(seconds)}; at most {self.max_age} is allowed.",
            considered_rows=considered,
            value=seconds,
        )


def number_words(value: int | float | Decimal) -> str:
    """``336,776``; ``12.6391``."""
    whole = math.isfinite(value) and -(10**15) < value < 10**15 and value == int(value)
    return f"{int(value):,}" if whole else f"{value:,.6g}"


def age_words(seconds: float) -> str:
    """``2.5 hours old``; ``3.0 days in the future``."""
    if seconds < 0:
        return f"{age_words(-seconds).removesuffix(' old')} in the future"
    for unit, length in {"days": 86_400, "hours": 3_600, "minutes": 60}.items():
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit} old"
    return f"{seconds:,.0f} seconds old"
