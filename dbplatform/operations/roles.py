"""The least-privilege roles of a declared database: planned, made and recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from dbplatform.archiving.policy import TableDestination
from dbplatform.declaration.loading import Declared
from dbplatform.errors import CannotConnect, VariableNotSet
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.locks import WRITER, advisory_lock
from dbplatform.postgres.state import SCHEMA
from dbplatform.postgres.transport import demand_verified
from dbplatform.roles.apply import apply_roles
from dbplatform.roles.errors import AnotherDatabase
from dbplatform.roles.model import RolePlan, Scope
from dbplatform.roles.plan import plan_roles
from dbplatform.roles.policy import RolesPolicy


def plan(platform: Platform, declared: Declared, *, url_env: str | None = None) -> RolePlan:
    """What has to change so that roles and rights are as declared. Only reads; whoever may connect may ask.

    ``url_env`` names the variable that holds another URL of the same database; the declared one by default. Without
    ``roles`` in the declaration those of the defaults are meant. Raises ``AnotherDatabase``.
    """
    with _session(platform, declared, url_env, work="roles plan") as (connection, scope):
        return plan_roles(connection, policy_of(declared), scope)


def apply(platform: Platform, declared: Declared, *, url_env: str | None = None) -> RolePlan:
    """Follow the plan, under the writer lock; recorded when there was something to do. Raises as ``apply_roles``."""
    policy = policy_of(declared)
    with (
        _session(platform, declared, url_env, work="roles") as (connection, scope),
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


@contextmanager
def _session(
    platform: Platform, declared: Declared, url_env: str | None, *, work: str
) -> Iterator[tuple[AutocommitConnection, Scope]]:
    """A session by the URL that the variable holds, or by the declared one, and what it is to look at.

    Raises ``VariableNotSet``, ``TlsNotVerified``, and ``AnotherDatabase`` where both URLs answer and not for the same
    database of the same server. Where the declared one does not, the scope says that nobody has compared them.
    """
    scope = scope_of(declared)
    if url_env is None:
        with connect(platform.target(declared), work=work) as connection:
            yield connection, replace(scope, login=_where(connection).login)
        return
    target = _target(declared, url_env)
    with connect(target, work=work) as connection:
        here = _where(connection)
        try:
            with connect(platform.target(declared), work=work) as other:
                there = _where(other)
        except (VariableNotSet, CannotConnect) as error:
            unsure = (
                f"nobody has checked that {url_env} leads to the database that is declared, because that does not "
                f"answer: {error.message.rstrip('.')}. What is looked at is the database {here.database}."
            )
            yield connection, replace(scope, unsure=unsure)
            return
        if here[:2] != there[:2]:
            raise AnotherDatabase(
                variable=url_env,
                found=here.database,
                place=target.place,
                database=declared.name,
                hint=f"Name the server and the database {there.database} that the declared URL leads to: "
                f"export {url_env}=postgresql://superuser:password@host:port/{there.database}",
            )
        yield connection, replace(scope, login=there.login)


class _Where(NamedTuple):
    """A database of a running server, by its number and the moment at which the server started; and who asks."""

    oid: int
    started: datetime
    database: str
    login: str


def _where(connection: AutocommitConnection) -> _Where:
    row = connection.execute(
        "select oid, pg_postmaster_start_time(), datname, session_user from pg_database"
        " where datname = current_database()"
    ).fetchone()
    assert row is not None
    return _Where(*row)


def _target(declared: Declared, url_env: str) -> Target:
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
