"""What the user in the URL may do, measured against what is declared; a missing right comes with its GRANT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import sql

from dbplatform.operations.diagnosis.model import Finding, Patient, error, not_checked, ok, warn
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import SCHEMA

_NAMED = 5

_SCHEMAS = """
    select wanted.name, n.oid is not null as exists, has_schema_privilege(n.oid, 'CREATE') as creates,
           has_schema_privilege(n.oid, 'USAGE') as uses,
           has_database_privilege(current_database(), 'CREATE') as creates_schemas
    from unnest(%s::text[]) as wanted(name) left join pg_namespace n on n.nspname = wanted.name
    order by wanted.name
"""

_TABLES = """
    select wanted.schema, wanted.relation, c.oid is not null as exists,
           pg_has_role(c.relowner, 'USAGE') as owns, pg_get_userbyid(c.relowner) as owner,
           has_schema_privilege(n.oid, 'USAGE') as enters,
           array(select privilege from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as privilege
                 where has_table_privilege(c.oid, privilege)) as rights,
           coalesce(row_security_active(c.oid), false) as filtered
    from unnest(%s::text[], %s::text[]) as wanted(schema, relation)
    left join pg_namespace n on n.nspname = wanted.schema
    left join pg_class c on c.relnamespace = n.oid and c.relname = wanted.relation
    order by 1, 2
"""

_CHILDREN = """
    with recursive referring(oid) as (
        select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s
        union
        select k.conrelid from pg_constraint k join referring r on k.confrelid = r.oid
        where k.contype = 'f' and k.conparentid = 0
    )
    select n.nspname as schema, c.relname as relation
    from referring r join pg_class c on c.oid = r.oid join pg_namespace n on n.oid = c.relnamespace
    order by 1, 2
"""

# What pg_dump reads: the members of an extension are left to it, but for the tables that it wants dumped.
_DUMPED = """
    select n.nspname as schema, c.relname as relation,
           has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT') as readable,
           c.relkind in ('r', 'p') and row_security_active(c.oid) as filtered
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'S') and c.relpersistence <> 't'
      and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
      and not exists (
          select from pg_depend d join pg_extension e on e.oid = d.refobjid
          where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
            and not c.oid = any (coalesce(e.extconfig, '{}')))
    order by 1, 2
"""

_LARGE_OBJECTS = """
    select count(*) as unreadable from pg_largeobject_metadata
    where not pg_has_role(lomowner, 'USAGE')
      and not exists (select from aclexplode(lomacl) as granted
                      where granted.privilege_type = 'SELECT'
                        and (granted.grantee = 0 or pg_has_role(granted.grantee, 'USAGE')))
      and not (select rolsuper from pg_roles where rolname = current_user)
"""

_ROLE = """
    select rolsuper, rolcreatedb or rolsuper as creates_databases,
           pg_has_role('pg_monitor', 'USAGE') as monitors
    from pg_roles where rolname = current_user
