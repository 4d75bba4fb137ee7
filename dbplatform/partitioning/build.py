"""Builds a table that is to become a partition: columns, constraints, owner, grants and settings as the parent has.

Indexes, foreign keys and row triggers are made by ATTACH PARTITION, so that they are known as parts of the parent's.

Row-level security is switched on as the parent has it, without the parent's policies: who reads through the parent is
judged by those alone (manual: "5.9 Row Security Policies"), and who names the partition then sees no row. A copy of a
policy would let rows through that the parent has ceased to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from dbplatform.partitioning.existing import ExistingPartition
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation

_PARENT = """
    select pg_get_userbyid(c.relowner), c.relowner = (select oid from pg_roles where rolname = current_user),
           c.relrowsecurity, c.relforcerowsecurity, t.spcname, am.amname
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_tablespace t on t.oid = c.reltablespace
    left join pg_am am on am.oid = c.relam
    where n.nspname = %s and c.relname = %s
"""

# Grantee 0 is PUBLIC; the owner holds its rights by owning.
_GRANTS = """
    select null, case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end, g.privilege_type, g.is_grantable
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) g
    where n.nspname = %(schema)s and c.relname = %(name)s and g.grantee <> c.relowner
    union all
    select a.attname, case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end,
           g.privilege_type, g.is_grantable
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and not a.attisdropped, aclexplode(a.attacl) g
    where n.nspname = %(schema)s and c.relname = %(name)s and g.grantee <> c.relowner
    order by 1 nulls first, 2 nulls first, 3
"""

_COLUMNS = """
    -- Not the version that newer minor releases keep among the options.
    select a.attname, nullif(a.attstattarget, -1),
           (select array_agg(o) from unnest(a.attoptions) o where o not like 'pg\\_attver=%%')
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
    where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""
_OPTIONS = """
    select c.reloptions from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s
"""


def newest_of(existing: Sequence[ExistingPartition]) -> Relation | None:
    """The partition with the highest range."""
    return existing[-1].relation if existing else None


def build_aside(
    connection: AutocommitConnection, parent: Relation, child: Relation, *, newest: Relation | None
) -> None:
    """A table like the parent, in the open transaction, not attached yet.

    What ATTACH makes itself is left to it. Storage options are those of ``newest``. Takes ACCESS SHARE on the parent.
    """
    row = connection.execute(_PARENT, (parent.schema, parent.name)).fetchone()
    assert row is not None
    owner, is_own, row_security, force_row_security, tablespace, access_method = row
    # ATTACH makes the indexes, foreign keys and row triggers that the parent has; identity stays with the parent.
    statement = sql.SQL(
        "create table {child} (like {parent} including all excluding indexes excluding identity){method}{tablespace}"
    ).format(
        child=child.identifier,
        parent=parent.identifier,
        method=_clause("using", access_method),
        tablespace=_clause("tablespace", tablespace),
    )
    connection.execute(statement)
    if not is_own:
        alter(connection, child, sql.SQL("owner to {}").format(sql.Identifier(owner)))
    if row_security:
        alter(connection, child, sql.SQL("enable row level security"))
    if force_row_security:
        alter(connection, child, sql.SQL("force row level security"))
    _copy_grants(connection, parent, child)
    _copy_settings(connection, parent, child, newest)


def _clause(word: str, name: str | None) -> sql.Composable:
    return sql.SQL(" {} {}").format(sql.SQL(word), sql.Identifier(name)) if name else sql.SQL("")


def alter(connection: AutocommitConnection, table: Relation, action: sql.Composable) -> None:
    """``ALTER TABLE`` by one action."""
    connection.execute(sql.SQL("alter table {} {}").format(table.identifier, action))


def _copy_settings(
    connection: AutocommitConnection, parent: Relation, child: Relation, newest: Relation | None
) -> None:
    """Statistics targets of the columns as the parent has them, storage options as the newest partition has them.

    A partitioned table has no storage options of its own.
    """
    for column, target, options in connection.execute(_COLUMNS, (parent.schema, parent.name)).fetchall():
        if target is not None:
            action = sql.SQL("alter column {} set statistics {}").format(sql.Identifier(column), sql.Literal(target))
            alter(connection, child, action)
        if options:
            alter(
                connection, child, sql.SQL("alter column {} set ({})").format(sql.Identifier(column), _options(options))
            )
    if newest is not None:
        row = connection.execute(_OPTIONS, (newest.schema, newest.name)).fetchone()
        if row is not None and row[0]:
            alter(connection, child, sql.SQL("set ({})").format(_options(row[0])))


def _options(options: list[str]) -> sql.Composable:
    pairs = (option.split("=", 1) for option in options)
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.SQL(".").join(map(sql.Identifier, name.split("."))), sql.Literal(value))
        for name, value in pairs
    )


def _copy_grants(connection: AutocommitConnection, parent: Relation, child: Relation) -> None:
    """Give the child the grants of its parent, and none that default privileges gave to it."""
    for role in sorted({grant[1] for grant in _grants(connection, child)}, key=str):
        connection.execute(sql.SQL("revoke all on {} from {}").format(child.identifier, _role(role)))
    for column, role, privilege, grantable in _grants(connection, parent):
        what: sql.Composable = sql.SQL(privilege)
        if column is not None:
            what = sql.SQL("{} ({})").format(what, sql.Identifier(column))
        statement = sql.SQL("grant {} on {} to {}{}").format(
            what, child.identifier, _role(role), sql.SQL(" with grant option" if grantable else "")
        )
        connection.execute(statement)


def _grants(connection: AutocommitConnection, relation: Relation) -> list[tuple[Any, ...]]:
    return connection.execute(_GRANTS, {"schema": relation.schema, "name": relation.name}).fetchall()


def _role(name: str | None) -> sql.Composable:
    return sql.SQL("public") if name is None else sql.Identifier(name)
