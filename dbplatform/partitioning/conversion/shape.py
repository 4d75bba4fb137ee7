"""Everything that hangs on a table, as the catalog knows it. Only reads.

Definitions are kept as PostgreSQL itself writes them, every name with its schema, so that they can be replayed on
whatever table bears the name later: that is how triggers, foreign keys and views move to another table. One module,
because each query stands beside the shape that it fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation

_TABLE = """
    select c.oid::bigint, c.relkind::text, c.relpersistence::text, c.relispartition, c.reloftype <> 0,
           pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity, c.relreplident::text, t.spcname,
           coalesce(am.amname, 'heap'), coalesce(c.reloptions, '{}'), obj_description(c.oid, 'pg_class'),
           a.attname is not null, format_type(a.atttypid, null), coalesce(a.attnotnull, false),
           coalesce(a.attgenerated <> '', false), current_setting('server_version_num')::int / 10000
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_tablespace t on t.oid = c.reltablespace
    left join pg_am am on am.oid = c.relam
    left join pg_attribute a on a.attrelid = c.oid and a.attname = %s and a.attnum > 0 and not a.attisdropped
    where n.nspname = %s and c.relname = %s
"""

# What follows the table's name in an index definition is the same for every table; so is a constraint's text.
_INDEXES = """
    select ic.relname, coalesce(k.contype::text, ''), i.indisunique, i.indisvalid and i.indisready, i.indisreplident,
           coalesce(k.condeferrable, false), t.spcname,
           substr(pg_get_indexdef(i.indexrelid), length(format('CREATE %%sINDEX %%I ON %%s%%I.%%I ',
               case when i.indisunique then 'UNIQUE ' else '' end, ic.relname,
               case when ic.relkind = 'I' then 'ONLY ' else '' end, n.nspname, c.relname)) + 1),
           pg_get_constraintdef(k.oid),
           array(select coalesce(a.attname, '')
                 from unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality as key(num, at)
                 left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = key.num order by key.at)::text[],
           array(select a.attname
                 from unnest(i.indkey[i.indnkeyatts:]) with ordinality as key(num, at)
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = key.num order by key.at)::text[],
           obj_description(ic.oid, 'pg_class'), obj_description(k.oid, 'pg_constraint')
    from pg_index i
    join pg_class ic on ic.oid = i.indexrelid
    join pg_class c on c.oid = i.indrelid
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_tablespace t on t.oid = ic.reltablespace
    left join pg_constraint k on k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')
    where i.indrelid = %s
    order by ic.relname
"""

_CONSTRAINTS = """
    select conname, contype::text, convalidated, connoinherit, pg_get_constraintdef(pg_constraint.oid),
           confrelid::bigint, fn.nspname, fc.relname, obj_description(pg_constraint.oid, 'pg_constraint')
    from pg_constraint
    left join (pg_class fc join pg_namespace fn on fn.oid = fc.relnamespace) on fc.oid = confrelid
    where conrelid = %s and contype in ('c', 'f', 'n', 'x') and conparentid = 0
    order by conname
"""

_INCOMING = """
    select k.conname, n.nspname, c.relname, c.relkind = 'p', k.convalidated, pg_get_constraintdef(k.oid),
           array(select a.attname from unnest(k.confkey) with ordinality as key(num, at)
                 join pg_attribute a on a.attrelid = k.confrelid and a.attnum = key.num order by key.at)::text[],
           obj_description(k.oid, 'pg_constraint')
    from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    where k.confrelid = %s and k.contype = 'f' and k.conparentid = 0
    order by n.nspname, c.relname, k.conname
"""

# tgtype: 1 is FOR EACH ROW. The triggers of a partition that come from its parent have tgparentid.
_TRIGGERS = """
    select tgname, pg_get_triggerdef(oid), tgtype & 1 = 1, tgoldtable is not null or tgnewtable is not null,
           tgenabled::text, obj_description(oid, 'pg_trigger')
    from pg_trigger where tgrelid = %s and not tgisinternal and tgparentid = 0
    order by tgname
"""

_VIEWS = """
    select distinct n.nspname, v.relname, pg_get_userbyid(v.relowner), pg_get_viewdef(v.oid),
           coalesce(v.reloptions, '{}')
    from pg_depend d
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    join pg_class v on v.oid = r.ev_class and v.relkind = 'v'
    join pg_namespace n on n.oid = v.relnamespace
    where d.refclassid = 'pg_class'::regclass and d.refobjid = %s
    order by 1, 2
