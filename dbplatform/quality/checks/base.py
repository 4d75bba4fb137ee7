"""What every check is: a frozen model of what was declared that knows its own SQL and its own judgement.

A check asks in two ways. ``parts`` are counts and aggregates over the table: those of all checks are computed together.
``own`` runs what a check must ask by itself. ``judge`` turns both answers into an ``Outcome``; it runs no SQL.

Nulls never violate a check on rows, except ``not_null``: as in SQL, what is unknown passes.

A new check type is one class, decorated with ``check_type``. Nothing else lists the types.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from psycopg import sql
from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, StrictBool, model_validator

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.words import Policy
from dbplatform.quality.anomaly.points import Judged
from dbplatform.quality.checks.conditions import Condition, Part, Where
from dbplatform.quality.checks.options import AcceptanceWords, QuarantineWords
from dbplatform.quality.checks.sample import SampleWords
from dbplatform.quality.checks.tolerance import ToleranceWords

Status = Literal["passed", "failed", "errored", "accepted"]
Severity = Literal["warn", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a check found. ``failed_rows`` is exact, and none for a check that does not judge rows."""

    status: Status
    message: str
    failed_rows: int | None = None
    considered_rows: int | None = None
    value: float | None = None
    judged: tuple[Judged, ...] = ()
    """Of a check that compares with the past: values beside what was expected of them, the newest last."""
    sqlstate: str | None = None
    """Of a check that PostgreSQL could not plan or run (manual: Appendix A)."""


