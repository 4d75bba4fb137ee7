"""Which rows of other tables leave along with those of an archive: the rows that refer to them, and so on downwards.

Every table is reached by one foreign key. Where two keys lead from one table to another, or a table would be met a
second time (by another way, by a circle, or the table itself), the key is not followed: rows that refer by it to those
that leave are refused, as all are where ``children`` is not declared. In statements the row of the archive's own table
is called ``t``, that of the child number i ``t1``, ``t2`` and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from dbplatform.archiving.proof import ProvenSnapshot, covered
from dbplatform.archiving.shape import Reference, TableShape, read_shape
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A table whose rows leave; ``parent`` is the place in the tree of the table that ``reference`` refers to."""

    place: int
    shape: TableShape
    parent: int | None = None
    reference: Reference | None = None

    @property
    def table(self) -> Relation:
        return self.shape.table

    @property
    def alias(self) -> str:
        """What its row is called in statements."""
        return "t" if self.parent is None else f"t{self.place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The archive's own table, and those whose rows leave along, parents before their children."""

    nodes: tuple[Node, ...]

    @property
    def root(self) -> Node:
        return self.nodes[0]

    @property
    def children(self) -> tuple[Node, ...]:
        """All but the root."""
        return self.nodes[1:]

    def children_of(self, node: Node) -> list[Node]:
        return [child for child in self.nodes if child.parent == node.place]

    def outside(self, node: Node) -> list[Reference]:
        """The foreign keys to the node's table whose rows do not leave along."""
        along = [(child.table, set(child.reference.columns)) for child in self.children_of(node) if child.reference]
        return [one for one in node.shape.references if (one.child, set(one.columns)) not in along]

    def complete(self, node: Node, proof: ProvenSnapshot) -> sql.Composed:
        """Whether the proven backup holds the node's row and all that would leave along: a boolean expression."""
        parts = [covered(proof, node.alias, node.table)]
        for child in self.children_of(node):
            assert child.reference is not None
            parts.append(
                sql.SQL("not exists (select from {} as {} where {} and not {})").format(
                    child.table.identifier,
                    sql.Identifier(child.alias),
                    child.reference.joins(child.alias, node.alias),
                    self.complete(child, proof),
                )
            )
        return sql.SQL("({})").format(sql.SQL(" and ").join(parts))

    def leaves(self, node: Node, chosen: sql.Composable) -> sql.Composed:
        """Whether the node's row leaves where ``chosen`` says it of the row ``t``: a boolean expression."""
        if node.parent is None or node.reference is None:
            return sql.Composed([chosen])
        parent = self.nodes[node.parent]
        return sql.SQL("exists (select from {} as {} where {} and {})").format(
            parent.table.identifier,
            sql.Identifier(parent.alias),
            node.reference.joins(node.alias, parent.alias),
            self.leaves(parent, chosen),
        )


def read_tree(connection: AnyConnection, root: TableShape, *, follow: bool) -> Tree:
    """The tree below a table; with ``follow`` false it is the table alone. Raises what ``read_shape`` raises."""
    nodes = [Node(place=0, shape=root)]
    if follow:
        seen = {root.table}
        for node in nodes:  # grows while it is walked
            ways = Counter(reference.child for reference in node.shape.references)
            for reference in node.shape.references:
                if reference.child not in seen and ways[reference.child] == 1:
                    seen.add(reference.child)
                    shape = read_shape(connection, reference.child)
                    nodes.append(Node(place=len(nodes), shape=shape, parent=node.place, reference=reference))
    return Tree(nodes=tuple(nodes))


def any_of(conditions: Sequence[sql.Composable]) -> sql.Composed:
    """Whether one of them holds: a boolean expression, false where there are none."""
    return sql.SQL("({})").format(sql.SQL(" or ").join([sql.SQL("false"), *conditions]))
