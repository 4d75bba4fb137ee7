"""What may be declared of benchmarks: named queries and pgbench scripts, where they run, and within what bounds."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema, model_validator

from dbplatform.postgres.daily_window import WindowWords
from dbplatform.postgres.words import DurationWords, Interval, Policy

#: A benchmark, and a parameter of one.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def _share(value: Any) -> Any:
    found = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    share = float(found[1]) / 100 if found else value
    if not isinstance(share, float) or not 0.005 <= share <= 1:
        raise ValueError(f"{value!r} is no share from 0.5% to 100%; write 5%")
    return share


Share = Annotated[
    float,
    BeforeValidator(_share),
    PlainSerializer(lambda share: f"{100 * share:g}%"),
    WithJsonSchema({"type": "string"}),
]


def _inside(file: str) -> None:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the file {file!r} must lie below the declaration's folder")


class QueryPolicy(Policy):
    """One statement that is timed by itself."""

    name: Name = Field(description="Lower case letters, digits and underscores.")
    sql: str | None = Field(default=None, description="The statement; `:name` stands for a parameter.")
    file: str | None = Field(default=None, description="A file with the statement instead, below the declaration.")
    params: dict[Name, str] = Field(
        default={},
        description="For each parameter a query of one column: its first 1,000 values are those that the statement is "
        "timed with, the same for both sides. They are kept nowhere.",
    )
    writes: bool = Field(
        default=False,
        description="It changes rows: it is timed on a copy restored from the newest backup alone, and rolled back.",
    )
    target: DurationWords | None = Field(default=None, description="What its median may be at most.")

    @model_validator(mode="after")
    def _one_text(self) -> QueryPolicy:
        if (self.sql is None) == (self.file is None):
            raise ValueError(f"the query {self.name} needs either sql or file")
        if self.file is not None:
            _inside(self.file)
        return self


class ScriptPolicy(Policy):
    """One script of pgbench, which may hold several statements, and pgbench's own commands."""

    name: Name = Field(description="Lower case letters, digits and underscores.")
    file: str = Field(description="The script, below the declaration.")
    clients: int = Field(default=1, ge=1, le=1000, description="So many sessions run it at a time.")
    params: dict[Name, str] = Field(
        default={}, description="For each variable of the script a query of one number, such as the largest id."
    )
    writes: bool = Field(
        default=False, description="It changes rows: it runs on a copy restored from the newest backup alone."
    )
    target: DurationWords | None = Field(default=None, description="What the median of a transaction may be at most.")

    @model_validator(mode="after")
    def _below(self) -> ScriptPolicy:
        _inside(self.file)
        return self


class BenchmarkPolicy(Policy):
    """Named queries and pgbench scripts that are timed, and the bounds within which that happens."""

    queries: list[QueryPolicy] = Field(default=[], description="Statements, each timed by itself.")
    scripts: list[ScriptPolicy] = Field(default=[], description="Scripts of pgbench.")
    on: Literal["primary", "replica"] = Field(
        default="primary",
        description="Where what only reads is timed; the replica must be declared, and keep up.",
    )
    window: WindowWords | None = Field(
        default=None,
        description="When a production server may be measured without --yes, with a time zone unless in UTC: "
        "22:00-06:00 Europe/Vienna. The quarterly run comes at 05:00 of the database's time_zone.",
    )
    seconds: DurationWords = Field(
        default=Interval.parse("20 seconds"),
        json_schema_extra={"default": "20 seconds"},
        description="How long each of them is measured at most; less where the noise allows.",
    )
    budget: DurationWords = Field(
        default=Interval.parse("10 minutes"),
        json_schema_extra={"default": "10 minutes"},
        description="How long a whole run may measure.",
    )
    statement_timeout: DurationWords = Field(
        default=Interval.parse("10 seconds"),
        json_schema_extra={"default": "10 seconds"},
        description="A statement that takes longer is ended, and its benchmark has errored.",
    )
    busy: int = Field(
        default=8,
        ge=0,
        description="While more sessions of others are active, or one waits for a lock, nothing is measured: the run "
        "waits, within its budget.",
    )
    notable: Share = Field(
        default=0.05, json_schema_extra={"default": "5%"}, description="A smaller change is no difference."
    )

    @model_validator(mode="after")
    def _named_once(self) -> BenchmarkPolicy:
        names = [*(query.name for query in self.queries), *(script.name for script in self.scripts)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the benchmark {twice[0]} is declared twice")
        return self
