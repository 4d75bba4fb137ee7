"""The foreign keys that refer to a table: a row that another one refers to stays where it is."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.quarantine.place import CannotQuarantine

# A constraint of a partitioned child is listed once, not for each of its partitions.
_REFERENCES = """
    select c.conname::text, n.nspname::text, r.relname::text,
           array(select a.attname::text from unnest(c.conkey) with ordinality k (attnum, i)
                 join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum order by k.i),
           array(select a.attname::text from unnest(c.confkey) with ordinality k (attnum, i)
                 join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum order by k.i),
           row_security_active(c.conrelid)
    from pg_constraint c
    join pg_class r on r.oid = c.conrelid
    join pg_namespace n on n.oid = r.relnamespace
    where c.contype = 'f'
      and c.confrelid in (select relid from pg_partition_tree(%(table)s::regclass)
                          union select relid from pg_partition_ancestors(%(table)s::regclass)
                          union select %(table)s::regclass)
      and not exists (select from pg_constraint p where p.oid = c.conparentid and p.confrelid = c.confrelid)
      and not exists (select from pg_constraint p where p.oid = c.conparentid and p.conrelid = c.conrelid)
    order by n.nspname, r.relname, c.conname
"""
_REFERRING = sql.Identifier("dbplatform referring")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A foreign key that refers to the table."""

    constraint: str
    child: Relation
    columns: tuple[tuple[str, str], ...]
    """Pairs: the column of the child, the column that it refers to."""

    @property
    def words(self) -> str:
        return f"{self.constraint} of {self.child.words}"

    def refers_to(self, alias: sql.Identifier, name: str) -> sql.Composable:
        """Whether another row refers to the row ``alias``, whose table is called ``name``: a boolean expression."""
        same = [
            sql.SQL("{}.{} = {}").format(_REFERRING, sql.Identifier(own), sql.Identifier(name, its))
            for own, its in self.columns
        ]
        return sql.SQL(
            "exists (select from {child} as {referring} where {same} "
            "and ({referring}.tableoid, {referring}.ctid) is distinct from ({alias}.tableoid, {alias}.ctid))"
        ).format(child=self.child.identifier, referring=_REFERRING, same=sql.SQL(" and ").join(same), alias=alias)


def references_to(connection: AnyConnection, table: Relation) -> tuple[Reference, ...]:
    """The foreign keys that refer to a table, a partition of it, or a table that it is a partition of.

    Raises ``CannotQuarantine`` where row-level security may hide rows that refer to it: ON DELETE CASCADE is not
    held up by it (manual: "5.9. Row Security Policies").
    """
    found = []
    for name, schema, child, own, its, hides in connection.execute(_REFERENCES, {"table": str(table)}).fetchall():
        reference = Reference(constraint=name, child=Relation(schema, child), columns=tuple(zip(own, its, strict=True)))
        if hides:
            raise CannotQuarantine(
                table=table.words,
                reason=f"row-level security of {reference.child.words} may hide rows that refer to them",
                hint=f"Give the user of the URL BYPASSRLS, or drop the foreign key {name}.",
            )
        found.append(reference)
    return tuple(found)
