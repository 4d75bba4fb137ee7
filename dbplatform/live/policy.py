"""What may be declared of a live table."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dbplatform.postgres.words import ColumnName, Policy, RelationName


class LivePolicy(Policy):
    """A table whose changes are pushed to who watches."""

    table: RelationName = Field(description="The table. It needs a primary key.")
    columns: Annotated[list[ColumnName], Field(min_length=1)] | None = Field(
        default=None,
        description="The columns that are pushed beside the key; left out: all. Whoever may read the status service "
        "sees them.",
    )
    most_rows: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=200,
        description="A statement that changes more rows is told as a change of many, and pages load the table again.",
    )

    @model_validator(mode="after")
    def _columns_once(self) -> LivePolicy:
        twice = sorted({name for name in self.columns or [] if (self.columns or []).count(name) > 1})
        if twice:
            raise ValueError(f"the column {twice[0]} is named twice")
        return self
