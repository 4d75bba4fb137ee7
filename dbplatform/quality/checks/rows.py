"""Checks on each row by itself. All those of a table are counted in one scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from pydantic import Field

from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import ColumnName
from dbplatform.quality.checks.base import Outcome, Separable, Text, check_type, every, shortened
from dbplatform.quality.checks.bounds import RowNumberBounds, Scalar, ValueBounds
from dbplatform.quality.checks.conditions import (
    Condition,
    Count,
    IsNull,
    LengthOutside,
    NoMatch,
    NotAmong,
    Outside,
    Part,
)


class RowCheck(Separable):
    """A check of one column in each row that passes ``where``."""

    fusable_rows = True

    column: ColumnName

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    @property
    def violation(self) -> Condition:
        """The condition that is true, not null, for a value that fails."""
        raise NotImplementedError

    @property
    def complaint(self) -> str:
        """What is wrong with a failing row, as the beginning of a sentence."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Part, ...]:
        """Rows considered, rows failing."""
        return (Count(self.passing()), Count(self.passing(self.violation)))

    def failing(self, relation: Relation) -> sql.Composable:
        """``where`` and the violation."""
        return every(self.where_sql, self.violation.sql(relation))

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """Failed when more rows fail than are tolerated."""
        considered, failed = fused
        return self.judge_rows(self.complaint, self.of_rows, failed=failed, considered=considered)


@check_type
class NotNull(RowCheck):
    """Fails rows whose column is null."""

    type = "not_null"
    example = "not_null: tailnum"
    bare = "column"

    @property
    def violation(self) -> Condition:
        """SQL's ``is null``: a composite value whose parts are all null is null, too."""
        return IsNull(self.column)

    @property
    def complaint(self) -> str:
        """``tailnum is null``."""
        return f"{self.column} is null"


@check_type
class AcceptedValues(RowCheck):
    """Fails rows whose column is none of ``values``. Null passes."""

    type = "accepted_values"
    example = "accepted_values: {column: origin, values: [EWR, JFK, LGA]}"

    values: tuple[Scalar, ...] = Field(min_length=1)

    @property
    def violation(self) -> Condition:
        """Values are literals of the column's own type."""
        return NotAmong(self.column, self.values)

    @property
    def complaint(self) -> str:
        """``origin is not one of EWR, JFK, LGA``."""
        return f"{self.column} is not one of {shortened(', '.join(map(str, self.values)))}"


@check_type
class Range(RowCheck, ValueBounds):
    """Fails rows whose column is less than ``min`` or greater than ``max``. Null passes; NaN is greater than all."""

    type = "range"
    example = "range: {column: distance, min: 1, max: 6000}"

    @property
    def violation(self) -> Condition:
        """Below or above, in the order of the column's type."""
        return Outside(self.column, self.min, self.max)

    @property
    def complaint(self) -> str:
        """``distance is not 1 to 6000``."""
        return f"{self.column} is not {self.bounds_words}"


@check_type
class Matches(RowCheck):
    """Fails rows whose text matches the regular expression nowhere (``~``: anchor it to match all). Null passes."""

    type = "matches"
    example = 'matches: {column: tailnum, regex: "^N[0-9A-Z]+$"}'

    regex: Text

    @property
    def violation(self) -> Condition:
        """No match anywhere."""
        return NoMatch(self.column, self.regex)

    def probes(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """A wrong expression must be found on a table without rows, too."""
        return (*super().probes(relation), sql.SQL("select '' ~ {}").format(sql.Literal(self.regex)))

    @property
    def complaint(self) -> str:
        """``tailnum does not match ^N[0-9A-Z]+$``."""
        return f"{self.column} does not match {shortened(self.regex)}"


@check_type
class Length(RowCheck, RowNumberBounds):
    """Fails rows whose text has fewer than ``min`` or more than ``max`` characters (``bytea``: bytes). Null passes."""

    type = "length"
    example = "length: {column: dest, min: 3, max: 3}"

    @property
    def violation(self) -> Condition:
        """Too short or too long."""
        return LengthOutside(self.column, self.min, self.max)

    @property
    def complaint(self) -> str:
        """``dest is not 3 to 3 characters long``."""
        words = str(self.min) if self.min == self.max else self.bounds_words
        return f"{self.column} is not {words} characters long"
