"""Whether all the pools that are declared on one server fit into its connections."""

from __future__ import annotations

import os
from collections.abc import Iterator

from psycopg.conninfo import conninfo_to_dict

from dbplatform.declaration.loading import Declared
from dbplatform.operations.diagnosis.model import Finding, Patient, ok, warn
from dbplatform.postgres.pools import pool_settings

_PLACES = """
    select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0)
"""


def pools(patient: Patient) -> Iterator[Finding]:
    """The sum of what the declared pools may open, beside what the server lets ordinary users open."""
    here = _server(patient.target.url)
    sharing = [one for one in patient.platform.declarations.databases if _is_on(one, patient, here)]
    most = {one.name: _most(one) for one in sharing}
    row = patient.session.execute(_PLACES).fetchone()
    assert row is not None
    places, wanted = int(row[0]), sum(most.values())
    words = " + ".join(f"{count} of {name}" for name, count in sorted(most.items()))
    if wanted <= places:
        yield ok(f"The declared pools of this server may open {wanted} connections ({words}), and it has {places}.")
    else:
        yield warn(
            f"The declared pools of this server may open {wanted} connections ({words}), and it has {places}: the last "
            "callers will be refused.",
            "Lower size and max_overflow in connection.pool, put a pooler in front, or raise max_connections.",
        )


def _is_on(other: Declared, patient: Patient, here: tuple[str, str]) -> bool:
    if other.name == patient.declared.name:
        return True
    variable = other.database.connection.url_env
    if variable is None:
        return patient.declared.database.connection.url_env is None
    url = os.environ.get(variable)
    return bool(url) and _server(str(url)) == here


def _most(declared: Declared) -> int:
    connection = declared.database.connection
    return pool_settings(connection.environment, connection.pool).most


def _server(url: str) -> tuple[str, str]:
    parts = conninfo_to_dict(url)
    return str(parts.get("host", "")), str(parts.get("port", "5432"))
