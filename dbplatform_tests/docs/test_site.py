"""The site of the docs: every link in it leads somewhere, and a page needs nothing but its own files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dbplatform_tests.installation import REPOSITORY

_COMMAND = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
_ADDRESS = re.compile(r'<(a|link|script|img)\b[^>]*?\b(?:href|src)="?([^"\s>]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    surroundings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([*_COMMAND, folder], cwd=REPOSITORY, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def addresses(page: Path) -> Iterator[tuple[str, str]]:
    """The tags of a page that lead somewhere, and where."""
    yield from _ADDRESS.findall(page.read_text())


def test_every_link_of_the_site_leads_to_a_file_of_it(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 70
    lost = []
    for page in pages:
        for _, address in addresses(page):
            parts = urlsplit(address)
            if not parts.scheme and parts.path and not (page.parent / unquote(parts.path)).exists():
                lost.append(f"{page.relative_to(site)}: {address}")
    assert lost == []


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = {
        address
        for page in site.rglob("*.html")
        for tag, address in addresses(page)
        if tag != "a" and "canonical" not in tag
    }
    assert [address for address in loaded if urlsplit(address).scheme in ("http", "https")] == []


def test_the_menu_has_the_folders_in_the_order_of_reading(site: Path) -> None:
    start = (site / "index.html").read_text()
    tabs = re.findall(r'md-tabs__link">\s*([A-Z][A-Za-z ]+?)\s*<', start)
    assert tabs == [
        "Start",
        "Tutorial",
        "How to",
        "Runbooks",
        "Systems",
        "Reference",
        "Benchmarks",
        "Decisions",
        "About",
    ]
