"""ANALYZE where the planner's statistics are missing or stale; partitioned tables, which autovacuum never analyzes.

Source: PostgreSQL manual, "Updating Planner Statistics", "ANALYZE".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from dbplatform.maintenance.catalog import Catalog, Table
from dbplatform.maintenance.model import Item, NotPossible
from dbplatform.maintenance.policy import DuePolicy
from dbplatform.postgres.identifiers import Relation

#: Fewer changed rows than this tell the planner nothing new.
LEAST_CHANGED = 500
#: From this version on a partitioned table can be analyzed without its partitions.
_ONLY = 180000
#: An ANALYZE of the parent analyzes the partitions too, some before and some after it.
_SAME_RUN_S = 3600.0
#: PostgreSQL passes it over.
_NEVER = Relation("pg_catalog", "pg_statistic")
LOCK = "SHARE UPDATE EXCLUSIVE on the table: reads and writes go on"


def analyze_items(catalog: Catalog, due: DuePolicy) -> Iterator[Item | NotPossible]:
    """The tables whose statistics are missing or stale. Pure."""
    for table in catalog.tables.values():
        if table.relation == _NEVER:
            continue
        rows, changed = (
            _of_partitions(catalog, table) if table.kind == "p" else (max(table.rows, table.live), table.changed)
        )
        if not rows or (table.kind == "p" and not table.leaves):
            continue
        missing = not table.ever_analyzed
        share = min(changed / rows, 1.0)
        if not missing and (changed <= LEAST_CHANGED or share < due.changed_rows):
            continue
        if not table.may_vacuum:
            if not table.system:
                yield NotPossible(
                    kind="analyze",
                    subject=str(table.relation),
                    reason="the user may not analyze it",
                    hint="Connect as its owner, or from PostgreSQL 17 on GRANT MAINTAIN.",
                )
            continue
        yield _item(catalog, table, rows=rows, changed=changed, missing=missing, share=share)


def analyze_facts(catalog: Catalog, table: Table) -> dict[str, Any]:
    """What is read before and after."""
    rows, changed = _of_partitions(catalog, table) if table.kind == "p" else (table.rows, table.changed)
    return {"rows": round(rows), "changed_rows": round(changed), "ever_analyzed": table.ever_analyzed}


def _item(catalog: Catalog, table: Table, *, rows: float, changed: float, missing: bool, share: float) -> Item:
    parent = table.kind == "p"
    whole = catalog.version < _ONLY
    leaves = [catalog.tables[oid] for oid in table.leaves if oid in catalog.tables]
    reason = (
        f"It has about {rows:,.0f} rows and was never analyzed"
        if missing
        else (f"About {changed:,.0f} of its {rows:,.0f} rows ({share:.0%}) were written since it was analyzed")
    )
    return Item(
        kind="analyze",
        verb="analyze",
        subject=table.relation,
        table=table.relation,
        table_oid=table.oid,
        subject_oid=table.oid,
        # A parent first: until PostgreSQL 17 its partitions are analyzed along with it.
        priority=(76 if parent else 75) if missing else round(45 + 25 * share) + parent,
        reason=reason + ("; autovacuum never analyzes a partitioned table." if parent else "."),
        evidence=analyze_facts(catalog, table),
        statements=(
            sql.SQL("ANALYZE (SKIP_LOCKED) {}{}")
            .format(sql.SQL("ONLY ") if parent and not whole else sql.SQL(""), table.relation.identifier)
            .as_string(),
        ),
        lock=LOCK,
        bytes=sum(leaf.bytes for leaf in leaves) if parent else table.bytes,
    )


def _of_partitions(catalog: Catalog, parent: Table) -> tuple[float, float]:
    """The rows of all partitions, and about how many of them were written since the parent was analyzed.

    PostgreSQL counts none for the parent. What a partition counts is since its own ANALYZE: where that is newer, so
    many rows have changed as make autovacuum come. Rows that the parent does not know of are new, too.
    """
    leaves = [catalog.tables[oid] for oid in parent.leaves if oid in catalog.tables]
    rows = sum(max(leaf.rows, leaf.live) for leaf in leaves)
    since = parent.analyzed_at or 0.0
    changed = sum(
        max(leaf.changed, min(leaf.analyze_limit, leaf.rows))
        if parent.analyzed_at is not None and (leaf.analyzed_at or 0.0) > since + _SAME_RUN_S
        else leaf.changed
        for leaf in leaves
    )
    unknown = abs(rows - parent.counted_rows) if parent.counted_rows >= 0 else rows
    return rows, max(changed, unknown)
