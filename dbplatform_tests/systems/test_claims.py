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
from benchmarks.claims.registry import (
    NAMED,
    Measured,
    Sides,
    became,
    bounded,
    in_order,
    less,
    more,
    once,
    surroundings,
    table,
    with_verdicts,
)
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.test_five_systems import SYSTEMS
from dbplatform_tests.systems import test_pages as pages

PAGE = REPOSITORY / "docs" / "systems" / "claims.md"
VERDICT = re.compile(r"(Holds|Holds only for|Does not hold): .+\.")
#: What a million rows are not needed for.
QUICK = ("empty_database", "referential_integrity", "data_validation")


#: The proof of a row that names a claim.
MEASURED = f"dbplatform_tests/{pages.HERE}/test_claims.py::test_every_claim_was_measured"


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


def test_the_page_tells_how_busy_the_machine_was() -> None:
    about = json.loads(run.RESULTS.read_text())["about"]
    assert surroundings(about) in PAGE.read_text()
    quiet, busy = surroundings({**about, "load": [0.3, 4, 4]}), surroundings({**about, "load": [9.3, 4, 4]})
    assert ("others worked" in quiet, "others worked" in busy) == (False, True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_claim_has_a_row_that_says_what_became_of_it(system: str) -> None:
    known = {one["id"]: became(one) for one in results() if one["system"] == system}
    rows = [(row, list(NAMED.finditer(row.here))) for row in pages.table(system)]
    wrong = [
        f"{system}.md, {row.asked!r}: {named['id']} says {named['said']!r}, measured was {known.get(named['id'])!r}"
        for row, found in rows
        for named in found
        if named["said"] != known.get(named["id"])
    ]
    assert wrong == [], "make docs writes what was measured"
    assert {named["id"] for _, found in rows for named in found} == known.keys()
    loose = [row.asked for row, found in rows if "claims.md" in NAMED.sub("", row.here)]
    assert loose == [], "a row names its claims"
    unproven = [row.asked for row, found in rows if (MEASURED in row.proofs(system)) != bool(found)]
    assert unproven == [row.asked for row, found in rows if found and row.proof.startswith("no proof: ")]


def test_a_verdict_that_changes_is_written_anew_and_the_rest_of_a_row_stays() -> None:
    page = "| fast | by [`six`](claims.md#six): Holds (it, 1 s); more | `test` |\n| other | [`two`](claims.md#two) |\n"
    case = {"words": "all of it, 5 % less", "holds": False}
    found = with_verdicts(page, [{"id": "six", "verdict": "Does not hold: all of it, 5 % less.", "cases": [case]}])
    assert found == page.replace("Holds (it, 1 s)", "Does not hold (all of it, 5 % less)")
    part = {"id": "two", "verdict": "Holds only for: one, 9 % less; not for: all of it, 5 % less.", "cases": [case]}
    assert "#two): Holds only for a part (not for all of it, 5 % less) |" in with_verdicts(found, [part])
    assert all(with_verdicts(text, results()) == text for text in map(_page, SYSTEMS))


def _page(system: str) -> str:
    return (PAGE.parent / f"{system}.md").read_text()


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
