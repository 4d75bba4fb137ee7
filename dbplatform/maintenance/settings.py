"""Settings of large tables: how soon autovacuum comes, and how finely columns are sampled; each with its undo.

They are part of the schema: where ``settings: apply`` is not declared they are proposed, to be written as a migration,
because drift would tell what nobody's migration made.
Source: PostgreSQL manual, "The Autovacuum Daemon", "Statistics Used by the Planner", "ALTER TABLE".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import sql

from dbplatform.maintenance.catalog import Catalog, Table
from dbplatform.maintenance.model import Item, NotPossible
from dbplatform.maintenance.policy import DuePolicy
from dbplatform.postgres.connection import AutocommitConnection

LOCK = "SHARE UPDATE EXCLUSIVE on the table for a moment: reads and writes go on"
#: Autovacuum of a large table should come at about so many dead or changed rows per row that it has.
WANTED: Mapping[str, str] = {
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_analyze_scale_factor": "0.02",
    "autovacuum_analyze_threshold": "1000",
}
#: A table of which so small a share was ever updated or deleted needs nothing.
_LEAST_REWRITTEN = 0.05
#: How many most common values and bounds of the histogram are kept of a column that has many.
_WANTED_TARGET = 500

_COLUMNS = """
    select a.attname, coalesce(nullif(a.attstattarget, -1), current_setting('default_statistics_target')::int),
           s.n_distinct::float8,
           (select coalesce(sum(f), 0)::float8 from unnest(s.most_common_freqs) f)
    from pg_stats s
    join pg_attribute a on a.attrelid = %(oid)s and a.attname = s.attname
    where s.schemaname = %(schema)s and s.tablename = %(name)s and s.inherited = %(parent)s
      and coalesce(nullif(a.attstattarget, -1), current_setting('default_statistics_target')::int) < %(wanted)s
      -- The list of the most common values is full, and other values remain.
      and cardinality(s.most_common_freqs) >= coalesce(nullif(a.attstattarget, -1),
                                                       current_setting('default_statistics_target')::int)
      and exists (select from pg_index i where i.indrelid = a.attrelid and i.indisvalid and i.indkey[0] = a.attnum)
    order by a.attnum
"""
_TARGETS = """
    select coalesce(jsonb_object_agg(attname, attstattarget), '{}') from pg_attribute
    where attrelid = %s and attnum > 0 and not attisdropped and attstattarget is not null and attstattarget >= 0
