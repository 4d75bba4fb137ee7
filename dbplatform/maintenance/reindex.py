"""REINDEX CONCURRENTLY where an index holds much of nothing, and the end of what a killed one left behind.

PostgreSQL cannot rebuild concurrently what guards an exclusion constraint or belongs to a system catalog: that is told,
never done with a lock. The index of a partitioned table has no pages; those of its partitions are judged.
Source: PostgreSQL manual, "REINDEX" (rebuilding indexes concurrently), "Routine Reindexing".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from psycopg import sql

from dbplatform.maintenance.catalog import Catalog, Index, Unused, unused_of
from dbplatform.maintenance.model import Item, NotPossible
from dbplatform.maintenance.policy import DuePolicy
from dbplatform.postgres.connection import AutocommitConnection

LOCK = "SHARE UPDATE EXCLUSIVE on the table: reads and writes go on, changes of the schema wait"
# Of a TOAST table's index the table is the TOAST table.
_WORKED_ON = """
    select exists (select from pg_locks l where l.granted and l.locktype = 'relation'
                     and l.pid is distinct from pg_backend_pid()
                     and l.database = (select oid from pg_database where datname = current_database())
                     and l.relation in (%(table)s, (select indrelid from pg_index where indexrelid = %(index)s))
                     and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                                    'AccessExclusiveLock'))
"""
_REMAINS = re.compile(r"_cc(new|old)\d*$")


def reindex_items(connection: AutocommitConnection, catalog: Catalog, due: DuePolicy) -> Iterator[Item | NotPossible]:
    """What killed rebuilds left, and the indexes that are bloated. Only reads."""
    yield from remains(catalog)
    for index in catalog.indexes.values():
        if not index.valid or index.bytes < due.min_size or index.method != "btree":
            continue
        unused = unused_of(connection, catalog, index, least=due.index_bloat)
        if unused is None and index.system:
            continue
        if unused is None:
            yield NotPossible(
                kind="reindex",
                subject=str(index.relation),
                reason="its bloat is not known: its table was never analyzed, or its statistics may not be read",
                hint="CREATE EXTENSION pgstattuple, which counts.",
            )
        elif unused.share >= due.index_bloat:
            yield _judged(index, unused)


def remains(catalog: Catalog) -> Iterator[Item]:
    """What rebuilds that were ended have left. Pure."""
    for index in catalog.indexes.values():
        if not index.valid and _REMAINS.search(index.relation.name) and not index.being_built and index.owned:
            yield _drop(index)


def worked_on(connection: AutocommitConnection, item: Item) -> bool:
    """Whether another session builds an index on its table, or vacuums it.

    A concurrent statement that waits for that one can be what that one waits for: a deadlock, in which the other one
    may be ended.
    """
    row = connection.execute(_WORKED_ON, {"table": item.table_oid, "index": item.subject_oid}).fetchone()
    return row is not None and bool(row[0])


def index_facts(connection: AutocommitConnection, catalog: Catalog, index: Index) -> dict[str, Any]:
    """What is read before and after."""
    unused = unused_of(connection, catalog, index, least=0.0) if index.valid else None
    return _facts(index, unused)


def _facts(index: Index, unused: Unused | None) -> dict[str, Any]:
    return {
        "bytes": index.bytes,
        "bloat": round(unused.share, 3) if unused else None,
        "counted": unused.exact if unused else None,
        "valid": index.valid,
    }


def _judged(index: Index, unused: Unused) -> Item | NotPossible:
    subject = str(index.relation)
    if index.system or index.exclusion:
        what = "belongs to a system catalog" if index.system else "guards an exclusion constraint"
        return NotPossible(
            kind="reindex",
            subject=subject,
            reason=f"{unused.share:.0%} of it hold nothing, and it {what}: PostgreSQL cannot rebuild it concurrently",
            hint=f"In a quiet hour, with nobody writing: REINDEX INDEX {subject}",
        )
    if not index.may_reindex:
        return NotPossible(
            kind="reindex",
            subject=subject,
            reason="the user may not rebuild it",
            hint="Connect as the owner of its table, or from PostgreSQL 17 on GRANT MAINTAIN.",
        )
    return _item(
        index,
        verb="reindex",
        priority=round(25 + 30 * unused.share),
        reason=f"{unused.share:.0%} of its {index.bytes / 2**20:,.1f} MB hold nothing ({unused.words}).",
        evidence=_facts(index, unused),
        statement=sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(index.relation.identifier),
    )


def _drop(index: Index) -> Item:
    return _item(
        index,
        verb="drop",
        priority=90,
        reason="A REINDEX CONCURRENTLY that was ended left it: every write pays for it, and no query uses it.",
        evidence=_facts(index, None),
        statement=sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index.relation.identifier),
    )


def _item(
    index: Index, *, verb: Any, priority: int, reason: str, evidence: dict[str, Any], statement: sql.Composed
) -> Item:
    return Item(
        kind="reindex",
        verb=verb,
        subject=index.relation,
        table=index.table,
        table_oid=index.table_oid,
        subject_oid=index.oid,
        priority=priority,
        reason=reason,
        evidence=evidence,
        statements=(statement.as_string(),),
        lock=LOCK,
        bytes=index.bytes,
    )
