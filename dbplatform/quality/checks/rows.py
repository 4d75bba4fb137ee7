"""Checks on each row by itself. All those of a table are counted in one scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from pydantic import Field

from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import ColumnName
from dbplatform.quality.checks.base import (
    COUNT,
    Filtered,
    Outcome,
    Text,
    Tolerant,
    check_type,
    column_of,
    every,
    shortened,
)
from dbplatform.quality.checks.bounds import NOW, RowNumberBounds, Scalar, ValueBounds


class RowCheck(Filtered, Tolerant):
    """A check of one column in each row that passes ``where``."""

    fusable_rows = True

    column: ColumnName

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def violation(self, value: sql.Composable) -> sql.Composable:
        """The condition that is true, not null, for a value that fails."""
        raise NotImplementedError

    @property
    def complaint(self) -> str:
        """What is wrong with a failing row, as the beginning of a sentence."""
        raise NotImplementedError

    def fused(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """Rows considered, rows failing."""
        violation = self.violation(column_of(relation, self.column))
        return (self.filtered(COUNT), self.filtered(COUNT, violation))

    def failing(self, relation: Relation) -> sql.Composable:
        """``where`` and the violation."""
        return every(self.where_sql, self.violation(column_of(relation, self.column)))

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

    def violation(self, value: sql.Composable) -> sql.Composable:
        """SQL's ``is null``: a composite value whose parts are all null is null, too."""
        return sql.SQL("{} is null").format(value)

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

    def violation(self, value: sql.Composable) -> sql.Composable:
        """Values are literals of the column's own type."""
        return sql.SQL("{} not in ({})").format(value, sql.SQL(", ").join(map(sql.Literal, self.values)))

    @property
    def complaint(self) -> str:
        """``origin is not one of EWR, JFK, LGA``."""
        return f"{self.column} is not one of {shortened(', '.join(map(str, self.values)))}"


@check_type
class Range(RowCheck, ValueBounds):
    """Fails rows whose column is less than ``min`` or greater than ``max``. Null passes; NaN is greater than all."""

    type = "range"
    example = "range: {column: distance, min: 1, max: 6000}"

    def violation(self, value: sql.Composable) -> sql.Composable:
        """Below or above, in the order of the column's type."""
        sides = [
            sql.SQL("{} {} {}").format(value, sql.SQL(operator), _bound_sql(bound))
            for operator, bound in (("<", self.min), (">", self.max))
            if bound is not None
        ]
        return sql.SQL("({})").format(sql.SQL(" or ").join(sides))

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

    def violation(self, value: sql.Composable) -> sql.Composable:
        """No match anywhere."""
        return sql.SQL("{} !~ {}").format(value, sql.Literal(self.regex))

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

    def violation(self, value: sql.Composable) -> sql.Composable:
        """Too short or too long."""
        sides = [
            sql.SQL("length({}) {} {}").format(value, sql.SQL(operator), sql.Literal(bound))
            for operator, bound in (("<", self.min), (">", self.max))
            if bound is not None
        ]
        return sql.SQL("({})").format(sql.SQL(" or ").join(sides))

    @property
    def complaint(self) -> str:
        """``dest is not 3 to 3 characters long``."""
        words = str(self.min) if self.min == self.max else self.bounds_words
        return f"{self.column} is not {words} characters long"


def _bound_sql(bound: int | float | str) -> sql.Composable:
    return sql.SQL("now()") if bound == NOW else sql.Literal(bound)
