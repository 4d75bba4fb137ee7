"""What a fleet of declared databases costs, from 1 to 300 of them: load time, memory, ticks, the ledger, commands.

    python benchmarks/fleet/run.py [--databases 1,10,50,100,200,300] [--parts load,one,commands,ticks,growth]

Declarations as people write them (15 tables under checks, 3 partitioned, backups with drills, an archive, limits,
maintenance), each with a real database, a copy of a template, on an embedded server of its own that is removed at the
end. Every measurement has a fresh process. Prints a table and writes ``results.json`` beside.

Exit code 1 where something grows faster than the fleet: where the cost of one more database, between the two largest
sizes, is more than 1.5 times that between the two smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from made import declare, make_databases, make_empty, make_template, urls

from dbplatform.home import Home
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer

PARTS = ("load", "one", "commands", "ticks", "growth")
MOST_GROWTH = 1.5
_COMMANDS = {
    "migrate apply, nothing to do": ("migrate", "apply", "c000"),
    "check --explain": ("check", "c000", "--explain", "--json"),
    "list": ("list", "--json"),
    "health of all": ("health", "--json"),
}
_TIMES = 5


def measured(part: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """One part in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("part.py")), part, str(folder)],
        env=environment, stdout=subprocess.PIPE, check=True, cwd=folder,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def commands(folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """The median seconds of each command."""
    found = {}
    for name, words in _COMMANDS.items():
        seconds = []
        for _ in range(_TIMES + 1):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "dbplatform.cli.main", "-C", str(folder), *words],
                env=environment, stdout=subprocess.DEVNULL, check=True, cwd=folder,
            )  # fmt: skip
            seconds.append(time.perf_counter() - began)
        found[name] = round(statistics.median(seconds[1:]), 3)
    return found


def curves(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The figures that may not grow faster than the fleet, by size."""
    found: dict[str, list[float]] = {}
    for result in results:
        figures: dict[str, float] = {}
        if "load" in result:
            load = result["load"]
            figures["code location loaded, s"] = sum(load["seconds"].values())
            figures["code location, MiB"] = load["peak_mib"]
            figures["snapshot, MB"] = load["snapshot_bytes"] / 1e6
        if "one" in result:
            figures["definitions of one run, s"] = result["one"]["seconds"]["definitions"]
            figures["one run, MiB"] = result["one"]["peak_mib"]
        for name, seconds in result.get("commands", {}).items():
            figures[f"{name}, s"] = seconds
        if "ticks" in result:
            seconds = result["ticks"]["seconds"]
            figures["watch, a tick, s"] = seconds["dbplatform_watch, third"]
            every = [value for name, value in seconds.items() if "automation" in name and name.endswith("third")]
            figures["automation, longest tick, s"] = max(every)
            figures["automation, all ticks, s"] = sum(every)
        for name, value in figures.items():
            found.setdefault(name, []).append(round(value, 3))
    return found


def steeper(sizes: list[int], values: list[float]) -> float | None:
    """The cost of one more database at the end, as a multiple of that at the beginning; None where it is noise."""
    if len(sizes) < 3 or len(values) != len(sizes):
        return None
    at_first = (values[1] - values[0]) / (sizes[1] - sizes[0])
    at_last = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    if values[-1] - values[0] < 0.2 or at_first <= 0:
        return None
    return round(at_last / at_first, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", default="1,10,50,100,200,300")
    parser.add_argument("--parts", default=",".join(PARTS))
    arguments = parser.parse_args()
    sizes, parts = [int(one) for one in arguments.databases.split(",")], arguments.parts.split(",")
    results: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary:
        server = EmbeddedServer(Home(root=Path(temporary) / "home"), settings={"fsync": "off"})
        server.start()
        try:
            url = server.url("postgres")
            make_template(url)
            for size in sizes:
                folder = Path(temporary) / f"fleet_{size}"
                declare(folder, size)
                make_databases(url, size)
                dagster = make_empty(url, f"dagster_{size}")
                environment = {
                    **os.environ,
                    **urls(url, size),
                    "DBPLATFORM_HOME": str(Path(temporary) / "home"),
                    "DBPLATFORM_LEDGER_URL": make_empty(url, f"ledger_{size}"),
                    "DAGSTER_PLAIN_URL": dagster,
                    "DBPLATFORM_DAGSTER_URL": server.url(f"dagster_{size}").replace("://", "+psycopg2://", 1),
                    "DAGSTER_HOME": str(Path(temporary) / f"dagster_{size}"),
                }
                apply_ledger_schema(Target("the ledger", environment["DBPLATFORM_LEDGER_URL"]))
                made_home(Path(environment["DAGSTER_HOME"]))
                result: dict[str, Any] = {"databases": size}
                for part in parts:
                    if part == "commands":
                        baseline(folder, size, environment)
                        result[part] = commands(folder, environment)
                    elif part != "growth" or size == sizes[0]:
                        result[part] = measured(part, folder, environment)
                    print(size, part, json.dumps(result.get(part))[:400], file=sys.stderr, flush=True)
                results.append(result)
        finally:
            server.remove()
    found = curves(results)
    slopes = {name: steeper(sizes, values) for name, values in found.items()}
    print(f"| | {' | '.join(map(str, sizes))} | one more, at the end : at first |")
    print(f"|---|{'---|' * len(sizes)}---|")
    for name, values in found.items():
        print(f"| {name} | {' | '.join(f'{value:g}' for value in values)} | {slopes[name] or ''} |")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}
    written = {"machine": machine, "curves": found, "slopes": slopes, "results": results}
    (Path(__file__).parent / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    sys.exit(any(slope is not None and slope > MOST_GROWTH for slope in slopes.values()))


def made_home(folder: Path) -> None:
    """A home of Dagster for this size alone, as ``dbplatform`` makes it."""
    from importlib.resources import files

    folder.mkdir()
    (folder / "dagster.yaml").write_text((files("dbplatform.orchestration") / "dagster.yaml").read_text())


def baseline(folder: Path, size: int, environment: dict[str, str]) -> None:
    """The first database is at its version: what is timed then is a command with nothing to do."""
    subprocess.run(
        [sys.executable, "-m", "dbplatform.cli.main", "-C", str(folder), "migrate", "baseline", "c000", "--json"],
        env=environment, stdout=subprocess.DEVNULL, check=False, cwd=folder,
    )  # fmt: skip


if __name__ == "__main__":
    main()
