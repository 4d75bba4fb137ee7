"""A right, the steps that bring the rights of a database to what is wanted, and what is told of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from psycopg import sql

from dbplatform.postgres.identifiers import Relation
from dbplatform.roles.policy import Capability

Kind = Literal[
    "role", "attribute", "membership", "database", "schema", "relation", "column", "sequence", "routine", "default"
]
#: Every role there is: no role can be called so.
PUBLIC: Final = "public"
#: Of a right that may be granted on, beside the right itself; of a membership, ADMIN.
GRANT_OPTION: Final = "GRANT OPTION FOR "


class Right(NamedTuple):
    """That ``role`` has ``privilege`` on ``object``, whose parts depend on the kind:

    none of a role (EXISTS) and its attributes; the group of a membership; the database; the schema; schema and name;
    schema, name and column; the signature of a routine; of a default the owner of what will be made, the schema ("" for
    all of them) and TABLES or SEQUENCES.
    """

    kind: Kind
    role: str
    object: tuple[str, ...]
    privilege: str


class Owned(NamedTuple):
    """Something that belongs to a role which should not own it: how ALTER names it, and whose it is."""

    what: str
    name: str
    owner: str
    owner_keeps: Sequence[str]
    """GRANTs, but for the role, that leave its owner what an application needs."""
    runs_as_owner: bool
    """Whether it runs code with the rights of whoever owns it: a view, SECURITY DEFINER, a rule, an index on a call."""
    trusted: bool
    """Whether its owner has all rights anyway: a superuser, the owner of the database, one that is to migrate."""
    policies_bind: bool
    """Whether its policies, which do not bind its owner, bind him once it is another's."""
    calls: Sequence[str]
    """Routines of owners who are not trusted that whoever writes there runs: of triggers, defaults and checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What of a declaration the rights depend on."""

    database: str
    """As it is declared."""
    schemas: tuple[str, ...]
    """Where declared objects are; that of the platform is among them."""
    made_schemas: tuple[str, ...]
    """Those of the platform itself, which are made where they are missing."""
    archived: tuple[tuple[Relation, bool], ...] = ()
    """The tables that rows leave, and whether the rows of others leave along."""
    archived_into: tuple[str, ...] = ()
    """Schemas of this database in which tables take what is archived."""
    by_partition: bool = False
    """Whether whole partitions are archived, which are read one by one."""
    physical: bool = False
    """Whether base backups are taken and WAL is archived."""
    login: str | None = None
    """Who the declared URL logs in as, where that could be found out."""
    unsure: str | None = None
    """Why nobody can say that the session leads to the declared database, as a note of the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change: its statements, what takes it back, and what for."""

    statements: tuple[sql.Composed, ...]
    sql: str
    undo: str
    why: str
    takes: bool = False
    """Whether somebody loses a right that he has now."""
    lock: str | None = None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``steps``."""
        return {"sql": self.sql, "undo": self.undo, "why": self.why, "takes_away": self.takes, "lock": self.lock}


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlan:
    """What has to change; no step where everything is as declared."""

    database: str
    roles: Mapping[Capability, str]
    members: Mapping[Capability, Sequence[str]]
    """The logins that have each role now, declared or not."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def taking(self) -> int:
        """How many steps take rights away."""
        return sum(step.takes for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """The document of ``roles plan --json``; of ``apply`` the steps are those that were made."""
        return {
            "database": self.database,
            "roles": [
                {"capability": capability, "role": role, "members": list(self.members.get(capability, ()))}
                for capability, role in self.roles.items()
            ],
            "steps": [step.as_json() for step in self.steps],
            "notes": list(self.notes),
        }
