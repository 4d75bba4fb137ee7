"""What a person may set for a whole run in the Launchpad, for whatever assets the run holds."""

from functools import cache

import dagster as dg
from pydantic import Field


class Options(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Options of the whole run: ``resources: {options: {config: {dry_run: true}}}``."""

    dry_run: bool = Field(
        default=False,
        description="Show what each step would do, and change nothing in the database. It is still checked and "
        "measured; no report is written, and nobody is told.",
    )


@cache
def options_at_launch() -> dg.ResourceDefinition:
    """One definition for all databases of a code location, so that they can be merged."""
    return Options.configure_at_launch()  # type: ignore[return-value]
