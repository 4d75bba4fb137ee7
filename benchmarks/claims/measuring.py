"""How the two sides of a claim are measured: in turns, what is compared hidden in a transaction that is rolled back."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.claims.registry import Sides
from dbplatform.postgres.connection import Target
from dbplatform.postgres.pools import DatabasePool, PoolExhausted, PoolSettings

Connection = psycopg.Connection[Any]
#: One way to do something on a connection.
Way = Callable[[Connection], object]

_SLOW_S, _ENOUGH_S = 0.5, 0.1
_CALLS = 5, 100


def query(text: str, *values: object) -> Way:
    """A statement whose rows are fetched."""

    def ask(connection: Connection) -> object:
        return connection.execute(text.encode(), values or None).fetchall()

    return ask


def milliseconds(connection: Connection, way: Way) -> float:
    """How long a call takes: the median of 5 to 100, within a tenth of a second where that is enough for 5, behind one
    that is not counted; of a slow way that one call alone."""
    first = _timed(connection, way)
    if first > _SLOW_S:
        return first * 1000
    least, most = _CALLS
    calls = min(most, max(least, int(_ENOUGH_S / first)))
    return statistics.median(_timed(connection, way) for _ in range(calls)) * 1000


def _timed(connection: Connection, way: Way) -> float:
    begun = time.perf_counter()
    way(connection)
    return time.perf_counter() - begun


def compared(
    connection: Connection,
    before: Mapping[str, Way],
    after: Mapping[str, Way] | None = None,
    *,
    rounds: int,
    without: Sequence[str] = (),
) -> dict[str, Sides]:
    """The milliseconds of each way, in rounds that do both sides in turns; ``after`` is by default the same ways.

    ``without``: indexes that are not there before. Everything is rolled back.
    """
    times: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in before}
    sides = {"before": before, "after": after or before}
    for number in range(rounds):
        for side in ("before", "after") if number % 2 == 0 else ("after", "before"):
            with hidden(connection, without if side == "before" else ()):
                for name, way in sides[side].items():
                    times[name][side].append(milliseconds(connection, way))
    return {name: Sides(before=both["before"], after=both["after"]) for name, both in times.items()}


def together(sides: Mapping[str, Sides], *, mean: bool = False) -> Sides:
    """All of them one after the other; ``mean``: what one takes on average."""
    share = len(sides) if mean else 1
    before, after = (
        [sum(one) / share for one in zip(*(getattr(each, side) for each in sides.values()), strict=True)]
        for side in ("before", "after")
    )
    return Sides(before=before, after=after)


@contextmanager
def hidden(connection: Connection, indexes: Sequence[str]) -> Iterator[None]:
    """A transaction that sees the database without these indexes, rolled back at the end."""
    with connection.transaction(force_rollback=True):
        for index in indexes:
            connection.execute(sql.SQL("drop index {}").format(sql.Identifier(index)))
        yield


def throughput(url: str, way: Way, *, clients: int, settings: PoolSettings, seconds: float) -> tuple[float, float]:
    """Calls per second of so many callers who share a pool for so long, and the memory of its sessions in MB."""
    pool, ends = DatabasePool(Target("bench", url), settings, work="bench"), threading.Event()
    with ThreadPoolExecutor(clients) as threads:
        for _ in range(2):  # the sessions are opened before
            list(threads.map(lambda _: _through(pool, way), range(clients)))
        working = [threads.submit(_until, ends, pool, way) for _ in range(clients)]
        begun = time.perf_counter()
        ends.wait(seconds)
        memory = memory_of(url)
        ends.set()
        calls = sum(one.result() for one in working)
        took = time.perf_counter() - begun
    pool.close()
    return calls / took, memory


def _until(ends: threading.Event, pool: DatabasePool, way: Way) -> int:
    calls = 0
    while not ends.is_set():
        _through(pool, way)
        calls += 1
    return calls


def _through(pool: DatabasePool, way: Way) -> None:
    with pool.connection() as connection:
        driver: Any = connection.connection.driver_connection
        way(driver)


def held_at_once(url: str, *, callers: int, settings: PoolSettings, hold_s: float) -> tuple[int, int]:
    """So many callers who each want a connection at once and hold it for so long: the most that had one, and how many
    got none, because the pool had none for them in time or the server refused it."""
    pool, refused = DatabasePool(Target("bench", url), settings, work="bench"), list[int]()
    together_ = threading.Barrier(callers)

    def hold(_: int) -> None:
        together_.wait()
        try:
            with pool.connection():
                threading.Event().wait(hold_s)
        except PoolExhausted:
            refused.append(1)
        except Exception as error:  # SQLAlchemy's, around that of the server
            if not isinstance(getattr(error, "orig", None), psycopg.OperationalError):
                raise
            refused.append(1)

    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(hold, range(callers)))
    most = pool.statistics.most_in_use
    pool.close()
    return most, len(refused)


def memory_of(url: str) -> float:
    """MB that the sessions of the benchmark's pools hold for themselves."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "select pid from pg_stat_activity where application_name = 'dbplatform bench'"
        ).fetchall()
    return sum(_private_kb(pid) for (pid,) in found) / 1024


def _private_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def processor_s(postmaster: int) -> dict[int, float]:
    """Seconds of CPU by process, of the server and all that it has started and that live."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        pid = int(entry.parent.name)
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            if postmaster in (pid, parent):
                found[pid] = seconds_of(pid)
        except OSError:
            continue
    return found


def seconds_of(pid: int) -> float:
    """Seconds of CPU of one process, to the nanosecond where the kernel counts so, else to its tick."""
    counted = Path(f"/proc/{pid}/schedstat")
    if counted.exists():
        # Of all its threads: the file of the process itself tells of the first one.
        return sum(_schedstat(task / "schedstat") for task in Path(f"/proc/{pid}/task").iterdir())
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _schedstat(file: Path) -> float:
    return int(file.read_text().split()[0]) / 1e9


def spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Seconds between two looks; what began and ended between them is not in it."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
