"""Making the roles: everything in one transaction."""

from __future__ import annotations

import psycopg

from dbplatform.errors import LockNotAcquired
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.roles.actual import read_catalog
from dbplatform.roles.errors import MayNotMakeRoles, RightsNotAsPlanned
from dbplatform.roles.model import RolePlan, Scope
from dbplatform.roles.plan import plan_roles
from dbplatform.roles.policy import RolesPolicy

_LOCK_TIMEOUT_MS = 2_000


def apply_roles(connection: AutocommitConnection, policy: RolesPolicy, scope: Scope) -> RolePlan:
    """Bring roles and rights to what is declared, and look again; the plan that was followed.

    One transaction: killed or refused, nothing has changed; run twice, the second finds nothing to do. No password is
    set. Lock: ACCESS EXCLUSIVE for a moment on each table that is handed over, asked for 2 s; GRANT and REVOKE wait for
    nobody. Open sessions have the new rights with their next statement. Raises ``MayNotMakeRoles``,
    ``LockNotAcquired`` and ``RightsNotAsPlanned``.
    """
    catalog = read_catalog(connection, scope)
    if not catalog.may_make_roles:
        raise MayNotMakeRoles(
            user=catalog.user,
            hint="Name the variable that holds a superuser's URL of this database: --url-env VARIABLE.",
        )
    try:
        with connection.transaction():
            connection.execute("select set_config('lock_timeout', %s, true)", (str(_LOCK_TIMEOUT_MS),))
            plan = plan_roles(connection, policy, scope)
            for step in plan.steps:
                for statement in step.statements:
                    connection.execute(statement)
            left = plan_roles(connection, policy, scope)
            if left.steps:
                raise RightsNotAsPlanned(
                    database=scope.database,
                    count=len(left.steps),
                    first=left.steps[0].sql,
                    hint="Somebody else has granted them: see \\dp in psql for by whom, and revoke them as that role.",
                )
    except psycopg.errors.LockNotAvailable as error:
        raise LockNotAcquired(
            lock="a table that is to be handed over",
            waited_ms=_LOCK_TIMEOUT_MS,
            hint="See who holds it: dbplatform connections; then run the command again.",
        ) from error
    return RolePlan(database=plan.database, roles=plan.roles, members=left.members, steps=plan.steps, notes=left.notes)