"""

_POLICIES = """
    select polname, polpermissive, polcmd::text,
           array(select case role when 0 then null else pg_get_userbyid(role) end from unnest(polroles) role)::text[],
           pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
    from pg_policy where polrelid = %s order by polname
"""

_SEQUENCES = """
    select a.attname, a.attidentity::text, n.nspname, s.relname, format_type(q.seqtypid, null), q.seqstart,
           q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle, s.oid::bigint
    from pg_depend d
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    join pg_namespace n on n.oid = s.relnamespace
    join pg_sequence q on q.seqrelid = s.oid
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = %s
      and d.deptype in ('a', 'i')
    order by a.attnum
"""

_COLUMNS = """
    select attname, attgenerated <> '', case when attstattarget >= 0 then attstattarget end,
           array(select o from unnest(attoptions) o where o not like 'pg\\_attver=%%')
    from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""

_GRANTS = """
    select null, case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end, g.privilege_type, g.is_grantable
    from pg_class c, aclexplode(c.relacl) g
    where c.oid = %(oid)s and g.grantee <> c.relowner
    union all
    select a.attname, case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end, g.privilege_type,
           g.is_grantable
    from pg_class c join pg_attribute a on a.attrelid = c.oid and not a.attisdropped, aclexplode(a.attacl) g
    where c.oid = %(oid)s and g.grantee <> c.relowner
    order by 1 nulls first, 2 nulls first, 3
"""

# Whom a table or sequence that this session makes would be granted to, unasked.
_DEFAULT_GRANTEES = """
    select distinct case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end
    from pg_default_acl d, aclexplode(d.defaclacl) g
    where d.defaclrole = (select oid from pg_roles where rolname = current_user) and d.defaclobjtype in ('r', 'S')
      and d.defaclnamespace in (0, (select relnamespace from pg_class where oid = %s)) and g.grantee <> d.defaclrole
    order by 1 nulls first
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index; ``kind`` is p or u where a constraint stands behind it, ``tail`` what follows ON table."""

    name: str
    kind: str
    unique: bool
    valid: bool
    replica_identity: bool
    deferrable: bool
    tablespace: str | None
    tail: str
    constraint: str | None
    columns: tuple[str, ...]
    included: tuple[str, ...]
    comment: str | None
    constraint_comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A CHECK (c), foreign key (f), NOT NULL (n) or exclusion (x) of the table."""

    name: str
    kind: str
    validated: bool
    no_inherit: bool
    definition: str
    references_oid: int
    references: Relation | None
    comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A foreign key of another table that refers to this one, by ``columns`` of this one."""

    name: str
    table: Relation
    from_partitioned: bool
    validated: bool
    definition: str
    columns: tuple[str, ...]
    comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger that a person made."""

    name: str
    definition: str
    per_row: bool
    transition_tables: bool
    enabled: str
    comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view that reads the table."""

    relation: Relation
    owner: str
    definition: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPolicy:
    """A policy of row-level security; a role of None is PUBLIC."""

    name: str
    permissive: bool
    command: str
    roles: tuple[str | None, ...]
    using: str | None
    check: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A sequence that a column owns; ``identity`` is a (always), d (by default) or empty for a serial column."""

    column: str
    identity: str
    relation: Relation
    type: str
    start: int
    increment: int
    least: int
    most: int
    cache: int
    cycle: bool
    oid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column with what LIKE does not copy."""

    name: str
    generated: bool
    statistics: int | None
    options: tuple[str, ...]


Grant = tuple[str | None, str | None, str, bool]
"""Column or None, role (None is PUBLIC), privilege, with grant option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One table with everything that hangs on it."""

    table: Relation
    oid: int
    kind: str
    persistence: str
    is_partition: bool
    is_typed: bool
    owner: str
    row_security: bool
    force_row_security: bool
    replica_identity: str
    tablespace: str | None
    access_method: str
    options: tuple[str, ...]
    comment: str | None
    column_exists: bool
    column_type: str
    column_not_null: bool
    column_generated: bool
    server_version: int
    indexes: tuple[Index, ...]
    constraints: tuple[Constraint, ...]
    incoming: tuple[Incoming, ...]
    triggers: tuple[Trigger, ...]
    views: tuple[View, ...]
    policies: tuple[RowPolicy, ...]
    sequences: tuple[Sequence, ...]
    columns: tuple[Column, ...]
    grants: tuple[Grant, ...]
    sequence_grants: dict[str, tuple[Grant, ...]]
    default_grantees: tuple[str | None, ...]

    @property
    def primary_key(self) -> Index | None:
        """The index of the primary key."""
        return next((index for index in self.indexes if index.kind == "p"), None)

    @property
    def foreign_keys(self) -> tuple[Constraint, ...]:
        """The foreign keys of the table itself."""
        return tuple(one for one in self.constraints if one.kind == "f")

    @property
    def identities(self) -> tuple[Sequence, ...]:
        """The sequences of identity columns."""
        return tuple(one for one in self.sequences if one.identity)


