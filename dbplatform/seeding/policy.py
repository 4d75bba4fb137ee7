"""What a person declares about seeds: which profile lies in which folder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from dbplatform.postgres.words import Policy


class SeedPolicy(Policy):
    """A named set of rows, such as ``dev`` or ``test``, and the folder of its files."""

    profile: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")] = Field(
        description="What the data is for: dev, test, staging."
    )
    directory: str = Field(description="The folder of seed files or of a seed.yaml, relative to the declaration.")
