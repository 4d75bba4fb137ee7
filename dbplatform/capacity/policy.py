"""What may be declared of capacity: the disk, where it cannot be asked, and how far ahead somebody has to know."""

from __future__ import annotations

from pydantic import Field

from dbplatform.postgres.words import DurationWords, Interval, Policy, SizeWords


class CapacityPolicy(Policy):
    """The room that there is, and how long before it runs out that is a finding."""

    disk: SizeWords | None = Field(
        default=None,
        description="The size of the disk that the server's databases and its WAL share. Left out: it is asked where "
        "the server runs on this machine, and not known elsewhere.",
    )
    warn_within: DurationWords = Field(
        default=Interval.parse("90 days"),
        json_schema_extra={"default": "90 days"},
        description="A limit that may be reached within that time is a finding.",
    )
