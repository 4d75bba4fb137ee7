"""What a server was asked, as its ``pg_stat_statements`` counts it: for whoever measures what the platform costs.

Counted is each statement that a client has sent and that succeeded, ``SET``, ``BEGIN``, ``COMMIT`` and ``LISTEN`` among
them (``track_utility`` is on, as by default); not counted are statements inside functions and those of the one who
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

#: How the session that counts calls itself.
NAME = "counter"

_CALLS = """
    select regexp_replace(s.query, '\\s+', ' ', 'g'), sum(s.calls)::int
    from pg_stat_statements s join pg_database d on d.oid = s.dbid join pg_roles r on r.oid = s.userid
    where d.datname = coalesce(%(database)s, current_database()) and not r.rolname = any (%(but)s)
    group by 1 order by 2 desc, 1
"""
_DATABASES = """
    select d.datname::text, sum(s.calls)::int
    from pg_stat_statements s join pg_database d on d.oid = s.dbid group by 1 order by 1
"""


class Counter:
    """Counts from the last ``reset`` on."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self._session = session

    def reset(self) -> None:
        """Forget what was asked before."""
        self._session.execute("select pg_stat_statements_reset()")

    def calls(self, database: str | None = None, *, but: tuple[str, ...] = ()) -> dict[str, int]:
        """How often each statement was sent to a database, by default the one of this session; not by these roles."""
        return dict(self._session.execute(_CALLS, {"database": database, "but": list(but)}).fetchall())

    def by_database(self) -> dict[str, int]:
        """How many statements each database of the server was sent."""
        return dict(self._session.execute(_DATABASES.encode()).fetchall())


@contextmanager
def counting(url: str) -> Iterator[Counter]:
    """Count on that server from now on; the URL is a superuser's, of a database that has the extension, or gets it."""
    with psycopg.connect(url, autocommit=True, application_name=NAME) as session:
        session.execute("set pg_stat_statements.track = 'none'")
        session.execute("create extension if not exists pg_stat_statements")
        counter = Counter(session)
        counter.reset()
        yield counter
