"""How long it takes to move rows out of a large table by a condition: ``archive apply`` beside one naive transaction.

    python benchmarks/archive/run.py [--rows 10000000] [--share 5] [--rounds 3] [--way archive|naive] [--url URL]

One row in ``--share`` is done, spread over the whole table, and leaves it. The naive way is one transaction: INSERT ...
SELECT into a table beside, then DELETE by the same condition. Ours exports to Parquet, reads the file back, compares,
and deletes exactly those rows in batches without pauses; the proven backup is given, because it is there already where
archives run. Each way begins with the same table, in a database of its own, after a checkpoint; the order changes from
round to round. While it works, a probe in this process reads a row by its key every twenty milliseconds, and another
updates one, both inside the range that leaves. Printed are the rate, the WAL written, the peak memory of the client,
and the probes' latencies; they are written to ``results.json`` beside. Exit code 1 where a limit is missed. Without
``--url`` an embedded server of its own is started and removed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from shared import Felt, Probes, proof_of_now, server

from dbplatform.archiving.apply import apply_archive
from dbplatform.archiving.pace import BRISK
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target, connect
from dbplatform.storage.folder import FolderPlace

FILL = """
    create table orders (id bigint primary key, customer int not null, at timestamptz not null, state text not null,
                         amount numeric(12, 2), ratio float8, name text, note text);
    insert into orders
    select i, i % 5000, timestamptz '2025-01-01' + i * interval '1 second',
           case when i % {share} = 0 then 'done' else 'open' end, (i % 100000) / 7.0, i / 3.0,
           'customer number ' || i % 5000, case when i % 3 = 0 then 'a note of some length, number ' || i end
    from generate_series(1, {rows}) as i;
    create index on orders (customer);
"""
RATE_LIMIT = 0.6
"""Of the naive way's rate, at least."""
MEMORY_LIMIT_MB = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Felt):
    """One way, once."""

    way: str
    rows: int
    seconds: float
    wal_mb: float
    memory_mb: float

    @property
    def rate(self) -> float:
        """Rows that left, per second."""
        return self.rows / self.seconds


def naive(url: str) -> int:
    """Copy and delete by the condition in one transaction; returns how many rows left."""
    with psycopg.connect(url) as session:
        session.execute("create table orders_archive (like orders including all)")
        session.execute("insert into orders_archive select * from orders where state = 'done'")
        return session.execute("delete from orders where state = 'done'").rowcount


def archive(url: str, ledger_url: str) -> int:
    """Move the rows by ``apply_archive``; returns how many rows left."""
    with psycopg.connect(url) as session:
        proof = proof_of_now(session)
    with connect(Target("bench", url), work="archive") as connection, tempfile.TemporaryDirectory() as folder:
        return apply_archive(
            connection,
            ArchivePolicy(name="done", table="public.orders", where="state = 'done'"),  # type: ignore[arg-type]
            Ledger(Target("ledger", ledger_url)),
            FolderPlace(Path(folder)),
            database="bench",
            proof=proof,
            recheck=lambda: proof,
            now=datetime.now(UTC),
            throttle=BRISK,
        ).deleted


