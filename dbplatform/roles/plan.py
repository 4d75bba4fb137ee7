"""What has to change so that the roles of a database have the rights that they need, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import quoted
from dbplatform.roles import statements
from dbplatform.roles.actual import Catalog, read_catalog, read_elsewhere, read_owned, read_rights
from dbplatform.roles.model import PUBLIC, Owned, Right, RolePlan, Scope, Step
from dbplatform.roles.policy import Capability, RolesPolicy
from dbplatform.roles.wanted import PURPOSES, wanted


def plan_roles(connection: AnyConnection, policy: RolesPolicy, scope: Scope) -> RolePlan:
    """The steps that give what is missing, hand over what belongs to others, and take what nobody declared.

    What runs code with its owner's rights is handed over from those alone who have all rights anyway, else noted. Reads
    the catalog only; whoever may connect may ask. Rights on large objects, languages, tablespaces and settings are not
    looked at. A login that somebody else made a member of a role is noted and stays one.
    """
    roles = policy.roles(scope.database)
    by_role = {role: capability for capability, role in roles.items()}
    catalog = read_catalog(connection, scope)
    want = wanted(policy, scope, catalog)
    have = read_rights(connection, list(by_role), [name for names in policy.members.values() for name in names])
    missing = {right for right in want - have if right.role != PUBLIC}
    surplus = {right for right in have - want if _is_ours(right, by_role, scope)}
    # What an archiving session has made stays its own.
    owned = read_owned(
        connection, scope.schemas, (roles["migrate"], roles["archive"]), policy.members.get("migrate", [])
    )
    # Whoever wrote it would have the rights of migrate by it.
    kept = [one for one in owned if one.runs_as_owner and not one.trusted]
    handed = [one for one in owned if one not in kept]
    steps = [
        *_giving(connection, {right for right in missing if right.kind == "role"}, by_role),
        *_making(connection, scope, catalog, roles),
        *(statements.handing_over(connection, one, roles["migrate"]) for one in handed),
        *_giving(connection, {right for right in missing if right.kind != "role"}, by_role),
        *statements.taking(
            connection, [right for right in surplus if right.role == PUBLIC], "every role of the server has it"
        ),
        *statements.taking(
            connection, [right for right in surplus if right.role != PUBLIC], "more than the role is declared to have"
        ),
    ]
    return RolePlan(
        database=scope.database,
        roles=roles,
        members={capability: _members(have, role) for capability, role in roles.items()},
        steps=tuple(steps),
        notes=(
            *([scope.unsure] if scope.unsure else []),
            *_notes(connection, policy, scope, catalog, have),
            *_of_owners(policy, scope, catalog, have, handed, kept),
        ),
    )


def _is_ours(right: Right, by_role: dict[str, Capability], scope: Scope) -> bool:
    """Whether a right that is not wanted is to be taken: of logins only what PUBLIC would give them is."""
    if right.role == PUBLIC:
        return right.kind == "database" or right.object[0] in scope.schemas
    return right.role in by_role


def _giving(connection: AnyConnection, rights: set[Right], by_role: dict[str, Capability]) -> Iterator[Step]:
    for role in sorted({right.role for right in rights}, key=lambda role: (role not in by_role, role)):
        why = PURPOSES[by_role[role]] if role in by_role else "declared as a member"
        yield from statements.giving(connection, [right for right in rights if right.role == role], why)


def _making(connection: AnyConnection, scope: Scope, catalog: Catalog, roles: dict[Capability, str]) -> Iterator[Step]:
    for schema in scope.made_schemas:
        if schema not in catalog.schemas:
            yield statements.making_schema(connection, schema, roles["migrate"])


def _notes(
    connection: AnyConnection, policy: RolesPolicy, scope: Scope, catalog: Catalog, have: set[Right]
) -> Iterator[str]:
    """What no statement here mends, in sentences."""
    roles = policy.roles(scope.database)
    for capability, role in roles.items():
        declared = policy.members.get(capability, [])
        for login in declared:
            if login not in catalog.logins:
                name = quoted(login)
                yield (
                    f"{login} is no role that can log in: CREATE ROLE {name} LOGIN; then "
                    f"\\password {name} in psql, and roles apply again."
                )
            elif catalog.logins[login].superuser:
                yield f"{login} is a superuser: no right of {role} holds it back."
        if Right("attribute", role, (), "LOGIN") in have:
            yield f"{role} was there and can log in: who does so needs a login of his own that is a member of it."
        others = sorted(
            r.role for r in have if r.kind == "membership" and r.object == (role,) and r.privilege == "MEMBER"
        )
        for login in others:
            if login not in declared and login not in roles.values() and login != catalog.user:
                yield f"{login} is a member of {role}, and nobody has declared it."
    if Right("database", PUBLIC, (catalog.database,), "CONNECT") in have and "connect" not in policy.public_keeps:
        members = {name for names in policy.members.values() for name in names}
        shut = [
            name
            for name, login in catalog.logins.items()
            if login.only_as_public and not login.superuser and name not in members
        ]
        if shut:
            yield (
                f"{', '.join(sorted(shut))} can connect only because everybody may: "
                f"GRANT CONNECT ON DATABASE {quoted(catalog.database)} TO ...; for those that shall."
            )
    for role, count in read_elsewhere(connection, list(roles.values())).items():
        yield f"{role} owns, or has rights on, {count} objects of other databases of the server."


def _of_owners(
    policy: RolesPolicy,
    scope: Scope,
    catalog: Catalog,
    have: set[Right],
    handed: Sequence[Owned],
    kept: Sequence[Owned],
) -> Iterator[str]:
    """What is not handed over, and whom it locks out that something is."""
    migrate = policy.role("migrate", scope.database)
    for one in kept:
        yield (
            f"{one.what} {one.name} stays with {one.owner}: it runs code with its owner's rights, which would be those "
            f"of {migrate}. Read it; if it may: ALTER {one.what} {one.name} OWNER TO {quoted(migrate)};"
        )
    login = catalog.logins.get(scope.login or "")
    if (
        login is not None
        and not login.superuser
        and scope.login in {one.owner for one in handed}
        and scope.login not in policy.members.get("migrate", [])
        and Right("membership", scope.login, (migrate,), "MEMBER") not in have
    ):
        yield (
            f"{scope.login}, as whom the declared URL logs in, could migrate no more what is handed over: "
            f"declare members: {{migrate: [{scope.login}]}}."
        )


def _members(have: set[Right], role: str) -> list[str]:
    return sorted({right.role for right in have if right.kind == "membership" and right.object == (role,)})