def read_shape(connection: AnyConnection, table: Relation, column: str) -> Shape:
    """What the catalog says now; the table must exist. Call it inside a transaction: it empties ``search_path`` there,
    so that every definition names its schemas. Takes no lock on the table."""
    connection.execute("select set_config('search_path', '', true)")
    row = connection.execute(_TABLE, (column, table.schema, table.name)).fetchone()
    assert row is not None
    oid = row[0]

    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query.encode(), (oid,)).fetchall()

    sequences = tuple(_sequence(found) for found in rows(_SEQUENCES))
    return Shape(
        table=table,
        oid=oid,
        kind=row[1],
        persistence=row[2],
        is_partition=row[3],
        is_typed=row[4],
        owner=row[5],
        row_security=row[6],
        force_row_security=row[7],
        replica_identity=row[8],
        tablespace=row[9],
        access_method=row[10],
        options=tuple(row[11]),
        comment=row[12],
        column_exists=row[13],
        column_type=row[14],
        column_not_null=row[15],
        column_generated=row[16],
        server_version=row[17],
        indexes=tuple(_index(found) for found in rows(_INDEXES)),
        constraints=tuple(_constraint(found) for found in rows(_CONSTRAINTS)),
        incoming=tuple(_incoming(found) for found in rows(_INCOMING)),
        triggers=tuple(_trigger(found) for found in rows(_TRIGGERS)),
        views=tuple(
            View(
                relation=Relation(schema, name),
                owner=owner,
                definition=text.strip().rstrip(";"),
                options=tuple(options),
            )
            for schema, name, owner, text, options in rows(_VIEWS)
        ),
        policies=tuple(
            RowPolicy(name=name, permissive=permissive, command=command, roles=tuple(roles), using=using, check=check)
            for name, permissive, command, roles, using, check in rows(_POLICIES)
        ),
        sequences=sequences,
        columns=tuple(
            Column(name=name, generated=generated, statistics=statistics, options=tuple(options))
            for name, generated, statistics, options in rows(_COLUMNS)
        ),
        grants=_grants(connection, oid),
        sequence_grants={one.column: _grants(connection, one.oid) for one in sequences if one.identity},
        default_grantees=tuple(role for (role,) in rows(_DEFAULT_GRANTEES)),
    )


def _grants(connection: AnyConnection, oid: int) -> tuple[Grant, ...]:
    found = connection.execute(_GRANTS, {"oid": oid}).fetchall()
    return tuple((column, role, privilege, grantable) for column, role, privilege, grantable in found)


def _index(row: tuple[Any, ...]) -> Index:
    return Index(
        name=row[0],
        kind=row[1],
        unique=row[2],
        valid=row[3],
        replica_identity=row[4],
        deferrable=row[5],
        tablespace=row[6],
        tail=row[7],
        constraint=row[8],
        columns=tuple(row[9]),
        included=tuple(row[10]),
        comment=row[11],
        constraint_comment=row[12],
    )


def _constraint(row: tuple[Any, ...]) -> Constraint:
    return Constraint(
        name=row[0],
        kind=row[1],
        validated=row[2],
        no_inherit=row[3],
        definition=row[4],
        references_oid=row[5],
        references=Relation(row[6], row[7]) if row[7] is not None else None,
        comment=row[8],
    )


def _incoming(row: tuple[Any, ...]) -> Incoming:
    return Incoming(
        name=row[0],
        table=Relation(row[1], row[2]),
        from_partitioned=row[3],
        validated=row[4],
        definition=row[5],
        columns=tuple(row[6]),
        comment=row[7],
    )


def _trigger(row: tuple[Any, ...]) -> Trigger:
    return Trigger(
        name=row[0],
        definition=row[1],
        per_row=row[2],
        transition_tables=row[3],
        enabled=row[4],
        comment=row[5],
    )


def _sequence(row: tuple[Any, ...]) -> Sequence:
    return Sequence(
        column=row[0],
        identity=row[1],
        relation=Relation(row[2], row[3]),
        type=row[4],
        start=row[5],
        increment=row[6],
        least=row[7],
        most=row[8],
        cache=row[9],
        cycle=row[10],
        oid=row[11],
    )
