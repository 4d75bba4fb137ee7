"""What the constraints of a table already say, as checks: which hold by proof, and which wait to be validated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation

_KEYS = """
    select i.indexrelid::regclass::text, i.indisprimary,
           array(select a.attname::text from unnest(i.indkey) with ordinality as k(attnum, place)
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                 where k.place <= i.indnkeyatts order by k.place)
    from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s and i.indisunique and i.indisvalid and i.indpred is null
      and i.indexprs is null
    order by i.indisprimary desc, i.indexrelid
"""
_FOREIGN_KEYS = """
    select k.conname::text, a.attname::text, tn.nspname::text, t.relname::text, b.attname::text, k.convalidated
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_class t on t.oid = k.confrelid join pg_namespace tn on tn.oid = t.relnamespace
    join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
    join pg_attribute b on b.attrelid = k.confrelid and b.attnum = k.confkey[1]
    where n.nspname = %s and c.relname = %s and k.contype = 'f' and cardinality(k.conkey) = 1
    order by k.conname
"""
_CHECKS = """
    select k.conname::text, a.attname::text, pg_get_constraintdef(k.oid), k.convalidated
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
    where n.nspname = %s and c.relname = %s and k.contype = 'c' and cardinality(k.conkey) = 1
    order by k.conname
"""
_REFERABLE = """
    select n.nspname::text, c.relname::text, a.attname::text, t.typname::text
    from pg_index i
    join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    join pg_type t on t.oid = a.atttypid
    where i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null and i.indnkeyatts = 1
      and c.relkind in ('r', 'p') and not c.relispartition
      and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbplatform')
      and has_table_privilege(c.oid, 'select')
    order by n.nspname, c.relname, i.indisprimary desc
"""
_LIST = re.compile(r"= ANY \(\(?ARRAY\[(.*?)\]", re.DOTALL)
_LITERAL = re.compile(r"'((?:[^']|'')*)'::")
_BOUND = re.compile(r"(>=|<=) \(?'?(-?\d+(?:\.\d+)?)'?\)?(?![\d.])")


@dataclass(frozen=True, slots=True)
class Reference:
    """A column of another table that can be referred to, because no value of it repeats."""

    relation: Relation
    column: str
    type: str


@dataclass(frozen=True, slots=True)
class Stated:
    """A CHECK constraint of one column that a check can say, too: accepted values, or bounds."""

    name: str
    column: str
    validated: bool
    values: tuple[str, ...] = ()
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Those of one table, but NOT NULL, which the columns tell."""

    keys: tuple[tuple[str, bool, tuple[str, ...]], ...]
    """Unique indexes: name, whether it is the primary key, columns."""
    foreign_keys: tuple[tuple[str, str, Relation, str, bool], ...]
    """Name, column, table and column referred to, whether it is validated."""
    stated: tuple[Stated, ...]


def constraints(connection: SnapshotConnection, relation: Relation) -> Constraints:
    """Read the catalog."""
    names = (relation.schema, relation.name)
    return Constraints(
        keys=tuple((name, primary, tuple(key)) for name, primary, key in connection.execute(_KEYS, names)),
        foreign_keys=tuple(
            (name, column, Relation(schema, table), key, validated)
            for name, column, schema, table, key, validated in connection.execute(_FOREIGN_KEYS, names)
        ),
        stated=tuple(found for row in connection.execute(_CHECKS, names) if (found := stated(*row)) is not None),
    )


def referable(connection: SnapshotConnection) -> list[Reference]:
    """The columns of the database that others may refer to."""
    return [
        Reference(Relation(schema, table), key, type_) for schema, table, key, type_ in connection.execute(_REFERABLE)
    ]


def stated(name: str, column: str, definition: str, validated: bool) -> Stated | None:
    """A definition as PostgreSQL writes it; none where it is neither a list of texts nor bounds of a number.

    Anything beside them (``OR``, functions, a second list) leaves it untaken: half a constraint would be another one.
    """
    if " OR " in definition or definition.count("ARRAY[") > 1:
        return None
    found = _LIST.search(definition)
    if found and " AND " not in definition:
        values = tuple(value.replace("''", "'") for value in _LITERAL.findall(found[1]))
        return Stated(name, column, validated, values=values) if values else None
    parts = re.split(r" AND ", definition)
    low = high = None
    for part in parts:
        bounds = _BOUND.findall(part)
        if len(bounds) != 1 or re.search(r"\w\(", part.replace("CHECK (", "")):
            return None
        operator, number = bounds[0]
        low, high = (number, high) if operator == ">=" else (low, number)
    return Stated(name, column, validated, low=low, high=high)
