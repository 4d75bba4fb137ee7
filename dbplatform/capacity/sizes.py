"""What takes room in a database, read once a day and kept in the ledger: the history that growth is told from.

The history of metrics has whole databases; here are tables, indexes, sequences, transaction ids and the disk. A day
(UTC) is one row, kept for three years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from dbplatform.ledger.capacity import CapacityDay
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection

RETAIN: Final = timedelta(days=1_100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What was read at one time, in bytes; a partitioned table or index is one, with all its parts.

    ``sequences`` have their last value and their end, ``xid`` the number of transaction ids used so far, the age of the
    oldest one that is in use and that at which autovacuum freezes it. ``server_bytes`` are all databases of the server,
    none where the user may not know. ``disk`` is what is used of it, and its size, where that is known. The
    ``data_directory`` is that of the server, where the user may know it; it is not kept.
    """

    at: datetime
    tables: Mapping[str, int]
    indexes: Mapping[str, int]
    xid: tuple[int, int, int]
    server_bytes: int | None
    sequences: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    disk: tuple[int, int] | None = None
    data_directory: Path | None = None


def read_sizes(connection: AutocommitConnection, *, at: datetime) -> Sizes:
    """Read them. One statement, reading only; lock: see ``postgres/sql/capacity_sizes.sql``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.SQL(_statement())).fetchone()
    assert row is not None
    return Sizes(
        at=at,
        tables=row["tables"],
        indexes=row["indexes"],
        xid=(row["xid"], row["xid_age"], row["freeze_max_age"]),
        server_bytes=row["server_bytes"],
        data_directory=Path(row["data_directory"]) if row["data_directory"] else None,
    )


@cache
def _statement() -> str:
    return (files("dbplatform.postgres") / "sql" / "capacity_sizes.sql").read_text("utf-8")


def is_due(ledger: Ledger, database: str, *, now: datetime) -> bool:
    """Whether nothing was kept yet of the day of ``now``."""
    with ledger.session() as session:
        return session.get(CapacityDay, (database, now.astimezone(UTC).date())) is None


def keep(ledger: Ledger, database: str, sizes: Sizes) -> None:
    """Keep them as those of their day, unless it has some; let go of those of over three years ago. One transaction."""
    row = {
        "database": database,
        "day": sizes.at.astimezone(UTC).date(),
        "at": sizes.at,
        "measured": {
            "tables": dict(sizes.tables),
            "indexes": dict(sizes.indexes),
            "sequences": {name: list(known) for name, known in sizes.sequences.items()},
            "xid": list(sizes.xid),
            "server_bytes": sizes.server_bytes,
            "disk": list(sizes.disk) if sizes.disk else None,
        },
    }
    with ledger.session() as session:
        session.execute(insert(CapacityDay).values(row).on_conflict_do_nothing())
        old = (CapacityDay.database == database, CapacityDay.day < (sizes.at - RETAIN).date())
        session.execute(delete(CapacityDay).where(*old))


def kept_sizes(ledger: Ledger, database: str, *, since: datetime) -> tuple[Sizes, ...]:
    """What was kept from ``since`` on, oldest first."""
    statement = (
        select(CapacityDay.at, CapacityDay.measured)
        .where(CapacityDay.database == database, CapacityDay.at >= since)
        .order_by(CapacityDay.at)
    )
    with ledger.session() as session:
        return tuple(_sizes(at, measured) for at, measured in session.execute(statement))


def _sizes(at: datetime, measured: Mapping[str, Any]) -> Sizes:
    used, age, freeze = measured["xid"]
    return Sizes(
        at=at,
        tables=measured["tables"],
        indexes=measured["indexes"],
        sequences={name: (last, end) for name, (last, end) in measured["sequences"].items()},
        xid=(used, age, freeze),
        server_bytes=measured["server_bytes"],
        disk=tuple(measured["disk"]) if measured["disk"] else None,
    )