"""


def autovacuum_items(catalog: Catalog, due: DuePolicy) -> Iterator[Item | NotPossible]:
    """The large tables for which autovacuum comes late, or not at all. Pure."""
    for table in catalog.tables.values():
        if table.kind != "r" or table.system:
            continue
        if table.options.get("autovacuum_enabled") in ("false", "off", "0"):
            yield NotPossible(
                kind="autovacuum",
                subject=str(table.relation),
                reason="autovacuum is switched off for it, so that only maintenance and VACUUM by hand clean it",
                hint=_reset(table, ("autovacuum_enabled",)).as_string(),
            )
        if table.rows < due.large_table_rows or table.rewritten < _LEAST_REWRITTEN * table.rows or not table.owned:
            continue
        wanted = 1000 + 0.02 * table.rows
        if max(table.vacuum_limit, table.analyze_limit) <= 2 * wanted:
            continue
        before = {name: table.options.get(name) for name in WANTED}
        yield Item(
            kind="autovacuum",
            verb="set",
            subject=table.relation,
            table=table.relation,
            table_oid=table.oid,
            subject_oid=table.oid,
            priority=70,
            reason=f"Autovacuum waits for {table.vacuum_limit:,.0f} dead or {table.analyze_limit:,.0f} changed rows; "
            f"of its {table.rows:,.0f} rows {table.rewritten:,.0f} were changed. With these it comes at {wanted:,.0f}.",
            evidence=autovacuum_facts(table),
            statements=(_set(table, WANTED).as_string(),),
            undo=_undo(table, before).as_string(),
            lock=LOCK,
            bytes=0,
        )


def autovacuum_facts(table: Table) -> dict[str, Any]:
    """What is read before and after."""
    return {"rows": round(table.rows), "dead_rows": round(table.dead), "options": dict(table.options)}


def statistics_items(connection: AutocommitConnection, catalog: Catalog, due: DuePolicy) -> Iterator[Item]:
    """The large tables of which an indexed column has more common values than its statistics hold. Only reads."""
    for table in catalog.tables.values():
        if table.kind == "m" or table.system or not table.owned:
            continue
        rows = max(table.rows, table.counted_rows)
        if rows < due.large_table_rows:
            continue
        found = connection.execute(
            _COLUMNS,
            {
                "oid": table.oid,
                "schema": table.relation.schema,
                "name": table.relation.name,
                "parent": table.kind == "p",
                "wanted": _WANTED_TARGET,
            },
        ).fetchall()
        # Where hardly a value is common, a longer list would hold nothing but noise.
        wide = [row for row in found if _distinct(row[2], rows) > _WANTED_TARGET and row[3] >= 0.1]
        if wide:
            yield _targets(connection, table, {name: target for name, target, _, _ in wide}, rows)


def statistics_facts(connection: AutocommitConnection, table: Table) -> dict[str, Any]:
    """What is read before and after."""
    row = connection.execute(_TARGETS, (table.oid,)).fetchone()
    assert row is not None
    return {"targets": row[0]}


def _targets(connection: AutocommitConnection, table: Table, columns: Mapping[str, int], rows: float) -> Item:
    facts = statistics_facts(connection, table)
    set_before: Mapping[str, int] = facts["targets"]
    names = list(columns)
    return Item(
        kind="statistics",
        verb="set",
        subject=table.relation,
        table=table.relation,
        table_oid=table.oid,
        subject_oid=table.oid,
        priority=72,
        reason=f"{', '.join(names)}: of about {rows:,.0f} rows the statistics hold "
        f"{', '.join(str(n) for n in sorted(set(columns.values())))} common values each, and there are more.",
        evidence=facts,
        statements=(
            _alter_targets(table, dict.fromkeys(names, _WANTED_TARGET)).as_string(),
            sql.SQL("ANALYZE (SKIP_LOCKED) {} ({})")
            .format(table.relation.identifier, sql.SQL(", ").join(map(sql.Identifier, names)))
            .as_string(),
        ),
        undo=_alter_targets(table, {name: set_before.get(name, -1) for name in names}).as_string(),
        lock=LOCK,
        bytes=table.bytes,
    )


def _distinct(n_distinct: float, rows: float) -> float:
    """A negative number is a share of the rows."""
    return -n_distinct * rows if n_distinct < 0 else n_distinct


def _alter_targets(table: Table, targets: Mapping[str, int]) -> sql.Composed:
    changes = [
        sql.SQL("ALTER COLUMN {} SET STATISTICS {}").format(sql.Identifier(name), sql.Literal(target))
        for name, target in targets.items()
    ]
    return sql.SQL("ALTER TABLE {} {}").format(table.relation.identifier, sql.SQL(", ").join(changes))


def _set(table: Table, values: Mapping[str, str]) -> sql.Composed:
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in values.items()]
    return sql.SQL("ALTER TABLE {} SET ({})").format(table.relation.identifier, sql.SQL(", ").join(pairs))


def _reset(table: Table, names: tuple[str, ...]) -> sql.Composed:
    listed = sql.SQL(", ").join(map(sql.Identifier, names))
    return sql.SQL("ALTER TABLE {} RESET ({})").format(table.relation.identifier, listed)


def _undo(table: Table, before: Mapping[str, str | None]) -> sql.Composed:
    """What was set is set again, the others are reset."""
    was = {name: value for name, value in before.items() if value is not None}
    if not was:
        return _reset(table, tuple(before))
    if len(was) == len(before):
        return _set(table, was)
    unset = sql.SQL(", ").join(sql.Identifier(name) for name in before if name not in was)
    return _set(table, was) + sql.SQL(", RESET ({})").format(unset)
