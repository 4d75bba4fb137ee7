"""The check that judges a measured value by its own past, and what it measures.

Without ``by`` the table as a whole is measured, in the read that all checks share, and the past is what earlier runs
have left in the ledger: whoever runs the check hands it in (``remembering``). With ``by``, a time column, the rows of
each day or hour are measured by one query of the declared window, so that there is a past on the first day.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg import sql
from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import ColumnName, DurationWords, Interval
from dbplatform.quality.anomaly.points import Memory
from dbplatform.quality.anomaly.seasons import LEAST, Season
from dbplatform.quality.checks.base import Filtered, Outcome, WrongField, check_type, one_row
from dbplatform.quality.checks.conditions import Count, Finite, IsNull, Measured, Part, column_of

Metric = Literal["row_count", "null_ratio", "mean", "freshness", "distinct_values"]
Sensitivity = Literal["low", "medium", "high"]

_HOURLY = ("hour_of_day", "hour_of_week")
_WINDOWS = {"hour_of_day": 21, "hour_of_week": 42, "day_of_week": 120, "day_of_month": 430}
_WINDOW = 120  # days of a series without a declared season
_TURN = {"hour_of_day": 1, "day_of_week": 7, "hour_of_week": 7, "day_of_month": 31}


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is no time zone; write one as Europe/Berlin") from None
    return value


@check_type
class Anomaly(Filtered):
    """The measured value is what its own past lets expect, by season: learned from values that were not anomalous.

    Too little past: it is accepted, says so, and is judged when there is enough.
    """

    type = "anomaly"
    example = "anomaly: {metric: row_count, seasonality: day_of_week}"
    tells_values = True
    no_sample = "its past is that of all rows"

    metric: Metric = Field(
        description="row_count; of a column: null_ratio, mean, distinct_values, freshness (its newest moment's age)."
    )
    column: ColumnName | None = Field(default=None, description="The column that is measured.")
    by: ColumnName | None = Field(
        default=None,
        description="A time column: the rows of each day (hour, where hours are compared); there is a past at once.",
    )
    seasonality: Season | Literal["auto"] = Field(
        default="auto",
        description="Which values are comparable: none, hour_of_day, day_of_week, hour_of_week, day_of_month, or auto: "
        "what explains the past best.",
    )
    sensitivity: Sensitivity = Field(
        default="medium", description="low, medium or high: beyond 6, 4 or 3 robust standard deviations."
    )
    direction: Literal["up", "down", "both"] | None = Field(
        default=None, description="up, down or both; left out: up for freshness, else both."
    )
    min_history: Annotated[int, Field(strict=True, ge=2, le=100)] | None = Field(
        default=None, description="How many comparable values it needs; left out: 3 to 10, by the season."
    )
    new_normal_after: DurationWords = Field(
        default=Interval(days=7), description="How long a new level alarms until it is the normal one."
    )
    window: DurationWords | None = Field(
        default=None, description="With by: how far back it looks; left out: 21 to 430 days, by the season."
    )
    lag: DurationWords | None = Field(default=None, description="With by: how late rows may come.")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(default="UTC", description="Whose hours and days.")

    _memory: Memory = PrivateAttr(default=Memory())

    @model_validator(mode="after")
    def _options_that_fit(self) -> Self:
        if self.metric == "row_count" and self.column is not None:
            raise WrongField("column", "rows are counted without a column; for those with a value write a where")
        if self.metric != "row_count" and self.column is None:
            raise WrongField("metric", f"the metric {self.metric} needs a column")
        if self.metric == "freshness" and self.by is not None:
            raise WrongField("by", "freshness is an age now; it has no past in the rows themselves")
        for option in ("window", "lag"):
            if self.by is None and getattr(self, option) is not None:
                raise WrongField(option, f"{option} is about the periods of a time column; name it with by")
        season: Season = "none" if self.seasonality == "auto" else self.seasonality
        needed = (self.min_history or LEAST[season]) * _TURN.get(season, 1)
        if self.by is not None and self.window_days < needed:
            place = "window" if self.window else "min_history"
            raise WrongField(place, f"the window is shorter than {needed} days, which {season} needs to learn")
        return self

    def remembering(self, memory: Memory) -> Self:
        """The same check with its past."""
        check = self.model_copy()
        check._memory = memory
        return check

    @property
    def name_words(self) -> tuple[str, ...]:
        """What is measured, of what, by what."""
        return (self.metric, *self.columns_read, *(() if self.by is None else ("by", self.by)))

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The measured column."""
        return () if self.column is None else (self.column,)

    @property
    def hourly(self) -> bool:
        """Whether the periods of ``by`` are hours, not days."""
        return self.seasonality in _HOURLY

    @property
    def window_days(self) -> float:
        """How far back the periods of ``by`` go."""
        return self.window.approximate_days if self.window else _WINDOWS.get(self.seasonality, _WINDOW)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Rows considered, and what the metric needs; nothing where it is measured by period."""
        considered = Count(self.passing())
        if self.by is not None:
            return ()
        if self.column is None:
            return (considered,)
        match self.metric:
            case "null_ratio":
                return (considered, Count(self.passing(IsNull(self.column))))
            case "mean":
                return (considered, Measured("avg", self.column, self.passing()))
            case "distinct_values":
                return (considered, Measured("count distinct", self.column, self.passing()))
        return (considered, Measured("max", self.column, self.passing(Finite(self.column)), _age))

    def probes(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """The query by period: its time column must be one."""
        if self.by is None:
            return super().probes(relation)
        dated = sql.SQL("select date_trunc('day', {}) from {}").format(
            column_of(relation, self.by), relation.identifier
        )
        return (*super().probes(relation), dated, self.statement(relation))

    def own(self, connection: SnapshotConnection, relation: Relation) -> Sequence[Any]:
        """The moment of the check; by period, the values of all periods of the window."""
        (now,) = one_row(connection, sql.SQL("select now()"))
        if self.by is None:
            return (now,)
        from dbplatform.quality.anomaly.periods import measured

        return (now, measured(connection, self, relation, now))

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """The value beside its past."""
        from dbplatform.quality.anomaly.verdict import outcome_by_period, outcome_of_run

        if self.by is None:
            return outcome_of_run(self, self._memory, own[0], *fused)
        return outcome_by_period(self, self._memory, *own)

    def tells(self, hidden: Collection[str]) -> bool:
        """The periods are values of ``by``."""
        return self.by in hidden or super().tells(hidden)

    def masked(self, outcome: Outcome, hidden: Collection[str]) -> Outcome:
        """Numbers of rows and values tell none of them; of a masked mean or age, or by a masked time, no past may be
        kept."""
        if self.by in hidden:
            message = f"{self.by} is masked: no past by its {'hours' if self.hourly else 'days'} is kept."
        elif self.metric in ("mean", "freshness"):
            message = f"{self.column} is masked: no past of its {self.metric} is kept that it could be compared with."
        else:
            return outcome
        return Outcome(status="errored", message=message, considered_rows=outcome.considered_rows)

    def statement(self, relation: Relation) -> sql.Composable:
        """What measures the value, or about what measures the periods: they are whole ones."""
        if self.by is not None:
            from dbplatform.quality.anomaly.periods import statement

            start = sql.SQL("now() - {}::interval").format(sql.Literal(f"{self.window_days:g} days"))
            return statement(self, relation, self.time_zone, start, sql.SQL("now()"))
        measured = sql.SQL(", ").join(part.sql(relation) for part in self.parts)
        return sql.SQL("select {} from {}").format(measured, relation.identifier)


def _age(newest: sql.Composable) -> sql.Composable:
    return sql.SQL("extract(epoch from now() - {})::float8").format(newest)
