"""Named restore points: a position in the WAL that a person gives a name to, before something risky."""

from __future__ import annotations

from dbplatform.backups.physical.errors import NotPrimary, RestorePointTaken
from dbplatform.backups.physical.known import RestorePoint, keep_restore_point, restore_points
from dbplatform.backups.physical.server import Server
from dbplatform.backups.physical.witness import testify
from dbplatform.errors import UsageError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection

#: PostgreSQL's own limit.
MOST_BYTES = 63
_CREATE = """
    select point::text, ('x' || left(pg_walfile_name(point), 8))::bit(32)::integer, clock_timestamp()
    from pg_create_restore_point(%s) as point
"""


def create_restore_point(
    connection: AutocommitConnection, ledger: Ledger, server: Server, *, database: str, name: str
) -> RestorePoint:
    """Make a restore point, and write down where it is; a witness is committed behind it.

    A recovery goes to the position, not to the name, so that a second point of that name on the server, made by another
    hand, disturbs nothing. Needs the right to call ``pg_create_restore_point``. Raises ``RestorePointTaken``,
    ``NotPrimary`` and ``UsageError`` for a name that PostgreSQL does not take.
    """
    if not name or len(name.encode()) > MOST_BYTES:
        raise UsageError(f"The name of a restore point has 1 to {MOST_BYTES} bytes.")
    if isinstance(server.refusal, NotPrimary):
        raise NotPrimary(server=server.place, what="a restore point", hint=server.refusal.hint)
    for point in restore_points(ledger, [server.system]):
        if point.name == name:
            raise RestorePointTaken(name=name, made_at=f"{point.made_at:%Y-%m-%d %H:%M:%S %Z}", hint="Choose another.")
    row = connection.execute(_CREATE, (name,)).fetchone()
    assert row is not None
    made = RestorePoint(
        name=name, system=server.system, lsn=row[0], timeline_id=row[1], database=database, made_at=row[2]
    )
    keep_restore_point(ledger, made)
    testify(connection, ledger, system=server.system, database=database, hashes=False)
    return made
