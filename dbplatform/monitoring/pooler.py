"""What PgBouncer says of its pools to a database, by its administration console.

Three SHOW commands, read only; its user is one of ``admin_users`` or ``stats_users``. Source: PgBouncer's manual,
"Admin console".
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from dbplatform.monitoring.collect import STATEMENT_TIMEOUT_MS, bounded
from dbplatform.monitoring.errors import PoolerSilent
from dbplatform.monitoring.kinds.recovery import POOLER
from dbplatform.monitoring.metrics import Metric
from dbplatform.postgres.connection import Target, connect_plainly

NAMES = tuple(kind.name for kind in POOLER)
_ANSWER_S = STATEMENT_TIMEOUT_MS / 1000


def pools(console: Target, database: str) -> dict[str, Metric]:
    """How full the pools to a database are, by its name on the server; nothing where there is none yet.

    Asked within the limits of the network, and for as long in all as a statement of a database may take. Raises
    ``CannotConnect``, ``PoolerSilent``, and psycopg's errors where the user may not ask.
    """
    with connect_plainly(bounded(console), work="pools") as connection, _answering(connection):
        aliases = {row["name"]: row for row in _show(connection, "show databases") if row["database"] == database}
        rows = [row for row in _show(connection, "show pools") if row["database"] in aliases]
    if not rows:
        return {}
    used = [_used(row, aliases[row["database"]]) for row in rows]
    ratio, who, detail = max(used)
    waiting = sum(int(row["cl_waiting"]) for row in rows)
    longest = max(int(row["maxwait"]) + int(row.get("maxwait_us", 0)) / 1e6 for row in rows)
    found = (
        Metric(name="pool_used_ratio", value=ratio, unit="ratio", labels={"pool": who}, detail=detail),
        Metric(name="pool_waiting_clients", value=waiting, unit="count"),
        Metric(name="pool_wait_s", value=longest, unit="seconds"),
    )
    return {metric.name: metric for metric in found}


@contextmanager
def _answering(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Hang up on one that does not answer for too long: its console knows no ``statement_timeout``."""
    hung_up = threading.Event()

    def hang_up() -> None:
        hung_up.set()
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_ANSWER_S, hang_up)
    timer.start()
    try:
        yield
    except psycopg.OperationalError as error:
        if hung_up.is_set():
            raise PoolerSilent(seconds=_ANSWER_S, hint="See whether its process still works.") from error
        raise
    finally:
        timer.cancel()
        # The number of a closed connection may be another one's at once.
        timer.join()


def _used(row: DictRow, alias: DictRow) -> tuple[float, str, str]:
    """In use is what serves a client; pools of a database without a limit of its own have that of each pool."""
    busy, size = int(row["sv_active"]), max(1, int(alias["pool_size"]) + int(alias.get("reserve_pool", 0) or 0))
    who = f"{row['database']}/{row['user']}"
    return busy / size, who, f"{busy} of {size} server connections of {who} are in use"


def _show(connection: psycopg.Connection[Any], command: str) -> list[DictRow]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(command.encode()).fetchall()
