"""What the catalog proves of a table, so that it need not be read.

The catalog is read by plain queries in the snapshot of the checks, never by functions that look at its newest state:
what it says then holds for exactly the rows that the checks would see. These are committed, so that a deferrable
foreign key, checked at the latest when its transaction commits, proves as much as any other.

- A column is **not null** where it says so (``attnotnull``, and no NOT NULL constraint waits to be validated) in the
  table and in all that inherit from it, none of which is foreign. Not for a composite type: its value may be there
  and ``is null``.
- A key is **unique** by a unique index that is valid, ready and live, of the whole table (no predicate, no
  expressions), over some or all of the key's columns. Rows with a null in the key are not compared, so that it does
  not matter what the index makes of nulls; a subset of unique rows (``where``, row-level security) is unique. Each
  column is indexed by the default operators of its type and by its own collation, whose library has not changed
  since. A deferrable one is left to be read: it is checked by a trigger, and that may have been disabled while rows
  came in. A table that others inherit from is not proven: an index knows the rows of one. A partitioned table is: its
  index is valid when there is one on each partition, and it holds the partition key.
- A **relationship** holds by a foreign key of that one column to that one column, validated and enforced, whose
  triggers are enabled, on tables that no subscription writes to (its worker fires no such triggers) and where no
  row-level security hides the referenced rows. Here, too, a table that others inherit from is not proven.

Beyond any catalog is what a superuser did with ``session_replication_role`` or disabled triggers, and a damaged
index. A check with ``where: "true"`` is not proven by anything: it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation, quoted
from dbplatform.quality.checks.base import Check
from dbplatform.quality.checks.keys import Relationship, Unique
from dbplatform.quality.checks.measures import NullRatio
from dbplatform.quality.checks.rows import NotNull

_TABLE = """
    with recursive family(oid) as (
        select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %(schema)s and c.relname = %(name)s
        union select i.inhrelid from pg_inherits i join family on family.oid = i.inhparent
    )
    select root.oid, root.relkind = 'p' or not root.relhassubclass, every.members, every.ordinary
    from pg_class root
    join pg_namespace n on n.oid = root.relnamespace
    cross join (
        select array_agg(c.oid) as members, bool_and(c.relkind in ('r', 'p')) as ordinary
        from family join pg_class c using (oid)
    ) as every
    where n.nspname = %(schema)s and root.relname = %(name)s
"""

_NOT_NULL = """
    select a.attname::text
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    left join pg_type base on base.oid = t.typbasetype
    where a.attrelid = any(%(members)s) and a.attnum > 0 and not a.attisdropped
      and t.typtype in ('b', 'e', 'r', 'm', 'd') and coalesce(base.typtype in ('b', 'e', 'r', 'm'), true)
    group by a.attname
    having count(*) = cardinality(%(members)s) and bool_and(
        a.attnotnull and not exists (
            select from pg_constraint k
            where k.conrelid = a.attrelid and k.contype = 'n' and not k.convalidated and a.attnum = any(k.conkey)
        )
    )
