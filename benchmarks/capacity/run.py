"""How often the truth lies in the range that ``dbplatform capacity`` tells, on made series with a known future.

    python benchmarks/capacity/run.py [--cases 300]

Each kind of growth, alone and with what happens to databases (an archive, a load, a rebuild, a change of growth,
missing days), at 14, 30, 90 and 180 days of history. The range is meant to hold in nine of ten cases. Prints a table
and writes ``results.json`` beside. No database, no network; one process.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dbplatform_tests.growth_series import CHANGES, MAKERS, coverage

HISTORIES = (14, 30, 90, 180)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=300)
    cases = arguments.parse_args().cases
    kinds: list[tuple[str, str | None, float]] = [(name, None, 0.0) for name in MAKERS]
    kinds += [(name, change, 0.0) for name in ("steady", "wandering") for change in CHANGES]
    kinds.append(("wandering", None, 0.3))
    results = []
    print(f"| growth | with | {' | '.join(f'{days} days' for days in HISTORIES)} |")
    print(f"|---|---|{'---|' * len(HISTORIES)}")
    for name, change, missing in kinds:
        cells = []
        for history in HISTORIES:
            if history < 60 and (change == "faster" or name == "archived_monthly" or missing):
                cells.append("")
                continue
            found = coverage(name, cases, history=history, change=change, missing=missing)
            wide = "" if found.width is None else f", width {found.width:.2f}"
            cells.append(f"{found.share:.0%}{wide}")
            results.append(
                {
                    "growth": name, "with": change or (f"{missing:.0%} of days missing" if missing else None),
                    "history_days": history, "cases": cases, "held": found.share, "silent": found.silent / cases,
                    "median_width": found.width, "came_before_the_range": found.least_sure,
                }
            )  # fmt: skip
        print(f"| {name} | {change or ('30 % missing' if missing else '')} | {' | '.join(cells)} |", flush=True)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
