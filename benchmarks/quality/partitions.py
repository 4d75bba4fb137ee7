"""A table of 24 partitions under row-level checks: the first run, a second after one partition has changed.

    python benchmarks/quality/partitions.py [--rows 20000000] [--rounds 3]

The orders of ``workload.py`` in 24 partitions of a month each, and those of its checks that judge rows, counts, sums
and means (keys and references are read as a whole). Starts an embedded PostgreSQL of its own. Each round: a run that
reads everything (``--full``), a row changed in one partition, a run that reads what has changed; by proof, and by
promise. A run that reads the table as one must find the same. What is measured: CPU of the client, CPU of the server,
of runs that all write into the ledger; wall time as information. Prints medians, says whether the second run by promise
costs about a 24th of the first (exit 1 where not), and what share it is by proof, which reads the headers of all rows;
writes ``partitions.json`` beside, of no fewer rows than the default.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psycopg
from psycopg import sql

from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.quality.engine import check_table
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import TableResult

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "contenders")]
from declared import declared  # noqa: E402
from run import server_cpu  # noqa: E402
from workload import SETUP, checks  # noqa: E402

PARTITIONS = 24
ROWS = 20_000_000
#: What "about a 24th" may be: a quarter more than one. A run also plans its checks and writes its results, whatever has
#: changed; were that allowed to be as much as the reading, it would be no 24th.
MOST = 1.25 / PARTITIONS
WHAT = ("wall", "client CPU", "server CPU")
SHARES = ("client CPU", "server CPU", "CPU")
WHOLE = "the table as one"
PROMISED = "immutable after 1 month"
Measured = tuple[dict[str, float], TableResult]
SPLIT = """
    alter table orders rename to all_orders;
    create table orders (like all_orders) partition by range (created_at);
    select format('create table orders_%s partition of orders for values from (%L) to (%L)', n,
                  date '2022-01-01' + n * interval '1 month', date '2022-01-01' + (n + 1) * interval '1 month')
    from generate_series(0, 23) n;
    insert into orders
    select order_id, order_no, customer_id, store_id, line_no, status, channel, currency, country, amount, discount,
           quantity, email, timestamptz '2022-01-01' + order_id * (interval '729 days' / {rows}), updated_at, meta, note
    from all_orders order by order_id;
    drop table all_orders;
"""


def main() -> None:
    """Measure, compare, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    chosen = [declared(check) for check in checks(options.rows) if check["kind"] not in ("unique", "reference")]
    measures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Home(root=Path(folder)), settings={"shared_buffers": "2GB", "max_wal_size": "4GB"})
        server.start()
        try:
            target, ledger = _databases(server, options.rows)
            whole = TablePolicy(table="orders", checks=chosen)
            # Not measured: what the first run of a process imports, and what the server reads from the disk.
            _measured(server, target, ledger, whole, database="whole")
            for round_ in range(options.rounds):
                for unchanged in ("proven", PROMISED):
                    policy = TablePolicy(table="orders", unchanged=unchanged, checks=chosen)  # type: ignore[arg-type]
                    for kind in ("first", "second"):
                        if kind == "second":
                            _change(target, round_)
                        name = f"{unchanged}, {kind} run"
                        measure, found = _measured(server, target, ledger, policy, full=kind == "first")
                        measures.setdefault(name, []).append(measure)
                        print(f"round {round_ + 1} {name}", measure, file=sys.stderr, flush=True)
                        assert found.partitions is not None
                        assert found.partitions.read == (PARTITIONS if kind == "first" else 1), found.partitions
                measure, expected = _measured(server, target, ledger, whole, database="whole")
                measures.setdefault(WHOLE, []).append(measure)
                print(f"round {round_ + 1} {WHOLE}", measure, file=sys.stderr, flush=True)
                _compare(found, expected)
        finally:
            server.remove()
    results = {"rows": options.rows, "rounds": options.rounds, "checks": len(chosen), "measures": measures}
    if options.rows >= ROWS:
        (HERE / "partitions.json").write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if _show(measures) else 1)


