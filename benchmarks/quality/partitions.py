"""A table of 24 partitions under row-level checks: the first run, a second after one partition has changed.

    python benchmarks/quality/partitions.py [--rows 5000000] [--rounds 3]

The orders of ``workload.py`` in 24 partitions of a month each, and those of its checks that judge rows, counts, sums
and means (keys and references are read as a whole). Starts an embedded PostgreSQL of its own. Each round: a run that
reads everything (``--full``), a row changed in one partition, a run that reads what has changed; by proof, and by
promise. What is measured: wall time, CPU of the client, CPU of the server. A run without any memory must find the same.
Prints medians, says whether the second run costs about a 24th (exit 1 where not), writes ``partitions.json`` beside.
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
from typing import Any

import psycopg
from psycopg import sql

from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.quality.engine import check_table, run_table
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import TableResult

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "contenders")]
from declared import declared  # noqa: E402
from run import server_cpu  # noqa: E402
from workload import SETUP, checks  # noqa: E402

PARTITIONS = 24
#: What the second run may cost of the first, where it is promised that old partitions do not change.
MOST = 1.5 / PARTITIONS
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
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    chosen = [declared(check) for check in checks(options.rows) if check["kind"] not in ("unique", "reference")]
    measures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Home(root=Path(folder)), settings={"shared_buffers": "2GB", "max_wal_size": "4GB"})
        server.start()
        try:
            target, ledger = _databases(server, options.rows)
            for round_ in range(options.rounds):
                for unchanged in ("proven", "immutable after 1 month"):
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
                measures.setdefault("without a memory", []).append(_whole(server, target, found, chosen))
        finally:
            server.remove()
    results = {"rows": options.rows, "rounds": options.rounds, "checks": len(chosen), "measures": measures}
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
    server: EmbeddedServer, target: Target, ledger: Ledger, policy: TablePolicy, *, full: bool
) -> tuple[dict[str, float], TableResult]:
    on_server, here, started = server_cpu(server), time.process_time(), time.perf_counter()
    found = check_table(target, ledger, "bench", str(uuid.uuid4()), policy, full=full)
    wall, here = time.perf_counter() - started, time.process_time() - here
    time.sleep(0.5)  # its sessions end
    on_server = server_cpu(server) - on_server
    return {"wall": round(wall, 3), "client CPU": round(here, 3), "server CPU": round(on_server, 3)}, found


def _whole(
    server: EmbeddedServer, target: Target, found: TableResult, chosen: list[dict[str, Any]]
) -> dict[str, float]:
    """A run that reads the table as one; it finds the same."""
    on_server, here, started = server_cpu(server), time.process_time(), time.perf_counter()
    with connect(target, work="benchmark") as connection:
        expected = run_table(connection, TablePolicy(table="orders", checks=chosen))
    wall, here = time.perf_counter() - started, time.process_time() - here
    time.sleep(0.5)  # its sessions end
    on_server = server_cpu(server) - on_server
    for mine, theirs in zip(found.checks, expected.checks, strict=True):
        if mine.type != "freshness" and (mine.status, mine.failed_rows, mine.value) != (
            theirs.status,
            theirs.failed_rows,
            theirs.value,
        ):
            raise SystemExit(f"{mine.name} finds {mine}, not {theirs}")
    return {"wall": round(wall, 3), "client CPU": round(here, 3), "server CPU": round(on_server, 3)}


def _show(measures: dict[str, list[dict[str, float]]]) -> bool:
    what = ("wall", "client CPU", "server CPU")
    medians = {name: {w: statistics.median(m[w] for m in every) for w in what} for name, every in measures.items()}
    print(f"| medians | {' | '.join(what)} | CPU, share of the first |\n|---|{'---|' * 4}")
    met = True
    for name, found in medians.items():
        first = medians.get(name.replace("second", "first"), found)
        share = (found["client CPU"] + found["server CPU"]) / (first["client CPU"] + first["server CPU"])
        print(f"| {name} | {' | '.join(f'{found[w]:.2f}' for w in what)} | 1/{1 / share:.1f} |")
        if name.startswith("immutable") and name.endswith("second run"):
            met = share <= MOST
    print(f"the second run costs about a 24th: {'met' if met else 'NOT MET'}")
    return met


if __name__ == "__main__":
    main()
