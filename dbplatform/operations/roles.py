"""The least-privilege roles of a declared database: planned, made and recorded."""

from __future__ import annotations

import os

from dbplatform.archiving.policy import TableDestination
from dbplatform.declaration.loading import Declared
from dbplatform.errors import VariableNotSet
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.locks import WRITER, advisory_lock
from dbplatform.postgres.state import SCHEMA
from dbplatform.postgres.transport import demand_verified
from dbplatform.roles.apply import apply_roles
from dbplatform.roles.model import RolePlan, Scope
from dbplatform.roles.plan import plan_roles
from dbplatform.roles.policy import RolesPolicy


def plan(platform: Platform, declared: Declared, *, url_env: str | None = None) -> RolePlan:
    """What has to change so that roles and rights are as declared. Only reads; whoever may connect may ask.

    ``url_env`` names the variable that holds another URL of the database; the declared one by default. Without
    ``roles`` in the declaration those of the defaults are meant.
    """
    with connect(_target(platform, declared, url_env), work="roles plan") as connection:
        return plan_roles(connection, policy_of(declared), scope_of(declared))


def apply(platform: Platform, declared: Declared, *, url_env: str | None = None) -> RolePlan:
    """Follow the plan, under the writer lock; recorded when there was something to do. Raises as ``apply_roles``."""
    policy, scope = policy_of(declared), scope_of(declared)
    with (
        connect(_target(platform, declared, url_env), work="roles") as connection,
        advisory_lock(connection, WRITER),
    ):
        planned = plan_roles(connection, policy, scope)
        if not planned.steps:
            return planned
        with platform.ledger.operation(declared.name, "roles") as summary:
            made = apply_roles(connection, policy, scope)
            summary.update(made.as_json())
            return made


def policy_of(declared: Declared) -> RolesPolicy:
    """What is declared of roles, or the defaults."""
    return declared.database.roles or RolesPolicy()


def scope_of(declared: Declared) -> Scope:
    """The schemas in which something is declared, and what else the rights depend on."""
    database = declared.database
    made, schemas = {SCHEMA}, {"public", SCHEMA}
    if database.migrations is not None:
        schemas.add(database.migrations.history_table.schema)
        made |= {database.migrations.history_table.schema} - {"public"}
    schemas |= {policy.table.schema for policy in database.partitioned_tables}
    schemas |= {policy.table.schema for policy in database.quality}
    schemas |= {policy.table.schema for policy in database.archives}
    tables = [archive.to for archive in database.archives if isinstance(archive.to, TableDestination)]
    return Scope(
        database=declared.name,
        schemas=tuple(sorted(schemas)),
        made_schemas=tuple(sorted(made)),
        archived=tuple((archive.table, archive.children == "archive") for archive in database.archives),
        archived_into=tuple(sorted({to.table.schema for to in tables if to.url_env is None})),
        by_partition=any(archive.by == "partition" for archive in database.archives),
        physical=database.backups is not None and database.backups.physical is not None,
    )


def _target(platform: Platform, declared: Declared, url_env: str | None) -> Target:
    if url_env is None:
        return platform.target(declared)
    url = os.environ.get(url_env)
    if not url:
        raise VariableNotSet(
            variable=url_env,
            purpose=f"holds the URL of {declared.name} for whoever may make roles",
            hint=f"export {url_env}=postgresql://superuser:password@host:port/database",
        )
    if declared.database.connection.environment == "production":
        demand_verified(url, variable=url_env)
    return Target(declared.name, url)
