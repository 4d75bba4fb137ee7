"""How long a commit takes to reach those who watch, how often the database is asked for it, and what it costs.

    python benchmarks/live/run.py [--clients 500] [--seconds 60] [--pace 5] [--burst 1000] [--without-browser]

A project of its own with one live table on an embedded server, and the real ``dbplatform serve``. Who watches: the
clients of ``clients.py``, in a process of their own, and a page in a headless Chromium with ``/static/live.js``. One
session inserts a row with each commit. The time of a row is that from the moment before its COMMIT is sent until the
message with it was in the hands of a client, or of the page's handler; all clocks are that of this machine.

First one client alone, then all of them and the page: commits at a steady pace, then a burst as fast as they go.
Statements are counted by ``pg_stat_statements``, those of the writer left out. Results go to ``results.json`` beside.
Exit code 1 where a limit is missed, or a row did not reach everybody.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from playwright.sync_api import Page, sync_playwright
from psycopg.conninfo import make_conninfo

from dbplatform_tests.counted import Counter, counting
from dbplatform_tests.drills.serving import Served, serving
from dbplatform_tests.installation import Installation, small_project

HERE = Path(__file__).parent
MEDIAN_MS, P99_MS = 100.0, 250.0
#: Commits while one client watches.
ALONE = 50
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  live: [{table: public.items}]
"""
MIGRATION = "create table items (id bigint primary key, name text not null, at timestamptz not null default now());"
PAGE = """
    async () => {
      const { watch } = await import("/static/live.js");
      window.heard = [];
      window.follows = false;
      watch(["shop"], {
        hello: (message) => { window.follows = message.databases.shop.trouble === null; },
        feed: (message) => { window.follows = message.trouble === null; },
        changes: (message) => {
          const at = performance.timeOrigin + performance.now();
          for (const table of message.tables) for (const row of table.rows) window.heard.push([row.id, at, Date.now()]);
        },
      });
    }
"""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the service's process has used between two moments."""

    seconds: float
    cpu_s: float

    @property
    def percent(self) -> float:
        """Of one CPU."""
        return round(100 * self.cpu_s / self.seconds, 1)


