"""What turns this repository into the site of ``mkdocs.yml``: pages beside docs/, links between all of them, the menu.

A page is read in the repository first; so its links are those of the repository, and are turned here. A file that is no
page (a declaration, a script) becomes one that shows it. The menu lists pages in the order in which the README or a
folder's own README names them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
_FOLDERS = {
    "Tutorial": "docs/tutorial",
    "How to": "docs/how-to",
    "Runbooks": "docs/runbooks",
    "Systems": "docs/systems",
    "Reference": "docs/reference",
    "Benchmarks": "benchmarks",
    "Decisions": "docs/adr",
}
_TOP = {"README.md": "index.md", "ARCHITECTURE.md": "ARCHITECTURE.md", "CHANGELOG.md": "CHANGELOG.md"}
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sql": "sql", ".sh": "bash"}
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(?=[)#\s])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The menu."""
    config.nav = [
        {"Start": "index.md"},
        *({title: [_site_path(page) for page in _in_order(folder)]} for title, folder in _FOLDERS.items()),
        {"About": ["comparison.md", "fault-matrix.md", "upgrade.md", "ARCHITECTURE.md", "CHANGELOG.md"]},
    ]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The pages that lie beside docs/, and the files that a page links to."""
    beside = [*_TOP, *(page for page in _in_order("benchmarks"))]
    pages = [*beside, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for page in beside:
        files.append(File.generated(config, _site_path(page), content=(ROOT / page).read_text()))
    for path in sorted({target for page in pages for target in _targets(page)} - set(pages)):
        if (ROOT / path).is_file() and not path.startswith("docs/"):
            shown = f"# {path}\n\n```{_LANGUAGES.get(Path(path).suffix, 'text')}\n{(ROOT / path).read_text()}\n```\n"
            files.append(File.generated(config, _site_path(path), content=shown, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Its links, from where they lead in the repository to where they lead in the site."""
    here = page.file.src_uri
    source = _repository_path(here)

    def turned(link: re.Match[str]) -> str:
        path = _resolved(source, link[1])
        if not (ROOT / path).is_file():
            return link[1]
        return posixpath.relpath(_site_path(path), posixpath.dirname(here) or ".")

    return _LINK.sub(turned, markdown)


def _in_order(folder: str) -> list[str]:
    """The pages of a folder: its README, those that the README of the project or of the folder names, the others."""
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.md")}
    if folder == "benchmarks":
        found = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*/*.md")}
    first = f"{folder}/README.md"
    named = [*_targets("README.md"), *(_targets(first) if first in found else [])]
    order = dict.fromkeys([first, *named, *sorted(found)])
    return [page for page in order if page in found]


def _targets(page: str) -> list[str]:
    return [_resolved(page, link) for link in _LINK.findall((ROOT / page).read_text())]


def _resolved(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _site_path(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path in _TOP:
        return _TOP[path]
    path = path.removeprefix("docs/")
    return path if path.endswith((".md", ".png", ".svg")) else f"files/{path}.md"


def _repository_path(path: str) -> str:
    """And the other way round."""
    top = {site: page for page, site in _TOP.items()}
    if path in top:
        return top[path]
    if path.startswith("files/"):
        return path.removeprefix("files/").removesuffix(".md")
    return path if path.startswith("benchmarks/") else f"docs/{path}"