def storable(text: str) -> str:
    """The text, if PostgreSQL can hold it; raises ValueError with a sentence."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("PostgreSQL cannot hold a text with the character NUL or half of a surrogate pair")
    return text


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write a text that is not empty")
    return storable(value)


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", value):
        raise ValueError(f"the name {value!r} may hold only lower-case letters, digits and underscores")
    return value


#: A text that is not empty.
Text = Annotated[str, BeforeValidator(_text)]
#: The name of a check, as Dagster's asset checks need it.
CheckName = Annotated[Text, AfterValidator(_name)]


class WrongField(ValueError):
    """A mistake between fields that is best mended at ``field``."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class Check(Policy):
    """The options that every check has, and what the engine asks of it."""

    type: ClassVar[str] = ""
    """The key by which it is declared."""
    example: ClassVar[str] = ""
    """How it is written, for error messages."""
    bare: ClassVar[str | None] = None
    """The field that is meant when the type is given a plain value: ``not_null: tailnum``."""
    aliases: ClassVar[dict[str, str]] = {}
    """Other words for a field."""
    needs_name: ClassVar[bool] = False
    """Whether it has no columns to derive a name from."""
    fusable_rows: ClassVar[bool] = False
    """Whether its failing rows can be fetched in the same scan as those of other checks."""

    tells_values: ClassVar[bool] = False
    """Whether its outcome quotes values of its columns."""
    no_sample: ClassVar[str] = "it needs all rows"
    """Why some of the rows cannot stand for all; of a ``Sampleable`` check they can."""

    reads_rows: ClassVar[bool] = True
    """Whether it depends on the rows of its table."""

    name: CheckName = Field(
        default="", description="Lower case letters, digits and underscores; left out: made of its type and columns."
    )
    severity: Severity = Field(default="error", description="What a failure is: warn or error.")
    blocking: StrictBool = Field(default=False, description="Whether a failure fails the run, after its report.")
    owner: Text | None = Field(
        default=None, description="Who is told of a failure; left out: the owners of the database."
    )
    accepted_until: AcceptanceWords | None = Field(
        default=None,
        description="Until this day (00:00 UTC) a failure is accepted: {date: 2026-12-31, reason: ticket 4711}.",
    )

    @model_validator(mode="before")
    @classmethod
    def _reason_beside(cls, fields: Any) -> Any:
        """``accepted_until: 2026-12-31`` with ``reason`` beside it is one acceptance."""
        if not isinstance(fields, dict) or "reason" not in fields:
            return fields
        rest = {key: value for key, value in fields.items() if key != "reason"}
        until = rest.get("accepted_until")
        if until is None or isinstance(until, dict):
            raise WrongField("reason", "a reason stands beside accepted_until with a day; write them together")
        return {**rest, "accepted_until": {"date": until, "reason": fields["reason"]}}

    def model_post_init(self, _: Any) -> None:
        """Derive the name from type and columns where none was given."""
        if not self.name:
            words = "_".join([self.type, *self.name_words]).lower()
            object.__setattr__(self, "name", re.sub(r"[^a-z0-9_]", "_", words))

    @property
    def name_words(self) -> tuple[str, ...]:
        """What its name is made of, after the type."""
        return self.columns_read

    @property
    def takes_sql(self) -> bool:
        """Whether a person's SQL is part of its statements, and not just names and literals."""
        return True

    @property
    def description(self) -> str:
        """What the check asks, for a person: its type, columns and options."""
        options = {key: value for key, value in self if key not in Check.model_fields and value is not None}
        ordered = sorted(options, key=lambda key: key not in ("column", "columns"))
        return f"{self.type}: {', '.join(f'{key} {_shown(options[key])}' for key in ordered)}"

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The columns whose values show why a row fails."""
        return ()

    def probes(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """Statements that PostgreSQL must be able to plan, or this check cannot run."""
        return ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is counted and measured in the rows, for the one read that all checks share."""
        return ()

    def own(self, connection: SnapshotConnection, relation: Relation) -> Sequence[Any]:
        """What must be asked apart; raises ``psycopg.Error`` when PostgreSQL refuses."""
        return ()

    def judge(self, relation: Relation, fused: Sequence[Any], own: Sequence[Any]) -> Outcome:
        """The outcome of the answers to ``parts`` and ``own``."""
        raise NotImplementedError

    def masked(self, outcome: Outcome, hidden: Collection[str]) -> Outcome:
        """The outcome without the values of these columns."""
        said = "holds" if outcome.status == "passed" else "does not hold"
        message = f"{self.description} {said}; what was measured is masked."
        return replace(outcome, value=None, message=message)

    def tells(self, hidden: Collection[str]) -> bool:
        """Whether its outcome quotes values of one of these columns."""
        return self.tells_values and not set(hidden).isdisjoint(self.columns_read)

    def failing(self, relation: Relation) -> sql.Composable | None:
        """The condition that is true for a failing row of the table; none where no row can be blamed."""
        return None

    def statement(self, relation: Relation) -> sql.Composable | None:
        """What a person can run to see the failing rows, or the number that was measured."""
        condition = self.failing(relation)
        if condition is None:
            return None
        return sql.SQL("select * from {} where {}").format(relation.identifier, condition)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return shortened(", ".join(f"{key} {item}" for key, item in value.items()))
    return shortened(", ".join(map(str, value)) if isinstance(value, tuple) else str(value))


_Class = TypeVar("_Class", bound=type[Check])
CHECK_TYPES: dict[str, type[Check]] = {}


def check_type(cls: _Class) -> _Class:
    """Make a class known by its ``type``."""
    CHECK_TYPES[cls.type] = cls
    return cls


class Filtered(Check):
    """A check that may look at only some of the rows: ``where`` is an SQL condition over the table's columns."""

    where: Text | None = Field(default=None, description="A condition in SQL: only rows that meet it are looked at.")

    @property
    def takes_sql(self) -> bool:
        """The condition is a person's."""
        return self.where is not None

    @property
    def where_sql(self) -> sql.Composable | None:
        """The condition in parentheses."""
        return None if self.where is None else Where(self.where).sql(Relation("", ""))

    @property
    def of_rows(self) -> str:
        """``rows`` or ``rows where ...``, for messages."""
        return "rows" if self.where is None else f"rows where {shortened(self.where)}"

    def passing(self, *conditions: Condition) -> tuple[Condition, ...]:
        """``where``, if there is one, and the conditions."""
        return conditions if self.where is None else (Where(self.where), *conditions)

    def probes(self, relation: Relation) -> tuple[sql.Composable, ...]:
        """``where`` alone must be one expression: ``true) or (true`` only becomes one between parentheses."""
        if self.where is None:
            return ()
        return (sql.SQL("select {}\n from {}").format(sql.SQL(self.where), relation.identifier),)


