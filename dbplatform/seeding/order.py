"""In which order tables are loaded: those that are referred to first, those that refer to each other together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation

_FOREIGN_KEYS = """
    select k.conname, k.condeferrable, n.nspname, c.relname, rn.nspname, r.relname
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_class r on r.oid = k.confrelid join pg_namespace rn on rn.oid = r.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and k.conrelid <> k.confrelid
    order by n.nspname, c.relname, k.conname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A constraint between two different tables."""

    name: str
    deferrable: bool
    table: Relation
    parent: Relation


def foreign_keys(connection: AnyConnection, tables: Sequence[Relation]) -> list[ForeignKey]:
    """The foreign keys among some tables."""
    among = set(tables)
    found = [
        ForeignKey(name=name, deferrable=deferrable, table=Relation(schema, table), parent=Relation(other, parent))
        for name, deferrable, schema, table, other, parent in connection.execute(_FOREIGN_KEYS).fetchall()
    ]
    return [key for key in found if key.table in among and key.parent in among]


def steps(groups: Sequence[Sequence[Relation]], keys: Sequence[ForeignKey]) -> list[list[Relation]]:
    """The groups in such an order that parents come before children; those of a circle become one.

    Tarjan, "Depth-first search and linear graph algorithms", 1972: components come out children last. What no key
    decides stays in the order given.
    """
    home = {table: i for i, group in enumerate(groups) for table in group}
    parents: dict[int, set[int]] = {i: set() for i in range(len(groups))}
    for key in keys:
        parents[home[key.table]].add(home[key.parent])
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    open_: list[int] = []
    found: list[list[Relation]] = []

    def visit(node: int) -> None:
        index[node] = low[node] = len(index)
        open_.append(node)
        for parent in sorted(parents[node]):
            if parent not in index:
                visit(parent)
                low[node] = min(low[node], low[parent])
            elif parent in open_:
                low[node] = min(low[node], index[parent])
        if low[node] == index[node]:
            circle = open_[open_.index(node) :]
            del open_[open_.index(node) :]
            found.append([table for member in sorted(circle) for table in groups[member]])

    for node in parents:
        if node not in index:
            visit(node)
    return found


@contextmanager
def deferred(connection: AutocommitConnection, keys: Sequence[ForeignKey]) -> Iterator[None]:
    """Check foreign keys at the end of the block, inside an open transaction, so that tables may refer to each other.

    A constraint that is not deferrable is made so and back in the same transaction: that wants the owner of the table,
    and locks both tables as ALTER TABLE ... ALTER CONSTRAINT does.
    """
    fixed = [key for key in keys if not key.deferrable]
    alter = sql.SQL("alter table {} alter constraint {} {}")
    for key in fixed:
        connection.execute(alter.format(key.table.identifier, sql.Identifier(key.name), sql.SQL("deferrable")))
    if keys:
        connection.execute("set constraints all deferred")
    yield
    if keys:
        connection.execute("set constraints all immediate")
    for key in fixed:
        connection.execute(alter.format(key.table.identifier, sql.Identifier(key.name), sql.SQL("not deferrable")))
