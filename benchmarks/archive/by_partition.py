"""How long a partition takes to leave its table: detach by ``partition retire``, whatever its size.

    python benchmarks/archive/by_partition.py [--rows 100000 1000000 5000000] [--rounds 3] [--url URL]

A table with an old partition of so many rows and one that is in use. The old one is archived by partition, then
retired: detached, compared with its file, dropped. Timed are the three steps; beside them a probe reads the partition
in use through the table, and another writes it. The smallest size is measured again where something stands in the way:
a default partition of 100,000 rows, a table that refers to this one by 100,000 rows, and a transaction that has read
the table and ends after two seconds. Printed are medians of the rounds; each is written to ``by_partition.json``. Exit
code 1 where a detachment with nothing in its way took 0.2 s or more in any round. Without ``--url`` an embedded server
of its own is started and removed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from shared import Felt, Probes, proof_of_now, server

from dbplatform import progress
from dbplatform.archiving.partitions import Slice, archive_partitions, release
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.partitioning.bounds import Bounds
from dbplatform.partitioning.due import condition_of, read_due
from dbplatform.partitioning.fates import Kept, NoArchives
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retire import apply_retirement
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.storage.folder import FolderPlace

LIMIT_S = 0.2
FILL = """
    create table orders (id bigint not null, at timestamptz not null, customer int not null, amount numeric(12, 2),
                         ratio float8, note text, primary key (id, at)) partition by range (at);
    create table orders_old partition of orders for values from ('2020-01-01') to ('2021-01-01');
    create table orders_now partition of orders for values from ('2021-01-01') to ('2100-01-01');
    insert into orders
    select i, timestamptz '2020-01-01' + i * interval '1 second', i % 5000, (i % 100000) / 7.0, i / 3.0,
           'a note of some length, number ' || i
    from generate_series(1, {rows}) as i;
    insert into orders select i, timestamptz '2022-01-01' + i * interval '1 second', i % 5000
    from generate_series(1, 10000) as i;
    create index on orders (customer);
