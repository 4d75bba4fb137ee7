"""The replay list: rows that were erased on purpose, so that a restore of an older copy can erase them again.

A row is known by the hash of its key alone. The key may be the very thing that must not be kept (an e-mail address),
and nobody can tell from a schema whether it is, so it is never kept: SHA-256 of a random salt and the key's text. Where
keys are few and guessable a hash can be guessed by whoever reads the ledger, salt and all: it says that there was such
a row, and nothing of what it held. The condition by which rows were chosen is not kept either.

Which copy has seen an erasure is said by the copy: ``dbplatform.archive_erased`` commits with the rows. So a row that
later got the same key is not erased with an old one's name on the list.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Literal, cast

from psycopg import sql
from sqlalchemy import func, or_, select

from dbplatform.archiving.content import row_text
from dbplatform.ledger.archives import Archive, ErasedKeys, RemovedArchive
from dbplatform.ledger.archives import Erasure as Listed
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.state import ensure_state

Cause = Literal["asked", "expired"]

#: Of hashes in one row of the ledger; each has 32 bytes.
PART = 10_000
_HASH_BYTES = 32
_ERASED = sql.Identifier("pg_temp", "dbplatform_erased")
_SEEN_DDL = """
    create table dbplatform.archive_erased (
        erasure_id uuid primary key,
        table_name text not null,
        rows bigint not null,
        erased_at timestamptz not null default now()
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One decision to erase: which rows of which table, by the hashes of their keys."""

    id: uuid.UUID
    database: str
    table: str
    cause: Cause
    key: tuple[str, ...]
    salt: bytes
    rows: int
    column: str | None
    """Expired rows are those whose ``column`` is before ``before``; a later row with the same key is another one."""
    before: datetime | None
    decided_at: datetime

    def hash_of(self, alias: str) -> sql.Composed:
        """The hash of the key of the row ``alias``."""
        return key_hash(self.salt, self.key, alias)

    def names(self, alias: str) -> sql.Composed:
        """Whether the row ``alias`` is one of those that ``loaded`` has put there: a boolean expression."""
        age: sql.Composable = sql.SQL("true")
        if self.column is not None:
            # A date or a time without a zone is one of UTC, the zone of every session.
            age = sql.SQL("{}.{} < e.before").format(sql.Identifier(alias), sql.Identifier(self.column))
        return sql.SQL("exists (select from {} as e where e.hash = {} and {})").format(
            _ERASED, self.hash_of(alias), age
        )


def key_hash(salt: bytes, key: Sequence[str], alias: str) -> sql.Composed:
    """The hash of the key of the row ``alias``, in a transaction that is exact."""
    return sql.SQL("sha256({} || convert_to({}, 'UTF8'))").format(sql.Literal(salt), row_text(key, alias))


def ensure_seen(connection: AutocommitConnection) -> None:
    """Create the table of erasures that this database has seen, where it is missing."""
    ensure_state(connection, "archive_erased", _SEEN_DDL)


def see(connection: AutocommitConnection, erasure: Erasure, rows: int) -> None:
    """Remember, in the transaction that erases its rows, that this database has seen the erasure."""
    connection.execute(
        "insert into dbplatform.archive_erased (erasure_id, table_name, rows) values (%s, %s, %s)"
        " on conflict do nothing",
        (erasure.id, erasure.table, rows),
    )


def seen(connection: AnyConnection) -> dict[uuid.UUID, datetime]:
    """The erasures that this database, or the one that it is a copy of, has seen, and when."""
    row = connection.execute("select to_regclass('dbplatform.archive_erased') is not null").fetchone()
    if row is None or not row[0]:
        return {}
    return dict(connection.execute("select erasure_id, erased_at from dbplatform.archive_erased").fetchall())


def salt_of(ledger: Ledger, database: str, table: str) -> bytes:
    """The salt of the table's keys: one for all of its erasures, so that they are looked for at once."""
    with ledger.session() as session:
        known = session.scalars(
            select(Listed.salt).where(Listed.database == database, Listed.table_name == table).limit(1)
        ).first()
    return known or secrets.token_bytes(_HASH_BYTES)


def decide(
    ledger: Ledger,
    erasure: Erasure,
    hashes: Sequence[bytes],
    *,
    note: str | None = None,
    removed: Iterable[RemovedArchive] = (),
) -> None:
    """Put rows onto the list, and archives onto that of removed ones, in one transaction: from now on they go."""
    with ledger.session() as session:
        session.add(
            Listed(
                id=erasure.id,
                database=erasure.database,
                table_name=erasure.table,
                cause=erasure.cause,
                note=note,
                key_columns=list(erasure.key),
                salt=erasure.salt,
                rows=len(hashes),
                column_name=erasure.column,
                before=erasure.before,
                decided_at=erasure.decided_at,
            )
        )
        session.flush()
        for part, first in enumerate(range(0, len(hashes), PART)):
            session.add(ErasedKeys(erasure_id=erasure.id, part=part, hashes=b"".join(hashes[first : first + PART])))
        for one in removed:
            session.add(one)
            session.delete(session.get_one(Archive, one.id))


def listed(
    ledger: Ledger,
    database: str,
    *,
    table: str | None = None,
    since: datetime | None = None,
    unfinished: bool = False,
) -> list[Erasure]:
    """The erasures of a database, the oldest first.

    Only those of a table; that were not done at a time (``since``); that were killed half-way.
    """
    wanted = select(Listed).where(Listed.database == database).order_by(Listed.decided_at, Listed.id)
    if table is not None:
        wanted = wanted.where(Listed.table_name == table)
    if since is not None:
        wanted = wanted.where(or_(Listed.done_at.is_(None), Listed.done_at > since))
    if unfinished:
        wanted = wanted.where(Listed.done_at.is_(None))
    with ledger.session() as session:
        return [_erasure(row) for row in session.scalars(wanted)]


def mark_done(ledger: Ledger, erasure: Erasure) -> None:
    """All that holds the rows has been dealt with."""
    with ledger.session() as session:
        session.get_one(Listed, erasure.id).done_at = func.now()


def alike(erasures: Iterable[Erasure]) -> list[list[Erasure]]:
    """The erasures in groups that ``loaded`` can look for at once."""

    def kind(one: Erasure) -> tuple[str, bytes, tuple[str, ...], str]:
        return (one.table, one.salt, one.key, one.column or "")

    return [list(group) for _, group in groupby(sorted(erasures, key=kind), key=kind)]


@contextmanager
def loaded(connection: AutocommitConnection, ledger: Ledger, erasures: Sequence[Erasure]) -> Iterator[Erasure]:
    """The hashes of erasures that are ``alike`` in a temporary table; any of them, to ask by ``names``."""
    drop = sql.SQL("drop table if exists {}").format(_ERASED)
    connection.execute(drop)
    connection.execute(sql.SQL("create temporary table {} (hash bytea, before timestamptz)").format(_ERASED))
    try:
        for erasure in erasures:
            for hashes in _parts(ledger, erasure):
                connection.execute(
                    sql.SQL(
                        "insert into {} select substr(all_.hashes, {size} * i + 1, {size}), %s"
                        " from (select %s::bytea) as all_ (hashes),"
                        " generate_series(0, length(all_.hashes) / {size} - 1) as i"
                    ).format(_ERASED, size=sql.Literal(_HASH_BYTES)),
                    (erasure.before, hashes),
                )
        connection.execute(sql.SQL("create index on {} (hash)").format(_ERASED))
        connection.execute(sql.SQL("analyze {}").format(_ERASED))
        yield erasures[0]
    finally:
        if not connection.closed:
            connection.execute(drop)


def _parts(ledger: Ledger, erasure: Erasure) -> Iterator[bytes]:
    with ledger.session() as session:
        yield from session.scalars(
            select(ErasedKeys.hashes).where(ErasedKeys.erasure_id == erasure.id).order_by(ErasedKeys.part)
        )


def _erasure(row: Listed) -> Erasure:
    return Erasure(
        id=row.id,
        database=row.database,
        table=row.table_name,
        cause=cast("Cause", row.cause),
        key=tuple(row.key_columns),
        salt=row.salt,
        rows=row.rows,
        column=row.column_name,
        before=row.before,
        decided_at=row.decided_at,
    )
