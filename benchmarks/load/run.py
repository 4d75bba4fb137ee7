"""How long a million rows take: this project beside ``psql \\copy`` and SQLAlchemy's ``add_all``, side by side.

    python benchmarks/load/run.py [--rows 1000000] [--rounds 5] [--without-orm] [--only insert|upsert] [--url URL]

The table has eight columns, a primary key and one index. Every round does each way once, each in a fresh table after a
checkpoint, in an order that rotates from round to round, so that a machine that is busy for a while is busy for all.
Every way begins with its values in memory, psql with a CSV file. Upserts are done twice: with the rows in the order of
their key, and in random order. Printed are medians, the median of the ratios within each round, and whether each is
within its limit; they are written to ``results.json`` beside. Exit code 1 where a limit is missed. Without ``--url`` an
embedded server of its own is started, with PostgreSQL's default settings, and removed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql
from pyarrow import compute, csv
from sqlalchemy import DateTime, Engine, Numeric, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.programs import find_programs
from dbplatform.seeding.bulk import copy_rows, upsert_rows

DDL = """
    drop table if exists orders;
    create table orders (id bigint primary key, customer int, created_at timestamptz, amount numeric(12,2),
                         ratio float8, paid bool, name text, note text);
    create index on orders (customer);
"""
CHANGED = ("customer", "created_at", "amount", "ratio", "paid", "name", "note")
MERGE = sql.SQL(
    "insert into orders as old select * from staged on conflict (id)"
    " do update set {} where row({})::record *<> row({})::record"
).format(
    sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in CHANGED),
    sql.SQL(", ").join(sql.SQL("old.{}").format(sql.Identifier(name)) for name in CHANGED),
    sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(name)) for name in CHANGED),
)


INSERT_LIMIT, UPSERT_LIMIT = 1.4, 1.1
"""Times psql, at most."""
ORM_LIMIT = 8
"""Times ``copy_rows`` takes ``add_all``, at least."""
MEMORY_LIMIT_MB = 150
MEMORY_WAYS = ("copy_rows, Arrow", "copy_rows, pandas", "copy_rows, tuples", "upsert_rows, pandas")


class Base(DeclarativeBase):
    """The models of the ORM's way."""


