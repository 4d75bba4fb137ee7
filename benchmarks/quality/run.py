"""The 54 checks of ``workload.py`` by this project and by the tools of the field, side by side.

    python benchmarks/quality/run.py [--rows 5000000] [--rounds 3] [--only NAME ...]

Starts an embedded PostgreSQL of its own with the settings that a user gets (fsync on), and installs each tool by its
lock file into a virtual environment of its own below ``.tools``. Each contender is a whole process; their order changes
with the round. What is measured: wall time; CPU of the client, and its greatest memory; CPU of the server, as the
kernel counts it for the server's processes, ended ones included. Then all look at a smaller table with spoiled data,
and must find the same: every verdict, and the number of failing rows where a tool counts rows. Prints a table, says of
each limit whether it is met (exit 1 where one is not), and writes ``results.json`` beside.
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
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from workload import COUNTED, SETUP, SPOIL, checks  # noqa: E402

TOOLS = HERE / ".tools"
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Contender:
    """A script below ``contenders``, the lock file of its environment (none: this one), its further arguments."""

    name: str
    script: str
    lock: str | None = None
    arguments: tuple[str, ...] = ()


CONTENDERS = [
    Contender("dbplatform", "dbplatform_"),
    Contender("plain fusion", "dbplatform_", arguments=("fusion",)),
    Contender("Great Expectations", "great_expectations_", "gx"),
    Contender("Soda 3", "soda3", "soda3"),
    Contender("Soda 4", "soda4", "soda4"),
    Contender("dbt", "dbt_", "dbt"),
]
PEERS = ("Great Expectations", "Soda 3", "Soda 4", "dbt")
#: What, how many times this project's figure the others' must be at least, of whom the least counts.
LIMITS = [
    ("wall", 5, ("Great Expectations",)),
    ("wall", 2, ("Soda 3", "Soda 4")),
    ("server CPU", 3, PEERS),
]
MOST_CLIENT_MB = 500
SPOILED_ROWS = 200_000

Measure = dict[str, float]
Found = dict[str, tuple[bool, int | None]]


def main() -> None:
    """Measure, compare, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[contender.name for contender in CONTENDERS])
    options = parser.parse_args()
    chosen = [contender for contender in CONTENDERS if contender.name in options.only]
    pythons = {contender.name: _python(contender.lock) for contender in chosen}
    measures: dict[str, list[Measure]] = {contender.name: [] for contender in chosen}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        (home / ".soda").mkdir(parents=True)
        (home / ".soda" / "config.yml").write_text("send_anonymous_usage_stats: false\n")
        server = EmbeddedServer(Home(root=home), settings={"shared_buffers": "2GB", "max_wal_size": "4GB"})
        server.start()
        try:
            spoiled = _database(server, "spoiled", SPOILED_ROWS)
            _spoil(spoiled)
            truth = _run(server, CONTENDERS[1], sys.executable, spoiled, SPOILED_ROWS, home)[1]
            for contender in chosen:
                found = _run(server, contender, pythons[contender.name], spoiled, SPOILED_ROWS, home)[1]
                _compare(contender.name, found, truth, SPOILED_ROWS)
            url = _database(server, "bench", options.rows)
            for round_ in range(options.rounds):
                for contender in chosen[round_ % len(chosen) :] + chosen[: round_ % len(chosen)]:
                    measure, found = _run(server, contender, pythons[contender.name], url, options.rows, home)
                    measures[contender.name].append(measure)
                    print(f"round {round_ + 1} {contender.name:20}", measure, file=sys.stderr, flush=True)
                    _compare(contender.name, found, dict.fromkeys(found, (True, None)), options.rows)
        finally:
            server.remove()
    results = {
        "rows": options.rows,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()}",
        "measures": measures,
        "failed_when_spoiled": sum(not passed for passed, _ in truth.values()),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if _show(measures) else 1)


def _python(lock: str | None) -> str:
    """The interpreter of a tool, installed when it is missing or its lock has changed."""
    if lock is None:
        return sys.executable
    file, stamp, python = HERE / f"{lock}.lock", TOOLS / lock / ".lock", TOOLS / lock / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != file.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS / lock], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", file]
        subprocess.run(install, check=True)
        stamp.write_text(file.read_text())
    return str(python)


