"""The server that is backed up: which it is, and whether it gives physical copies of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dbplatform.backups.physical.errors import NotPrimary, ReplicationForbidden
from dbplatform.postgres.connection import AnyConnection, Target

_SERVER = """
    select (select system_identifier::text from pg_control_system()),
           current_setting('server_version'), current_setting('server_version_num')::int / 10000,
           pg_is_in_recovery(), current_setting('wal_level'), current_setting('max_wal_senders')::int,
           pg_size_bytes(current_setting('wal_segment_size')),
           (select rolsuper or rolreplication from pg_roles where rolname = current_user), current_user,
           (select rolname from pg_roles where oid = 10),
           array(select datname::text from pg_database where datallowconn and not datistemplate order by 1),
           (select coalesce(sum(pg_database_size(oid)) filter (where has_database_privilege(oid, 'connect')), 0)
            from pg_database)::bigint,
           (select coalesce(json_object_agg(oid, location), '{}')
            from pg_tablespace, pg_tablespace_location(oid) as location where location like '/%'),
           coalesce(current_setting('summarize_wal', true), 'off') = 'on'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of a server before its files are taken."""

    place: str
    """What may be shown of where it is."""
    system: str
    version: str
    major: int
    segment_bytes: int
    superuser: str
    databases: tuple[str, ...]
    bytes: int
    tablespaces: Mapping[int, str]
    """Where each lies, by its OID, but for those in the data directory."""
    summarizes_wal: bool
    refusal: ReplicationForbidden | NotPrimary | None
    """Why it gives no physical copy of itself to this user."""

    @property
    def key(self) -> str:
        """Under this name its backups stand in the catalogue and in the folder of the backups."""
        return key_of(self.system)


def key_of(system: str) -> str:
    """The name of a server among the backups; no declared database can have it."""
    return f"server-{system}"


def read_server(connection: AnyConnection, target: Target) -> Server:
    """Look at the server; needs no rights beyond CONNECT, changes nothing."""
    row = connection.execute(_SERVER).fetchone()
    assert row is not None
    system, version, major, standby, wal_level, senders, segment, may, user, superuser, names, size, *rest = row
    spaces, summarizes = rest
    place = target.place.rpartition("@")[2].partition("/")[0]
    refusal: ReplicationForbidden | NotPrimary | None = None
    if standby:
        refusal = NotPrimary(server=place, what="a base backup", hint="Name the primary in the URL.")
    elif wal_level == "minimal" or senders < 2:
        refusal = ReplicationForbidden(
            server=place,
            reason=f"wal_level is {wal_level} and max_wal_senders is {senders}",
            hint="ALTER SYSTEM SET wal_level = replica, max_wal_senders = 10, then restart the server.",
        )
    elif not may:
        refusal = ReplicationForbidden(
            server=place,
            reason=f"the user {user} may not replicate",
            hint=f"ALTER ROLE {user} REPLICATION. A managed service mostly forbids it: there logical backups and the "
            "service's own recovery remain.",
        )
    return Server(
        place=place,
        system=system,
        version=version,
        major=major,
        segment_bytes=segment,
        superuser=superuser,
        databases=tuple(names),
        bytes=size,
        tablespaces={int(oid): location for oid, location in spaces.items()},
        summarizes_wal=summarizes,
        refusal=refusal,
    )
