"""The tutorial is typed word for word, and says what was really seen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dbplatform.home import Home
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.installation import REPOSITORY, free_port
from dbplatform_tests.postgres.embedded_support import open_folder

PAGES = REPOSITORY / "docs" / "tutorial"
_BLOCK = re.compile(r"^```console(?P<who>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "@ ended with "
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{8}T\d{6}Z-[0-9a-f]{8}")
#: What differs from day to day: ids, times, figures, and how wide a column is because of them.
_VARYING = ((_ID, "ID"), (re.compile(r"\d{4}-\d\d-\d\dT[\d-]+Z-[0-9a-f]{8}"), "REPORT"),
            (re.compile(r"\d[\d,.:]*"), "0"), (re.compile(r"\s+"), " "))  # fmt: skip


@dataclass(frozen=True)
class Typed:
    """One command of a page, who types it, and the lines that the page shows below it."""

    who: str
    command: str
    shown: tuple[str, ...]


def typed(page: Path) -> list[Typed]:
    """The commands in the ``console`` blocks of a page; a second word there says who types them."""
    found = []
    for block in _BLOCK.finditer(page.read_text()):
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            found.append(Typed(block["who"].strip(), command, tuple(line for line in shown if line != "…")))
    return found


class Shell:
    """A shell that stays open: what is exported, and the folder, last."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, command: str) -> tuple[list[str], int]:
        """The lines that a command says, and its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{ {command}\n}} </dev/null; code=$?; echo; echo '{_MARK}'$code\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.startswith(_MARK):
                return lines, int(line.removeprefix(_MARK))
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"the shell ended in {command}: {lines}")


@contextmanager
def shell(home: Path, *, another_user: bool) -> Iterator[Shell]:
    """A shell of the reader in ``home``; the second server is started by another user where the reader is root."""
    account = account_for(home)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DBPLATFORM_", "DAGSTER_", "PG"))}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if another_user else {}
    with subprocess.Popen(
        ["bash"],
        cwd=home,
        env={**kept, "HOME": str(home), "PATH": path, "NO_COLOR": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **(identity if account.switches else {}),
    ) as process:
        try:
            yield Shell(process)
        finally:
            process.stdin.close()
            process.wait()


def differences(page: Path, home: Path, replaced: Mapping[str, str], *, root: str) -> list[str]:
    """Type a page; what failed, or was shown and not said. ``replaced`` are words of the page that differ here."""
    replaced = dict(replaced)
    wrong = []
    with ExitStack() as open_shells:
        shells: dict[str, Shell] = {}
        for one in typed(page):
            if one.who not in shells:
                shells[one.who] = open_shells.enter_context(shell(home, another_user=one.who == "server"))
            command = one.command
            for word, here in replaced.items():
                command = command.replace(word, here)
            said, code = shells[one.who].say(command)
            said = [line.replace(str(home), root) for line in said]
            seen = {plain(line): line for line in reversed(said)}
            missing = [line for line in one.shown if plain(line) not in seen]
            if missing or code != 0:
                wrong.append("\n".join([f"$ {command}", f"exit {code}, not said: {missing}", *said]))
            for line in one.shown:
                replaced |= zip(_ID.findall(line), _ID.findall(seen.get(plain(line), "")), strict=False)
    return wrong


def plain(line: str) -> str:
    for pattern, word in _VARYING:
        line = pattern.sub(word, line)
    return line.strip()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for the reader, who may be root and another user by turns."""
    with open_folder() as folder:
        account_for(folder).own(folder)
        yield folder


@pytest.mark.drill
def test_the_page_on_flights_works_word_for_word(home: Path) -> None:
    here = home / ".dbplatform"
    replaced = {"make run": f"export DBPLATFORM_HOME={here}; cd {REPOSITORY}; dbplatform run flights",
                ".dbplatform/": f"{here}/"}  # fmt: skip
    try:
        assert differences(PAGES / "01-flights.md", home, replaced, root="/home/you/dbplatform") == []
    finally:
        EmbeddedServer(Home(root=here)).remove()


@pytest.mark.drill
def test_the_page_on_your_own_database_works_word_for_word(home: Path) -> None:
    try:
        port = {"54315": str(free_port())}
        assert differences(PAGES / "02-your-own-database.md", home, port, root="/home/you") == []
    finally:
        stop = ["/usr/lib/postgresql/15/bin/pg_ctl", "stop", "--mode=immediate", f"--pgdata={home}/second/data"]
        account_for(home).run(stop)
        EmbeddedServer(Home(root=home / "ops" / ".dbplatform")).remove()


def test_the_tutorial_shows_every_verb_of_the_safety_loop() -> None:
    verbs = {
        one.command.removeprefix("dbplatform ").split()[0]
        for page in sorted(PAGES.glob("0*.md"))
        for one in typed(page)
        if one.command.startswith("dbplatform ")
    }
    assert {"init", "doctor", "migrate", "run", "check", "backup", "drill", "archive"} <= verbs
