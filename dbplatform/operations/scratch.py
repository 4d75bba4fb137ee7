"""An empty database beside a declared one, for trying things out; dropped at the end, or by the next after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbplatform.backups.contents import read_source
from dbplatform.backups.manifest import Source
from dbplatform.backups.scratch import maintained, scratch_database
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect, snapshot

_MAY_CREATE = "select rolcreatedb or rolsuper from pg_roles where rolname = current_user"


class NoScratchServer(UsageError):
    """There is no server on which {database} (PostgreSQL {major}) could be tried out: {reason}."""


@contextmanager
def scratch(platform: Platform, declared: Declared) -> Iterator[Target]:
    """A database of the same encoding and locale as the declared one, on its server where that may be.

    It may not on a production server, nor where the user cannot create databases: then the embedded server is used,
    if it is of the same major version. Raises ``NoScratchServer``.
    """
    target = platform.target(declared)
    with connect(target, work="scratch") as connection:
        with snapshot(connection) as moment:
            source = read_source(moment)
        row = connection.execute(_MAY_CREATE).fetchone()
    production = declared.database.connection.environment == "production"
    if row is not None and row[0] and not production:
        server = target
    else:
        reason = "it is a production server" if production else "its user may not create databases"
        server = _embedded(platform, declared, source, reason)
    with (
        maintained(server) as (connection, token),
        scratch_database(connection, token, server, source.locale, purpose="trial") as made,
    ):
        yield made.target


def _embedded(platform: Platform, declared: Declared, source: Source, reason: str) -> Target:
    server = Target("the embedded server", platform.embedded_url("postgres"))
    with connect(server, work="scratch") as connection:
        major = connection.info.server_version // 10000
    if major != source.server_major:
        raise NoScratchServer(
            database=declared.name,
            major=source.server_major,
            reason=f"{reason}, and the embedded server runs PostgreSQL {major}",
            hint="Try it with a declaration of a test database on a server of that version.",
        )
    return server