def _database(server: EmbeddedServer, name: str, rows: int) -> str:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    url = server.url(name)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in sql.SQL(SETUP).format(rows=sql.Literal(rows)).as_string(connection).split(";"):
            if statement.strip():
                connection.execute(statement.encode())
        connection.execute("vacuum (analyze)")
        connection.execute("checkpoint")
        connection.execute("select count(note) from orders")  # the first contender finds it in memory, too
    return url


def _spoil(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SPOIL.encode())
        connection.execute("vacuum (analyze)")
        connection.execute("checkpoint")


def _run(
    server: EmbeddedServer, contender: Contender, python: str, url: str, rows: int, home: Path
) -> tuple[Measure, Found]:
    """One whole process, and what it cost here and on the server."""
    script = HERE / "contenders" / f"{contender.script}.py"
    command = [python, str(script), url, str(rows), *contender.arguments]
    environment = {**os.environ, "HOME": str(home)}
    if contender.lock is not None:
        environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        on_server, started = server_cpu(server), time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        time.sleep(0.5)  # its sessions end
        on_server = server_cpu(server) - on_server
        output.seek(0)
        errors.seek(0)
        lines = output.read().decode().strip().splitlines()
        if process.returncode:
            raise SystemExit(f"{contender.name} failed: {' '.join(lines)[-2000:]}{errors.read().decode()[-2000:]}")
    measure = {
        "wall": round(wall, 2),
        "client CPU": round(usage.ru_utime + usage.ru_stime, 2),
        "server CPU": round(on_server, 2),
        "client MB": round(usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2), 1),
    }
    found = {name: (bool(passed), failed) for name, (passed, failed) in json.loads(lines[-1]).items()}
    return measure, found


def server_cpu(server: EmbeddedServer) -> float:
    """Seconds of the postmaster, of its processes that run, and of those that have ended."""
    postmaster = server.status().pid
    while True:
        at_work = {pid: _times(pid)[:2] for pid in _children(postmaster)}
        # Of those that have ended since, the postmaster may have the time already: they would count twice.
        own = _times(postmaster)
        if _children(postmaster) == list(at_work):
            return sum(own + [ticks for times in at_work.values() for ticks in times]) / TICK


def _children(postmaster: int) -> list[int]:
    every = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [int(pid) for pid in every]


def _times(pid: int) -> list[int]:
    """Ticks of a process: as user, as system, and both of its ended children."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return [int(word) for word in stat.rpartition(")")[2].split()[11:15]]


def _compare(name: str, found: Found, truth: Found, rows: int) -> None:
    """Every verdict the same, and the number of failing rows where it is counted."""
    for check in checks(rows):
        mine, true = found[check["name"]], truth[check["name"]]
        if mine[0] != true[0]:
            raise SystemExit(f"{name}: the verdict of {check} is {mine}, not {true}")
        counted = check["kind"] in COUNTED and None not in (mine[1], true[1])
        if counted and mine[1] != true[1]:
            raise SystemExit(f"{name}: {check} counts {mine[1]} rows, not {true[1]}")


def _show(measures: dict[str, list[Measure]]) -> bool:
    what = ("wall", "client CPU", "server CPU", "client MB")
    medians = {n: {w: statistics.median(m[w] for m in every) for w in what} for n, every in measures.items()}
    ours = medians["dbplatform"]
    print(f"| medians | {' | '.join(f'{w} | ratio' for w in what)} |\n|---|{'---|' * 8}")
    for name, found in medians.items():
        cells = " | ".join(f"{found[w]:.1f} | {found[w] / ours[w]:.2f}" for w in what)
        print(f"| {name} | {cells} |")
    met = ours["client MB"] < MOST_CLIENT_MB
    print(f"client memory under {MOST_CLIENT_MB} MB: {'met' if met else 'NOT MET'}")
    for figure, times, others in LIMITS:
        there = [name for name in others if name in medians]
        if not there:
            continue
        least = min(medians[name][figure] for name in there) / ours[figure]
        ok = least >= times
        met = met and ok
        print(f"{figure}, at least {times} times of {', '.join(there)}: {least:.1f} {'met' if ok else 'NOT MET'}")
    return met


if __name__ == "__main__":
    main()
