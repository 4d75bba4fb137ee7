"""What both benchmarks need: the server, the proof, and the probes that feel what the work does to others."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer

#: A statement, and what makes the parameters of each call of it.
Call = tuple[str, Callable[[], Sequence[Any]]]
EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """The calls of all probes. ``p50_ms``, ``p99_ms`` and ``worst_ms`` count from when a call was due."""

    probes: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    sent_p99_ms: float
    """The 99th percentile from when a call was sent: what was due meanwhile does not count."""


class Probes:
    """For each call a session that makes it every twenty milliseconds, whatever became of the one before.

    A call that is due while the session still waits is sent as soon as it can be, and its wait counts. A probe that
    only sends the next call once it has an answer would report a stall of 20 seconds as one slow call among thousands.
    Calls that are due before the end are made, and counted.
    """

    def __init__(self, url: str, *calls: Call) -> None:
        self._url = url
        self._over = threading.Event()
        self._end = 0.0
        self._calls = calls
        self._beside = ThreadPoolExecutor(len(calls))
        self._latencies: list[tuple[float, float]] = []

    def __enter__(self) -> Probes:
        self._working = [self._beside.submit(self._work, *call) for call in self._calls]
        return self

    def __exit__(self, *_: object) -> None:
        self._end = time.perf_counter()
        self._over.set()
        self._beside.shutdown()
        for working in self._working:
            working.result()

    def _work(self, statement: str, parameters: Callable[[], Sequence[Any]]) -> None:
        with psycopg.connect(self._url, autocommit=True) as session:
            due = time.perf_counter()
            while True:
                while (wait := due - time.perf_counter()) > 0 and not self._over.wait(wait):
                    pass
                if self._over.is_set() and due > self._end:
                    return
                values, sent = parameters(), time.perf_counter()
                session.execute(statement, values)
                answered = time.perf_counter()
                self._latencies.append(((answered - due) * 1000, (answered - sent) * 1000))
                due += EVERY_S

    @property
    def felt(self) -> Felt:
        """To be asked at the end."""
        due, sent = (sorted(one) for one in zip(*self._latencies, strict=True))
        return Felt(
            probes=len(due),
            p50_ms=statistics.median(due),
            p99_ms=due[int(len(due) * 0.99)],
            worst_ms=due[-1],
            sent_p99_ms=sent[int(len(sent) * 0.99)],
        )


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The given server, or an embedded one of its own, which is removed afterwards."""
    if url is not None:
        yield url
        return
    own = EmbeddedServer(Home(root=Path(tempfile.mkdtemp())))
    try:
        own.start()
        yield own.url("postgres")
    finally:
        own.remove()


def proof_of_now(session: psycopg.Connection[Any]) -> ProvenSnapshot:
    """A proof as a backup taken at this moment would give it: where archives run, there is one."""
    row = session.execute(
        "select pg_current_snapshot()::text, (select system_identifier from pg_control_system()),"
        " (select oid::int8 from pg_database where datname = current_database()), now()"
    ).fetchone()
    assert row is not None
    return ProvenSnapshot(
        backup_id="given", snapshot=row[0], system_identifier=row[1], database_oid=row[2], taken_at=row[3]
    )
