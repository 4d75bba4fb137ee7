"""Working as one of the roles: what a session makes belongs to the role then, and it has no other rights."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbplatform.postgres.connection import Target, connect

# A superuser keeps what it is: extensions and first migrations need it.
_MAY_ACT = """
    select r.rolname from unnest(%s::text[]) with ordinality w(name, place) join pg_roles r on r.rolname = w.name
    where pg_has_role(session_user, r.oid, 'member')
      and not (select rolsuper from pg_roles where rolname = session_user)
    order by w.place limit 1
"""


def acting(target: Target, *roles: str) -> Target:
    """The target with ``SET ROLE`` at the start of each session: the first of ``roles`` of which its user is a member.

    Of none, or of a superuser, it is the target as it was.

    Opens one session to find that out. Programs such as pg_dump act so, too. Raises what ``connect`` raises.
    """
    with connect(target, work="roles") as connection:
        row = connection.execute(_MAY_ACT, (list(roles),)).fetchone()
    if row is None:
        return target
    options = conninfo_to_dict(target.url).get("options") or ""
    return Target(target.name, make_conninfo(target.url, options=f"{options} -c role={row[0]}".strip()))
