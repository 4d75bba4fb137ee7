"""Precision and recall on made series with known faults, of this project and of a published method.

    python benchmarks/anomaly/run.py [--seeds 10] [--first-seed 1000] [--only NAME ...]

Each method is asked of each value, as it comes, whether it is an anomaly, and sees nothing later. Prints a table and
writes ``results.json`` beside. The published one is installed by its lock file below ``.tools``.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from dbplatform.quality.anomaly.baseline import Rules, judged, scaled
from dbplatform.quality.anomaly.choice import chosen_season
from dbplatform.quality.anomaly.points import Point
from dbplatform.quality.anomaly.seasons import WALKED, Calendar
from dbplatform_tests.made_series import MAKERS, Series, made

HERE = Path(__file__).parent

Flags = dict[int, bool]
"""Of each value asked about, by its index: whether it is called an anomaly."""


@dataclass(slots=True)
class Score:
    """Counts over some series; alarms where nobody knows (``Series.unknown``) are not among them."""

    faults: int = 0
    found: int = 0
    right: int = 0
    wrong: int = 0
    values: int = 0
    seconds: float = 0.0

    def add(self, other: Score) -> None:
        """Add up."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def recall(self) -> str:
        """Faults found, of all."""
        return f"{self.found / self.faults:.2f}" if self.faults else ""

    @property
    def precision(self) -> str:
        """Alarms within a fault, of all."""
        return f"{self.right / (self.right + self.wrong):.2f}" if self.right + self.wrong else ""

    def __str__(self) -> str:
        return " | ".join((self.recall, self.precision, str(self.wrong)))


def score(series: Series, flags: Flags, seconds: float) -> Score:
    """What the flags are worth."""
    faulty = {index for first, last in series.faults for index in range(first, last)}
    unknown = {index for first, last in series.unknown for index in range(first, last)} - faulty
    alarms = {index for index, flag in flags.items() if flag} - unknown
    found = sum(any(flags.get(index) for index in range(first, last)) for first, last in series.faults)
    return Score(
        len(series.faults), found, len(alarms & faulty), len(alarms - faulty), len(set(flags) - unknown), seconds
    )


def points(series: Series) -> list[Point]:
    """The values as the check has them."""
    return [
        Point(at=at, value=float(value), rows=series.rows) for at, value in zip(series.at, series.values, strict=True)
    ]


def declared(series: Series) -> Flags:
    """This project, the season declared."""
    return _ours(series, series.season)


def by_itself(series: Series) -> Flags:
    """This project, the season chosen from the values before the first that is judged."""
    calendar = Calendar(ZoneInfo(series.zone))
    return _ours(series, chosen_season(points(series)[: series.learning], series.kind, calendar))


def _ours(series: Series, season: str) -> Flags:
    values = points(series)
    calendar = Calendar(ZoneInfo(series.zone))
    flags: Flags = {}
    # In pieces, because a call looks at the newest values only.
    for first in range(series.learning, len(values), 30):
        found = judged(values[: first + 30], Rules(kind=series.kind, calendar=calendar, season=season))
        flags |= {
            len(values[: first + 30]) - place: one.anomalous
            for place, one in enumerate(reversed(found), start=1)
            if first <= len(values[: first + 30]) - place
        }
    return flags


def three_deviations(series: Series) -> Flags:
    """Further than three standard deviations from the mean of the comparable values before, whatever these were."""
    calendar = Calendar(ZoneInfo(series.zone))
    keys = np.array([calendar.key(series.season, at) for at in series.at])
    values = scaled(series.values, series.kind)
    flags = {}
    for index in range(series.learning, len(values)):
        walked = slice(max(0, index - WALKED[series.season]), index)
        past = values[walked][keys[walked] == keys[index]]
        flags[index] = bool(abs(values[index] - past.mean()) > 3 * past.std(ddof=1) + 1e-9)
    return flags


def s_h_esd(python: str) -> Callable[[Series], Flags]:
    """The published method, with logarithms where ours takes them, and the period declared."""
    process = subprocess.Popen(
        [python, HERE / "contenders" / "s_h_esd.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(series: Series) -> Flags:
        assert process.stdin is not None
        assert process.stdout is not None
        asked = {
            "values": scaled(series.values, series.kind).tolist(),
            "period": series.period,
            "from": series.learning,
            "walked": WALKED[series.season],
        }
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        return dict(enumerate(json.loads(process.stdout.readline()), start=series.learning))

    return ask


def environment(lock: str) -> str:
    """The interpreter of a method's own environment, made from its lock file."""
    file, home = HERE / f"{lock}.lock", HERE / ".tools" / lock
    stamp, python = home / ".lock", home / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != file.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", file]
        subprocess.run(install, check=True)
        stamp.write_text(file.read_text())
    return str(python)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1_000)
    parser.add_argument("--only", nargs="*", choices=list(MAKERS))
    arguments = parser.parse_args()
    methods: dict[str, Callable[[Series], Flags]] = {
        "dbplatform": declared,
        "dbplatform, auto": by_itself,
        "S-H-ESD": s_h_esd(environment("s_h_esd")),
        "three deviations": three_deviations,
    }
    print("| series | " + " | ".join(f"{name}: recall | precision | false" for name in methods) + " |")
    print("|---|" + "---|" * 3 * len(methods))
    total = {name: Score() for name in methods}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name in arguments.only or MAKERS:
        scores = {method: Score() for method in methods}
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            series = made(name, seed)
            for method, ask in methods.items():
                started = time.perf_counter()
                flags = ask(series)
                scores[method].add(score(series, flags, time.perf_counter() - started))
        for method, found in scores.items():
            total[method].add(found)
        rows[name] = {method: asdict(found) for method, found in scores.items()}
        print(f"| {name} | " + " | ".join(map(str, scores.values())) + " |", flush=True)
    print("| all | " + " | ".join(map(str, total.values())) + " |")
    for method, found in total.items():
        print(f"{method}: {1000 * found.wrong / found.values:.2f} false alarms in 1,000 values")
    machine = {"python": platform.python_version(), "numpy": np.__version__, "seeds": arguments.seeds}
    machine["first seed"] = arguments.first_seed
    if not arguments.only:
        (HERE / "results.json").write_text(json.dumps({**machine, "series": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
