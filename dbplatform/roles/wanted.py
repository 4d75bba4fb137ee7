"""Which rights each role needs, and no other.

| role | what it is for | rights |
|---|---|---|
| monitor | metrics, health, sessions | pg_monitor; the state of sequences; no row of any table |
| read | checks, plans of statements, people who look | SELECT on tables and sequences, now and later |
| backup | dumps; base backups where they are declared | pg_read_all_data, past policies of rows; nothing to write |
| archive | rows that leave | SELECT, INSERT, UPDATE, DELETE on the tables of the archives; its own marks |
| migrate | migrations, partitions, seeds, care | owns the objects of the declared schemas, makes others |

Source: PostgreSQL manual, "Privileges", "Predefined Roles", "Row Security Policies", "Default Privileges".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dbplatform.postgres.state import SCHEMA
from dbplatform.roles.actual import Catalog
from dbplatform.roles.model import PUBLIC, Right, Scope
from dbplatform.roles.policy import Capability, RolesPolicy

_ROWS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
#: Why each role has what it has, for the plan.
PURPOSES: Final[dict[Capability, str]] = {
    "monitor": "statistics and settings, without any row of a table",
    "migrate": "owns what the migrations make",
    "backup": "reads everything and writes nothing",
    "archive": "takes rows out of the tables of the archives",
    "read": "reads what is there and what will be",
}
#: What only superusers may call by default, and base backups with an archive of WAL need.
_OF_PHYSICAL: Final = ("pg_create_restore_point(text)", "pg_switch_wal()")


def wanted(policy: RolesPolicy, scope: Scope, catalog: Catalog) -> set[Right]:
    """The rights of a database that is as ``catalog`` shows it, once what it lacks is made. Pure."""
    roles = policy.roles(scope.database)
    schemas = [name for name in scope.schemas if name in catalog.schemas or name in scope.made_schemas]
    found: set[Right] = set()
    for role in roles.values():
        found |= {Right("role", role, (), "EXISTS"), Right("database", role, (catalog.database,), "CONNECT")}
    found |= set(_monitor(roles, schemas, catalog))
    found |= set(_read(roles, schemas, catalog))
    found |= set(_backup(roles["backup"], scope))
    found |= set(_archive(roles["archive"], roles["read"], scope, catalog))
    found |= set(_migrate(roles, schemas, catalog))
    found |= {Right("database", PUBLIC, (catalog.database,), one.upper()) for one in policy.public_keeps}
    if "create" in policy.public_keeps:
        found |= {Right("schema", PUBLIC, (name,), "CREATE") for name in catalog.schemas}
    for capability, logins in policy.members.items():
        for login in logins:
            if login in catalog.logins:
                found.add(Right("membership", login, (roles[capability],), "MEMBER"))
                if capability == "backup" and scope.physical and not catalog.logins[login].superuser:
                    # Replication is an attribute of who logs in; no membership lends it.
                    found.add(Right("attribute", login, (), "REPLICATION"))
    return found


def _monitor(roles: dict[Capability, str], schemas: Iterable[str], catalog: Catalog) -> Iterator[Right]:
    role = roles["monitor"]
    yield Right("membership", role, ("pg_monitor",), "MEMBER")
    for schema in schemas:
        yield Right("schema", role, (schema,), "USAGE")
        yield Right("default", role, (roles["migrate"], schema, "SEQUENCES"), "SELECT")
    for one in catalog.relations:
        if one.kind == "sequence":
            yield Right("sequence", role, (one.schema, one.name), "SELECT")


def _read(roles: dict[Capability, str], schemas: Iterable[str], catalog: Catalog) -> Iterator[Right]:
    role = roles["read"]
    for schema in schemas:
        yield Right("schema", role, (schema,), "USAGE")
        for what in ("TABLES", "SEQUENCES"):
            yield Right("default", role, (roles["migrate"], schema, what), "SELECT")
    for one in catalog.relations:
        yield Right("sequence" if one.kind == "sequence" else "relation", role, (one.schema, one.name), "SELECT")


def _backup(role: str, scope: Scope) -> Iterator[Right]:
    yield Right("membership", role, ("pg_read_all_data",), "MEMBER")
    # A dump of a table whose policies hide rows fails as a whole.
    yield Right("attribute", role, (), "BYPASSRLS")
    if scope.physical:
        for signature in _OF_PHYSICAL:
            yield Right("routine", role, (signature,), "EXECUTE")


def _archive(role: str, read: str, scope: Scope, catalog: Catalog) -> Iterator[Right]:
    if not scope.archived:
        return
    # Rows are compared in temporary tables.
    yield Right("database", role, (catalog.database,), "TEMPORARY")
    for privilege in ("USAGE", "CREATE"):
        for schema in {SCHEMA, *scope.archived_into}:
            yield Right("schema", role, (schema,), privilege)
    for table, along in catalog.archived.items():
        yield Right("schema", role, (table.schema,), "USAGE")
        for privilege in _ROWS if along else ("SELECT",):
            yield Right("relation", role, (table.schema, table.name), privilege)
    for one in catalog.relations:
        marks = one.schema == SCHEMA and one.name.startswith("archive_")
        if one.kind != "sequence" and one.owner != role and marks:
            for privilege in _ROWS:
                yield Right("relation", role, (one.schema, one.name), privilege)
    if scope.by_partition:
        yield Right("membership", role, (read,), "MEMBER")


def _migrate(roles: dict[Capability, str], schemas: Iterable[str], catalog: Catalog) -> Iterator[Right]:
    role, archive = roles["migrate"], roles["archive"]
    for privilege in ("CREATE", "TEMPORARY"):
        yield Right("database", role, (catalog.database,), privilege)
    for schema in schemas:
        # It owns the others.
        if schema == "public":
            yield Right("schema", role, (schema,), "USAGE")
            yield Right("schema", role, (schema,), "CREATE")
    # What archive makes belongs to it; a restore, an undo and a retirement read and mend it.
    for privilege in _ROWS:
        yield Right("default", role, (archive, SCHEMA, "TABLES"), privilege)
    yield Right("default", roles["read"], (archive, SCHEMA, "TABLES"), "SELECT")
    for one in catalog.relations:
        if one.owner == archive and one.kind != "sequence":
            for privilege in _ROWS:
                yield Right("relation", role, (one.schema, one.name), privilege)
