"""What cannot come along when a table becomes partitioned: each thing by its name, with the reason and the way out.

Everything that depends on the table is either known to be carried over or named here: an unknown kind is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dbplatform.partitioning.conversion.names import Names
from dbplatform.partitioning.conversion.shape import Shape
from dbplatform.partitioning.existing import NUMBER_TYPES, TIME_TYPES
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import quoted

# What depends on the table or on its row type, less what a conversion carries over.
_DEPENDENTS = """
    with of as (
        select 'pg_class'::regclass::oid as class, c.oid from pg_class c where c.oid = %(oid)s
        union all
        select 'pg_type'::regclass, t.oid from pg_type t, pg_class c
        where c.oid = %(oid)s and (t.oid = c.reltype or t.typelem = c.reltype)
    )
    select distinct pg_describe_object(d.classid, d.objid, 0)
    from pg_depend d join of on d.refclassid = of.class and d.refobjid = of.oid
    where not (of.class = 'pg_class'::regclass and (
            (d.classid = 'pg_class'::regclass and exists (
                select from pg_class c where c.oid = d.objid and (c.relkind in ('i', 'I', 't', 'S')
                    or (c.relispartition and d.deptype = 'a'))))
            or d.classid in ('pg_attrdef'::regclass, 'pg_publication_rel'::regclass)
            or (d.classid = 'pg_constraint'::regclass and exists (
                select from pg_constraint k where k.oid = d.objid and (k.conrelid = %(oid)s or k.confrelid = %(oid)s)))
            or (d.classid = 'pg_trigger'::regclass and exists (
                select from pg_trigger t where t.oid = d.objid and (t.tgrelid = %(oid)s or t.tgisinternal)))
            or (d.classid = 'pg_policy'::regclass and exists (
                select from pg_policy p where p.oid = d.objid and p.polrelid = %(oid)s))
            or (d.classid = 'pg_statistic_ext'::regclass and exists (
                select from pg_statistic_ext s where s.oid = d.objid and s.stxrelid = %(oid)s))
            or (d.classid = 'pg_rewrite'::regclass and exists (
                select from pg_rewrite r join pg_class v on v.oid = r.ev_class
                where r.oid = d.objid and v.relkind = 'v' and r.rulename = '_RETURN'))))
      and not (d.classid = 'pg_type'::regclass and d.deptype = 'i')
      and not (d.classid = 'pg_class'::regclass and d.objid = %(oid)s)
    order by 1
"""

_MEMBERSHIPS = """
    select 'the publication ' || quote_ident(pubname), 'subscribers would be sent rows of tables that they do not have',
           'take the table out of it, or publish by hand behind the conversion'
    from pg_publication_tables where schemaname = %(schema)s and tablename = %(name)s
    union all
    select 'a subscription', 'logical replication writes into this table', 'convert the table on the publisher''s side'
    from pg_subscription_rel where srrelid = %(oid)s
    union all
    select 'the extension ' || quote_ident(e.extname), 'the table belongs to it', 'leave the table as it is'
    from pg_depend d join pg_extension e on d.refclassid = 'pg_extension'::regclass and e.oid = d.refobjid
    where d.classid = 'pg_class'::regclass and d.objid = %(oid)s
    union all
    select 'the table ' || i.inhparent::regclass, 'the table inherits from it', 'end that by NO INHERIT'
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhrelid = %(oid)s and not c.relispartition
    union all
    select 'a security label of ' || provider, 'it is not carried over', 'set it again behind the conversion'
    from pg_seclabel where classoid = 'pg_class'::regclass and objoid = %(oid)s
    order by 1
"""

_KEY_DEPENDENTS = """
    select distinct pg_describe_object('pg_class'::regclass, r.ev_class, 0)
    from pg_constraint k
    join pg_depend d on d.refclassid = 'pg_constraint'::regclass and d.refobjid = k.oid
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    where k.conrelid = %s and k.contype = 'p' order by 1
"""

_SEQUENCE_DEPENDENTS = """
    select distinct pg_describe_object(classid, objid, 0) from pg_depend
    where refclassid = 'pg_class'::regclass and refobjid = %s and deptype = 'n' order by 1
