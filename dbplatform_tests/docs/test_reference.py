"""The documents hold what the code holds: reference pages are fresh, links lead somewhere, no command is left out."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dbplatform.cli.main import VERBS
from dbplatform_tests.installation import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *REPOSITORY.glob("*.md")])


def reference() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()  # type: ignore[no-any-return]


def test_the_reference_is_what_the_code_says() -> None:
    for name, text in reference().items():
        assert (DOCS / "reference" / name).read_text() == text, f"docs/reference/{name} is stale: make docs"


def test_the_fault_matrix_is_what_the_tests_are() -> None:
    command = [sys.executable, DOCS / "make_fault_matrix.py", "--check"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_every_verb_is_in_the_reference() -> None:
    text = reference()["commands.md"]
    assert [verb for verb in VERBS if f"\n## {verb}\n" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_variable_of_the_environment_is_in_its_page_and_no_other() -> None:
    code = "\n".join(file.read_text() for file in (REPOSITORY / "dbplatform").rglob("*.py"))
    page = (DOCS / "reference" / "environment.md").read_text()
    read = set(re.findall(r"\bDBPLATFORM_[A-Z_]*[A-Z]\b", code))
    assert set(re.findall(r"^\| `(DBPLATFORM_\w+)` ", page, re.MULTILINE)) == read


def test_every_decision_is_in_the_list() -> None:
    listed = (DOCS / "adr" / "README.md").read_text()
    files = sorted(file.name for file in (DOCS / "adr").glob("0*.md"))
    assert files
    assert [name for name in files if name not in listed] == []
