"""Whether all the pools that are declared on one server fit into its connections."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dbplatform.declaration.loading import Declared
from dbplatform.operations.diagnosis.model import Finding, Patient, ok, warn
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import AutocommitConnection, Target
from dbplatform.postgres.pools import pool_settings

_PLACES = """
    select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0)
"""


def pools(patient: Patient) -> Iterator[Finding]:
    """The sum of what the declared pools may open, beside what the server lets ordinary users open."""
    most = wanted(patient.platform, patient.declared, patient.target)
    there, total = places(patient.session), sum(most.values())
    words = " + ".join(f"{count} of {name}" for name, count in sorted(most.items()))
    if total <= there:
        yield ok(f"The declared pools of this server may open {total} connections ({words}), and it has {there}.")
    else:
        yield warn(
            f"The declared pools of this server may open {total} connections ({words}), and it has {there}: the last "
            "callers will be refused.",
            "Lower size and max_overflow in connection.pool, put a pooler in front, or raise max_connections.",
        )


def wanted(platform: Platform, declared: Declared, target: Target) -> dict[str, int]:
    """How many connections each declared pool on the server of this database may open, by the database's name."""
    here = _server(target.url)
    return {one.name: _most(one) for one in platform.declarations.databases if _is_on(one, declared, here)}


def places(connection: psycopg.Connection[Any] | AutocommitConnection) -> int:
    """How many connections the server lets ordinary users open."""
    row = connection.execute(_PLACES).fetchone()
    assert row is not None
    return int(row[0])


def _is_on(other: Declared, declared: Declared, here: tuple[str, str]) -> bool:
    if other.name == declared.name:
        return True
    variable = other.database.connection.url_env
    if variable is None:
        return declared.database.connection.url_env is None
    url = os.environ.get(variable)
    return bool(url) and _server(str(url)) == here


def _most(declared: Declared) -> int:
    connection = declared.database.connection
    return pool_settings(connection.environment, connection.pool).most


def _server(url: str) -> tuple[str, str]:
    parts = conninfo_to_dict(url)
    return str(parts.get("host", "")), str(parts.get("port", "5432"))
