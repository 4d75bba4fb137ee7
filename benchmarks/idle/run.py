"""How many statements a minute the whole platform sends to a database in which nothing happens.

    python benchmarks/idle/run.py [--minutes 10] [--viewers 10] [--embedded]

A project of its own with one database that has what a declaration usually has: migrations, partitions, checks, limits,
backups with drills, an archive, a live table. Its main job runs once, then ``dbplatform dev`` (daemon, both sensors,
code location, status service) over it. When no run has begun for two minutes, the count begins. Meanwhile viewers hold
a connection to ``/ws`` each, and one asks the API for the documents of the database every five seconds. The schedules
are half a day away; what they would add is told apart, by one more run of the main job.

The database is on a server of its own, as in production; the ledger and Dagster's storage are elsewhere. With
``--embedded`` all are on the embedded server, where the platform also asks whether the database is there. Counted is
each statement that was sent, ``SET``, ``BEGIN``, ``COMMIT`` and ``LISTEN`` among them, by ``pg_stat_statements`` with
``track_utility``, and once more by the server's log (``log_statement = all``); those of the one who counts are not.
Results go to ``results.json`` (``embedded.json``) beside. Exit code 1 where it is more than ten a minute, or where the
two ways to count differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psycopg
from websockets.sync.client import connect

from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests import counted
from dbplatform_tests.counted import Counter, counting
from dbplatform_tests.installation import Installation, small_project
from dbplatform_tests.web.developing import developing

HERE = Path(__file__).parent
MOST = 10
#: No run has begun, and none goes on, for so long before the count.
QUIET_S = 130
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  owners: ["team:shop"]
  {connection}
  migrations: {{}}
  partitioned_tables:
    - {{table: public.sales, column: at, interval: 1 month, premake: 3, start: 3 months, retain: 24 months}}
  archives:
    - {{name: old_sales, table: public.sales, column: at, older_than: 12 months}}
  backups:
    logical: {{schedule: "{cron} * * *"}}
    retain: {{daily: 7, weekly: 4}}
    drill: {{schedule: "{cron} * * 0"}}
  quality:
    - table: public.items
      checks: [{{not_null: name}}, {{unique: id}}, {{row_count: {{min: 100}}}}]
    - table: public.sales
      checks: [{{relationship: {{column: item, to: public.items.id}}}}, {{range: {{column: amount, min: 0}}}}]
  thresholds:
    - {{metric: cache_hit_ratio, warn: "< 0.95", critical: "< 0.90", for: 5m}}
  live: [{{table: public.items}}]
  maintenance: {{daily: "{cron} * * *", weekly: "{cron} * * 0", monthly: "{cron} 1 * *", quarterly: "{cron} 1 1 *"}}
"""
MIGRATION = """
create extension if not exists pg_stat_statements;
create table items (id bigint generated always as identity primary key, name text not null);
create table sales (id bigint generated always as identity, at timestamptz not null,
                    item bigint not null references items, amount numeric(10, 2) not null, primary key (id, at))
    partition by range (at);
create index on sales (item);
insert into items (name) select 'item ' || i from generate_series(1, 1000) i;
"""
LINE = re.compile(r"\] [^@\s]+@(?P<database>\S+) (?P<application>.*?) LOG:  (?:statement|execute [^:]+): ")


@contextmanager
def project(folder: Path, *, embedded: bool) -> Iterator[tuple[Installation, EmbeddedServer]]:
    """The project, and the server that has its database; everything is removed at the end."""
    away = datetime.now(UTC) + timedelta(hours=12)
    connection = "connection: {environment: development" + ("}" if embedded else ", url_env: SHOP_URL}")
    declaration = DECLARATION.format(connection=connection, cron=f"{away.minute} {away.hour}")
    with small_project(folder, declaration, MIGRATION) as shop:
        if embedded:
            yield shop, shop.server
            return
        server = EmbeddedServer(Home(root=folder / "elsewhere"))
        server.start()
        try:
            server.ensure_database("shop")
            shop.variables["SHOP_URL"] = server.url("shop")
            yield shop, server
        finally:
            server.remove()


@contextmanager
def viewing(shop: Installation, number: int) -> Iterator[None]:
    """So many clients of /ws that say nothing more, and one that asks the API every five seconds."""
    address = f"127.0.0.1:{shop.service_port}"
    over = threading.Event()

    refused = []

    def ask() -> None:
        with httpx.Client(base_url=f"http://{address}/api/v1/databases/shop", timeout=60) as client:
            while not over.wait(5):
                answers = [client.get(f"/{path}") for path in ("dashboard", "health", "metrics", "connections")]
                refused.extend(answer for answer in answers if answer.status_code != 200)

    with ExitStack() as open_ones:
        for _ in range(number):
            client = open_ones.enter_context(connect(f"ws://{address}/ws", max_queue=None))
            client.send('{"type": "subscribe", "databases": ["shop"]}')
            client.recv()
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert not refused, refused


