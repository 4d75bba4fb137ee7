"""Convert 5 million rows under 8 writers and 4 readers; the distribution of every client's waits, beside a quiet run.

Starts an embedded PostgreSQL of its own with the settings that a user gets (fsync on).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from dbplatform import progress
from dbplatform.home import Home
from dbplatform.partitioning.conversion.convert import convert
from dbplatform.partitioning.conversion.undo import undo
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.drills.conversion_clients import POLICY, Clients, distribution, prepare

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--quiet-seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Home(root=Path(folder) / "home"))
        server.start()
        try:
            result = _measure(server, options.rows, options.quiet_seconds)
        finally:
            server.remove()
    text = json.dumps(result, indent=2)
    (Path(__file__).parent / "results.json").write_text(text + "\n")
    print(text)


def _measure(server: EmbeddedServer, rows: int, quiet_seconds: float) -> dict[str, object]:
    server.ensure_database("event")
    target = Target("event", server.url("event"))
    prepare(target.url, rows)
    quiet = Clients(target.url, rows)
    with quiet.working():
        threading.Event().wait(quiet_seconds)
    _forget_clients(target, rows)
    phases: dict[str, float] = {}
    result: dict[str, object] = {"rows": rows, "quiet": distribution(quiet.seconds), "failures": len(quiet.failures)}
    for name in ("convert", "undo"):
        clients = Clients(target.url, rows)
        with clients.working(), connect(target, work="benchmark") as connection:
            started = time.monotonic()
            with progress.listening(_timer(phases, name)):
                report = convert(connection, POLICY, now=NOW) if name == "convert" else undo(connection, POLICY)
            seconds = time.monotonic() - started
            # As many operations before and behind as in the quiet run, so that percentiles compare.
            threading.Event().wait(max(0.0, quiet_seconds - seconds))
        result[name] = {
            "seconds": round(seconds, 2),
            "state": report.state,
            "clients": distribution(clients.seconds),
            "failures": clients.failures,
            "differences": clients.differences(),
        }
        _forget_clients(target, rows)
    result["phases"] = phases
    return result


def _timer(phases: dict[str, float], name: str) -> progress.Listener:
    begun: dict[str, float] = {}

    def hear(fact: progress.Progress) -> None:
        now = time.monotonic()
        if fact.unit == "statements":
            if fact.done == 0:
                begun[fact.task] = now
            phases[f"{fact.task} ms"] = round((now - begun[fact.task]) * 1000, 1)
        elif fact.unit == "phases":
            phases[f"{name} until phase {fact.done} s"] = round(now - begun.setdefault("all", now), 3)

    return hear


def _forget_clients(target: Target, rows: int) -> None:
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute("truncate line")
        connection.execute("delete from event where id > %s", (rows,))


if __name__ == "__main__":
    main()
