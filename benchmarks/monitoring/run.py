"""What one look at a database of 2,000 tables and 5,000 indexes costs: this project beside postgres_exporter.

    apt-get download prometheus-postgres-exporter && dpkg-deb -x prometheus-postgres-exporter_*.deb exporter
    python benchmarks/monitoring/run.py --exporter exporter [--tables 2000] [--rounds 15]

A server of its own is started (Debian's PostgreSQL 15, which this exporter knows) and removed. Each round takes one
collection of ours, with its session opened and closed, and one scrape of the exporter, whose session stays open, in an
order that alternates. The exporter runs with its default collectors without settings, and with the example queries of
its package, but for the one over ``pg_stat_statements``, which no longer fits. Statements and the server's time are
those that ``pg_stat_statements`` counts. Results go to ``results.json``. Exit code 1 where a collection has more than 8
statements or a median of a second and more.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import yaml
from psycopg.conninfo import make_conninfo

from dbplatform.home import Home
from dbplatform.monitoring import collect
from dbplatform.monitoring.metrics import Metrics
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.processes import free_port
from dbplatform.postgres.embedded.server import EmbeddedServer

MOST_SECONDS, MOST_STATEMENTS = 1.0, 8
_CATALOG = """
    do $$ begin
        for i in {first}..{last} loop
            execute format('create table t%s (id %s generated always as identity primary key, a int, b text,
                                              c timestamptz default now(), d numeric)',
                           i, case when i % 2 = 0 then 'bigint' else 'int' end);
            execute format('insert into t%s (a, b, d) select g, md5(g::text), g from generate_series(1, 100) g', i);
            execute format('create index on t%s (a)', i);
            if i % 2 = 0 then execute format('create index on t%s (b)', i); end if;
        end loop;
    end $$
"""
_COUNTED = """
    select sum(calls)::int, sum(total_exec_time + total_plan_time) from pg_stat_statements
    where query not like '%pg_stat_statements_reset%'
"""


def make_catalog(url: str, tables: int) -> tuple[int, int]:
    """The tables, each with 100 rows, and their indexes: two for every odd one, three for every even one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create extension pg_stat_statements")
        # A password of its own: the exporter refuses the embedded server's, which is hashed once and not 4,096 times.
        connection.execute("create role exporter superuser login password 'exporter'")
        for first in range(1, tables + 1, 200):
            text = _CATALOG.replace("{first}", str(first)).replace("{last}", str(min(first + 199, tables)))
            connection.execute(text.encode())
        connection.execute("vacuum (analyze)")
        row = connection.execute(
            "select count(*) filter (where relkind = 'r'), count(*) filter (where relkind = 'i') from pg_class "
            "where relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


@contextmanager
def exporter(folder: Path, url: str) -> Iterator[Callable[[], int]]:
    """The exporter as a process; yields a scrape, which returns how many series came."""
    queries = folder / "usr/share/doc/prometheus-postgres-exporter/examples/queries.yaml"
    text = queries.read_text() if queries.exists() else gzip.decompress(Path(f"{queries}.gz").read_bytes()).decode()
    kept = {name: query for name, query in yaml.safe_load(text).items() if name != "pg_stat_statements"}
    port, source = free_port(), make_conninfo(url, user="exporter", password="exporter", sslmode="disable")
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "queries.yaml"
        file.write_text(yaml.safe_dump(kept))
        process = subprocess.Popen(
            [
                folder / "usr/bin/prometheus-postgres-exporter",
                f"--web.listen-address=127.0.0.1:{port}",
                f"--extend.query-path={file}",
                "--disable-settings-metrics",
            ],
            env={**os.environ, "DATA_SOURCE_NAME": source},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        said = process.stderr

        def scrape() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                lines = answer.read().splitlines()
            assert b"pg_exporter_last_scrape_error 0" in lines, "the exporter could not read the database"
            return sum(line.startswith(b"pg_") for line in lines)

        try:
            # It says so once it listens, and closes the pipe when it ends.
            assert any("istening on" in line for line in said), "the exporter has ended"
            threading.Thread(target=said.read, daemon=True).start()
            yield scrape
        finally:
            process.terminate()
            process.wait()


def measured(admin: psycopg.Connection[Any], work: Callable[[], int]) -> dict[str, float]:
    """One look: seconds, series, statements and the server's milliseconds."""
    admin.execute("select pg_stat_statements_reset()")
    began = time.perf_counter()
    series = work()
    seconds = time.perf_counter() - began
    row = admin.execute(_COUNTED.encode()).fetchone()
    assert row is not None
    return {"seconds": seconds, "series": series, "statements": row[0], "server_ms": row[1]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exporter", type=Path, required=True, help="the folder into which its package was unpacked")
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    os.environ.setdefault("DBPLATFORM_PG_BIN", "/usr/lib/postgresql/15/bin")
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Home(root=Path(folder) / "home"))
        server.start()
        try:
            server.ensure_database("large")
            return compare(server.url("large"), options)
        finally:
            server.remove()


def compare(url: str, options: argparse.Namespace) -> int:
    tables, indexes = make_catalog(url, options.tables)
    target = Target("large", url)
    previous: Metrics | None = None

    def ours() -> int:
        nonlocal previous
        with collect.session(target) as connection:
            previous = collect.collect(connection, database="large", now=datetime.now(UTC), previous=previous)
        assert previous.statements is not None
        return len(previous.values)

    rounds: dict[str, list[dict[str, float]]] = {"dbplatform": [], "postgres_exporter": []}
    with exporter(options.exporter, url) as scrape, psycopg.connect(url, autocommit=True) as admin:
        # Ours is counted by the server but for this session's track.
        admin.execute("set pg_stat_statements.track = 'none'")
        ways = {"dbplatform": ours, "postgres_exporter": scrape}
        ours()
        for number in range(options.rounds):
            for name in sorted(ways, reverse=number % 2 == 1):
                rounds[name].append(measured(admin, ways[name]))
        version = admin.execute("show server_version").fetchone()
    medians = {
        name: {key: round(statistics.median(one[key] for one in found), 4) for key in found[0]}
        for name, found in rounds.items()
    }
    result = {
        "tables": tables,
        "indexes": indexes,
        "rounds": options.rounds,
        "postgresql": version[0] if version else "",
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "medians": medians,
        "slowest_s": {name: round(max(one["seconds"] for one in found), 3) for name, found in rounds.items()},
    }
    (Path(__file__).parent / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    kept = medians["dbplatform"]["seconds"] < MOST_SECONDS and medians["dbplatform"]["statements"] <= MOST_STATEMENTS
    print("within the limits" if kept else "a limit is missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
