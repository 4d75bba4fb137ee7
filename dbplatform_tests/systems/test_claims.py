"""The claims of the documents: none is without a figure and a verdict, and the benchmark really measures."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.claims import run
from benchmarks.claims.registry import Measured, Sides, bounded, in_order, less, more, once, table
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.test_five_systems import SYSTEMS

PAGE = REPOSITORY / "docs" / "systems" / "claims.md"
VERDICT = re.compile(r"(Holds|Holds only for|Does not hold): .+\.")
#: What a million rows are not needed for.
QUICK = ("empty_database", "referential_integrity", "data_validation")


def results() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run.RESULTS.read_text())["claims"]
    return found


def test_every_claim_was_measured() -> None:
    assert [(one["id"], one["document"], one["claimed"]) for one in results()] == [
        (one.id, one.document, one.claimed) for one in in_order()
    ]
    assert {one["system"] for one in results()} == set(SYSTEMS)
    for one in results():
        assert VERDICT.fullmatch(one["verdict"]), one["verdict"]
        assert math.isfinite(one["before"])
        assert math.isfinite(one["after"])
        assert all(case["words"] in one["verdict"] for case in one["cases"])
    assert min(one["rows"] for one in results()) >= run.ROWS == 1_000_000


def test_the_page_shows_exactly_the_results() -> None:
    shown = [line for line in PAGE.read_text().splitlines(keepends=True) if line.startswith("| ")]
    begin, end = (
        shown.index("| claim | before | after | ratio | verdict |\n"),
        shown.index("| document | figure | why |\n"),
    )
    expected = [line for line in table(results()).splitlines(keepends=True) if line.startswith("| ")]
    assert shown[begin:end] == expected
    assert len(expected) == len(results()) + 1


@pytest.mark.parametrize("system", ["README", *SYSTEMS])
def test_every_page_of_a_system_leads_to_its_claims(system: str) -> None:
    assert "(claims.md)" in (PAGE.parent / f"{system}.md").read_text()


def test_a_verdict_says_what_its_figures_say() -> None:
    halved = less("a rare value", Sides(before=(9, 10, 11), after=(5, 5, 5)), share=0.5)
    slower = less("a common one", once(10, 12), share=0.5)
    assert (halved.ratio, halved.holds, slower.holds) == (2, True, False)
    assert Measured(cases=[halved]).verdict == "Holds: a rare value, 50 % less."
    both = Measured(cases=[halved, slower], because="it is so").verdict
    assert both == "Holds only for: a rare value, 50 % less; not for: a common one, 20 % more; it is so."
    none_left = less("orphans", once(1000, 0), share=1, unit="rows")
    assert (none_left.ratio, none_left.words) == (None, "orphans, 100 % less")
    assert not more("callers", once(30, 75), times=3, unit="callers").holds
    assert Measured(cases=[bounded("a page", once(5, 101), at_most=100, unit="ms")]).verdict == (
        "Does not hold: a page, 101 ms."
    )


def test_the_benchmark_measures(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, run.__file__, "--rows", "3000", "--rounds", "1", "--out", str(out), "--only", *QUICK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["id"]: one for one in json.loads(out.read_text())["claims"]}
    assert set(found) == set(QUICK)
    figures = {name: (one["before"], one["after"]) for name, one in found.items()}
    assert figures["referential_integrity"] == (1000, 0)
    assert figures["data_validation"] == (9, 5)
    assert figures["empty_database"][0] == 0 < figures["empty_database"][1]
    assert all(one["verdict"] in done.stdout for one in found.values())
