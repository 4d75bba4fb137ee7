"""What the catalog says of roles, their rights, and of whatever rights can be given on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.roles.model import Owned, Right, Scope


class Existing(NamedTuple):
    """A table, view or sequence that is no part of an extension."""

    schema: str
    name: str
    kind: str
    """``table``, ``view`` or ``sequence``."""
    owner: str


class Login(NamedTuple):
    """A role that people or programs log in as."""

    superuser: bool
    only_as_public: bool
    """Whether it may connect only because everybody may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What there is in a database; ``archived`` says of each table whether rows leave it, or only hold others back."""

    database: str
    user: str
    may_make_roles: bool
    schemas: frozenset[str]
    relations: tuple[Existing, ...]
    archived: Mapping[Relation, bool]
    logins: Mapping[str, Login]


_HERE = """
    select current_database() as database, current_user as user, rolsuper or rolcreaterole as may_make_roles
    from pg_roles where rolname = current_user
"""
_SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
_RELATIONS = """
    select n.nspname, c.relname, case c.relkind when 'S' then 'sequence' when 'r' then 'table' when 'p' then 'table'
                                 else 'view' end, pg_get_userbyid(c.relowner)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = any (%s) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                                                and d.deptype = 'e')
    order by 1, 2
"""
_LOGINS = """
    select r.rolname, r.rolsuper,
           not exists (select from pg_database d, aclexplode(d.datacl) a
                       where d.datname = current_database() and a.privilege_type = 'CONNECT' and a.grantee <> 0
                         and pg_has_role(r.oid, a.grantee, 'usage'))
           and not exists (select from pg_database d
                           where d.datname = current_database() and pg_has_role(r.oid, d.datdba, 'usage'))
    from pg_roles r where r.rolcanlogin and r.rolname !~ '^pg_'
"""
# The tables that refer to one, with those that refer to these where rows leave along; where they do not, their rows
# only hold others back.
_REFERRING = """
    with recursive family(oid, along) as (
        select %s::regclass::oid, true
        union
        select k.conrelid, %s::boolean from pg_constraint k join family f on k.confrelid = f.oid
        where k.contype = 'f' and k.conparentid = 0 and f.along
    )
    select n.nspname, c.relname, bool_or(f.along)
    from family f join pg_class c on c.oid = f.oid join pg_namespace n on n.oid = c.relnamespace group by 1, 2
"""
_ELSEWHERE = """
    select r.rolname, count(*) from pg_shdepend d join pg_roles r on r.oid = d.refobjid
    where d.refclassid = 'pg_authid'::regclass and r.rolname = any (%s) and d.dbid <> 0
      and d.dbid <> (select oid from pg_database where datname = current_database())
    group by 1 order by 1
"""


def read_catalog(connection: AnyConnection, scope: Scope) -> Catalog:
    """What there is to give rights on. Reads the catalog only."""
    here = connection.execute(_HERE).fetchone()
    assert here is not None
    database, user, may_make_roles = here
    schemas = frozenset(name for (name,) in connection.execute(_SCHEMAS))
    relations = tuple(Existing(*row) for row in connection.execute(_RELATIONS, (list(scope.schemas),)))
    there = {(one.schema, one.name) for one in relations}
    archived: dict[Relation, bool] = {}
    for table, along in scope.archived:
        if (table.schema, table.name) not in there:
            continue
        name = table.identifier.as_string(connection)
        for schema, relation, leaves in connection.execute(_REFERRING, (name, along)):
            one = Relation(schema, relation)
            archived[one] = archived.get(one, False) or leaves
    return Catalog(
        database=database,
        user=user,
        may_make_roles=may_make_roles,
        schemas=schemas,
        relations=relations,
        archived=archived,
        logins={name: Login(superuser, only) for name, superuser, only in connection.execute(_LOGINS)},
    )


def read_rights(connection: AnyConnection, roles: Sequence[str], logins: Sequence[str]) -> set[Right]:
    """The rights of these roles and of PUBLIC; of ``logins`` their attributes, and who is a member of the roles.

    What a role has as the owner of something is left out, and of PUBLIC all but what concerns the database and making
    objects in schemas.
    """
    values = {"roles": list(roles), "logins": list(logins)}
    rows = connection.execute(_statement("roles_rights"), values).fetchall()
    return {Right(kind, role, tuple(object_), privilege) for kind, role, object_, privilege in rows}


def read_owned(
    connection: AnyConnection, schemas: Sequence[str], owners: Sequence[str], trusted: Sequence[str]
) -> list[Owned]:
    """The objects of these schemas that belong to none of the ``owners``; members of extensions are left to those."""
    values = {"schemas": list(schemas), "owners": list(owners), "trusted": list(trusted)}
    return [Owned(*row) for row in connection.execute(_statement("roles_owners"), values)]


def read_elsewhere(connection: AnyConnection, roles: Sequence[str]) -> dict[str, int]:
    """How many objects of other databases of the server each role owns or has rights on."""
    return dict(connection.execute(_ELSEWHERE, (list(roles),)).fetchall())


def _statement(name: str) -> bytes:
    return (files("dbplatform.postgres") / "sql" / f"{name}.sql").read_bytes()
