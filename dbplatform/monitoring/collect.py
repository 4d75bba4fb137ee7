"""One pass over a database's catalog and statistics views.

Here: the order of the probes, their time limit, and what becomes of a probe that the server refuses. The questions
themselves are in ``probes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg

from dbplatform.monitoring.metrics import KINDS, Metrics
from dbplatform.monitoring.probes import PROBES, Collecting, Facts, Probe
from dbplatform.postgres.connection import AutocommitConnection

STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 500

#: What a probe may be refused without an end of the whole: time limit, lock limit, rights, a view that is not there.
_REFUSALS = ("57014", "55P03", "42501", "42P01", "42883", "0A000")

_FACTS = """
    select current_setting('server_version_num')::int, quote_ident(current_user), pg_is_in_recovery(),
           pg_has_role('pg_read_all_stats', 'usage'), current_setting('track_counts')::bool,
           current_setting('archive_mode'),
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0),
           current_setting('statement_timeout'), current_setting('lock_timeout')
"""
_SET = "select set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)"


def collect(
    connection: AutocommitConnection,
    *,
    database: str,
    now: datetime,
    previous: Metrics | None = None,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
) -> Metrics:
    """Measure every metric of the connected database at the time ``now`` (aware).

    ``database`` is its declared name; ``previous`` is the collection before, from which counters take differences
    (``latest`` of the ledger). A role with ``pg_monitor`` is enough; ``missing`` of the answer says what is not.

    A dozen short statements, each by itself, reading only; no lock on any table. A probe that takes longer than
    ``statement_timeout_ms``, or waits 500 ms for a lock, leaves its metrics unmeasured and the others go on; the
    session's own limits are put back. Any other error of PostgreSQL is raised.
    """
    row = connection.execute(_FACTS).fetchone()
    assert row is not None
    *known, statement_timeout, lock_timeout = row
    facts = Facts(*known)
    collecting = Collecting(facts=facts, now=now, previous=previous)
    with _limits(connection, statement_timeout_ms, restored=(statement_timeout, lock_timeout)):
        for probe in PROBES:
            _ask(connection, probe, collecting)
    return Metrics(
        database=database,
        at=now,
        values={name: collecting.values[name] for name in KINDS if name in collecting.values},
        absent=collecting.absent,
        unmeasured=collecting.unmeasured,
        counters=collecting.counters,
        missing=tuple(collecting.missing),
    )


def _ask(connection: AutocommitConnection, probe: Probe, collecting: Collecting) -> None:
    try:
        probe.measure(connection, collecting)
    except psycopg.Error as error:
        if error.sqlstate not in _REFUSALS:
            raise
        reason = (error.diag.message_primary or str(error)).strip()
        for name in probe.names:
            collecting.unmeasured[name] = reason


@contextmanager
def _limits(connection: AutocommitConnection, timeout_ms: int, *, restored: tuple[str, str]) -> Iterator[None]:
    connection.execute(_SET, (str(timeout_ms), str(LOCK_TIMEOUT_MS)))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(_SET, restored)
