"""What a run of checks finds around the data: the server's settings and the history of migrations.

Kept with every run, so that the report of a failure can tell what is different from the last time all was well. Only
what is new since the runs before is kept of the history; of the settings those that are not the default. Settings that
may hold a secret are never read.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.ledger.models import QualityRun
from dbplatform.ledger.reports import QualitySurroundings
from dbplatform.migrations.history import HistoryRow, history
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import AutocommitConnection, connect

#: Commands and connection strings may hold passwords; ports and paths tell where a server is, not how it works.
_NEVER_KEPT: Final = (
    "primary_conninfo", "archive_command", "restore_command", "archive_cleanup_command", "recovery_end_command",
    "ssl_passphrase_command", "port", "unix_socket_directories", "data_directory", "external_pid_file",
)  # fmt: skip

# What the session itself, its client or the start of the server has set is no change of anybody. A text of an extension
# may be anything, so only its numbers and switches are read.
_SETTINGS = """
    select name, current_setting(name), source from pg_settings
    where name <> all (%s) and not (name like '%%.%%' and vartype = 'string')
      and (source not in ('default', 'client', 'session', 'override', 'interactive', 'test')
           or name = 'server_version')
    order by name
"""


def keep(platform: Platform, declared: Declared, run_id: str) -> str | None:
    """Keep what surrounds a run that was recorded; run twice, it is replaced. Returns why not, where it was not.

    A report without it is complete but for its causes, so that a server that went away does not keep it from being
    written. Reads two catalogs in the managed database, without a lock on any table.
    """
    try:
        with connect(platform.target(declared), work="surroundings") as connection:
            settings = _settings(connection)
            policy = declared.database.migrations
            rows = history(connection, policy) if policy is not None else []
    except PlatformError as error:
        return error.message
    newest = max((row.installed_rank for row in rows), default=None)
    with platform.ledger.session() as session:
        begun = select(QualityRun.started_at).where(QualityRun.run_id == run_id).scalar_subquery()
        seen = session.execute(
            select(func.count(), func.max(QualitySurroundings.newest_migration))
            .join(QualityRun, QualityRun.run_id == QualitySurroundings.run_id)
            .where(QualityRun.database == declared.name, QualityRun.started_at < begun)
        ).one()
        earlier_runs, last = seen[0], seen[1] or 0
        new = [_migration(row) for row in rows if row.installed_rank > last] if earlier_runs else []
        found: dict[str, Any] = {"settings": settings, "newest_migration": newest, "migrations": new}
        session.execute(
            insert(QualitySurroundings)
            .values(run_id=run_id, **found)
            .on_conflict_do_update(index_elements=[QualitySurroundings.run_id], set_=found)
        )
    return None


def _settings(connection: AutocommitConnection) -> dict[str, Any]:
    rows = connection.execute(_SETTINGS, (list(_NEVER_KEPT),)).fetchall()
    return {name: {"value": value, "source": source} for name, value, source in rows}


def _migration(row: HistoryRow) -> dict[str, Any]:
    at: datetime = row.installed_on
    return {
        "version": row.version,
        "description": row.description,
        "script": row.script,
        "type": row.type,
        "by": row.installed_by,
        "at": at.isoformat(),
        "success": row.success,
    }