"""

# Whoever is altered must belong to the role; whoever is referred to must allow it.
_RIGHTS = """
    select format('%%I.%%I', n.nspname, c.relname), pg_get_userbyid(c.relowner)
    from unnest(%s::text[]) as wanted(name) join pg_class c on c.oid = to_regclass(wanted.name)
    join pg_namespace n on n.oid = c.relnamespace
    where not pg_has_role(c.relowner, 'USAGE') order by 1
"""

_TAKEN = """
    select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = any(%s) order by 1
"""


def refusals(
    connection: AnyConnection, shape: Shape, policy: PartitionPolicy, names: Names, *, begun: bool = False
) -> list[str]:
    """A sentence for each thing that stands in the way; empty: the table can be converted. Only reads.

    ``begun``: what the conversion itself has made so far is no obstacle.
    """
    if not shape.column_exists:
        return [f"it has no column {quoted(policy.column)} (declare one that it has)"]
    if begun:
        # The CHECK and the index may be half-way; their phases see to them.
        shape = replace(
            shape,
            constraints=tuple(one for one in shape.constraints if one.name != names.check),
            indexes=tuple(one for one in shape.indexes if not names.builds(one.name)),
        )
    own = [*_of_the_table(shape, policy), *_of_keys(shape, policy), *_of_references(shape, policy)]
    return [*own, *carrying_refusals(connection, shape), *_of_names(connection, shape, names, begun)]


def carrying_refusals(connection: AnyConnection, shape: Shape) -> list[str]:
    """What no statement can carry over to another table, in either direction. Only reads."""
    found: list[str] = []
    for trigger in shape.triggers:
        if trigger.per_row and trigger.transition_tables:
            found.append(
                f"the trigger {quoted(trigger.name)} is FOR EACH ROW with transition tables, which partitions cannot "
                "have (make it FOR EACH STATEMENT)"
            )
        if trigger.enabled != "O":
            found.append(f"the trigger {quoted(trigger.name)} is not simply enabled (enable it, or drop it)")
    for (name,) in connection.execute(_DEPENDENTS, {"oid": shape.oid}).fetchall():
        found.append(f"{name} holds on to the table itself (drop it, and make it again behind the conversion)")
    for sequence in shape.identities:
        for (name,) in connection.execute(_SEQUENCE_DEPENDENTS, (sequence.oid,)).fetchall():
            found.append(f"{name} uses the identity sequence {sequence.relation} (drop that default)")
    altered = [shape.table, *(view.relation for view in shape.views), *(key.table for key in shape.incoming)]
    for name, owner in connection.execute(_RIGHTS, ([str(one) for one in altered],)).fetchall():
        found.append(f"{name} belongs to {owner}, and only its owner can change it (connect as a member of that role)")
    parameters = {"oid": shape.oid, "schema": shape.table.schema, "name": shape.table.name}
    for what, reason, way_out in connection.execute(_MEMBERSHIPS, parameters).fetchall():
        found.append(f"{what}: {reason} ({way_out})")
    return found


def _of_the_table(shape: Shape, policy: PartitionPolicy) -> Iterator[str]:
    column = quoted(policy.column)
    if shape.column_type in NUMBER_TYPES:
        if not isinstance(policy.interval, int):
            yield f"its column {column} holds numbers, and the declared interval is a time (write a number: 1000000)"
    elif shape.column_type not in TIME_TYPES:
        yield f"its column {column} has the type {shape.column_type} (partition by times or whole numbers)"
    elif isinstance(policy.interval, int):
        yield f"its column {column} holds times, and the declared interval is a number (write months, days or hours)"
    elif shape.column_type == "date" and policy.interval.microseconds:
        yield f"its column {column} is a date, which {policy.interval} cannot divide (write days or months)"
    if not shape.column_not_null:
        yield f"its column {column} may be NULL, which no range holds (make it NOT NULL in a migration)"
    if shape.column_generated:
        yield f"its column {column} is generated, which cannot be a partition key (declare another column)"
    if shape.is_partition:
        yield "it is a partition itself (convert the table above it)"
    if shape.is_typed:
        yield "it is a typed table, which cannot be partitioned (end that by NOT OF)"
    if shape.persistence != "p":
        yield "it is unlogged, which a partitioned table cannot be (SET LOGGED)"
    if shape.access_method != "heap":
        yield f"its access method is {shape.access_method} (only heap is carried over)"
    if shape.replica_identity != "d":
        yield (
            "its replica identity is not the primary key, and partitions made later would not have it "
            "(REPLICA IDENTITY DEFAULT)"
        )
    if shape.identities and shape.server_version < 17:
        for one in shape.identities:
            yield (
                f"its column {quoted(one.column)} is an identity column, which partitioned tables have from PostgreSQL "
                "17 on (give it a sequence as DEFAULT)"
            )
    for constraint in shape.constraints:
        if constraint.kind in ("c", "n") and constraint.no_inherit:
            yield f"the constraint {quoted(constraint.name)} is NO INHERIT, which a partition cannot have (drop it)"
        if not constraint.validated:
            yield (
                f"the constraint {quoted(constraint.name)} is NOT VALID, so that attaching would read the whole table "
                "(VALIDATE CONSTRAINT)"
            )


def _of_keys(shape: Shape, policy: PartitionPolicy) -> Iterator[str]:
    column = quoted(policy.column)
    for index in shape.indexes:
        name = quoted(index.name)
        if index.kind == "x" or "WITHOUT OVERLAPS" in (index.constraint or ""):
            yield f"the constraint {name} excludes overlaps, across partitions it cannot (drop it)"
        elif not index.valid:
            yield f"the index {name} is invalid (REINDEX INDEX CONCURRENTLY, or drop it)"
        elif index.tablespace is not None:
            yield f"the index {name} lies in the tablespace {index.tablespace} (move it to the default one)"
        elif index.unique and policy.column not in index.columns:
            if index.kind != "p":
                yield (
                    f"{name} is unique without {column}, which no partitioned table can promise "
                    f"(add {column} to it, or drop it)"
                )
            elif index.deferrable or index.included:
                yield (
                    f"the primary key {name} lacks {column} and is deferrable or has INCLUDE columns "
                    f"(make it one with {column} in a migration)"
                )


def _of_references(shape: Shape, policy: PartitionPolicy) -> Iterator[str]:
    column = quoted(policy.column)
    for key in shape.incoming:
        name = f"the foreign key {quoted(key.name)} of {key.table}"
        if key.table == shape.table:
            yield f"{name} refers to the table itself (drop it)"
        elif policy.column not in key.columns:
            yield (
                f"{name} refers to ({', '.join(map(quoted, key.columns))}), a key without {column} "
                f"(add {column} to both tables' keys in a migration, or drop the foreign key)"
            )
        elif not key.validated:
            yield f"{name} is NOT VALID (VALIDATE CONSTRAINT, or drop it)"
        elif key.from_partitioned:
            yield f"{name} belongs to a partitioned table, where it cannot be added NOT VALID (drop it)"


def _of_names(connection: AnyConnection, shape: Shape, names: Names, begun: bool) -> Iterator[str]:
    if names.extends_key:
        for (view,) in connection.execute(_KEY_DEPENDENTS, (shape.oid,)).fetchall():
            yield f"{view} groups by the primary key, which gets one more column (drop it, and make it again)"
    wanted = [names.legacy.name, names.aside.name, *(names.of_legacy(index.name) for index in shape.indexes)]
    if names.extends_key:
        wanted += [names.plain_key] if begun else [names.plain_key, names.wide_key]
    for (name,) in connection.execute(_TAKEN, (shape.table.schema, wanted)).fetchall():
        yield f"the name {quoted(name)}, which the conversion gives, is taken (rename that relation)"
    if not begun and any(one.name == names.check for one in shape.constraints):
        yield f"the name {quoted(names.check)} of a constraint, which the conversion gives, is taken (rename it)"