class Log:
    """What the server writes from now on: every statement, with its session's name."""

    def __init__(self, server: EmbeddedServer) -> None:
        newest = server.status().log_file
        assert newest is not None
        self._folder = newest.parent
        self._before = {file: file.stat().st_size for file in self._folder.iterdir()}

    def statements(self) -> Tally[str]:
        """How many each session's name has sent to the database, but for who counts."""
        found: Tally[str] = Tally()
        for file in sorted(self._folder.iterdir()):
            text = file.read_bytes()[self._before.get(file, 0) :].decode(errors="replace")
            found.update(one["application"] for one in LINE.finditer(text) if one["database"] == "shop")
        del found[counted.NAME]
        return found


def runs(shop: Installation) -> tuple[int, int]:
    """How many runs there are, and how many of them go on."""
    with psycopg.connect(shop.server.url("dagster")) as session:
        row = session.execute(
            "select count(*), count(*) filter (where status not in ('SUCCESS', 'FAILURE', 'CANCELED')) from runs"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def settle(shop: Installation) -> int:
    """Wait until nothing was begun for two minutes; how many runs there are."""
    known, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        number, going_on = runs(shop)
        if number != known or going_on:
            known, since = number, time.monotonic()
        time.sleep(5)
    return known


def looks(shop: Installation, since: datetime) -> int:
    """How often the database was measured."""
    with psycopg.connect(shop.server.url("dbplatform_ledger"), autocommit=True) as session:
        row = session.execute("select count(*) from ledger.metric_collection where at >= %s", (since,)).fetchone()
    assert row is not None
    return int(row[0])


def alike(counter: Counter, log: Log) -> tuple[dict[str, int], Tally[str]]:
    """Both counts, of a moment in which no statement is on its way."""
    while True:
        calls = counter.calls()
        time.sleep(2)
        logged = log.statements()
        if calls == counter.calls():
            return calls, logged


def idle(shop: Installation, server: EmbeddedServer, counter: Counter, chosen: argparse.Namespace) -> dict[str, Any]:
    """The minutes in which nothing happens."""
    before = settle(shop)
    with counting(shop.server.url("postgres")) as own, viewing(shop, chosen.viewers):
        counter.reset()
        log, begun, each_minute = Log(server), datetime.now(UTC), [0]
        for _ in range(chosen.minutes):
            time.sleep(60)
            each_minute.append(sum(counter.calls().values()))
        calls, logged = alike(counter, log)
        minutes = (datetime.now(UTC) - begun) / timedelta(minutes=1)
        beside, of_platform = counter.by_database(), own.by_database()
    texts: Tally[str] = Tally()
    for text, times in calls.items():
        texts[text[:120]] += times
    number = looks(shop, begun)
    return {
        "statements_per_minute": round(sum(calls.values()) / minutes, 2),
        "statements_per_look": round(sum(calls.values()) / number, 2),
        "looks": number,
        "each_minute": [after - before for before, after in pairwise(each_minute)],
        "statements": dict(texts.most_common()),
        "by_the_log": dict(logged.most_common()),
        "counted_alike": sum(calls.values()) == sum(logged.values()),
        # On the embedded server the platform asks in "postgres" whether the database is there.
        "in_postgres_per_minute": round(beside.get("postgres", 0) / minutes, 2),
        "of_the_platform_itself_per_minute": {
            name: round(of_platform.get(name, 0) / minutes) for name in ("dbplatform_ledger", "dagster")
        },
        "runs_begun": runs(shop)[0] - before,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--embedded", action="store_true", help="the database on the embedded server, too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with project(folder, embedded=chosen.embedded) as (shop, server):
            shop.json("run", "shop")
            with psycopg.connect(server.url("shop"), autocommit=True) as admin:
                admin.execute("alter system set log_statement = 'all'")
                admin.execute("select pg_reload_conf()")
            with counting(server.url("shop")) as counter:
                with developing(shop):
                    found = idle(shop, server, counter, chosen)
                counter.reset()
                shop.json("run", "shop")
                whole = sum(counter.calls().values())
            version = server.status().version
    per_minute = found["statements_per_minute"] + found["in_postgres_per_minute"]
    results = {
        "layout": "all on the embedded server" if chosen.embedded else "a server of its own",
        "minutes": chosen.minutes,
        "viewers": chosen.viewers,
        **found,
        "statements_of_the_whole_graph_once": whole,
        "verdicts": {
            f"at most {MOST} statements a minute": per_minute <= MOST,
            "counted alike by the log": found["counted_alike"],
            "nothing was begun meanwhile": found["runs_begun"] == 0,
        },
        "postgresql": version,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    file = HERE / ("embedded.json" if chosen.embedded else "results.json")
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0 if all(results["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