def probes(url: str, rows: int, share: int) -> Probes:
    """One reads a row of the range that leaves by its key, and one updates one."""
    chance = random.Random(1)

    def row() -> tuple[int]:
        return ((chance.randrange(rows // share) + 1) * share,)

    return Probes(
        url, ("select * from orders where id = %s", row), ("update orders set note = 'probed' where id = %s", row)
    )


def measured(admin: str, way: str, rows: int, share: int) -> Measured:
    """Run one way in a process of its own, on a fresh copy of the table, beside the probe."""
    with (
        fresh(admin, "bench_template", "bench_run") as url,
        fresh(admin, "bench_ledger", "bench_run_ledger") as ledger,
        psycopg.connect(url, autocommit=True) as session,
    ):
        session.execute("checkpoint")
        before = session.execute("select pg_current_wal_lsn()").fetchone()
        command = [sys.executable, __file__, "--one", way, "--url", url, "--ledger", ledger]
        with probes(url, rows, share) as probing:
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        wal = session.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), %s)::float8", before).fetchone()
    assert wal is not None
    return Measured(way=way, wal_mb=wal[0] / 2**20, **asdict(probing.felt), **json.loads(done.stdout))


@contextmanager
def fresh(admin: str, template: str, name: str) -> Iterator[str]:
    """A copy of a database, removed afterwards."""
    names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    with psycopg.connect(admin, autocommit=True) as session:
        session.execute(sql.SQL("drop database if exists {name} with (force)").format(**names))
        session.execute(sql.SQL("create database {name} template {template} strategy file_copy").format(**names))
        yield make_conninfo(admin, dbname=name)
        session.execute(sql.SQL("drop database {name} with (force)").format(**names))


def prepare(admin: str, rows: int, share: int) -> None:
    """Make the databases that the runs begin with."""
    with psycopg.connect(admin, autocommit=True) as session:
        for name in ("bench_template", "bench_ledger"):
            session.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    apply_ledger_schema(Target("ledger", make_conninfo(admin, dbname="bench_ledger")))
    with psycopg.connect(make_conninfo(admin, dbname="bench_template"), autocommit=True) as session:
        session.execute(sql.SQL(FILL).format(rows=sql.Literal(rows), share=sql.Literal(share)))
        session.execute("vacuum analyze orders")


def one(way: str, url: str, ledger_url: str) -> None:
    """The child: do it, and tell how many rows, how long, how much memory."""
    started = time.perf_counter()
    rows = archive(url, ledger_url) if way == "archive" else naive(url)
    seconds = time.perf_counter() - started
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "memory_mb": memory_mb}))


def report(runs: list[Measured]) -> int:
    """Print every run and the judgement; returns the exit code."""
    print("way            rows       s    rows/s   WAL MB     MB  p50 ms   p99 ms  worst ms  p99 ms as sent")
    for run in runs:
        print(
            f"{run.way:8} {run.rows:10,} {run.seconds:7.1f} {run.rate:9,.0f} {run.wal_mb:8.0f} {run.memory_mb:6.0f}"
            f" {run.p50_ms:7.2f} {run.p99_ms:8.1f} {run.worst_ms:9.1f} {run.sent_p99_ms:15.1f}"
        )
    ours, theirs = ([run for run in runs if run.way == way] for way in ("archive", "naive"))
    if not ours or not theirs:
        return 0

    def ratio(field: str) -> float:
        return statistics.median(
            getattr(mine, field) / getattr(other, field) for mine, other in zip(ours, theirs, strict=True)
        )

    memory = max(run.memory_mb for run in ours)
    judged: list[tuple[str, float, bool]] = [
        (f"rate, times the naive one's (at least {RATE_LIMIT})", ratio("rate"), ratio("rate") >= RATE_LIMIT),
        ("WAL, times the naive one's (less than 1)", ratio("wal_mb"), ratio("wal_mb") < 1),
        (f"peak memory of the client in MB (under {MEMORY_LIMIT_MB})", memory, memory < MEMORY_LIMIT_MB),
        ("99th percentile of the probes, times the naive one's (less than 1)", ratio("p99_ms"), ratio("p99_ms") < 1),
        ("worst stall of the probes, times the naive one's (less than 1)", ratio("worst_ms"), ratio("worst_ms") < 1),
    ]
    for what, value, good in judged:
        print(f"{'ok  ' if good else 'MISS'} {what}: {value:.2f}")
    return 0 if all(good for _, _, good in judged) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--share", type=int, default=5, help="one row in so many leaves")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=("archive", "naive"))
    parser.add_argument("--url", help="a superuser's URL of a server of its own; databases bench_* are made there")
    parser.add_argument("--one", choices=("archive", "naive"), help=argparse.SUPPRESS)
    parser.add_argument("--ledger", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.url, given.ledger)
        return 0
    ways = [given.way] if given.way else ["naive", "archive"]
    with server(given.url) as admin:
        prepare(admin, given.rows, given.share)
        runs: list[Measured] = []
        for turn in range(given.rounds):
            for way in ways if turn % 2 == 0 else ways[::-1]:
                runs.append(measured(admin, way, given.rows, given.share))
                print(f"round {turn + 1}, {way}: {runs[-1].seconds:.1f} s", file=sys.stderr)
        code = report(runs)
        document: dict[str, Any] = {"rows": given.rows, "share": given.share, "runs": [asdict(run) for run in runs]}
        Path(__file__).with_name("results.json").write_text(json.dumps(document, indent=1) + "\n")
        return code


if __name__ == "__main__":
    sys.exit(main())
