"""Foreign keys whose columns have no index: each delete of a parent's row reads the whole table that refers to it.

Source: PostgreSQL manual, "Constraints" ("it is often a good idea to index the referencing columns too").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import sql

from dbplatform.advice.actions import Action
from dbplatform.advice.candidates import index_cost
from dbplatform.advice.catalog import Catalog, ForeignKey, Table, index_name
from dbplatform.advice.indexes import serves
from dbplatform.advice.model import Advice, Named
from dbplatform.advice.words import CONCURRENTLY, manual
from dbplatform.postgres.connection import AutocommitConnection

#: A smaller table is read at once.
LEAST_ROWS = 10_000
#: Where parents are deleted, or their keys changed, a smaller one counts, too.
LEAST_ROWS_WHERE_DELETED = 1_000


def foreign_key_indexes(
    connection: AutocommitConnection, catalog: Catalog, planned: Mapping[int, Sequence[tuple[str, ...]]]
) -> list[Advice]:
    """An index for each foreign key that has none, unless a missing index that is advised (``planned``: the columns by
    table) serves it."""
    found: list[Advice] = []
    for key in catalog.foreign_keys:
        table, parent = catalog.tables.get(key.table_oid), catalog.tables.get(key.parent_oid)
        if table is None or table.partitioned or table.partition:
            continue
        changes = parent.deleted if parent is not None else 0.0
        if table.rows < (LEAST_ROWS_WHERE_DELETED if changes else LEAST_ROWS):
            continue
        if any(serves(index, key.keys) for index in catalog.indexes_of(key.table_oid)):
            continue
        if any(set(columns[: len(key.columns)]) == set(key.columns) for columns in planned.get(key.table_oid, ())):
            continue
        found.append(_advice(connection, catalog, key, table, changes))
    return found


def _advice(
    connection: AutocommitConnection, catalog: Catalog, key: ForeignKey, table: Table, changes: float
) -> Advice:
    columns = tuple(key.columns)
    action = Action(
        verb="create_index",
        schema=table.schema,
        table=table.name,
        name=index_name(connection, table.relation, columns),
        columns=columns,
    )
    cost, evidence = index_cost(connection, catalog, table, columns)
    return Advice(
        database=catalog.database,
        kind="foreign_key_index",
        subject=f"{table.relation}({', '.join(columns)})",
        severity="warning" if changes else "info",
        reason=f"{key.name} refers to {key.parent}, and {', '.join(columns)} has no index: whoever deletes a row there "
        f"reads all {table.rows:,.0f} rows of {table.relation}"
        + (f", as has happened for {changes:,.0f} rows." if changes else "."),
        evidence={"rows": table.rows, "deleted rows of the parent": changes, **evidence},
        lock=CONCURRENTLY,
        cost=cost,
        confidence="certain",
        document=manual("ddl-constraints.html#DDL-CONSTRAINTS-FK"),
        action=action,
        undo=Action(verb="drop_index", schema=table.schema, name=action.name),
        statements=(Named(queryid="foreign key", query=_asked(table, columns)),),
        table=(table.schema, table.name),
    )


def _asked(table: Table, columns: tuple[str, ...]) -> str:
    """What the server asks for each row of the parent that goes."""
    conditions = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.SQL("${}").format(sql.Literal(number)))
        for number, column in enumerate(columns, start=1)
    )
    return sql.SQL("SELECT 1 FROM {} WHERE {}").format(table.relation.identifier, conditions).as_string()
