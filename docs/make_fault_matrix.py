"""Write ``docs/fault-matrix.md`` from ``dbplatform_tests/drills/faults.yaml`` and the tests that it names.

``make docs`` runs it; ``--check`` says instead whether the page is stale (exit 1), or names a test that is not there.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "fault-matrix.md"
TESTS = "dbplatform_tests"
FAULTS = {
    "killed": "`kill -9` of the process at the boundaries of its steps",
    "server": "the PostgreSQL server stops, crashes or restarts",
    "cut": "a connection is lost in the middle",
    "locked": "somebody holds the lock, and does not let go",
    "disk": "no room on the disk",
    "storage": "the bucket, or a channel, refuses, stalls, or fails at random",
    "clock": "a clock jumps, is ahead or behind; summer time",
    "twice": "two at once, or the same again",
    "replica": "the replica lags or is lost",
    "ledger": "the ledger does not answer, or is lost",
    "memory": "far more data than memory",
    "damage": "a byte, a file or a row is not what was written",
}
Matrix = dict[str, dict[str, list[str] | str]]
_HEAD = """\
<!-- Written by `make docs` from dbplatform_tests/drills/faults.yaml and the tests: change those, not this page. -->

# What was broken on purpose

Each number counts cases of tests that break one thing while one capability works, and look afterwards: no row is lost
or doubled, nothing is told as done that is not, and the next run ends right. The first number is that of `make drill`,
the second that of every `make test`. `none`: cannot meet it, for the reason below. Empty: not tested. The tests are
named in [faults.yaml](../dbplatform_tests/drills/faults.yaml).

"""


class Cases:
    """A plugin of pytest that counts the cases of each test function, and those with the same first parameter."""

    def __init__(self) -> None:
        self.every: Counter[str] = Counter()
        self.sample: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Counted once everything is collected."""
        for item in session.items:
            name, _, parameters = item.nodeid.removeprefix(f"{TESTS}/").rstrip("]").partition("[")
            mark = item.get_closest_marker("drill")
            for counted in (name, f"{name}[{parameters.partition('-')[0]}]"):
                self.every[counted] += 1
                self.sample[counted] += mark is None or bool(mark.kwargs.get("sample"))


def page(matrix: Matrix) -> str:
    """The text of the page. Raises ``SystemExit`` for a test that is not there."""
    named = [test for row in matrix.values() for cell in row.values() if not isinstance(cell, str) for test in cell]
    files = sorted({f"{TESTS}/{test.partition('::')[0]}" for test in named})
    cases, said = Cases(), io.StringIO()
    # Which other servers were installed here is chance; the page has what every installation of the tests has.
    os.environ["DBPLATFORM_TEST_SERVERS"] = os.devnull
    with contextlib.redirect_stdout(said):
        pytest.main(["--collect-only", "--drill-all", "-q", "-p", "no:cacheprovider", *files], plugins=[cases])
    missing = [test for test in named if not cases.every[test]]
    if missing:
        raise SystemExit(f"faults.yaml names tests that are not there: {', '.join(missing)}\n{said.getvalue()[-2000:]}")
    head = [f"| | {' | '.join(FAULTS)} |", f"|---|{'---|' * len(FAULTS)}"]
    rows = [
        f"| **{capability}** | {' | '.join(_cell(row.get(fault), cases) for fault in FAULTS)} |"
        for capability, row in matrix.items()
    ]
    meanings = ["", "| fault | what is done |", "|---|---|", *(f"| {name} | {text} |" for name, text in FAULTS.items())]
    reasons = [
        f"- {capability}, {fault}: {cell}"
        for capability, row in matrix.items()
        for fault, cell in row.items()
        if isinstance(cell, str)
    ]
    total = f"\nTogether {sum(cases.every[test] for test in set(named))} cases of {len(set(named))} tests.\n"
    return "\n".join([_HEAD + "\n".join(head + rows), total, *meanings, "", *reasons]) + "\n"


def _cell(cell: list[str] | str | None, cases: Cases) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return "none"
    return f"{sum(cases.every[test] for test in cell)} / {sum(cases.sample[test] for test in cell)}"


def main() -> None:
    """Write the page, or check it."""
    text = page(yaml.safe_load((ROOT / TESTS / "drills" / "faults.yaml").read_text()))
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        raise SystemExit("docs/fault-matrix.md is stale: make docs")


if __name__ == "__main__":
    main()
