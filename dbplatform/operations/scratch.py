"""An empty database beside a declared one, for trying things out; dropped at the end, or by the next after a kill.

It lies on the server that ``connection.scratch_url_env`` names; else on the declared database's own, unless that is a
production server or its user may not create databases; else on the embedded one. What is tried out there must behave
as in the declared database, so that the server is of the same major version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dbplatform.backups.contents import read_source
from dbplatform.backups.manifest import Source
from dbplatform.backups.scratch import Scratch, maintained, scratch_database
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect, snapshot

_MAY_CREATE = "select rolcreatedb or rolsuper from pg_roles where rolname = current_user"
_SYSTEM = "select system_identifier::text from pg_control_system()"


class NoScratchServer(UsageError):
    """There is no server on which {database} (PostgreSQL {major}) could be tried out: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchSpace:
    """An empty database of the declared one's encoding and locale."""

    scratch: Scratch
    server: Target
    source: Source
    own_server: bool
    """Whether it lies on the server of the declared database, whose roles and settings are then real ones."""
    room: Path | None
    """The folder of the server's data, where that is known: the disk that a restore fills."""

    @property
    def target(self) -> Target:
        return self.scratch.target


@contextmanager
def scratch_space(platform: Platform, declared: Declared) -> Iterator[ScratchSpace]:
    """An empty database, dropped at the end. Raises ``NoScratchServer`` and ``VariableNotSet``."""
    target = platform.target(declared)
    with connect(target, work="scratch") as connection:
        with snapshot(connection) as moment:
            source = read_source(moment)
        row = connection.execute(_MAY_CREATE).fetchone()
    server = _server(platform, declared, target, may_create=row is not None and bool(row[0]))
    with connect(server, work="scratch") as connection:
        major = connection.info.server_version // 10000
        found = connection.execute(_SYSTEM).fetchone()
    if major != source.server_major:
        raise NoScratchServer(
            database=declared.name,
            major=source.server_major,
            reason=f"{server.name} runs PostgreSQL {major}",
            hint=f"Name one of PostgreSQL {source.server_major}: connection.scratch_url_env.",
        )
    with (
        maintained(server) as (connection, token),
        scratch_database(connection, token, server, source.locale, purpose="trial") as made,
    ):
        own_server = found is not None and found[0] == source.system_identifier
        embedded = platform.server.status()
        room = embedded.data_directory if embedded.running and f":{embedded.port}/" in server.place else None
        yield ScratchSpace(scratch=made, server=server, source=source, own_server=own_server, room=room)


def drill_server(platform: Platform, declared: Declared) -> tuple[Target, Path | None]:
    """Where restores are proven, and the folder whose disk they fill, where that is known."""
    url = declared.scratch_url_from_environment()
    if url is not None:
        return Target("the scratch server", url), None
    url = platform.embedded_url("postgres")
    return Target("the scratch server", url), platform.server.status().data_directory


def _server(platform: Platform, declared: Declared, target: Target, *, may_create: bool) -> Target:
    url = declared.scratch_url_from_environment()
    if url is not None:
        return Target("the scratch server", url)
    if may_create and declared.database.connection.environment != "production":
        return target
    return Target("the embedded server", platform.embedded_url("postgres"))
