"""The access review: what each role is and may do in a database, how old its password is at least, and who uses it.

PostgreSQL keeps neither when a password was changed nor when somebody logged in last. Where commits have their times
(``track_commit_timestamp``), it tells since when a role was not changed at all: so long its password is the same.
Whether a login is used is told by its sessions and by what ``pg_stat_statements`` has counted of it. No password, nor
what is kept of one, leaves the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import sql

from dbplatform.monitoring.audits.finding import Auditing, Row
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.state import SCHEMA

#: More roles, and more rights, are not told one by one.
MOST_ROLES: Final = 2_000
MOST_RIGHTS: Final = 50_000
#: What rights are read from.
_RIGHTS: Final = ("roles", "grants")
_OWNER: Final = "owner"
_ATTRIBUTES: Final = ("superuser", "bypassrls", "createrole", "createdb", "replication")

# The xmin of a role is the transaction that has changed it last.
_PASSWORDS = """
    select rolname as role,
           case when rolpassword is null then 'none' when rolpassword like 'md5%' then 'md5' else 'scram-sha-256' end
               as password,
           case when current_setting('track_commit_timestamp')::boolean then pg_xact_commit_timestamp(xmin) end
               as unchanged_since
    from pg_authid where rolcanlogin
"""
_COUNTING = """
    select n.nspname as schema from pg_extension e join pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_stat_statements'
