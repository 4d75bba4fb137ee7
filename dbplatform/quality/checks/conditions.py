"""What a check asks of the rows, as values: conditions, and what is counted or measured where they hold.

Each writes itself as SQL, and that is what it means. Because it is a value, too, it can be answered otherwise where the
answer is provably the same: from the catalog, or from a stream of the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from psycopg import sql

from dbplatform.postgres.identifiers import Relation

NOW = "now"
"""A bound that means the start of the server's transaction."""
COUNT = sql.SQL("count(*)")


@dataclass(frozen=True, slots=True)
class Where:
    """What a person wrote; the line break ends a comment in it."""

    text: str

    def sql(self, relation: Relation) -> sql.Composable:
        """The text in parentheses."""
        return sql.SQL("({}\n)").format(sql.SQL(self.text))


@dataclass(frozen=True, slots=True)
class IsNull:
    """SQL's ``is null``: a composite value whose parts are all null is null, too."""

    column: str

    def sql(self, relation: Relation) -> sql.Composable:
        """The condition."""
        return sql.SQL("{} is null").format(column_of(relation, self.column))


@dataclass(frozen=True, slots=True)
class NotAmong:
    """The value is none of these, which are literals of the column's own type."""

    column: str
    values: tuple[bool | int | float | str, ...]

    def sql(self, relation: Relation) -> sql.Composable:
        """The condition."""
        values = sql.SQL(", ").join(map(sql.Literal, self.values))
        return sql.SQL("{} not in ({})").format(column_of(relation, self.column), values)


@dataclass(frozen=True, slots=True)
class Outside:
    """The value is below ``low`` or above ``high``, in the order of the column's type; NaN is above all."""

    column: str
    low: int | float | str | None
    high: int | float | str | None

    def sql(self, relation: Relation) -> sql.Composable:
        """The condition."""
        return _outside(column_of(relation, self.column), self.low, self.high)


@dataclass(frozen=True, slots=True)
class NoMatch:
    """The text matches the regular expression nowhere."""

    column: str
    regex: str

    def sql(self, relation: Relation) -> sql.Composable:
        """The condition."""
        return sql.SQL("{} !~ {}").format(column_of(relation, self.column), sql.Literal(self.regex))


@dataclass(frozen=True, slots=True)
class LengthOutside:
    """The text has fewer than ``low`` or more than ``high`` characters."""

    column: str
    low: int | None
    high: int | None

    def sql(self, relation: Relation) -> sql.Composable:
        """The condition."""
        return _outside(sql.SQL("length({})").format(column_of(relation, self.column)), self.low, self.high)


@dataclass(frozen=True, slots=True)
class Finite:
    """The moment is neither ``infinity`` nor ``-infinity``."""

    column: str

    def sql(self, relation: Relation) -> sql.Composable:
        """The condition."""
        return sql.SQL("isfinite({})").format(column_of(relation, self.column))


Condition = Where | IsNull | NotAmong | Outside | NoMatch | LengthOutside | Finite


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows fulfil all conditions."""

    conditions: tuple[Condition, ...] = ()

    def sql(self, relation: Relation) -> sql.Composable:
        """The aggregate."""
        return _filtered(COUNT, self.conditions, relation)


@dataclass(frozen=True, slots=True)
class Measured:
    """An aggregate of a column's values in the rows that fulfil all conditions; ``shown`` makes the answer of it."""

    function: Literal["avg", "sum", "max", "count distinct"]
    column: str
    conditions: tuple[Condition, ...] = ()
    shown: Callable[[sql.Composable], sql.Composable] = field(default=lambda aggregate: aggregate, compare=False)

    def sql(self, relation: Relation) -> sql.Composable:
        """The aggregate, as shown."""
        column = column_of(relation, self.column)
        if self.function == "count distinct":
            aggregate = sql.SQL("count(distinct {})").format(column)
        else:
            aggregate = sql.SQL("{}({})").format(sql.SQL(self.function), column)
        return self.shown(_filtered(aggregate, self.conditions, relation))


Part = Count | Measured
"""One of the answers that a check judges by."""


def column_of(relation: Relation, column: str) -> sql.Identifier:
    """A column, qualified: a bare name that is also the table's would mean the whole row."""
    return sql.Identifier(relation.name, column)


def _filtered(aggregate: sql.Composable, conditions: tuple[Condition, ...], relation: Relation) -> sql.Composable:
    if not conditions:
        return aggregate
    every = sql.SQL(" and ").join(condition.sql(relation) for condition in conditions)
    return sql.SQL("{} filter (where {})").format(aggregate, every)


def _outside(value: sql.Composable, low: int | float | str | None, high: int | float | str | None) -> sql.Composable:
    sides = [
        sql.SQL("{} {} {}").format(value, sql.SQL(operator), sql.SQL("now()") if bound == NOW else sql.Literal(bound))
        for operator, bound in (("<", low), (">", high))
        if bound is not None
    ]
    return sql.SQL("({})").format(sql.SQL(" or ").join(sides))
