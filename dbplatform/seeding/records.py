"""What a managed database remembers of its seeds: ``dbplatform.seed`` and ``dbplatform.seed_shift``.

The record of a table commits in the same transaction as its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import ensure_state
from dbplatform.postgres.words import Interval
from dbplatform.seeding.shift import RecordedShift

_SEED_DDL = """
    create table dbplatform.seed (
        profile text not null,
        table_name text not null,
        sha256 text not null,
        scale double precision not null,
        rows bigint not null,
        seconds double precision not null,
        applied_at timestamptz not null default now(),
        primary key (profile, table_name)
    )
"""
_SHIFT_DDL = """
    create table dbplatform.seed_shift (
        profile text primary key,
        newest timestamptz not null,
        by_days integer not null,
        by_microseconds bigint not null,
        steps bigint not null,
        recorded_at timestamptz not null default now()
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRecord:
    """A table that was loaded: ``sha256`` covers the file and what the seed says about it."""

    table: str
    sha256: str
    scale: float
    rows: int
    seconds: float
    applied_at: datetime


def ensure_records(connection: AutocommitConnection) -> None:
    """Create both tables where they are missing."""
    ensure_state(connection, "seed", _SEED_DDL)
    ensure_state(connection, "seed_shift", _SHIFT_DDL)


def read_records(connection: AnyConnection, profile: str) -> dict[str, SeedRecord]:
    """What was loaded for a profile, by table; nothing where no seed was ever applied."""
    if not _exists(connection, "dbplatform.seed"):
        return {}
    rows = connection.execute(
        "select table_name, sha256, scale, rows, seconds, applied_at from dbplatform.seed where profile = %s",
        (profile,),
    ).fetchall()
    return {
        table: SeedRecord(table=table, sha256=sha256, scale=scale, rows=count, seconds=seconds, applied_at=applied_at)
        for table, sha256, scale, count, seconds, applied_at in rows
    }


def write_record(
    connection: AutocommitConnection,
    profile: str,
    table: Relation,
    *,
    sha256: str,
    scale: float,
    rows: int,
    seconds: float,
) -> None:
    """Remember a loaded table, in the transaction that loaded it; instead of what was remembered before."""
    connection.execute(
        "insert into dbplatform.seed (profile, table_name, sha256, scale, rows, seconds)"
        " values (%s, %s, %s, %s, %s, %s) on conflict (profile, table_name) do update set sha256 = excluded.sha256,"
        " scale = excluded.scale, rows = excluded.rows, seconds = excluded.seconds, applied_at = now()",
        (profile, str(table), sha256, scale, rows, seconds),
    )


def read_shift(connection: AnyConnection, profile: str) -> RecordedShift | None:
    """How far the data of a profile is moved, once that was decided."""
    if not _exists(connection, "dbplatform.seed_shift"):
        return None
    row = connection.execute(
        "select newest, by_days, by_microseconds, steps from dbplatform.seed_shift where profile = %s", (profile,)
    ).fetchone()
    if row is None:
        return None
    newest, days, microseconds, steps = row
    return RecordedShift(newest=newest, by=Interval(days=days, microseconds=microseconds), steps=steps)


def write_shift(connection: AutocommitConnection, profile: str, shift: RecordedShift) -> None:
    """Decide how far, for good."""
    connection.execute(
        "insert into dbplatform.seed_shift (profile, newest, by_days, by_microseconds, steps)"
        " values (%s, %s, %s, %s, %s)",
        (profile, shift.newest, shift.by.days, shift.by.microseconds, shift.steps),
    )


def _exists(connection: AnyConnection, name: str) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", (name,)).fetchone()
    return row is not None and bool(row[0])