"""


def schemas(patient: Patient) -> Iterator[Finding]:
    """Making tables where migrations, partitions, seeds and archives make them."""
    declared = patient.declared.database
    purposes: dict[str, str] = {}
    if declared.migrations is not None:
        purposes["public"] = "migrations make tables"
        purposes[declared.migrations.history_table.schema] = "migrations are recorded"
    for policy in declared.partitioned_tables:
        purposes[policy.table.schema] = "partitions are made"
    if declared.seeds or declared.archives:
        purposes[SCHEMA] = "the platform keeps its own marks"
    if not purposes:
        yield ok("nothing that is declared makes tables")
        return
    for row in patient.ask(_SCHEMAS, list(purposes)):
        name, why = row["name"], purposes[row["name"]]
        about: dict[str, Any] = {"probe": f"schema {name}"}
        if not row["exists"] and row["creates_schemas"]:
            yield ok(f"does not exist yet; {patient.user} may create it", **about)
        elif not row["exists"]:
            yield error(
                f"The schema {name}, where {why}, does not exist, and {patient.user} may not create it: "
                f"it lacks CREATE on the database {patient.database}.",
                patient.sql("GRANT CREATE ON DATABASE {database} TO {user};")
                + patient.sql(" or: CREATE SCHEMA {schema} AUTHORIZATION {user};", schema=name),
                **about,
            )
        elif row["creates"] and row["uses"]:
            yield ok(f"{patient.user} may create tables in it", **about)
        else:
            lacks = " and ".join(
                right for right, has in (("USAGE", row["uses"]), ("CREATE", row["creates"])) if not has
            )
            yield error(
                f"{patient.user} lacks {lacks} on the schema {name}, where {why}.",
                patient.sql("GRANT USAGE, CREATE ON SCHEMA {schema} TO {user};", schema=name),
                **about,
            )


def tables(patient: Patient) -> Iterator[Finding]:
    """The rights on each declared table: to own it, to read it, or to take rows out of it."""
    declared = patient.declared.database
    needs: dict[Relation, set[str]] = {}
    for checked in declared.quality:
        needs.setdefault(checked.table, set()).add("SELECT")
    for archive in declared.archives:
        # UPDATE, because rows are locked FOR UPDATE before they are deleted.
        for table in (archive.table, *(_children(patient, archive.table) if archive.children == "archive" else ())):
            needs.setdefault(table, set()).update(("SELECT", "UPDATE", "DELETE"))
    owned = {policy.table for policy in declared.partitioned_tables}
    for table in owned:
        needs.setdefault(table, set())
    if declared.migrations is not None:
        needs.setdefault(declared.migrations.history_table, set()).update(("SELECT", "INSERT", "UPDATE", "DELETE"))
    missing, good = [], 0
    for row in patient.ask(_TABLES, [table.schema for table in needs], [table.name for table in needs]):
        table = Relation(row["schema"], row["relation"])
        about: dict[str, Any] = {"probe": f"table {table}"}
        names = {"schema": table.schema, "table": table.name}
        lacks = sorted(needs[table] - set(row["rights"] or ()))
        if not row["exists"]:
            missing.append(str(table))
            continue
        if not row["enters"]:
            yield error(
                f"{patient.user} lacks USAGE on the schema {table.schema} of the table {table}.",
                patient.sql("GRANT USAGE ON SCHEMA {schema} TO {user};", **names),
                **about,
            )
        elif table in owned and not row["owns"]:
            yield error(
                f"The table {table} belongs to {row['owner']}: only its owner can make and attach its partitions.",
                patient.sql("ALTER TABLE {schema}.{table} OWNER TO {user};", **names)
                + patient.sql(" or: GRANT {owner} TO {user};", owner=row["owner"]),
                **about,
            )
        elif lacks:
            yield error(
                f"{patient.user} lacks {', '.join(lacks)} on the table {table}.",
                patient.sql("GRANT {rights} ON {schema}.{table} TO {user};", rights=sql.SQL(", ".join(lacks)), **names),
                **about,
            )
        elif row["filtered"]:
            yield warn(
                f"Row-level security hides rows of {table} from {patient.user}: checks and archives see only the rest.",
                patient.sql("ALTER ROLE {user} BYPASSRLS;"),
                **about,
            )
        else:
            good += 1
    if good:
        yield ok(f"{good} declared {'table has' if good == 1 else 'tables have'} the rights that are needed")
    if missing:
        yield not_checked(f"not there yet: {_few(missing)}", probe="tables to come")
    if not needs:
        yield ok("no table is declared")


def _children(patient: Patient, table: Relation) -> list[Relation]:
    """The tables that refer to it by foreign keys, and so on downwards: their rows leave along."""
    return [Relation(row["schema"], row["relation"]) for row in patient.ask(_CHILDREN, table.schema, table.name)]


def monitoring(patient: Patient) -> Iterator[Finding]:
    """Membership in pg_monitor, without which sessions, settings and sizes of others cannot be seen."""
    if patient.ask_one(_ROLE)["monitors"]:
        yield ok(f"{patient.user} may see all statistics")
    else:
        yield warn(
            f"{patient.user} is no member of pg_monitor: metrics of other users' sessions, and some settings, stay "
            "unknown.",
            patient.sql("GRANT pg_monitor TO {user};"),
        )


def dump(patient: Patient) -> Iterator[Finding]:
    """Reading every row of every table: a dump that lacks one table fails as a whole."""
    if patient.declared.database.backups is None:
        yield ok("no backups are declared")
        return
    found = patient.ask(_DUMPED)
    unreadable = [str(Relation(row["schema"], row["relation"])) for row in found if not row["readable"]]
    filtered = [str(Relation(row["schema"], row["relation"])) for row in found if row["filtered"]]
    objects = patient.ask_one(_LARGE_OBJECTS)["unreadable"]
    if unreadable:
        yield error(
            f"{patient.user} may not read {_few(unreadable)}: every dump fails.",
            patient.sql("GRANT pg_read_all_data TO {user};"),
        )
    if filtered:
        yield error(
            f"Row-level security hides rows of {_few(filtered)} from {patient.user}: every dump fails.",
            patient.sql("ALTER ROLE {user} BYPASSRLS;"),
            probe="row security",
        )
    if objects:
        yield error(
            f"{patient.user} may not read {objects} large object{'s' if objects > 1 else ''}: every dump fails.",
            "Grant it, for each: GRANT SELECT ON LARGE OBJECT ... TO ...; or dump as their owner.",
            probe="large objects",
        )
    if not (unreadable or filtered or objects):
        yield ok(f"{patient.user} may read all {len(found)} tables and sequences")


def databases(patient: Patient) -> Iterator[Finding]:
    """Making databases: ``restore`` makes one beside the declared one. Drills use the embedded server."""
    if patient.declared.database.backups is None:
        yield ok("no backups are declared")
    elif patient.ask_one(_ROLE)["creates_databases"]:
        yield ok(f"{patient.user} may create the database of a restore")
    else:
        yield warn(
            f"{patient.user} may not create databases, which a restore to this server needs; drills use the embedded "
            "server and work.",
            patient.sql("ALTER ROLE {user} CREATEDB;"),
        )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