class Sampleable(Filtered):
    """A check of which a part of the rows, chosen by chance, tells something."""

    sample: SampleWords | None = Field(
        default=None, description="Judge a part of the rows, and say so: 1%, 100000 rows, 1% bernoulli, or all."
    )

    @property
    def all_or_none(self) -> tuple[str, str] | None:
        """The option that does not go with a sample, and why; none where it can be taken."""
        return None

    @model_validator(mode="after")
    def _fits_a_sample(self) -> Self:
        if self.sample is not None and not self.sample.all and self.all_or_none is not None:
            raise WrongField(*self.all_or_none)
        return self


class Blaming(Check):
    """A check that can name the rows that fail it."""

    keep_rows: NonNegativeInt | None = Field(
        default=None, description="How many failing rows are kept at most; left out: failed_rows.keep."
    )


class Tolerant(Blaming):
    """A check that counts failing rows, of which some may be tolerated."""

    tolerance: ToleranceWords | None = Field(
        default=None, description="How many rows may fail: a number of rows, or a share of those looked at: 1%."
    )

    def judge_rows(self, complaint: str, of_rows: str, *, failed: int, considered: int) -> Outcome:
        """Passed when no more rows fail than are tolerated."""
        message = f"{complaint} in {count_of(failed, considered, of_rows)}"
        status: Status = "passed" if failed == 0 else "failed"
        if failed and self.tolerance is not None:
            tolerated = self.tolerance.allows(failed, considered)
            status = "passed" if tolerated else "failed"
            message += f", {'within' if tolerated else 'more than'} the tolerance of {self.tolerance}"
        return Outcome(status=status, message=f"{message}.", failed_rows=failed, considered_rows=considered)


class Separable(Sampleable, Tolerant):
    """A check that judges each row by itself: some can be judged for all, and those that fail be moved aside."""

    quarantine: QuarantineWords = Field(
        default=None,
        description="Move failing rows aside: true, or {to: schema.table, at_most: 5%}; when more fail, none is moved.",
    )

    @property
    def all_or_none(self) -> tuple[str, str] | None:
        """What counts or moves failing rows."""
        if self.quarantine is not None:
            return "quarantine", "all failing rows are moved aside, not those of a sample; leave one of them out"
        if self.tolerance is not None and self.tolerance.rows is not None:
            return "tolerance", "of a sample write the tolerance in percent; a number of rows is one of all rows"
        return None


def one_row(connection: SnapshotConnection, statement: sql.Composable) -> tuple[Any, ...]:
    """The only row of a statement, by the protocol that takes one statement only."""
    row = connection.execute(sql.Composed([statement]), binary=True).fetchone()
    assert row is not None
    return row


def both(*conditions: sql.Composable | None) -> sql.Composable | None:
    """All of the conditions that are given; none when there is none."""
    given = [condition for condition in conditions if condition is not None]
    return sql.SQL(" and ").join(given) if given else None


def every(*conditions: sql.Composable | None) -> sql.Composable:
    """Like ``both``, for at least one condition."""
    condition = both(*conditions)
    assert condition is not None
    return condition


def count_of(failed: int, considered: int, of_rows: str) -> str:
    """``12 of 340 rows (3.5 %)``; ``none of 340 rows``."""
    if failed == 0:
        return f"none of {considered:,} {of_rows}"
    percent = 100 * failed / max(considered, 1)
    share = "less than 0.01 %" if percent < 0.01 else f"{percent:.3g} %" if percent < 99.5 else f"{percent:.4g} %"
    return f"{failed:,} of {considered:,} {of_rows} ({share})"


def shortened(text: str, length: int = 80) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
