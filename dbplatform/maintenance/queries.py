"""How long declared queries take, before and after."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from dbplatform.maintenance.errors import QueryRefused
from dbplatform.maintenance.model import QueryTime
from dbplatform.maintenance.policy import NamedQuery
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.prepared import prepared, readable

_RUNS = 3
_STATEMENT_TIMEOUT_MS = 10_000


def times(connection: AutocommitConnection, queries: Iterable[NamedQuery]) -> dict[str, float | str]:
    """The median of three runs of each, in milliseconds as the server counts them; or why there is none.

    In a transaction that is read only and rolled back. Raises ``QueryRefused``.
    """
    return {query.name: _time(connection, query) for query in queries}


def compared(before: Mapping[str, float | str], after: Mapping[str, float | str]) -> tuple[QueryTime, ...]:
    """What ``times`` found before and after, side by side. Pure."""
    return tuple(
        QueryTime(
            name=name,
            before_ms=was if isinstance(was, float) else None,
            after_ms=now if isinstance(now := after.get(name), float) else None,
            why=next((one for one in (was, now) if isinstance(one, str)), ""),
        )
        for name, was in before.items()
    )


def _time(connection: AutocommitConnection, query: NamedQuery) -> float | str:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("set transaction read only")
            connection.execute("select set_config('statement_timeout', %s, true)", (str(_STATEMENT_TIMEOUT_MS),))
            with prepared(connection, readable(query.sql)) as one:
                found: list[Any] = [one.explain("analyze, timing off, format json")[0][0] for _ in range(_RUNS)]
    except psycopg.errors.QueryCanceled:
        return f"it takes longer than {_STATEMENT_TIMEOUT_MS // 1000} s"
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        reason = (error.diag.message_primary or str(error)).rstrip(".")
        raise QueryRefused(
            name=query.name, reason=reason, hint="Correct it in maintenance.queries of the declaration."
        ) from error
    return round(statistics.median(float(document["Execution Time"]) for document in found), 3)