class Clients:
    """The process of the clients."""

    def __init__(self, service: Served, number: int, file: Path) -> None:
        self._file = file
        address = service.address.replace("http:", "ws:") + "/ws"
        words = [sys.executable, str(HERE / "clients.py"), address, str(number), str(file)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answered("ready")

    def wait_for(self, row: int) -> None:
        """Until every client has that row."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{row}\n")
        self._process.stdin.flush()
        self._answered("seen")

    def end(self) -> dict[int, list[tuple[float, int]]]:
        """For each row when which client had it first."""
        self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        found = json.loads(self._file.read_text())
        heard: dict[int, dict[int, float]] = {}
        for at, who, what in found["heard"]:
            for row in found["rows"][what]:
                heard.setdefault(row, {}).setdefault(who, at)
        return {row: [(at, who) for who, at in by_client.items()] for row, by_client in heard.items()}

    def _answered(self, word: str) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        assert said == word, f"the clients said {said!r} and not {word!r}"


def commit(writer: psycopg.Connection[Any], rows: range, *, pace: float | None) -> dict[int, float]:
    """Insert these rows, each with a commit of its own; the moment before each COMMIT was sent."""
    before: dict[int, float] = {}
    begun = time.monotonic()
    for number, row in enumerate(rows):
        if pace is not None:
            time.sleep(max(0.0, begun + number / pace - time.monotonic()))
        writer.execute("insert into items (id, name) values (%s, %s)", (row, f"item number {row}"))
        before[row] = time.time()
        writer.commit()
    return before


@contextmanager
def page_of(service: Served) -> Iterator[Page]:
    """A page of the service in Chromium, which watches."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program is not None, "the page needs Chromium: apt-get install chromium, or say --without-browser"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        # What this measurement adds to the page is no script of the service's own.
        page = browser.new_context(bypass_csp=True).new_page()
        page.goto(f"{service.address}/")
        page.evaluate(PAGE)
        page.wait_for_function("window.follows")
        yield page
        browser.close()


@contextmanager
def costing(service: Served) -> Iterator[list[Cost]]:
    """What the block costs the service, when it is over."""
    found: list[Cost] = []
    begun, cpu = time.monotonic(), _cpu_s(service.pid)
    yield found
    found.append(Cost(seconds=time.monotonic() - begun, cpu_s=_cpu_s(service.pid) - cpu))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def distribution(milliseconds: Sequence[float]) -> dict[str, float]:
    """Of what was measured; in milliseconds but for the number."""
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {
        "number": len(milliseconds),
        "median": round(statistics.median(milliseconds), 1),
        "p95": round(cuts[94], 1),
        "p99": round(cuts[98], 1),
        "max": round(max(milliseconds), 1),
    }


def reached(before: Mapping[int, float], heard: Mapping[int, Sequence[tuple[float, int]]], number: int) -> list[float]:
    """The milliseconds of each row and client. Every row reached everybody, or this is no result."""
    missing = [row for row in before if len(heard.get(row, ())) != number]
    assert not missing, f"{len(missing)} rows did not reach all clients, the first is {missing[0]}"
    return [(at - begun) * 1000 for row, begun in before.items() for at, _ in heard[row]]


class Bench:
    """One service, and what was found."""

    def __init__(
        self, chosen: argparse.Namespace, shop: Installation, service: Served, counter: Counter, folder: Path
    ) -> None:
        self.chosen, self.service, self.counter, self.folder = chosen, service, counter, folder
        with shop.connect("shop") as admin:
            admin.execute("create role writer login password 'writer'; grant insert on items to writer")
        url = make_conninfo(shop.server.url("shop"), user="writer", password="writer")
        self.writer = psycopg.connect(url)
        self.next = 1
        self.resident_mb = 0.0
        self.results: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        self.results["statements_per_commit"] = {"1": self.alone()}
        before_kb = self.service.resident_kb
        clients = Clients(self.service, self.chosen.clients, self.folder / "many.json")
        with ExitStack() as open_ones:
            page = None if self.chosen.without_browser else open_ones.enter_context(page_of(self.service))
            with costing(self.service) as idle:
                time.sleep(self.chosen.idle)
            paced = self.paced(clients)
            burst = self.burst(clients)
            in_page = self.heard_by(page, self.next - 1) if page is not None else {}
        heard, number = clients.end(), self.chosen.clients
        self.results["sockets"] = {
            "paced_ms": distribution(reached(paced, heard, number)),
            "burst_ms": distribution(reached(burst, heard, number)),
        }
        if page is not None:
            self.results["browser"] = {
                "paced_ms": distribution(reached(paced, in_page, 1)),
                "burst_ms": distribution(reached(burst, in_page, 1)),
            }
        self.results["service"] |= {
            "cpu_percent_idle": idle[0].percent,
            "resident_mb_before": round(before_kb / 1024, 1),
            "resident_mb_with_all": self.resident_mb,
        }
        return self.results

    def alone(self) -> float:
        """Statements for each commit while one client watches."""
        clients = Clients(self.service, 1, self.folder / "one.json")
        self.counter.reset()
        commit(self.writer, self._rows(ALONE), pace=self.chosen.pace)
        clients.wait_for(self.next - 1)
        calls = self.counter.calls(but=("writer",))
        clients.end()
        return sum(calls.values()) / ALONE

    def paced(self, clients: Clients) -> dict[int, float]:
        """Commits at a steady pace; when each was."""
        rows = self._rows(self.chosen.seconds * self.chosen.pace)
        self.counter.reset()
        with costing(self.service) as cost:
            before = commit(self.writer, rows, pace=self.chosen.pace)
            clients.wait_for(rows[-1])
        self.resident_mb = round(self.service.resident_kb / 1024, 1)
        calls = self.counter.calls(but=("writer",))
        self.results["statements_per_commit"][str(self.chosen.clients)] = sum(calls.values()) / len(rows)
        self.results["statements"] = {text: round(number / len(rows), 3) for text, number in calls.items()}
        self.results["service"] = {
            "cpu_percent_paced": cost[0].percent,
            "cpu_ms_per_commit": round(1000 * cost[0].cpu_s / len(rows), 1),
        }
        return before

    def burst(self, clients: Clients) -> dict[int, float]:
        """Commits one right after the other; when each was."""
        rows = self._rows(self.chosen.burst)
        self.counter.reset()
        begun = time.monotonic()
        before = commit(self.writer, rows, pace=None)
        written = time.monotonic() - begun
        clients.wait_for(rows[-1])
        calls = self.counter.calls(but=("writer",))
        self.results["burst"] = {
            "rows": len(rows),
            "written_s": round(written, 2),
            "with_everybody_s": round(time.monotonic() - begun, 2),
            "statements": sum(calls.values()),
        }
        return before

    def heard_by(self, page: Page, last: int) -> dict[int, list[tuple[float, int]]]:
        """For each row when the page's handler had it."""
        page.wait_for_function(f"window.heard.some(([row]) => row === {last})")
        found: dict[int, list[tuple[float, int]]] = {}
        apart = []
        for row, at, by_date in page.evaluate("window.heard"):
            found.setdefault(row, [(at / 1000, 0)])
            apart.append(by_date - at)
        # Date.now() is in whole milliseconds: half of one behind, if the clocks are the same.
        self.results["browser_clock_apart_ms"] = round(statistics.median(apart) + 0.5, 2)
        return found

    def _rows(self, number: float) -> range:
        rows = range(self.next, self.next + round(number))
        self.next = rows.stop
        return rows


def judged(results: dict[str, Any], clients: int) -> dict[str, bool]:
    """Each limit, and whether it is kept."""
    verdicts = {}
    for who in ("sockets", "browser"):
        if who in results:
            times = results[who]["paced_ms"]
            verdicts[f"{who}: median below {MEDIAN_MS:g} ms"] = times["median"] < MEDIAN_MS
            verdicts[f"{who}: 99th percentile below {P99_MS:g} ms"] = times["p99"] < P99_MS
    statements = results["statements_per_commit"]
    verdicts[f"statements with {clients} clients at most as with 1"] = statements[str(clients)] <= statements["1"]
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=60, help="of commits at a steady pace")
    parser.add_argument("--pace", type=float, default=5, help="commits a second")
    parser.add_argument("--burst", type=int, default=1000, help="commits as fast as they go")
    parser.add_argument("--idle", type=float, default=20, help="seconds without a commit, for the service's CPU")
    parser.add_argument("--without-browser", action="store_true")
    chosen = parser.parse_args()
    load = [round(one, 2) for one in os.getloadavg()]
    with tempfile.TemporaryDirectory() as name, ExitStack() as open_ones:
        folder = Path(name)
        folder.chmod(0o755)
        shop = open_ones.enter_context(small_project(folder, DECLARATION, MIGRATION))
        for words in (("migrate", "apply", "shop"), ("live", "apply", "shop")):
            shop.json(*words)
        service = open_ones.enter_context(serving(shop))
        counter = open_ones.enter_context(counting(shop.server.url("shop")))
        found = Bench(chosen, shop, service, counter, folder).run()
        version = shop.json("server", "status")["version"]
    results = {
        "clients": chosen.clients,
        "commits_per_s": chosen.pace,
        "seconds": chosen.seconds,
        **found,
        "verdicts": judged(found, chosen.clients),
        "postgresql": version,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_before": load,
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0 if all(results["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