"""
IN_THE_WAY = {
    "nothing": "",
    "default partition": """
        create table orders_rest partition of orders default;
        insert into orders select i, timestamptz '2010-01-01' + i * interval '1 second', i % 5000
        from generate_series(1, 100000) as i;
    """,
    "inbound foreign key": """
        create table refunds (id bigint, at timestamptz, foreign key (id, at) references orders);
        insert into refunds select i % 10000 + 1, timestamptz '2022-01-01' + (i % 10000 + 1) * interval '1 second'
        from generate_series(1, 100000) as i;
        create index on refunds (id, at);
    """,
    "older transaction of 2 s": "",
}
READ = ("select count(*) from orders where at >= '2022-01-01' and customer = 7", tuple)
WRITE = ("insert into orders select 1, clock_timestamp(), 1", tuple)
POLICY = PartitionPolicy.model_validate(
    {"table": "orders", "column": "at", "interval": "12 months", "premake": 1, "retain": "12 months"}
)
ARCHIVE = ArchivePolicy.model_validate({"name": "old", "table": "orders", "by": "partition"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Felt):
    """One partition that left."""

    way: str
    rows: int
    archive_s: float
    detach_s: float
    drop_s: float
    wal_mb: float


@dataclass(frozen=True, slots=True)
class FromLedger(NoArchives):
    """Answers for the archive that was just made."""

    ledger: Ledger
    proof: ProvenSnapshot

    def release(
        self, connection: AutocommitConnection, policy: PartitionPolicy, partition: Relation, bounds: Bounds
    ) -> Kept:
        standing = release(
            connection,
            self.ledger,
            partition,
            database="bench",
            table=policy.table,
            where=condition_of(policy, bounds),
            ask_proof=lambda: self.proof,
        )
        return Kept(rows=standing.rows, kept=standing.archived, problems=standing.problems)


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """When each point of the retirement was reached."""
    reached: dict[str, float] = {}

    def listen(fact: progress.Progress) -> None:
        reached[fact.task.removeprefix("retire public.orders_old ")] = time.perf_counter()

    with progress.listening(listen):
        yield reached


@contextmanager
def older_transaction(url: str, seconds: float) -> Iterator[None]:
    """Somebody who has read the table and ends some time later."""
    session = psycopg.connect(url)
    session.execute("select count(*) from orders where customer = 7")
    timer = threading.Timer(seconds, session.close)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextmanager
def databases(admin: str) -> Iterator[tuple[str, str]]:
    """A database, and one for the ledger; removed afterwards."""
    names = ("bench_run", "bench_ledger")
    with psycopg.connect(admin, autocommit=True) as session:
        for name in names:
            session.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        bench, ledger = (make_conninfo(admin, dbname=name) for name in names)
        apply_ledger_schema(Target("ledger", ledger))
        yield bench, ledger
        for name in names:
            session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def measured(admin: str, way: str, rows: int) -> Measured:
    """Let one partition leave."""
    with databases(admin) as (url, ledger_url), ExitStack() as stack:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(sql.SQL(FILL).format(rows=sql.Literal(rows)))
            session.execute(IN_THE_WAY[way].encode())
            session.execute("vacuum analyze")
            session.execute("checkpoint")
            proof = proof_of_now(session)
        ledger, now = Ledger(Target("ledger", ledger_url)), datetime.now(UTC)
        connection = stack.enter_context(connect(Target("bench", url), work="bench"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        probes = stack.enter_context(Probes(url, READ, WRITE))
        before = position(connection)
        started = time.perf_counter()
        _, due = read_due(connection, POLICY, now=now)
        slices = [Slice(partition=one.relation, where=condition_of(POLICY, one.bounds)) for one in due]
        archive_partitions(
            connection,
            ARCHIVE,
            slices,
            ledger,
            FolderPlace(folder),
            database="bench",
            cutoff=None,
            proof=proof,
            now=now,
        )
        archived = time.perf_counter()
        if way.startswith("older"):
            stack.enter_context(older_transaction(url, 2.0))
        with clock() as reached:
            [table] = apply_retirement(connection, [POLICY], FromLedger(ledger, proof), now=now).tables
        assert [one.fate for one in table.partitions] == ["dropped"], table
        wal = (position(connection) - before) / 2**20
    return Measured(
        way=way,
        rows=rows,
        archive_s=archived - started,
        detach_s=reached["detached"] - reached["detach"],
        drop_s=reached["dropped"] - reached["drop"],
        wal_mb=wal,
        **asdict(probes.felt),
    )


def position(connection: AutocommitConnection) -> int:
    """How much log was written."""
    row = connection.execute("select (pg_current_wal_lsn() - '0/0')::int8").fetchone()
    assert row is not None
    return int(row[0])


def report(runs: list[Measured]) -> int:
    """Print the medians and the judgement; returns the exit code."""
    print("in the way                     rows  archive s  detach s  compare, drop s  WAL MB  p50 ms  p99 ms  worst ms")
    for way, rows in dict.fromkeys((run.way, run.rows) for run in runs):
        same = [run for run in runs if (run.way, run.rows) == (way, rows)]

        def middle(field: str, same: list[Measured] = same) -> float:
            return statistics.median(getattr(run, field) for run in same)

        worst = max(run.worst_ms for run in same)
        print(
            f"{way:25} {rows:9,} {middle('archive_s'):10.1f} {middle('detach_s'):9.3f} {middle('drop_s'):16.2f}"
            f" {middle('wal_mb'):7.1f} {middle('p50_ms'):7.2f} {middle('p99_ms'):7.1f} {worst:9.1f}"
        )
    missed = False
    for rows in sorted({run.rows for run in runs}):
        took = [run.detach_s for run in runs if (run.way, run.rows) == ("nothing", rows)]
        missed = missed or max(took) >= LIMIT_S
        print(
            f"{'ok  ' if max(took) < LIMIT_S else 'MISS'} {rows:,} rows detached in under {LIMIT_S} s where nothing "
            f"stands in the way: {max(took):.3f} s at most in {len(took)} rounds"
        )
    return int(missed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help="a superuser's URL of a server of its own; databases bench_* are made there")
    given = parser.parse_args()
    with server(given.url) as admin:
        cases = [("nothing", rows) for rows in given.rows]
        cases += [(way, min(given.rows)) for way in IN_THE_WAY if way != "nothing"]
        runs: list[Measured] = []
        for turn in range(given.rounds):
            for way, rows in cases:
                runs.append(measured(admin, way, rows))
                print(f"round {turn + 1}, {way}, {rows:,}: detached in {runs[-1].detach_s:.3f} s", file=sys.stderr)
        Path(__file__).with_suffix(".json").write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
        return report(runs)


if __name__ == "__main__":
    sys.exit(main())
