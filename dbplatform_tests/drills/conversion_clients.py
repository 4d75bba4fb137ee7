"""Writers and readers of a table that is being converted. Each keeps its own record of what it committed or saw.

A writer inserts, changes and deletes rows that only it touches, together with rows that refer to them; a reader asks
again and again for rows that nobody changes. So a lost, doubled or late row has a name.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from dbplatform.partitioning.policy import PartitionPolicy

WRITERS, READERS = 8, 4
#: The rows that readers ask for.
STILL = 200
POLICY = PartitionPolicy.model_validate({"table": "event", "column": "at", "interval": "1 month", "premake": 2})

_NEWEST = datetime(2026, 3, 15, tzinfo=UTC)
_SETUP = """
    create table carrier (code text primary key);
    insert into carrier select 'C' || i from generate_series(0, 9) i;
    create table event (
        id bigint, at timestamptz not null, carrier text not null references carrier, n int not null default 0,
        body text, primary key (id, at)
    );
    create index event_at on event (at);
    create table line (
        event_id bigint, event_at timestamptz, foreign key (event_id, event_at) references event (id, at)
    );
    create view reading as select id, at, n from event;
    insert into event
    select i, timestamptz '2026-03-15 00:00Z' - i * interval '1 minute', 'C' || i % 10, 1, md5(i::text)
    from generate_series(1, {rows}) i;
    analyze event;
"""


def prepare(url: str, rows: int) -> None:
    """The tables, with so many rows that no client touches."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_SETUP.replace("{rows}", str(rows)).encode())


@dataclass
class Clients:
    """Twelve clients and what they saw; ``committed`` is every row of theirs that must be there in the end."""

    url: str
    rows: int
    pause_s: float = 0.005
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    committed: dict[int, tuple[datetime, int]] = field(default_factory=dict)
    lines: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def working(self) -> Iterator[Clients]:
        """Write and read until the block ends; the block begins when every client has done something."""
        begun = threading.Barrier(WRITERS + READERS + 1)
        threads = [threading.Thread(target=self._client, args=(self._write, n, begun)) for n in range(WRITERS)]
        threads += [threading.Thread(target=self._client, args=(self._read, n, begun)) for n in range(READERS)]
        for thread in threads:
            thread.start()
        try:
            begun.wait(60)
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def differences(self) -> list[str]:
        """Rows that were lost, doubled or are not as their writer left them."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("select id, at, n from event where id > %s", (self.rows,)).fetchall()
            still = connection.execute("select count(*) from event where id <= %s", (self.rows,)).fetchone()
            lines = connection.execute(
                "select count(*) from line join event on (id, at) = (event_id, event_at)"
            ).fetchone()
        there = {id_: (at, n) for id_, at, n in found}
        wrong = [f"{id_} was lost" for id_ in self.committed.keys() - there.keys()]
        wrong += [f"{id_} came back" for id_ in there.keys() - self.committed.keys()]
        wrong += [
            f"{id_} is {there[id_]}"
            for id_ in there.keys() & self.committed.keys()
            if there[id_] != self.committed[id_]
        ]
        wrong += [] if len(found) == len(there) else ["a row is doubled"]
        wrong += [] if still == (self.rows,) else [f"{still} of {self.rows} rows that nobody touched"]
        return wrong + ([] if lines == (self.lines,) else [f"{lines} of {self.lines} lines"])

    def _client(self, work: Any, number: int, begun: threading.Barrier) -> None:
        chance, mine, seconds = random.Random(number), {}, []
        with psycopg.connect(self.url, application_name="client") as connection:
            first = True
            while first or not self._stop.wait(self.pause_s):
                started = time.monotonic()
                try:
                    work(connection, chance, mine, number)
                except (psycopg.Error, AssertionError) as error:
                    self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")
                    connection.rollback()
                seconds.append(time.monotonic() - started)
                if first:
                    begun.wait(60)
                    first = False
        with self._lock:
            self.seconds += seconds
            self.committed.update({id_: (at, n) for id_, (at, n, _) in mine.items()})
            self.lines += sum(held for _, _, held in mine.values())

    def _write(
        self,
        connection: psycopg.Connection[Any],
        chance: random.Random,
        mine: dict[int, tuple[datetime, int, bool]],
        number: int,
    ) -> None:
        what = chance.random()
        if not mine or what < 0.5:
            id_ = self.rows + 1 + chance.getrandbits(40) * WRITERS + number
            at = _NEWEST - timedelta(minutes=chance.randrange(100_000))
            refer = chance.random() < 0.3
            connection.execute("insert into event values (%s, %s, %s, 0)", (id_, at, f"C{chance.randrange(10)}"))
            if refer:
                connection.execute("insert into line values (%s, %s)", (id_, at))
            connection.commit()
            mine[id_] = (at, 0, refer)
            return
        id_ = chance.choice(list(mine))
        at, n, refer = mine[id_]
        if what < 0.9 or refer:
            changed = connection.execute("update event set n = n + 1 where id = %s and at = %s", (id_, at)).rowcount
            connection.commit()
            assert changed == 1, f"{changed} rows changed"
            mine[id_] = (at, n + 1, refer)
        else:
            changed = connection.execute("delete from event where id = %s and at = %s", (id_, at)).rowcount
            connection.commit()
            assert changed == 1, f"{changed} rows deleted"
            del mine[id_]

    def _read(self, connection: psycopg.Connection[Any], chance: random.Random, *_: Any) -> None:
        table = chance.choice([b"event", b"reading"])
        found = connection.execute(b"select count(*), sum(n) from " + table + b" where id <= %s", (STILL,)).fetchone()
        connection.commit()
        assert found == (STILL, STILL), f"{found} of {STILL} rows"


def distribution(seconds: list[float]) -> dict[str, float]:
    """Median, high percentiles and the longest, in milliseconds."""
    ordered = sorted(seconds)
    shares = {"median": 0.5, "p99": 0.99, "p999": 0.999, "longest": 1.0}
    found = {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * at))] * 1000, 1) for name, at in shares.items()
    }
    return {"operations": len(ordered), **found}
