"""What a database is, asked of its catalog and statistics: no row is read.

What the user may not read is told, and left out of all that follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dbplatform.operations.adoption.errors import NothingToAdopt, NotPostgres, ThroughPooler, TooOld
from dbplatform.postgres import poolers
from dbplatform.postgres.connection import SnapshotConnection, Target, connect_plainly, in_words
from dbplatform.postgres.identifiers import Relation

#: The oldest major version on which the platform is tested.
OLDEST = 14

#: What speaks PostgreSQL's protocol, and what its ``version()`` holds.
_OTHERS = {"Redshift": "Redshift", "YugabyteDB": "-YB-", "Greenplum": "Greenplum", "Materialize": "Materialize"}

_SERVER = """
    select version(), current_setting('server_version'), current_setting('server_version_num')::int / 10000,
           current_user::text, current_database()::text, pg_is_in_recovery(), now(),
           array(select extname::text from pg_extension where extname <> 'plpgsql' order by 1)
"""
_ROWS_PER_BLOCK, _BLOCK = 50, 8192  # for a table that was never analyzed
# Views and children of what cannot be read cannot be built without it.
_HIDDEN = """
    with recursive edges (above, below) as (
        select d.refobjid, r.ev_class from pg_depend d join pg_rewrite r on r.oid = d.objid
        where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
        union select inhparent, inhrelid from pg_inherits
    ),
    hidden (oid) as (
        select unnest(%s::bigint[])::oid union select e.below from hidden h join edges e on e.above = h.oid
    )
    select n.nspname::text, c.relname::text from hidden h join pg_class c using (oid)
    join pg_namespace n on n.oid = c.relnamespace order by 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the database is."""

    version: str
    major: int
    user: str
    database: str
    is_replica: bool
    now: datetime
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table or partitioned table as catalog and statistics know it."""

    oid: int
    relation: Relation
    kind: str
    """As ``pg_class.relkind``."""
    readable: bool
    owned: bool
    """The user belongs to its owner, and may change it."""
    secured: bool
    """Policies may hide rows of it from the user."""
    rows: int
    """By the statistics; of what was never analyzed, by its size."""
    bytes: int
    """With indexes and what is stored apart, by the statistics."""
    analyzed: datetime | None
    guessed: bool
    """Something of it was never analyzed."""
    inserted: int
    updated: int
    deleted: int
    partitions: int
    partitioned_by: str | None
    range_column: str | None
    inherits: bool
    referred_to_by: int

    @property
    def source(self) -> str:
        """Where the figures come from."""
        if self.guessed:
            return "by its size: it was never analyzed"
        return f"by the statistics of {self.analyzed:%Y-%m-%d}" if self.analyzed else "by the statistics"

    @property
    def traffic(self) -> str:
        """What was done to its rows since the statistics began."""
        return f"inserted {self.inserted:,}, updated {self.updated:,}, deleted {self.deleted:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The whole database. ``hidden`` is what cannot be read, and what cannot be built without that."""

    server: Server
    tables: tuple[Table, ...]
    """Those whose rows can be read, the platform's own and those of extensions left out."""
    others: int
    """Views, materialized views and foreign tables."""
    unreadable: tuple[Relation, ...]
    hidden: tuple[Relation, ...]
    notes: tuple[str, ...]


def survey(moment: SnapshotConnection, target: Target) -> Survey:
    """Ask the catalog. ACCESS SHARE on tables that were never analyzed, for the moment in which their size is read.

    Raises ``TooOld`` and ``NothingToAdopt``.
    """
    server = _server(moment, target)
    notes: list[str] = []
    with moment.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query("adopt_tables").encode()).fetchall()
    tables = [_table(moment, row, notes) for row in found]
    unreadable = [table for table in tables if table.kind in ("r", "p") and not table.readable]
    readable = [table for table in tables if table.kind in ("r", "p") and table.readable]
    if not readable:
        rights = unreadable and f": {len(unreadable):,} are there, and none is granted to it"
        raise NothingToAdopt(
            database=server.database,
            user=server.user,
            why=rights or "",
            hint=f"grant pg_read_all_data to {server.user}; or grant select on the tables, one by one."
            if unreadable
            else "Check the name of the database in the URL. A new one begins with: dbplatform init DIR",
        )
    hidden = moment.execute(_HIDDEN, ([table.oid for table in unreadable],)).fetchall() if unreadable else []
    if server.is_replica:
        notes.append("This is a replica: give the URL of its primary before anything is to change.")
    return Survey(
        server=server,
        tables=tuple(readable),
        others=sum(table.kind in ("v", "m", "f") for table in tables),
        unreadable=tuple(table.relation for table in unreadable),
        hidden=tuple(Relation(*row) for row in hidden),
        notes=tuple(notes),
    )


def _server(moment: SnapshotConnection, target: Target) -> Server:
    row = moment.execute(_SERVER).fetchone()
    assert row is not None
    _, version, major, user, database, is_replica, now, extensions = row
    if major < OLDEST:
        hint = "Upgrade the server first, or move the database to a newer one."
        raise TooOld(target=target.name, version=version, oldest=OLDEST, hint=hint)
    return Server(
        version=version,
        major=major,
        user=user,
        database=database,
        is_replica=is_replica,
        now=now,
        extensions=tuple(extensions),
    )


def refuse_unsafe(target: Target) -> None:
    """Look without setting anything. Raises ``NotPostgres`` and ``ThroughPooler``, and what a connection raises."""
    with connect_plainly(target, work="adopt") as session:
        try:
            said = session.execute("select version()").fetchone()
            assert said is not None
            refuse_other_products(said[0], target)
            apart = not poolers.is_direct(session) and not poolers.keeps_together(session, target, work="adopt")
        except TimeoutError:
            apart = True
        except psycopg.Error as error:
            raise in_words(target.name, error) from error
    if apart:
        hint = "Name the server itself in the variable of the URL: a pooler's session goes to the application next."
        raise ThroughPooler(target=target.name, hint=hint)


def refuse_other_products(said: str, target: Target) -> None:
    """Raise ``NotPostgres`` where ``version()`` says so."""
    others = [name for name, mark in _OTHERS.items() if mark in said]
    if others or not said.startswith("PostgreSQL "):
        hint = "Adopt works on PostgreSQL 14 and newer, and on services that run it."
        raise NotPostgres(target=target.name, product=others[0] if others else said.split()[0], hint=hint)


def _table(moment: SnapshotConnection, row: dict[str, Any], notes: list[str]) -> Table:
    relation = Relation(row.pop("schema"), row.pop("name"))
    never = row.pop("never_analyzed") or []
    if never:
        blocks = _blocks(moment, never)
        if blocks is None:
            notes.append(f"{relation} was never analyzed, and is locked: its size is not known.")
        row["rows"] += (blocks or 0) * _ROWS_PER_BLOCK
        row["bytes"] += (blocks or 0) * _BLOCK
    return Table(relation=relation, guessed=bool(never), **row)


def _blocks(moment: SnapshotConnection, tables: Sequence[int]) -> int | None:
    """How many blocks of 8 kB tables have; none where one is locked."""
    try:
        with moment.transaction():
            row = moment.execute(
                "select coalesce(sum(pg_relation_size(t::oid)), 0)::bigint / %s::int from unnest(%s::bigint[]) t",
                (_BLOCK, list(tables)),
            ).fetchone()
    except psycopg.errors.LockNotAvailable:
        return None
    assert row is not None
    return int(row[0])


def query(name: str) -> str:
    """One of ``postgres/sql``."""
    return (files("dbplatform.postgres") / "sql" / f"{name}.sql").read_text("utf-8")
