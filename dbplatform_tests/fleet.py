"""A fleet for tests: several declared databases of one kind, each a fresh database on the tests' server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg

from dbplatform.cli.main import run
from dbplatform.cli.side_by_side import Ended
from dbplatform.declaration.loading import Declared
from dbplatform.declaration.project import Project
from dbplatform.operations.platform import Platform

DECLARED = """\
type: dbplatform.ManagedDatabase
attributes:
  name: {name}
  owners: ["team:{team}"]
  connection: {{url_env: {upper}_URL, environment: test}}
  migrations: {{directory: [../../migrations, own]}}
{more}"""
CHECKED = """\
  quality:
    - {table: item, checks: [{not_null: price}]}
"""


@dataclass(frozen=True)
class Fleet:
    """The project in ``folder``, and its databases."""

    folder: Path
    urls: dict[str, str]

    @property
    def platform(self) -> Platform:
        return Platform(Project.at(self.folder))

    def migration(self, script: str, text: str, *, of: str | None = None) -> Path:
        """A file for all of them, or for one alone."""
        folder = self.folder / "migrations" if of is None else self.folder / "defs" / of / "own"
        file = folder / script
        file.write_text(text)
        return file

    def declare(self, name: str, more: str = "", *, team: str = "data") -> None:
        """Write the declaration of one of them, anew where it is there."""
        own = self.folder / "defs" / name / "own"
        own.mkdir(parents=True, exist_ok=True)
        text = DECLARED.format(name=name, upper=name.upper(), team=team, more=more)
        (own.parent / "defs.yaml").write_text(text)

    def versions(self) -> dict[str, str | None]:
        """The newest version in the history of each."""
        found = {}
        for name, url in self.urls.items():
            with psycopg.connect(url) as connection:
                there = connection.execute("select to_regclass('flyway_schema_history')").fetchone()
                newest = "select version from flyway_schema_history where success order by installed_rank desc limit 1"
                row = connection.execute(newest).fetchone() if there and there[0] else None
                found[name] = row[0] if row else None
        return found

    def execute(self, name: str, statement: str) -> None:
        """One statement in one of them."""
        with psycopg.connect(self.urls[name], autocommit=True) as connection:
            connection.execute(statement.encode())


class Here:
    """``SideBySide`` in this process, one after the other, as far as a roll-out needs it."""

    def __init__(
        self,
        platform: Platform,
        databases: Sequence[Declared],
        arguments: Callable[[str], Sequence[str]],
        *,
        at_once: int = 1,
        begun: Callable[[str], None],
    ) -> None:
        self._root, self._arguments, self._begun = platform.project.root, arguments, begun
        self._waiting = [declared.name for declared in databases]

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Ended]:
        while self._waiting:
            name = self._waiting.pop(0)
            self._begun(name)
            with redirect_stdout(StringIO()) as out:
                code = run(["-C", str(self._root), *self._arguments(name), "--json"])
            document = json.loads(out.getvalue())
            yield Ended(database=name, exit_code=code, document=document, began=0.0, ended=0.0, peak_bytes=0)

    def begin_no_more(self) -> None:
        self._waiting = []


class Interrupted(Here):
    """Ctrl-C comes when the first has done its work and nobody has seen it yet."""

    def __iter__(self) -> Iterator[Ended]:
        for _ in super().__iter__():
            raise KeyboardInterrupt
        yield from ()


@contextmanager
def declared_fleet(folder: Path, server_url: str, names: Sequence[str]) -> Iterator[Fleet]:
    """Databases of these names, dropped at the end, and the project that declares them: a table ``item`` each."""
    from dbplatform_tests.conftest import created

    (folder / "migrations").mkdir(parents=True)
    with ExitStack() as stack:
        made = {name: stack.enter_context(created(server_url, "template1")).url for name in names}
        fleet = Fleet(folder, made)
        fleet.migration("V1__item.sql", "create table item (id int primary key, price int);\n")
        for name in names:
            fleet.declare(name)
        yield fleet


def until_asleep(connection: psycopg.Connection[Any], number: int) -> None:
    """Wait until exactly so many sessions of the server are in a long sleep of a migration."""
    asleep = "select count(*) from pg_stat_activity where query ~ 'pg_sleep.600' and pid <> pg_backend_pid()"
    for _ in range(6_000):
        if connection.execute(asleep).fetchone() == (number,):
            return
        connection.execute("select pg_sleep(0.01)")
    raise AssertionError(f"not {number} sessions are asleep")
