"""How long a million rows take: this project beside ``psql \\copy`` and SQLAlchemy's ``add_all``, side by side.

    python benchmarks/load/run.py [--rows 1000000] [--rounds 5] [--without-orm] [--only insert|upsert] [--url URL]

The table has eight columns, a primary key and one index. Every round does each way once, each in a fresh table after a
checkpoint, in an order that rotates from round to round, so that a machine that is busy for a while is busy for all.
Printed are medians, and the median of the ratios within each round. Without ``--url`` an embedded server of its own is
started, with PostgreSQL's default settings, and removed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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


class Bench:
    """The ways, over one server and one set of rows."""

    def __init__(self, url: str, rows: int, folder: Path, *, orm: bool) -> None:
        self.url, self.rows, self.folder = url, rows, folder
        self.connection = psycopg.connect(url, autocommit=True)
        self.engine: Engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        self.new = made(rows, seed=1)
        self.changed = made(rows, seed=2)
        self.frame, self.changed_frame = self.new.to_pandas(), self.changed.to_pandas()
        for name, table in (("new", self.new), ("changed", self.changed)):
            csv.write_csv(table, folder / f"{name}.csv", csv.WriteOptions(include_header=False))
        self.inserts: dict[str, Callable[[], object]] = {
            "psql \\copy": self.psql,
            "copy_rows, Arrow": lambda: copy_rows(self.connection, "orders", self.new),
            "copy_rows, pandas": lambda: copy_rows(self.connection, "orders", self.frame),
            "copy_rows, tuples": lambda: copy_rows(self.connection, "orders", self.tuples()),
        }
        if orm:
            self.inserts["ORM add_all"] = self.add_all
        self.upserts: dict[str, Callable[[], object]] = {
            "psql \\copy + INSERT ON CONFLICT": self.psql_upsert,
            "upsert_rows, Arrow": lambda: upsert_rows(self.connection, "orders", self.changed),
            "upsert_rows, pandas": lambda: upsert_rows(self.connection, "orders", self.changed_frame),
        }

    def tuples(self) -> Any:
        """The rows as Python's values, made while they are read."""
        for batch in self.new.to_batches(max_chunksize=4096):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def psql(self) -> None:
        self._psql(f"\\copy orders from '{self.folder}/new.csv' (format csv)")

    def psql_upsert(self) -> None:
        self._psql(
            "begin",
            "create temporary table staged on commit drop as select * from orders with no data",
            f"\\copy staged from '{self.folder}/changed.csv' (format csv)",
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
        for title, ways, half in (("insert", self.inserts, False), ("upsert, 50 % conflicts", self.upserts, True)):
            if only is not None and not title.startswith(only):
                continue
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            names = list(ways)
            for turn in range(rounds):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    self.prepare(half=half)
                    started = time.monotonic()
                    ways[name]()
                    seconds[name].append(time.monotonic() - started)
                    self._check()
            self._show(title, seconds)

    def _check(self) -> None:
        row = self.connection.execute("select count(*) from orders").fetchone()
        assert row == (self.rows,), row

    def _show(self, title: str, seconds: dict[str, list[float]]) -> None:
        base = next(iter(seconds.values()))
        print(f"\n| {title} | median s | times psql | all s |\n|---|---|---|---|")
        for name, times in seconds.items():
            ratio = statistics.median(mine / other for mine, other in zip(times, base, strict=True))
            shown = ", ".join(f"{one:.1f}" for one in times)
            print(f"| {name} | {statistics.median(times):.1f} | {ratio:.2f} | {shown} |", flush=True)

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
    given = table.to_pandas() if way.endswith("pandas") else table
    call = upsert_rows if way.startswith("upsert") else copy_rows
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(DDL)
        copy_rows(connection, "orders", table.slice(0, 10))  # what is imported and set up once
        connection.execute("truncate orders")
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        call(connection, "orders", given)  # type: ignore[operator]
        print(f"| {way} | {max(0, _status('VmHWM') - before) / 1024:.0f} |", flush=True)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def main() -> None:
    """Run everything and print tables in Markdown."""
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
        return
    with tempfile.TemporaryDirectory() as folder:
        server = None if chosen.url else EmbeddedServer(Home(root=Path(folder) / "home"))
        if server is not None:
            server.start()
        try:
            url = chosen.url or (server.url("postgres") if server is not None else "")
            print(f"{chosen.rows:,} rows, {chosen.rounds} rounds", flush=True)
            print("\n| memory above the input | peak MB |\n|---|---|", flush=True)
            for way in ("copy_rows, Arrow", "copy_rows, pandas", "upsert_rows, pandas"):
                words = [sys.executable, __file__, "--rows", str(chosen.rows), "--memory", way]
                subprocess.run(words, check=True, env={**os.environ, "BENCH_URL": url})
            Bench(url, chosen.rows, Path(folder), orm=not chosen.without_orm).run(chosen.rounds, chosen.only)
        finally:
            if server is not None:
                server.remove()


if __name__ == "__main__":
    main()
