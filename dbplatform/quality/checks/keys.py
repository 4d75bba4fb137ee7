"""Checks on keys: a value that must be the only one, a value that another table must have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from psycopg import sql
from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation, quoted, split_name
from dbplatform.postgres.words import ColumnName
from dbplatform.quality.checks.base import Filtered, Outcome, Separable, Tolerant, both, check_type, every, one_row
from dbplatform.quality.checks.conditions import Count, Part, column_of


@check_type
class Unique(Filtered, Tolerant):
    """Fails all rows that share their key with another row: two equal rows are two failing rows.

    As with an SQL ``unique`` constraint, a key with a null in it is equal to no other. Only rows that pass ``where``
    are compared. Needs an equality for each column's type, and one aggregation of its own.
    """

    type = "unique"
    example = "unique: [carrier, flight, origin, time_hour]"
    bare = "columns"
    aliases = {"column": "columns"}
    no_sample = "the other row with the same key may lie outside of it"

    columns: tuple[ColumnName, ...] = Field(min_length=1)

    @field_validator("columns", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("columns")
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a column is named twice")
        return value

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The columns of the key."""
        return self.columns

    @property
    def parts(self) -> tuple[Part, ...]:
        """Rows considered."""
        return (Count(self.passing()),)

    def probes(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """The aggregation itself."""
        return (*super().probes(relation), self._count(relation))

    def own(self, connection: SnapshotConnection, relation: Relation) -> Sequence[Any]:
        """Rows in groups of more than one."""
        return one_row(connection, self._count(relation))

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """Failed when more rows share a key than are tolerated."""
        key = ", ".join(self.columns)
        return self.judge_rows(f"{key} repeats", self.of_rows, failed=own[0], considered=fused[0])

    def failing(self, relation: Relation) -> sql.Composable:
        """The key is among those that occur more than once."""
        return every(
            self.where_sql,
            sql.SQL("({}) in (select {} {})").format(self._key(relation), self._key(relation), self._groups(relation)),
        )

    def _key(self, relation: Relation) -> sql.Composable:
        return sql.SQL(", ").join(column_of(relation, column) for column in self.columns)

    def _groups(self, relation: Relation) -> sql.Composable:
        known = [sql.SQL("{} is not null").format(column_of(relation, column)) for column in self.columns]
        return sql.SQL("from {} where {} group by {} having count(*) > 1").format(
            relation.identifier, every(self.where_sql, both(*known)), self._key(relation)
        )

    def _count(self, relation: Relation) -> sql.Composable:
        return sql.SQL("select coalesce(sum(rows), 0)::bigint from (select count(*) {}) as groups(rows)").format(
            self._groups(relation)
        )


@dataclass(frozen=True, slots=True)
class ColumnReference:
    """A column of a table: ``public.planes.tailnum``."""

    relation: Relation
    column: str

    @classmethod
    def parse(cls, value: Any) -> Self:
        """``schema.table.column`` or ``table.column``; raises ValueError with a sentence."""
        if isinstance(value, cls):
            return value
        parts = split_name(value) if isinstance(value, str) else ()
        if len(parts) not in (2, 3):
            raise ValueError(f"{value!r} is not a column of a table; write schema.table.column")
        schema = parts[0] if len(parts) == 3 else "public"
        return cls(Relation(schema, parts[-2]), parts[-1])

    def __str__(self) -> str:
        return f"{self.relation}.{quoted(self.column)}"


@check_type
class Relationship(Separable):
    """Fails rows whose column is not null and equals no value of the column ``to``. One anti-join of its own."""

    type = "relationship"
    example = "relationship: {column: tailnum, to: public.planes.tailnum}"

    column: ColumnName
    to: Annotated[ColumnReference, BeforeValidator(ColumnReference.parse), PlainSerializer(str)]

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The referring column."""
        return (self.column,)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Rows considered."""
        return (Count(self.passing()),)

    def probes(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """The anti-join itself."""
        return (*super().probes(relation), self._count(relation))

    def own(self, connection: SnapshotConnection, relation: Relation) -> Sequence[Any]:
        """Rows without their counterpart."""
        return one_row(connection, self._count(relation))

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """Failed when more rows have no counterpart than are tolerated."""
        return self.judge_rows(f"{self.column} is not in {self.to}", self.of_rows, failed=own[0], considered=fused[0])

    def failing(self, relation: Relation) -> sql.Composable:
        """The target has an alias, because it may be the same table."""
        value = column_of(relation, self.column)
        missing = sql.SQL("not exists (select from {} as referenced where referenced.{} = {})").format(
            self.to.relation.identifier, sql.Identifier(self.to.column), value
        )
        return every(self.where_sql, sql.SQL("{} is not null").format(value), missing)

    def _count(self, relation: Relation) -> sql.Composable:
        return sql.SQL("select count(*) from {} where {}").format(relation.identifier, self.failing(relation))