"""

_UNIQUE = sql.SQL("""
    select c.relname::text, array_agg(a.attname::text order by k.place)
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    cross join unnest(i.indkey, i.indclass, i.indcollation) with ordinality as k(attnum, opclass, collation_, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    join pg_opclass o on o.oid = k.opclass
    join pg_am m on m.oid = o.opcmethod
    left join pg_collation l on l.oid = k.collation_
    cross join (select d.* from pg_database d where d.datname = current_database()) as d
    where i.indrelid = %(oid)s and i.indisunique and i.indisvalid and i.indisready and i.indislive
      and i.indimmediate and i.indpred is null and i.indexprs is null and k.place <= i.indnkeyatts
    group by c.relname, i.indexrelid
    having bool_and(
        o.opcdefault and m.amname = 'btree' and k.collation_ = a.attcollation
        and (
            k.collation_ = 0
            or l.collprovider <> 'd' and l.collversion is not distinct from pg_collation_actual_version(l.oid)
            or l.collprovider = 'd' and {same_library}
        )
    )
    order by count(*), c.relname
""")
_SAME_LIBRARY = sql.SQL("d.datcollversion is not distinct from pg_database_collation_actual_version(d.oid)")
_SAME_LIBRARY_BEFORE_15 = sql.SQL("d.datcollate in ('C', 'POSIX')")

_FOREIGN_KEYS = sql.SQL("""
    select k.conname::text, a.attname::text, n.nspname::text, p.relname::text, b.attname::text
    from pg_constraint k
    join pg_class p on p.oid = k.confrelid
    join pg_namespace n on n.oid = p.relnamespace
    join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
    join pg_attribute b on b.attrelid = k.confrelid and b.attnum = k.confkey[1]
    where k.conrelid = %(oid)s and k.contype = 'f' and k.convalidated and {enforced}
      and cardinality(k.conkey) = 1 and not row_security_active(p.oid)
      and not exists (
          select from pg_trigger t
          where t.tgrelid = any(%(members)s || k.confrelid) and t.tgconstraint <> 0 and t.tgenabled not in ('O', 'A')
      )
      and not exists (
          select from pg_subscription_rel s where s.srrelid = any(%(members)s || k.confrelid)
      )
    order by k.conname
""")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the catalog says of one table."""

    not_null: frozenset[str]
    unique: tuple[tuple[str, frozenset[str]], ...]
    references: tuple[tuple[str, str, Relation, str], ...]


def proofs(connection: SnapshotConnection, relation: Relation, checks: Iterable[Check]) -> dict[str, str]:
    """The checks, by name, that no row can fail, each with what proves it (``the unique index flights_pkey``).

    Reads the catalog. Whether a check can be planned at all is another question, and comes first.
    """
    provable = [
        check
        for check in checks
        if isinstance(check, NotNull | NullRatio | Unique | Relationship)
        and (check.where is None or check.where.strip().lower() != "true")
    ]
    if not provable:
        return {}
    facts = _facts(connection, relation)
    if facts is None:
        return {}
    found = ((check.name, _proof(check, facts)) for check in provable)
    return {name: proof for name, proof in found if proof is not None}


def _proof(check: Check, facts: _Facts) -> str | None:
    if isinstance(check, NotNull | NullRatio):
        return f"NOT NULL of {quoted(check.column)}" if check.column in facts.not_null else None
    if isinstance(check, Unique):
        keys = (name for name, columns in facts.unique if columns <= set(check.columns))
        name = next(keys, None)
        return None if name is None else f"the unique index {quoted(name)}"
    assert isinstance(check, Relationship)
    for name, column, to, to_column in facts.references:
        if (column, to, to_column) == (check.column, check.to.relation, check.to.column):
            return f"the foreign key {quoted(name)}"
    return None


def _facts(connection: SnapshotConnection, relation: Relation) -> _Facts | None:
    table = connection.execute(_TABLE, {"schema": relation.schema, "name": relation.name}).fetchone()
    if table is None:
        return None
    oid, one_index_knows_all, members, ordinary = table
    values = {"oid": oid, "members": members}
    version = connection.info.server_version
    rows = connection.execute(_NOT_NULL, values).fetchall() if ordinary else []
    unique, references = [], []
    if one_index_knows_all:
        library = _SAME_LIBRARY if version >= 150000 else _SAME_LIBRARY_BEFORE_15
        unique = connection.execute(_UNIQUE.format(same_library=library), values).fetchall()
        enforced = sql.SQL("k.conenforced" if version >= 180000 else "true")
        references = connection.execute(_FOREIGN_KEYS.format(enforced=enforced), values).fetchall()
    return _Facts(
        not_null=frozenset(row[0] for row in rows),
        unique=tuple((name, frozenset(columns)) for name, columns in unique),
        references=tuple((name, column, Relation(schema, to), key) for name, column, schema, to, key in references),
    )
