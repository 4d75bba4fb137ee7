"""What a person may set for a whole run in the Launchpad, and what their own assets may use."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import dagster as dg
from pydantic import Field

from dbplatform.declaration.project import Project
from dbplatform.operations.platform import Platform
from dbplatform.operations.reading import open_pool
from dbplatform.postgres.pools import DatabasePool

#: A pool of which more was in use wants to be larger (the limit that experts use).
_FULL = 0.8

_log = logging.getLogger("dagster")


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


class Pools(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Connections for your own assets: ``with pools.of("shop") as pool, pool.connection() as connection: ...``."""

    project: str = Field(description="The folder that holds defs/.")

    @contextmanager
    def of(self, database: str, *, on_replica: bool = False) -> Iterator[DatabasePool]:
        """A pool of the declared size on a declared database, ended with the block; what it did goes to the log.

        ``on_replica``: on its replica, while that is there and keeps up. Raises what ``Declarations.get`` does for a
        database that is not declared, and ``VariableNotSet``.
        """
        platform = Platform(Project.at(Path(self.project)))
        pool = open_pool(platform, platform.declared(database), on_replica=on_replica)
        try:
            yield pool
        finally:
            found = pool.statistics
            pool.close()
            level = logging.WARNING if found.used_ratio >= _FULL or found.refused else logging.INFO
            _log.log(
                level,
                f"pool of {database}: {found.most_in_use} of {found.limit} connections in use at most, "
                f"{found.refused} callers refused, longest wait {found.longest_wait_s:g} s",
            )


@cache
def pools(project: str) -> Pools:
    """One resource for all databases of a project, so that they can be merged."""
    return Pools(project=project)
