"""The job ``<database>_review``: a person marks a report as reviewed from Dagster's Launchpad."""

from typing import Any

import dagster as dg
from pydantic import Field

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.ledger.acting import user
from dbplatform.operations import reviews
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.steps import failure
from dbplatform.reporting.publish import review_address
from dbplatform.reporting.store import report_that_begins


class ReviewConfig(dg.Config):
    """Which report, who has read it, and what they say."""

    run_id: str = Field(description="The run whose report it is, or how its id begins.")
    comment: str = Field(description="What you found, and what is done about it.")
    by: str | None = Field(default=None, description="Who has read it. Default: the user of this machine.")
    and_earlier: bool = Field(default=False, description="Also every older failing report of the database that waits.")


def review_jobs(platform: Platform, declared: Declared) -> list[dg.JobDefinition]:
    """The job of a database with checks; it touches the ledger alone."""
    if not declared.database.quality:
        return []

    @dg.op(name=f"{declared.name}__review", description="Notes the review in the ledger.")
    def note(context: dg.OpExecutionContext, config: ReviewConfig) -> dict[str, Any]:
        try:
            entry = report_that_begins(platform.ledger, declared.name, config.run_id)
            made = reviews.review(
                platform.ledger,
                entry.run_id,
                by=config.by if config.by is not None else user(),
                comment=config.comment,
                way="dagster",
                and_earlier=config.and_earlier,
            )
        except PlatformError as error:
            raise failure(error) from error
        context.add_output_metadata(
            {
                "report": dg.MetadataValue.url(review_address(entry.run_id)),
                "reviewed": len(made),
                "by": made[0].reviewer,
                "comment": made[0].comment,
            }
        )
        return {"reviews": [one.as_json() for one in made]}

    @dg.job(
        name=keys.review_name(declared.name),
        description="Mark a report of data quality as reviewed: who has read it, and what they say.",
        tags={"dbplatform/database": declared.name},
        executor_def=dg.in_process_executor,
    )
    def job() -> None:
        note()

    return [job]
