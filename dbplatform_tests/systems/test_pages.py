"""The pages of the declared systems: nothing that was asked for is without a proof, and every proof is run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.test_five_systems import SYSTEMS

PAGES = REPOSITORY / "docs" / "systems"
TESTS = REPOSITORY / "dbplatform_tests"
HERE = "systems"
COLUMNS = ["asked for", "here", "proof"]
#: Pages that are no system's.
BESIDE = {"README", "claims"}

_BETWEEN_CELLS = re.compile(r"(?<!\\)\|")
_PROOF = re.compile(r"`((?:[\w/]+\.py::)?test_\w+)`")
_NONE = re.compile(r"no proof: \w+ \w+ .+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is asked for, where it is here, and what proves it."""

    asked: str
    here: str
    proof: str

    def proofs(self, system: str) -> list[str]:
        """The ids by which pytest knows the proofs; a bare name is of the module of the system."""
        return [_id(name, system) for name in _PROOF.findall(self.proof)]


def _id(name: str, system: str) -> str:
    if "::" not in name:
        name = f"test_{system}.py::{name}"
    return f"dbplatform_tests/{name if '/' in name else f'{HERE}/{name}'}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in _BETWEEN_CELLS.split(line.strip().strip("|"))]


def table(system: str) -> list[Row]:
    """The one table of a system's page."""
    lines = [_cells(line) for line in (PAGES / f"{system}.md").read_text().splitlines() if line.startswith("|")]
    assert lines[:1] == [COLUMNS], f"the table of {system}.md begins with {lines[:1]}"
    assert [line for line in lines if len(line) != len(COLUMNS)] == []
    return [Row(asked=asked, here=here, proof=proof) for asked, here, proof in lines[2:]]


def _functions(file: Path) -> Iterator[str]:
    for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE):
        yield f"{file.relative_to(REPOSITORY)}::{name}"


@pytest.fixture(scope="module")
def in_make_test(request: pytest.FixtureRequest) -> set[str]:
    """The tests that ``make test`` runs, among the files that the pages name: as pytest itself collects them."""
    named = {proof.partition("::")[0] for system in SYSTEMS for row in table(system) for proof in row.proofs(system)}
    collected = [] if request.config.option.keyword else request.session.items  # by -k a file may be there in part
    here = {item.nodeid.partition("[")[0] for item in collected}
    others = sorted(named - {node.partition("::")[0] for node in here})
    if not others:  # all of the tests are collected already
        return here
    missing = [file for file in others if not (REPOSITORY / file).is_file()]
    assert missing == []
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", *others]
    said = subprocess.run(collect, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return here | {line.partition("[")[0] for line in said.stdout.splitlines()}


def test_every_system_has_a_page_and_every_page_is_read() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - BESIDE == set(SYSTEMS)


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_is_asked_for_without_an_answer_and_a_proof(system: str) -> None:
    rows = table(system)
    assert len({row.asked for row in rows}) == len(rows) > 0
    assert [row for row in rows if not row.asked or not row.here] == []
    assert [row for row in rows if not row.proofs(system) and not _NONE.fullmatch(row.proof)] == []
    left = [_PROOF.sub("", row.proof).strip(" ,") for row in rows if row.proofs(system)]
    assert [words for words in left if words] == [], "beside the names there is nothing that could be a wrong one"


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_proof_is_a_test_that_make_test_runs(system: str, in_make_test: set[str]) -> None:
    proofs = {proof for row in table(system) for proof in row.proofs(system)}
    assert sorted(proofs - in_make_test) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_test_of_a_system_proves_a_row(system: str) -> None:
    proofs = {proof for row in table(system) for proof in row.proofs(system)}
    assert sorted(set(_functions(TESTS / HERE / f"test_{system}.py")) - proofs) == []
