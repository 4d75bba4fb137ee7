"""Document 000: polling beside push, by the real service of the platform and real clients.

A page that polls asks for the newest fifty of the queue once a second, through the declared pool of ten, which is what
its application does; what the application itself takes is left out. A page that is pushed to holds ``/ws`` of
``dbplatform serve``. Both have the same uploads, each committed by itself. What the database takes is the CPU of all
its processes, uploads included; statements are those that ``pg_stat_statements`` counts, uploads left out.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.claims import scriptsensei
from benchmarks.claims.ground import Ground
from benchmarks.claims.measuring import processor_s, seconds_of, spent
from benchmarks.claims.registry import Measured, Sides, bounded, claim, less
from dbplatform.operations import live
from dbplatform_tests.drills.serving import Served, serving
from dbplatform_tests.installation import Installation

SYSTEM = scriptsensei.SYSTEM
POLL_S = 1.0
POOL = 10
#: Pages that poll once a second make 120 queries a minute, which the document counts; and a department of them.
DOCUMENTED, DEPARTMENT = 2, 50
_UPLOAD = """
    insert into prescriptions (id, config_id, file_name, mime_type, file_bytes, file_sha256)
    values (%s, 1, 'scan.png', 'image/png', 50000, %s)
"""
_NEWEST = "select * from processing_queue order by uploaded_at desc limit 50"
_UNCOUNTED = "-c pg_stat_statements.track=none"
_CALLS = """
    select coalesce(sum(calls), 0)::int from pg_stat_statements
    where toplevel and dbid = (select oid from pg_database where datname = %s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Some seconds of one way: shares of one processor, statements, and how long each page took to show an upload."""

    server_percent: float
    service_percent: float
    statements_a_minute: float
    latencies_ms: list[float]


class Pages:
    """What is shown where, and when it was committed."""

    def __init__(self) -> None:
        self.committed: dict[str, float] = {}
        self.latencies_ms: list[float] = []

    def shows(self, ids: list[str], seen: set[str]) -> None:
        """A page has these rows now; ``seen`` are the uploads that it has shown before."""
        for one in ids:
            if one in self.committed and one not in seen:
                seen.add(one)
                self.latencies_ms.append((time.perf_counter() - self.committed[one]) * 1000)

    async def polls(self, pool: asyncio.Queue[psycopg.AsyncConnection[Any]], number: int) -> None:
        seen: set[str] = set()
        await asyncio.sleep(POLL_S * random.Random(number).random())
        due = time.perf_counter()
        while True:
            connection = await pool.get()
            try:
                rows = await (await connection.execute(_NEWEST.encode())).fetchall()
            finally:
                pool.put_nowait(connection)
            self.shows([str(row[0]) for row in rows], seen)
            due += POLL_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def is_pushed_to(self, socket: ClientConnection) -> None:
        seen: set[str] = set()
        while True:
            message = json.loads(await socket.recv())
            if message["type"] == "changes":
                self.shows([row["id"] for table in message["tables"] for row in table["rows"] if "id" in row], seen)

    async def uploads(self, url: str, number: int, seconds: float) -> None:
        """So many uploads, evenly over the time; their statements are not counted."""
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, options=_UNCOUNTED) as connection:
            for _ in range(number):
                await asyncio.sleep(seconds / (number + 1))
                one = str(uuid.uuid4())
                # From when it is sent: it may be shown before the commit is answered.
                self.committed[one] = time.perf_counter()
                await connection.execute(_UPLOAD.encode(), (one, uuid.UUID(one).hex * 2))
            await asyncio.sleep(seconds / (number + 1))


async def window(ground: Ground, *, pages: int, uploads: int, served: Served | None) -> Window:
    """Measure one way for some seconds, when all its pages are there."""
    shown, url, postmaster = Pages(), ground.url(SYSTEM), ground.server.status().pid
    assert postmaster is not None
    async with AsyncExitStack() as stack:
        if served is None:
            pool: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
            for _ in range(min(POOL, pages)):
                pool.put_nowait(
                    await stack.enter_async_context(await psycopg.AsyncConnection.connect(url, autocommit=True))
                )
            work = [shown.polls(pool, number) for number in range(pages)]
        else:
            work = [shown.is_pushed_to(await stack.enter_async_context(watching(served))) for _ in range(pages)]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.sleep(POLL_S)
            reset(ground)
            before, begun = look(postmaster, served), time.perf_counter()
            await shown.uploads(url, uploads, ground.seconds)
            took, after = time.perf_counter() - begun, look(postmaster, served)
            calls = counted(ground)
            failed = [one.exception() for one in tasks if one.done()]
            assert not failed, failed
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return Window(
        server_percent=spent(before[0], after[0]) / took * 100,
        service_percent=(after[1] - before[1]) / took * 100,
        statements_a_minute=calls / took * 60,
        latencies_ms=shown.latencies_ms,
    )


@asynccontextmanager
async def watching(served: Served) -> AsyncIterator[ClientConnection]:
    """A page that is told the changes, from when it is."""
    async with connect(f"{served.address.replace('http', 'ws')}/ws") as socket:
        await socket.send(json.dumps({"type": "subscribe", "databases": [SYSTEM]}))
        trouble: str | None = "nothing said yet"
        while trouble is not None:
            message = json.loads(await asyncio.wait_for(socket.recv(), 60))
            if message["type"] == "hello":
                trouble = message["databases"][SYSTEM]["trouble"]
            elif message["type"] == "feed":
                trouble = message["trouble"]
        yield socket


def look(postmaster: int, served: Served | None) -> tuple[dict[int, float], float]:
    return processor_s(postmaster), seconds_of(served.pid) if served else 0.0


def reset(ground: Ground) -> None:
    with psycopg.connect(ground.url(SYSTEM), autocommit=True, options=_UNCOUNTED) as connection:
        connection.execute("select pg_stat_statements_reset()")


def counted(ground: Ground) -> int:
    with psycopg.connect(ground.url(SYSTEM), autocommit=True, options=_UNCOUNTED) as connection:
        row = connection.execute(_CALLS.encode(), (SYSTEM,)).fetchone()
    assert row is not None
    return int(row[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """Windows of both ways, in turns."""

    polled: list[Window]
    pushed: list[Window]

    def sides(self, figure: str) -> Sides:
        return Sides(
            before=[getattr(one, figure) for one in self.polled], after=[getattr(one, figure) for one in self.pushed]
        )

    def latencies(self, way: str, quantile: float) -> float:
        found = sorted(ms for one in getattr(self, way) for ms in one.latencies_ms)
        return found[min(len(found) - 1, int(len(found) * quantile))]

    @property
    def service_percent(self) -> float:
        return statistics.median(one.service_percent for one in self.pushed)


def measured(ground: Ground) -> dict[str, Both]:
    """For each number of pages, both ways in turns, with an upload every twelve seconds; then with many."""
    ground.grown(SYSTEM, scriptsensei.grow)
    live.apply(ground.platform, ground.declared(SYSTEM))
    installation = Installation(ground.home)
    situations = {
        "documented": (DOCUMENTED, 1),
        "department": (DEPARTMENT, 1),
        "many uploads": (DEPARTMENT, 20),
    }
    found = {}
    for name, (pages, uploads) in situations.items():
        windows: dict[str, list[Window]] = {"polled": [], "pushed": []}
        for number in range(min(ground.rounds, 2)):
            for way in ("polled", "pushed") if number % 2 == 0 else ("pushed", "polled"):
                if way == "polled":
                    one = asyncio.run(window(ground, pages=pages, uploads=uploads, served=None))
                else:
                    with serving(installation) as served:
                        one = asyncio.run(window(ground, pages=pages, uploads=uploads, served=served))
                windows[way].append(one)
        found[name] = Both(**windows)
    return found


@claim(SYSTEM, "push instead of polling saves 80 to 90 % of the CPU, which had been at 90 to 100 %")
def push_cpu(ground: Ground) -> Measured:
    found = ground.once("push", lambda: measured(ground))
    documented, department = found["documented"], found["department"]
    polled, _ = documented.sides("server_percent").medians
    return Measured(
        cases=[
            less(
                "database, 2 pages that polled 120 times a minute",
                documented.sides("server_percent"),
                share=0.8,
                unit="% of a processor",
            ),
            less(
                "database, 50 pages that polled 3,000 times",
                department.sides("server_percent"),
                share=0.8,
                unit="% of a processor",
            ),
        ],
        because=f"120 polls a minute take {polled:.1f} % of a processor here and explain no 100 %, and the service that"
        f" pushes takes {department.service_percent:.1f} % itself",
    )


@claim(SYSTEM, "push instead of polling: from over 120 queries a minute to 5 to 10, 92 % less")
def push_queries(ground: Ground) -> Measured:
    found = ground.once("push", lambda: measured(ground))
    return Measured(
        cases=[
            bounded(f"{pages} pages", found[name].sides("statements_a_minute"), at_most=10, unit="a minute")
            for name, pages in (("documented", DOCUMENTED), ("department", DEPARTMENT))
        ],
        because="with five uploads a minute: the figure follows the uploads and not the pages",
    )


@claim(SYSTEM, "push instead of polling: a change is seen after less than 100 ms, not after 1 to 5 s")
def push_latency(ground: Ground) -> Measured:
    found = ground.once("push", lambda: measured(ground))["many uploads"]
    cases = []
    for name, quantile in (("the median", 0.5), ("the 99th percentile", 0.99)):
        both = [found.latencies(way, quantile) for way in ("polled", "pushed")]
        sides = Sides(before=both[:1], after=both[1:])
        cases.append(bounded(f"{name} of 50 pages", sides, at_most=100, unit="ms"))
    return Measured(
        cases=cases,
        because="from when the upload is sent to the page, before with a poll each second",
    )
