"""What may be declared about the reports of data quality."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dbplatform.postgres.words import DurationWords, IntervalWords, Policy
from dbplatform.storage.place import destination as is_destination


class ReportPolicy(Policy):
    """Where the reports of a database are kept, for how long, and by when somebody has to have read a failing one."""

    destination: Annotated[str, AfterValidator(is_destination), Field(min_length=1)] | None = Field(
        default=None,
        description="A folder, or s3://bucket/prefix, whose endpoint and credentials come by the standard AWS "
        "variables; each database has a folder of its name in it. Left out: the folder reports in DBPLATFORM_HOME.",
    )
    retain: IntervalWords | None = Field(
        default=None,
        description="How long a report is kept: 12 months. The newest one stays, and so does a failing one that nobody "
        "has reviewed. Left out: for ever.",
    )
    review_within: DurationWords | None = Field(
        default=None,
        description="A failing report that nobody has reviewed for so long is an alert: 2 days. Left out: none is.",
    )
