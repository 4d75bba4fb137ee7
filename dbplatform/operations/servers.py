"""On which server each declared database lies, and how many of one server's databases may be worked on side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError

EMBEDDED: Final = "the embedded server"


def server_of(declared: Declared) -> str | None:
    """``host:port`` of the database's server; None where its variable is not set or holds no URL: its work will say."""
    try:
        url = declared.url_from_environment()
        if url is None:
            return EMBEDDED
        parts = conninfo_to_dict(url)
    except (PlatformError, psycopg.ProgrammingError):
        return None
    return f"{parts.get('host', 'local socket')}:{parts.get('port', 5432)}"


def bounds(databases: Iterable[Declared]) -> dict[str, int]:
    """How many databases of each server may be worked on at once, where one of them declares ``runs.per_server``.

    Of several bounds the lowest holds.
    """
    found: dict[str, int] = {}
    for declared in databases:
        runs, server = declared.database.runs, server_of(declared)
        if server is not None and runs is not None and runs.per_server is not None:
            found[server] = min(runs.per_server, found.get(server, runs.per_server))
    return found
