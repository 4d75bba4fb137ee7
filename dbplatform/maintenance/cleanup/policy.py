"""What may be declared of the clean-up: how long history is kept, from when on what others left is told or dropped."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from pydantic.config import JsonDict

from dbplatform.postgres.words import DurationWords, Interval, IntervalWords, Policy, SizeWords

#: A month beside the one of a year ago.
_A_YEAR = Interval.parse("13 months")
_WORDS: JsonDict = {"default": "13 months"}


class HistoryPolicy(Policy):
    """How long the ledger remembers. What something that is kept depends on stays, however old it is."""

    operations: IntervalWords = Field(
        default=_A_YEAR,
        json_schema_extra=_WORDS,
        description="What was done to the database. The first of all and the newest of each kind stay.",
    )
    runs: IntervalWords = Field(
        default=_A_YEAR,
        json_schema_extra=_WORDS,
        description="Results of data-quality checks. What stays: the newest result of each check, the newest that "
        "passed, and runs whose report is kept (reports.retain) or was reviewed.",
    )
    drills: IntervalWords = Field(
        default=_A_YEAR,
        json_schema_extra=_WORDS,
        description="Drills, and the records of backups whose files are gone. What stays: those of backups that are "
        "there, the newest that proved one, and those of backups behind which rows were archived.",
    )
    trials: IntervalWords = Field(
        default=_A_YEAR,
        json_schema_extra=_WORDS,
        description="What was tried out in scratch databases. The newest of each kind stays.",
    )
    advice: IntervalWords = Field(
        default=_A_YEAR,
        json_schema_extra=_WORDS,
        description="Advice that is no longer found, and changes of settings that are undone. What is applied, "
        "dismissed or undone stays.",
    )


class SlotPolicy(Policy):
    """Replication slots that nobody reads, while the server keeps WAL for them."""

    inactive_for: DurationWords = Field(
        default=Interval.parse("7 days"),
        json_schema_extra={"default": "7 days"},
        description="So long nobody has read from a slot.",
    )
    holding: SizeWords = Field(
        default=1 << 30,
        json_schema_extra={"default": "1GB"},
        description="So much WAL is kept for it. One that is both is stale: it is told.",
    )
    drop: list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,63}$")]] = Field(
        default=[],
        description="The slots that are dropped when they are stale, each by its name, a day after that was told. Its "
        "reader has to be built anew then.",
    )


class CleanupPolicy(Policy):
    """What the clean-up removes, and what it tells."""

    history: HistoryPolicy = Field(default_factory=HistoryPolicy)
    slots: SlotPolicy = Field(default_factory=SlotPolicy)
    prepared_transactions: DurationWords = Field(
        default=Interval.parse("1 hour"),
        json_schema_extra={"default": "1 hour"},
        description="Prepared transactions that are older are told. They are never ended.",
    )
