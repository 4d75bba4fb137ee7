"""Eight clients that write all the time, and one transaction that keeps row locks: what a migration must live with.

Each client records how long every one of its writes took. The writes are short transactions on rows that nobody else
holds, so that what they wait for is the migration.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

CLIENTS = 8
HELD_ROWS = 10
ROWS = 1000

SETUP = f"""
    create table account (id int primary key, balance int not null default 0);
    insert into account (id) select generate_series(1, {ROWS});
    create table entry (account int not null, amount int not null, at timestamptz not null default now());
"""


@dataclass
class Writers:
    """What the clients saw."""

    url: str
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def writing(self) -> Iterator[Writers]:
        """Write until the block ends."""
        threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _client(self, number: int) -> None:
        rows = random.Random(number)
        with psycopg.connect(self.url, application_name="writer") as connection:
            while not self._stop.wait(0.005):
                started = time.monotonic()
                try:
                    row = rows.randint(HELD_ROWS + 1, ROWS)
                    connection.execute("insert into entry (account, amount) values (%s, 1)", (row,))
                    connection.execute("update account set balance = balance + 1 where id = %s", (row,))
                    connection.commit()
                except psycopg.Error as error:
                    self.failures.append(f"{error.sqlstate}: {error}")
                    connection.rollback()
                self.seconds.append(time.monotonic() - started)

    @property
    def summary(self) -> str:
        """The distribution, for a person."""
        ordered = sorted(self.seconds)
        shares = {"median": 0.5, "99 %": 0.99, "99.9 %": 0.999, "longest": 1.0}
        points = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in shares.items()}
        return f"{len(ordered)} writes: " + ", ".join(f"{name} {at * 1000:.0f} ms" for name, at in points.items())


@contextmanager
def row_locks(url: str, seconds: float) -> Iterator[threading.Thread]:
    """A transaction that changes a few rows and is left open for so long; begun when the block begins."""
    begun = threading.Event()

    def hold() -> None:
        with psycopg.connect(url, application_name="long transaction") as connection:
            connection.execute("update account set balance = balance + 1 where id <= %s", (HELD_ROWS,))
            begun.set()
            threading.Event().wait(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        yield thread
    finally:
        thread.join()