"""
_STATEMENTS = """
    select i.stats_reset as since, i.dealloc > 0 as let_go, r.rolname as role, s.calls
    from {schema}.pg_stat_statements_info i
    left join (select userid, sum(calls)::bigint as calls from {schema}.pg_stat_statements
               where dbid = (select oid from pg_database where datname = current_database())
               group by userid) s on true
    left join pg_roles r on r.oid = s.userid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may do what in a database, and who does anything."""

    database: str
    at: datetime
    roles: tuple[Row, ...]
    """Who can log in, and other roles that have members or own tables."""
    grants: tuple[Row, ...]
    """``role``, ``kind``, ``privileges``, and the ``objects`` on which it has just these; owners are left out."""
    owned: tuple[Row, ...]
    """``role``, ``kind``, and the ``objects`` that are its own."""
    counted_since: datetime | None
    """Since when statements are counted; none where they are not."""
    not_examined: Mapping[str, str]
    """What is not known, and why."""

    @property
    def unused(self) -> tuple[str, ...]:
        """The logins that nobody was seen to use here."""
        return tuple(role["role"] for role in self.roles if role["used"] is False)

    @property
    def unread(self) -> Mapping[str, str]:
        """What rights are read from and was not examined, and why: with any of it ``rights`` are not all."""
        return {what: self.not_examined[what] for what in _RIGHTS if what in self.not_examined}

    @property
    def kept(self) -> dict[str, Any]:
        """What a review keeps: every right, with the name of an object once for each role. ``in_words`` reads it."""
        return {"roles": list(_of_roles(self.roles)), "grants": list(self.grants), "owned": list(self.owned)}

    @property
    def rights(self) -> tuple[str, ...]:
        """Each right in words, in their order: two reviews differ by these."""
        return tuple(sorted(in_words(self.kept)))

    def as_json(self) -> dict[str, Any]:
        """The document of ``roles review --json``."""
        return {
            "database": self.database,
            "at": self.at,
            "roles": list(self.roles),
            "grants": list(self.grants),
            "owned": list(self.owned),
            "unused": list(self.unused),
            "counted_since": self.counted_since,
            "not_examined": dict(self.not_examined),
        }


def in_words(kept: Mapping[str, Any]) -> frozenset[str]:
    """Each right that a review has kept; the first ones kept nothing but ``rights`` in words."""
    of_roles = [*kept.get("rights", ()), *kept.get("roles", ())]
    return frozenset([*of_roles, *_granted(kept.get("grants", ())), *_owned(kept.get("owned", ()))])


def roles_of(auditing: Auditing, what: str) -> list[Row]:
    """Who can log in, and other roles that have members or own tables; were there more, ``what`` is not examined."""
    rows = auditing.rows("audit_access", {"leave_out": SCHEMA, "most": MOST_ROLES + 1})
    if len(rows) > MOST_ROLES:
        auditing.unknown(f"there are more than {MOST_ROLES:,} roles", what)
    return rows[:MOST_ROLES]


def review(connection: AutocommitConnection, *, database: str, now: datetime) -> Access:
    """Read who may do what in the connected database, whose connection is a ``collect.session``.

    Five statements, reading only. What the user may not see is not examined. Lock: ACCESS SHARE on the catalog.
    """
    auditing = Auditing(connection, {})

    def asked(what: str, question: Callable[[], Iterable[Row]], *, grant: str = "") -> list[Row]:
        rows: list[Row] = []

        def keep() -> Iterable[Row]:
            rows.extend(question())
            return ()

        auditing.ask((what,), keep, grant=grant)
        return rows

    values = {"leave_out": SCHEMA, "most": MOST_RIGHTS + 1}
    roles = asked("roles", lambda: roles_of(auditing, "roles"))
    rights = asked("grants", lambda: auditing.rows("audit_grants", values))
    if len(rights) > MOST_RIGHTS:
        auditing.unknown(f"there are more than {MOST_RIGHTS:,}: grant to roles, and roles to logins", "grants")
        rights = []
    kept = asked("passwords", lambda: auditing.select(_PASSWORDS), grant="passwords are known to superusers alone")
    counted = asked("statements", lambda: _statements(auditing))
    passwords = {row["role"]: row for row in kept}
    calls = {row["role"]: row["calls"] for row in counted} if counted else None
    let_go = any(row["let_go"] for row in counted)
    return Access(
        database=database,
        at=now,
        roles=tuple(_role(row, passwords.get(row["role"], {}), calls, let_go=let_go) for row in roles),
        grants=tuple(_folded(row for row in rights if row["privilege"] != _OWNER)),
        owned=tuple(
            {key: one[key] for key in ("role", "kind", "objects")}
            for one in _folded(row for row in rights if row["privilege"] == _OWNER)
        ),
        counted_since=counted[0]["since"] if counted else None,
        not_examined=auditing.not_examined,
    )


def _statements(auditing: Auditing) -> list[Row]:
    there = auditing.select(_COUNTING)
    if not there:
        auditing.unknown("the extension pg_stat_statements is not in this database", "statements")
        return []
    query = sql.SQL(_STATEMENTS).format(schema=sql.Identifier(there[0]["schema"]))
    return auditing.select(query.as_string(auditing.connection))


def _role(row: Row, kept: Row, calls: Mapping[str, int] | None, *, let_go: bool) -> Row:
    """A role with what is known of its password and its use; what is not known is none."""
    statements = calls.get(row["role"], 0) if calls is not None else None
    used: bool | None = True
    if not row["sessions"] and not statements:
        used = None if statements is None or let_go or not row["login"] else False
    return {
        **row,
        "statements": statements,
        "used": used,
        "password": kept.get("password"),
        "unchanged_since": kept.get("unchanged_since"),
    }


def _folded(rights: Iterable[Row]) -> Iterator[Row]:
    """Rights one by one, put together by role and kind: the objects on which it has the same ones."""
    of_object: dict[tuple[str, str, str], list[str]] = {}
    for row in rights:
        of_object.setdefault((row["role"], row["kind"], row["object"]), []).append(row["privilege"])
    of_privileges: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (role, kind, name), privileges in of_object.items():
        of_privileges.setdefault((role, kind, tuple(privileges)), []).append(name)
    for (role, kind, same), objects in of_privileges.items():
        yield {"role": role, "kind": kind, "privileges": list(same), "objects": objects}


def _granted(grants: Iterable[Row]) -> Iterator[str]:
    for one in grants:
        for name in one["objects"]:
            yield from (f"{one['role']}: {privilege} on {one['kind']} {name}" for privilege in one["privileges"])


def _owned(owned: Iterable[Row]) -> Iterator[str]:
    for one in owned:
        yield from (f"{one['role']}: owner of {one['kind']} {name}" for name in one["objects"])


def _of_roles(roles: Iterable[Row]) -> Iterator[str]:
    for one in roles:
        if one["login"] and one["connects"]:
            yield f"{one['role']}: may log in here"
        yield from (f"{one['role']}: {attribute}" for attribute in _ATTRIBUTES if one[attribute])
        yield from (f"{one['role']}: member of {group}" for group in one["member_of"])
        yield from (f"{one['role']}: may make others members of {group}" for group in one["admin_of"])
