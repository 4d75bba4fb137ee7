"""The SQL of rights: what is given and what is taken, of one role and one kind in as few statements as it can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from psycopg import sql

from dbplatform.postgres.connection import AnyConnection
from dbplatform.roles.model import GRANT_OPTION, PUBLIC, Kind, Owned, Right, Step

#: First the roles, then what they are, then what they may.
_ORDER: Final[tuple[Kind, ...]] = (
    "role", "attribute", "membership", "database", "schema", "relation", "column", "sequence", "routine", "default",
)  # fmt: skip
#: So many objects are named in one statement.
_AT_ONCE: Final = 50
_ON: Final = {"relation": "table", "column": "table", "sequence": "sequence", "routine": "routine"}

_Group = tuple[Kind, str, tuple[str, ...], tuple[str, ...]]


def giving(connection: AnyConnection, rights: Iterable[Right], why: str) -> Iterator[Step]:
    """The steps that give these rights."""
    for group, objects in _grouped(rights):
        give, take = _statements(group, objects)
        yield _step(connection, (give,), (take,), why)


def taking(connection: AnyConnection, rights: Iterable[Right], why: str) -> Iterator[Step]:
    """The steps that take these rights away."""
    for group, objects in _grouped(rights):
        give, take = _statements(group, objects)
        yield _step(connection, (take,), (give,), why, takes=True)


def making_schema(connection: AnyConnection, schema: str, owner: str) -> Step:
    """The step that makes a schema of the platform."""
    names = {"schema": sql.Identifier(schema), "owner": sql.Identifier(owner)}
    make = sql.SQL("create schema {schema} authorization {owner}").format(**names)
    return _step(connection, (make,), (sql.SQL("drop schema {schema}").format(**names),), "the platform's own marks")


def handing_over(connection: AnyConnection, one: Owned, to: str) -> Step:
    """The step that gives an object to ``to``; its owner keeps what an application needs of it."""

    def owner_to(role: str) -> sql.Composed:
        return sql.SQL("alter {} {} owner to {}").format(sql.SQL(one.what), sql.SQL(one.name), sql.Identifier(role))

    change: list[sql.Composed] = [owner_to(to)]
    for rights in one.owner_keeps:
        change.append(sql.SQL("grant {} to {}").format(sql.SQL(rights), sql.Identifier(one.owner)))
    locked = one.what in ("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE")
    return _step(
        connection,
        change,
        (owner_to(one.owner),),
        " ".join(_why_handed_over(one, to)),
        takes=True,
        lock=f"ACCESS EXCLUSIVE on {one.name}, for a moment" if locked else None,
    )


def _why_handed_over(one: Owned, to: str) -> Iterator[str]:
    yield f"it belongs to {one.owner}: only its owner can migrate it"
    if one.runs_as_owner:
        yield f"(what it runs with its owner's rights has those of {to} from then on)"
    if one.policies_bind:
        yield f"(its policies, which bind no owner, bind {one.owner} from then on)"
    if one.calls:
        calls = ", ".join(one.calls)
        yield f"(whoever writes there runs {calls}, by somebody without the rights of {to}: read it first)"


def _step(
    connection: AnyConnection,
    change: Sequence[sql.Composed],
    undo: Sequence[sql.Composed],
    why: str,
    *,
    takes: bool = False,
    lock: str | None = None,
) -> Step:
    def text(statements: Sequence[sql.Composed]) -> str:
        return " ".join(f"{statement.as_string(connection)};" for statement in statements)

    return Step(statements=tuple(change), sql=text(change), undo=text(undo), why=why, takes=takes, lock=lock)


def _grouped(rights: Iterable[Right]) -> Iterator[tuple[_Group, list[tuple[str, ...]]]]:
    """By kind, role, privileges and schema; the objects of each group by fifties."""
    together: defaultdict[tuple[Kind, str, tuple[str, ...], str], list[str]] = defaultdict(list)
    for right in rights:
        alone = right.privilege.startswith(GRANT_OPTION) or right.kind in ("attribute", "membership")
        together[right.kind, right.role, right.object, right.privilege if alone else ""].append(right.privilege)
    groups: defaultdict[_Group, list[tuple[str, ...]]] = defaultdict(list)
    for (kind, role, object_, _), privileges in together.items():
        schema = object_[:1] if kind in ("relation", "sequence") else object_
        groups[kind, role, tuple(sorted(privileges)), schema].append(object_)
    for group in sorted(groups, key=lambda g: (_ORDER.index(g[0]), *g[1:])):
        objects = sorted(groups[group])
        for first in range(0, len(objects), _AT_ONCE):
            yield group, objects[first : first + _AT_ONCE]


def _statements(group: _Group, objects: list[tuple[str, ...]]) -> tuple[sql.Composed, sql.Composed]:
    """What gives the rights of a group, and what takes them."""
    kind, role, privileges, _ = group
    # PUBLIC is a word, and no name.
    who = sql.SQL("public") if role == PUBLIC else sql.Identifier(role)
    if kind == "role":
        return sql.SQL("create role {} nologin").format(who), sql.SQL("drop role {}").format(who)
    if kind == "attribute":
        alter = sql.SQL("alter role {} {}{}")
        attribute = sql.SQL(privileges[0].lower())
        return alter.format(who, sql.SQL(""), attribute), alter.format(who, sql.SQL("no"), attribute)
    if kind == "membership":
        ((of,),) = objects
        admin = privileges[0] == "ADMIN"
        names = {"of": sql.Identifier(of), "who": who}
        return (
            sql.SQL("grant {of} to {who} with admin option" if admin else "grant {of} to {who}").format(**names),
            sql.SQL("revoke admin option for {of} from {who}" if admin else "revoke {of} from {who}").format(**names),
        )
    before: sql.Composable = sql.SQL("")
    if kind == "default":
        ((owner, schema, what),) = objects
        inside = sql.SQL(" in schema {}").format(sql.Identifier(schema)) if schema else sql.SQL("")
        before = sql.SQL("alter default privileges for role {}{} ").format(sql.Identifier(owner), inside)
        on: sql.Composable = sql.SQL(what.lower())
    elif kind in ("database", "schema"):
        ((name,),) = objects
        on = sql.SQL("{} {}").format(sql.SQL(kind), sql.Identifier(name))
    else:
        names_of = [
            # The server wrote the signature, with quotes where they are needed.
            sql.SQL(parts[0]) if kind == "routine" else sql.Identifier(*parts[:2])
            for parts in objects
        ]
        on = sql.SQL("{} {}").format(sql.SQL(_ON[kind]), sql.SQL(", ").join(names_of))
    columns = sql.SQL(" ({})").format(sql.Identifier(objects[0][2])) if kind == "column" else sql.SQL("")
    option = privileges[0].startswith(GRANT_OPTION)
    bare = [sql.SQL(one.removeprefix(GRANT_OPTION).lower()) + columns for one in privileges]
    what_ = sql.SQL(", ").join(bare)
    grant = sql.SQL("{}grant {} on {} to {}{}").format(
        before, what_, on, who, sql.SQL(" with grant option" if option else "")
    )
    revoke = sql.SQL("{}revoke {}{} on {} from {}").format(
        before, sql.SQL("grant option for " if option else ""), what_, on, who
    )
    return grant, revoke