def _databases(server: EmbeddedServer, rows: int) -> tuple[Target, Ledger]:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for name in ("bench", "ledger"):
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with psycopg.connect(server.url("bench"), autocommit=True) as connection:
        for script in (SETUP, SPLIT):
            for statement in sql.SQL(script).format(rows=sql.Literal(rows)).as_string(connection).split(";"):
                if not statement.strip():
                    continue
                answer = connection.execute(statement.encode())
                if "format('create" in statement:
                    for (created,) in answer.fetchall():
                        connection.execute(created)
        connection.execute("vacuum (analyze)")
        connection.execute("checkpoint")
    target = Target("ledger", server.url("ledger"))
    apply_ledger_schema(target)
    return Target("bench", server.url("bench")), Ledger(target)


def _change(target: Target, round_: int) -> None:
    with psycopg.connect(target.url) as connection:
        connection.execute("select pg_stat_force_next_flush()")
        connection.execute(
            sql.SQL(
                "update {} set quantity = 2 where ctid = '(0,1)' or order_id = (select min(order_id) from {})"
            ).format(*[sql.Identifier(f"orders_{round_ % PARTITIONS}")] * 2)
        )


def _measured(
    server: EmbeddedServer,
    target: Target,
    ledger: Ledger,
    policy: TablePolicy,
    *,
    database: str = "bench",
    full: bool = False,
) -> Measured:
    """A run of checks into the ledger, and what it cost until its last session has ended."""
    on_server, here, started = server_cpu(server), time.process_time(), time.perf_counter()
    found = check_table(target, ledger, database, str(uuid.uuid4()), policy, full=full)
    wall, here = time.perf_counter() - started, time.process_time() - here
    _ended(target)
    on_server = server_cpu(server) - on_server
    return {"wall": round(wall, 3), "client CPU": round(here, 3), "server CPU": round(on_server, 3)}, found


def _ended(target: Target) -> None:
    """Wait until no session of the checks is left: what it used counts, too."""
    there = "select count(*) from pg_stat_activity where application_name like 'dbplatform check%'"
    with psycopg.connect(target.url, autocommit=True) as watcher:
        while watcher.execute(there).fetchone() != (0,):
            time.sleep(0.01)


def _compare(found: TableResult, expected: TableResult) -> None:
    for mine, theirs in zip(found.checks, expected.checks, strict=True):
        if mine.type != "freshness" and (mine.status, mine.failed_rows, mine.value) != (
            theirs.status,
            theirs.failed_rows,
            theirs.value,
        ):
            raise SystemExit(f"{mine.name} finds {mine}, not {theirs}")


def _show(measures: dict[str, list[dict[str, float]]]) -> bool:
    """Each second run beside its first one, and beside the table read as one."""
    medians = {name: {w: statistics.median(m[w] for m in every) for w in WHAT} for name, every in measures.items()}
    for found in medians.values():
        found["CPU"] = found["client CPU"] + found["server CPU"]
    print(f"| medians | {' | '.join(WHAT)} | share of its first: {', '.join(SHARES)} | CPU, share of the whole |")
    print(f"|---|{'---|' * (len(WHAT) + 2)}")
    for name, found in medians.items():
        first, whole = medians.get(name.replace("second", "first"), found), medians[WHOLE]
        shares = ", ".join(_share(found[what], first[what]) for what in SHARES)
        figures = " | ".join(f"{found[what]:.2f}" for what in WHAT)
        print(f"| {name} | {figures} | {shares} | {_share(found['CPU'], whole['CPU'])} |")
    share = medians[f"{PROMISED}, second run"]["CPU"] / medians[f"{PROMISED}, first run"]["CPU"]
    met = share <= MOST
    print(f"promised: {_share(share, 1)} of the CPU, at most {_share(MOST, 1)}: {'met' if met else 'NOT MET'}")
    return met


def _share(part: float, whole: float) -> str:
    return f"1/{whole / part:.1f}" if part else "nothing"


if __name__ == "__main__":
    main()
