"""Looks whether a seed is still what was loaded: rows counted, every foreign key searched for orphans. Only reads.

Rows that were archived are not missing: how many they are is told by whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from dbplatform import progress
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.seeding.manifest import read_manifest
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.records import SeedRecord, read_records

_FOREIGN_KEYS = """
    select k.conname, k.convalidated, k.confmatchtype::text, rn.nspname, r.relname,
           array(select a.attname::text from unnest(k.conkey) with ordinality u(n, i)
                 join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n order by u.i),
           array(select a.attname::text from unnest(k.confkey) with ordinality u(n, i)
                 join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.n order by u.i)
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_class r on r.oid = k.confrelid
    join pg_namespace rn on rn.oid = r.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and n.nspname = %s and c.relname = %s
    order by k.conname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableVerification:
    """The rows of a table now, those in archives, and those that were loaded (None: never).

    A seed that is found again by its key may share its table with rows of other origin (``shared``).
    """

    table: Relation
    rows: int
    archived_rows: int
    recorded_rows: int | None
    shared: bool = False

    @property
    def match(self) -> bool:
        """Whether the rows here and in archives are together as many as were loaded; in a shared table, at least."""
        if self.recorded_rows is None:
            return False
        found = self.rows + self.archived_rows
        return found >= self.recorded_rows if self.shared else found == self.recorded_rows

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables``."""
        return {
            "table": str(self.table),
            "status": "missing" if self.recorded_rows is None else "applied",
            "rows": self.rows,
            "archived_rows": self.archived_rows,
            "recorded_rows": self.recorded_rows,
            "match": self.match,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceVerification:
    """A foreign key: ``orphans`` are rows whose reference does not exist, counted, whatever the catalog believes."""

    table: Relation
    constraint: str
    references: Relation
    validated: bool
    orphans: int

    def as_json(self) -> dict[str, Any]:
        """One entry of ``references``."""
        return {
            "table": str(self.table),
            "constraint": self.constraint,
            "references": str(self.references),
            "validated": self.validated,
            "orphans": self.orphans,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedVerification:
    """What was found; ``passed`` when every table has its rows and no reference is broken."""

    database: str
    profile: str
    tables: tuple[TableVerification, ...]
    references: tuple[ReferenceVerification, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return all(table.match for table in self.tables) and not any(one.orphans for one in self.references)

    def as_json(self) -> dict[str, Any]:
        """The document of ``seed verify --json``."""
        return {
            "database": self.database,
            "profile": self.profile,
            "passed": self.passed,
            "tables": [table.as_json() for table in self.tables],
            "references": [one.as_json() for one in self.references],
        }


def verify_seed(
    connection: AnyConnection,
    directory: Path,
    policy: SeedPolicy,
    *,
    database: str,
    archived: Mapping[str, int] | None = None,
) -> SeedVerification:
    """Count the rows of every table of the seed, and the orphans of each of its foreign keys.

    ``archived``: by table, the rows that lie in archives instead of in it. Reads the tables and those they refer to,
    ACCESS SHARE. Raises ``UsageError`` for a seed that cannot be read or a table that does not exist.
    """
    manifest = read_manifest(directory, policy)
    records = read_records(connection, policy.profile)
    tables: list[TableVerification] = []
    references: list[ReferenceVerification] = []
    for done, entry in enumerate(manifest.tables):
        progress.report(f"verify {database}", done=done, total=len(manifest.tables), unit="tables")
        catalog.require_table(connection, entry.table)
        away = (archived or {}).get(str(entry.table), 0)
        tables.append(
            _table(connection, entry.table, records.get(str(entry.table)), archived=away, shared=entry.key is not None)
        )
        references += _references(connection, entry.table)
    progress.report(f"verify {database}", done=len(tables), total=len(tables), unit="tables")
    return SeedVerification(
        database=database, profile=policy.profile, tables=tuple(tables), references=tuple(references)
    )


def _table(
    connection: AnyConnection, table: Relation, record: SeedRecord | None, *, archived: int, shared: bool
) -> TableVerification:
    return TableVerification(
        table=table,
        rows=catalog.row_count(connection, table),
        archived_rows=archived,
        recorded_rows=record.rows if record else None,
        shared=shared,
    )


def _references(connection: AnyConnection, table: Relation) -> list[ReferenceVerification]:
    found = []
    for name, validated, match, schema, referenced, own, other in connection.execute(
        _FOREIGN_KEYS, (table.schema, table.name)
    ).fetchall():
        parent = Relation(schema, referenced)
        found.append(
            ReferenceVerification(
                table=table,
                constraint=name,
                references=parent,
                validated=validated,
                orphans=_orphans(connection, table, parent, own, other, match_full=match == "f"),
            )
        )
    return found


def _orphans(
    connection: AnyConnection,
    table: Relation,
    parent: Relation,
    own: list[str],
    other: list[str],
    *,
    match_full: bool,
) -> int:
    """Rows that refer to nothing. A key with a NULL refers to nothing on purpose; MATCH FULL wants all or none NULL."""
    columns = [sql.SQL("c.{}").format(sql.Identifier(name)) for name in own]
    same = sql.SQL(" and ").join(
        sql.SQL("p.{} = {}").format(sql.Identifier(name), column) for name, column in zip(other, columns, strict=True)
    )
    nulls = sql.SQL("num_nulls({})").format(sql.SQL(", ").join(columns))
    partly = sql.SQL("{} between 1 and {}").format(nulls, sql.Literal(len(own) - 1 if match_full else 0))
    statement = sql.SQL(
        "select count(*) from {child} c where {partly} or"
        " ({nulls} = 0 and not exists (select from {parent} p where {same}))"
    ).format(child=table.identifier, parent=parent.identifier, partly=partly, nulls=nulls, same=same)
    row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])
