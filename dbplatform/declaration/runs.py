"""What may be declared of runs that hang, last too long, have lost their process, or come many at a time."""

from __future__ import annotations

from pydantic import Field, model_validator

from dbplatform.postgres.words import DurationWords, Interval, Policy


class RunPolicy(Policy):
    """How long a run of the database may last, and what becomes of one whose process is gone."""

    tell_after: DurationWords = Field(
        default=Interval.parse("1 day"),
        json_schema_extra={"default": "1 day"},
        description="A run that goes on for longer is an alert. It is left alone.",
    )
    end_after: DurationWords | None = Field(
        default=None,
        description="A run of a job that goes on for longer is ended, and has failed. Left out: never.",
    )
    free_dead: bool = Field(
        default=True,
        description="A run whose process is gone is ended as failed, and its places in pools are freed. Otherwise it "
        "is an alert, and a person does it: dbplatform runs free ID.",
    )
    per_server: int | None = Field(
        default=None,
        ge=1,
        description="How many databases of its server run --all and migrate apply --all work on at once; of several "
        "that are declared the lowest holds. Left out: as many as --parallel allows.",
    )

    @model_validator(mode="after")
    def _lasting(self) -> RunPolicy:
        for name, words in (("tell_after", self.tell_after), ("end_after", self.end_after)):
            if words is not None and words.timedelta.total_seconds() < 60:
                raise ValueError(f"{name} is shorter than a minute, which a run needs to begin; write a longer one")
        return self
