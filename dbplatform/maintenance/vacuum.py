"""VACUUM where rows are dead, near the age at which they must be frozen, or only ever inserted.

It never cuts off the empty end of a table (TRUNCATE off): that takes ACCESS EXCLUSIVE, which a replica holds for as
long as it replays. What autovacuum would cut off it still does. It never waits for a lock (SKIP_LOCKED).
Source: PostgreSQL manual, "Routine Vacuuming", "VACUUM".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from dbplatform.maintenance.catalog import Catalog, Table
from dbplatform.maintenance.model import Item, NotPossible
from dbplatform.maintenance.policy import DuePolicy
from dbplatform.postgres.connection import AutocommitConnection

LEAST_DEAD = 1_000
#: Pages whose rows are not known to be visible to everybody cost a look at the table in each index-only scan.
_NOT_VISIBLE = 0.2
LOCK = "SHARE UPDATE EXCLUSIVE on the table: reads and writes go on"

_HOLDERS = """
    select what, age from (
        select format('backend %s (%s), whose transaction is open since %s', pid, coalesce(nullif(application_name, ''),
                      usename), date_trunc('second', xact_start)) as what,
               greatest(age(backend_xmin), age(backend_xid)) as age
        from pg_stat_activity where (backend_xmin is not null or backend_xid is not null) and pid <> pg_backend_pid()
          and datid = (select oid from pg_database where datname = current_database())
        union all
        select format('the replication slot %s', slot_name), greatest(age(xmin), age(catalog_xmin))
        from pg_replication_slots where xmin is not null or catalog_xmin is not null
        union all
        select format('the prepared transaction %s', gid), age(transaction) from pg_prepared_xacts
        where database = current_database()
    ) h where age is not null order by age desc limit 1
"""


def vacuum_items(catalog: Catalog, due: DuePolicy) -> Iterator[Item | NotPossible]:
    """The tables that want VACUUM, each with the reason that presses most. Pure."""
    for table in catalog.tables.values():
        if table.kind == "p":
            continue
        found = _why(table, due)
        if found is None:
            continue
        priority, freeze, reason = found
        if not table.may_vacuum:
            if not (table.system or table.shared):
                yield NotPossible(
                    kind="vacuum",
                    subject=str(table.relation),
                    reason="the user may not vacuum it",
                    hint="Connect as its owner, or from PostgreSQL 17 on GRANT MAINTAIN.",
                )
            continue
        statement = sql.SQL("VACUUM ({}SKIP_LOCKED, TRUNCATE off, PARALLEL 0) {}").format(
            sql.SQL("FREEZE, ") if freeze else sql.SQL(""), table.relation.identifier
        )
        yield Item(
            kind="vacuum",
            verb="vacuum",
            subject=table.relation,
            table=table.relation,
            table_oid=table.oid,
            subject_oid=table.oid,
            priority=priority,
            reason=reason,
            evidence=vacuum_facts(table),
            statements=(statement.as_string(),),
            lock=LOCK,
            bytes=table.bytes + sum(one.bytes for one in catalog.indexes.values() if one.table_oid == table.oid),
        )


def vacuum_facts(table: Table) -> dict[str, Any]:
    """What is read before and after."""
    return {
        "rows": round(table.live),
        "dead_rows": round(table.dead),
        "xid_age": round(table.xid_age or 0),
        "multixact_age": round(table.multixact_age or 0),
        "not_visible": round(table.not_visible, 3),
        "bytes": table.bytes,
    }


def held_back(connection: AutocommitConnection) -> str | None:
    """Who keeps the oldest dead rows of this database from being removed; none: nobody, or not to be seen."""
    row = connection.execute(_HOLDERS).fetchone()
    return None if row is None else f"{row[0]}, {row[1]:,} transactions old"


def _why(table: Table, due: DuePolicy) -> tuple[int, bool, str] | None:
    """Priority, whether to freeze, and the reason."""
    if table.freeze_share >= due.freeze:
        by_xid = (table.xid_age or 0) / table.freeze_max >= (table.multixact_age or 0) / table.multixact_max
        age, most = (table.xid_age, table.freeze_max) if by_xid else (table.multixact_age, table.multixact_max)
        what = "transactions" if by_xid else "multixacts"
        reason = f"Its oldest row is {age or 0:,.0f} {what} old; at {most:,.0f} a vacuum comes that cannot be put off."
        return min(100, round(60 + 40 * table.freeze_share)), True, reason
    if table.dead > LEAST_DEAD and table.dead_share >= due.dead_rows:
        reason = f"{table.dead:,.0f} of its {table.dead + table.live:,.0f} rows ({table.dead_share:.0%}) are dead."
        return round(40 + 40 * table.dead_share), False, reason
    if table.inserted > table.insert_limit and table.not_visible >= _NOT_VISIBLE:
        reason = (
            f"{table.inserted:,.0f} rows were inserted since it was vacuumed; {table.not_visible:.0%} of its pages are "
            "not known to be visible to all, and every row is still to be frozen."
        )
        return 35, False, reason
    return None