class Order(Base):
    """The same table for SQLAlchemy."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[int]
    created_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
    amount: Mapped[Any] = mapped_column(Numeric(12, 2))
    ratio: Mapped[float]
    paid: Mapped[bool]
    name: Mapped[str]
    note: Mapped[str | None]


def made(rows: int, *, seed: int) -> pa.Table:
    """Orders 0, 1, 2 and so on; the same ones for the same seed."""
    random = np.random.default_rng(seed)
    cents = pa.array(random.integers(0, 100_000_000, rows, dtype="i4")).cast(pa.decimal128(10, 0))
    moments = random.integers(1_600_000_000_000_000, 1_700_000_000_000_000, rows)
    return pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "customer": pa.array(random.integers(0, 100_000, rows, dtype="i4")),
            "created_at": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "amount": compute.multiply(cents, pa.scalar(Decimal("0.01"))),
            "ratio": pa.array(random.random(rows)),
            "paid": pa.array(random.random(rows) < 0.5),
            "name": pa.array([f"customer number {n % 5000}" for n in range(rows)]),
            "note": pa.array([None if n % 3 else f'a note, "quoted" {n}' for n in range(rows)]),
        }
    )


@dataclass(slots=True)
class Results:
    """What was measured, and held against the limits."""

    rows: int
    memory_mb: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    verdicts: dict[str, bool] = field(default_factory=dict)

    def ratio(self, title: str, way: str, base: str) -> float:
        """The median of one way's times to another's, round by round."""
        times = self.seconds[title]
        return statistics.median(mine / other for mine, other in zip(times[way], times[base], strict=True))

    def judge(self, what: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """Keep and print whether a figure is within its limit."""
        within = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        self.verdicts[what] = within
        limit = f"at most {at_most}" if at_most is not None else f"at least {at_least}"
        print(f"{'within' if within else 'MISSED'}: {what}: {value:.2f}, {limit}", flush=True)


class Bench:
    """The ways, over one server and one set of rows."""

    def __init__(self, url: str, folder: Path, results: Results, *, orm: bool) -> None:
        self.url, self.rows, self.folder, self.results = url, results.rows, folder, results
        rows = self.rows
        self.connection = psycopg.connect(url, autocommit=True)
        self.engine: Engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        self.new = made(rows, seed=1)
        self.changed = made(rows, seed=2)
        self.shuffled = self.changed.take(np.random.default_rng(3).permutation(rows))
        self.frame = self.new.to_pandas()
        self.values = [column.to_pylist() for column in self.new.columns]
        for name in ("new", "changed", "shuffled"):
            csv.write_csv(getattr(self, name), folder / f"{name}.csv", csv.WriteOptions(include_header=False))
        self.inserts: dict[str, Callable[[], object]] = {
            "psql \\copy": self.psql,
            "copy_rows, Arrow": lambda: copy_rows(self.connection, "orders", self.new),
            "copy_rows, pandas": lambda: copy_rows(self.connection, "orders", self.frame),
            "copy_rows, tuples": lambda: copy_rows(self.connection, "orders", self.tuples()),
        }
        if orm:
            self.inserts["ORM add_all"] = self.add_all

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """The rows as a generator of Python's values."""
        yield from zip(*self.values, strict=True)

    def upserts(self, name: str) -> dict[str, Callable[[], object]]:
        """The ways to bring in one of the tables of changed rows."""
        table: pa.Table = getattr(self, name)
        frame = table.to_pandas()
        return {
            "psql \\copy + INSERT ON CONFLICT": lambda: self.psql_upsert(name),
            "upsert_rows, Arrow": lambda: upsert_rows(self.connection, "orders", table),
            "upsert_rows, pandas": lambda: upsert_rows(self.connection, "orders", frame),
        }

    def psql(self) -> None:
        self._psql(f"\\copy orders from '{self.folder}/new.csv' (format csv)")

    def psql_upsert(self, name: str) -> None:
        self._psql(
            "begin",
            "create temporary table staged on commit drop as select * from orders with no data",
            f"\\copy staged from '{self.folder}/{name}.csv' (format csv)",
            MERGE.as_string(self.connection),
            "commit",
        )

    def add_all(self) -> None:
        names = self.new.column_names
        with Session(self.engine) as session:
            session.add_all(Order(**dict(zip(names, row, strict=True))) for row in self.tuples())
            session.commit()

    def prepare(self, *, half: bool) -> None:
        """A fresh table; for an upsert, half of the rows are there."""
        self.connection.execute(DDL)
        if half:
            copy_rows(self.connection, "orders", self.new.slice(0, self.rows // 2))
            self.connection.execute("vacuum analyze orders")
        self.connection.execute("checkpoint")

    def run(self, rounds: int, only: str | None) -> None:
        """Measure and judge inserts, upserts or both."""
        if only != "upsert":
            title = "insert"
            self._measure(title, self.inserts, rounds, half=False)
            self._judge(title, list(self.inserts)[1:4], "psql \\copy", INSERT_LIMIT)
            if "ORM add_all" in self.inserts:
                for way in list(self.inserts)[1:4]:
                    ratio = self.results.ratio(title, "ORM add_all", way)
                    self.results.judge(f"ORM add_all to {way}", ratio, at_least=ORM_LIMIT)
        if only != "insert":
            for name, order in (("changed", "in the order of the key"), ("shuffled", "in random order")):
                title = f"upsert, 50 % conflicts, {order}"
                ways = self.upserts(name)
                self._measure(title, ways, rounds, half=True)
                self._judge(title, list(ways)[1:], next(iter(ways)), UPSERT_LIMIT)

    def _measure(self, title: str, ways: dict[str, Callable[[], object]], rounds: int, *, half: bool) -> None:
        seconds = self.results.seconds[title] = {name: [] for name in ways}
        names = list(ways)
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                self.prepare(half=half)
                started = time.monotonic()
                ways[name]()
                seconds[name].append(time.monotonic() - started)
                self._check()
        print(f"\n| {title} | median s | times psql | all s |\n|---|---|---|---|")
        for name, times in seconds.items():
            ratio = self.results.ratio(title, name, names[0])
            shown = ", ".join(f"{one:.1f}" for one in times)
            print(f"| {name} | {statistics.median(times):.1f} | {ratio:.2f} | {shown} |")
        print()

    def _judge(self, title: str, ways: list[str], base: str, limit: float) -> None:
        for way in ways:
            self.results.judge(f"{title}: {way}, times psql", self.results.ratio(title, way, base), at_most=limit)

    def _check(self) -> None:
        row = self.connection.execute("select count(*) from orders").fetchone()
        assert row == (self.rows,), row

    def _psql(self, *commands: str) -> None:
        program = str(find_programs().path("psql"))
        chosen = [word for command in commands for word in ("-c", command)]
        # The password goes by the environment, not by the command line.
        info = psycopg.conninfo.conninfo_to_dict(self.url)
        environment = {**os.environ, "PGPASSWORD": str(info.pop("password", ""))}
        where = psycopg.conninfo.make_conninfo(**info)
        subprocess.run([program, "-X", "-q", "-v", "ON_ERROR_STOP=1", where, *chosen], check=True, env=environment)


def memory(url: str, rows: int, way: str) -> None:
    """Print by how much the peak of this process rises above what it holds before; Linux tells it."""
    table: Any = made(rows, seed=1)
    given = table
    if way.endswith("pandas"):
        given = table.to_pandas()
    elif way.endswith("tuples"):
        given = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    call = upsert_rows if way.startswith("upsert") else copy_rows
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(DDL)
        copy_rows(connection, "orders", table.slice(0, 10))  # what is imported and set up once
        connection.execute("truncate orders")
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        call(connection, "orders", given)  # type: ignore[operator]
        print(max(0, _status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def main() -> int:
    """Run everything, print tables in Markdown and the verdicts, write ``results.json``."""
    parser = argparse.ArgumentParser(description="Bulk load beside psql and an ORM.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-orm", action="store_true")
    parser.add_argument("--only", choices=("insert", "upsert"))
    parser.add_argument("--url", help="a database of your own in which a table orders may be dropped")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory:
        memory(os.environ["BENCH_URL"], chosen.rows, chosen.memory)
        return 0
    results = Results(chosen.rows)
    with tempfile.TemporaryDirectory() as folder:
        server = None if chosen.url else EmbeddedServer(Home(root=Path(folder) / "home"))
        if server is not None:
            server.start()
        try:
            url = chosen.url or (server.url("postgres") if server is not None else "")
            print(f"{chosen.rows:,} rows, {chosen.rounds} rounds", flush=True)
            for way in MEMORY_WAYS:
                words = [sys.executable, __file__, "--rows", str(chosen.rows), "--memory", way]
                told = subprocess.run(
                    words, check=True, env={**os.environ, "BENCH_URL": url}, stdout=subprocess.PIPE, text=True
                )
                results.memory_mb[way] = float(told.stdout)
                results.judge(f"memory above the input, {way}, MB", float(told.stdout), at_most=MEMORY_LIMIT_MB)
            Bench(url, Path(folder), results, orm=not chosen.without_orm).run(chosen.rounds, chosen.only)
        finally:
            if server is not None:
                server.remove()

    about = {"python": platform.python_version(), "machine": f"{os.cpu_count()} CPUs, {platform.system()}"}
    (Path(__file__).parent / "results.json").write_text(json.dumps({**asdict(results), **about}, indent=2) + "\n")
    return 0 if all(results.verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
