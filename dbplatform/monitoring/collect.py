"""One pass over a database's catalog and statistics views: eight statements, the first of which opens the session.

Here: the session with its limits, the order of the probes, and what becomes of one that the server refuses. The
questions themselves are in ``probes``.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbplatform.monitoring.metrics import KINDS, Metrics
from dbplatform.monitoring.probes.collecting import Collecting, Probe
from dbplatform.monitoring.probes.replication import REPLICATION
from dbplatform.monitoring.probes.sequences import SEQUENCES
from dbplatform.monitoring.probes.server import SERVER
from dbplatform.monitoring.probes.sessions import SESSIONS
from dbplatform.monitoring.probes.statements import STATEMENTS
from dbplatform.monitoring.probes.tables import INDEXES, TABLES
from dbplatform.postgres.connection import AutocommitConnection, Target, connect

#: How the sessions that measure call themselves; they do not count themselves.
WORK = "metrics"
STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 500
#: No statement begins later than that after the first: a slow server holds nobody up for longer than this and one more.
DEADLINE_S = 10.0
#: Smaller tables and indexes may be as bloated as they like.
BLOAT_BYTES = (200 << 20, 100 << 20)

#: The questions after the first one, without whose answers none can be asked.
PROBES = (SESSIONS, REPLICATION, TABLES, INDEXES, SEQUENCES, STATEMENTS)

#: What a probe may be refused without an end of the whole: time limit, lock limit, rights, a view that is not there, an
#: extension that is not preloaded.
REFUSALS = ("57014", "55P03", "42501", "42P01", "42883", "0A000", "55000")
#: A server that is gone is noticed: by the kernel where data was sent, by its probes where an answer is awaited.
_NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


@contextmanager
def session(target: Target, *, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> Iterator[AutocommitConnection]:
    """A session to measure by, whose statements neither run nor wait for long. Raises what ``connect`` raises."""
    with connect(
        bounded(target),
        work=WORK,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
        statement_timeout_ms=statement_timeout_ms,
        jit=False,
    ) as connection:
        yield connection


def bounded(target: Target) -> Target:
    """The target with limits of the network; a URL that cannot be read is left to ``connect``, which says why."""
    try:
        limits = {k: v for k, v in _NETWORK.items() if k not in conninfo_to_dict(target.url)}
        return Target(target.name, make_conninfo(target.url, **limits))
    except psycopg.ProgrammingError:
        return target


def collect(
    connection: AutocommitConnection,
    *,
    database: str,
    now: datetime,
    previous: Metrics | None = None,
    known_statements: Collection[int] = (),
    bloat_bytes: tuple[int, int] = BLOAT_BYTES,
) -> Metrics:
    """Measure every metric of the connected database at the time ``now`` (aware); the connection is a ``session``.

    ``database`` is its declared name; ``previous`` is the collection before, from which counters take differences
    (``latest`` of the ledger); the texts of ``known_statements`` are not read again. A role with ``pg_monitor`` is
    enough; ``missing`` of the answer says what is not.

    Seven statements, each by itself, reading only. Lock: ACCESS SHARE on tables and indexes, one at a time for the
    moment in which its size is read. A probe that the server refuses, that runs into the session's limits, or that
    would begin after 10 s, leaves its metrics unmeasured and the others go on. Any other error of PostgreSQL is raised.
    """
    collecting = Collecting(
        major=connection.info.server_version // 10000,
        now=now,
        previous=previous,
        bloat_bytes=bloat_bytes,
        known=known_statements,
    )
    until = time.monotonic() + DEADLINE_S
    SERVER.measure(connection, collecting)
    for probe in PROBES:
        if time.monotonic() > until:
            collecting.unknown(f"the server was too slow: it was not asked after {DEADLINE_S:.0f} s", *probe.names)
        else:
            _ask(connection, probe, collecting)
    return Metrics(
        database=database,
        at=now,
        values={name: collecting.values[name] for name in KINDS if name in collecting.values},
        absent=collecting.absent,
        unmeasured=collecting.unmeasured,
        counters=collecting.counters,
        missing=tuple(collecting.missing),
        worst=collecting.worst,
        statements=collecting.statements,
        settings=collecting.settings,
    )


def _ask(connection: AutocommitConnection, probe: Probe, collecting: Collecting) -> None:
    try:
        probe.measure(connection, collecting)
    except psycopg.Error as error:
        if error.sqlstate not in REFUSALS:
            raise
        reason = (error.diag.message_primary or str(error)).strip()
        for name in probe.names:
            collecting.unmeasured[name] = reason
