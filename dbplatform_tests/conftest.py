"""What every test may use: one real PostgreSQL for the whole run, a fresh database or ledger per test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from xdist.scheduler import LoadFileScheduling

from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.installation import Installation
from dbplatform_tests.typed import Type, typist

_LEDGER_TEMPLATE = "ledger_template"
#: They share one run of the flights database, which takes a minute: so one process of tests has them all.
_OF_FLIGHTS = {f"dbplatform_tests/{file}" for file in (
    "drills/test_killed_run.py", "orchestration/test_flights_data.py", "web/test_dagster_ui.py"
)}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """``make drill`` runs every case of the fault matrices."""
    parser.addoption("--drill-all", action="store_true", help="run every case of the fault matrices, not a sample")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases that are not in the sample; they are deselected, not skipped."""
    if config.getoption("--drill-all"):
        return
    left_out = [item for item in items if (mark := item.get_closest_marker("drill")) and not mark.kwargs.get("sample")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


class _ByFile(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "flights" if file in _OF_FLIGHTS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    """A file's tests stay together."""
    return _ByFile(config, log)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A superuser's URL of the tests' server: an embedded one of its own, or the one of DBPLATFORM_TEST_URL."""
    declared = os.environ.get("DBPLATFORM_TEST_URL")
    if declared:
        yield declared
        return
    home = Home(root=tmp_path_factory.mktemp("home"))
    server = EmbeddedServer(home, settings={"fsync": "off", "full_page_writes": "off"})
    server.start()
    try:
        yield server.url("postgres")
    finally:
        server.remove()


@pytest.fixture
def database(server_url: str) -> Iterator[Target]:
    """A fresh, empty database."""
    with created(server_url, "template1") as target:
        yield target


@pytest.fixture
def ledger(server_url: str, ledger_template: str) -> Iterator[Ledger]:
    """A fresh ledger, its schema applied."""
    with created(server_url, ledger_template) as target:
        ledger = Ledger(target)
        yield ledger
        ledger.engine.dispose()


@pytest.fixture(scope="session")
def ledger_template(server_url: str) -> str:
    """A database with the ledger's schema, cloned for each test that wants one."""
    name = f"{_LEDGER_TEMPLATE}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    apply_ledger_schema(Target(name, make_conninfo(server_url, dbname=name)))
    return name


@pytest.fixture
def declare_shop(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], Type]:
    """Declares the test's database as ``shop``, whose URL is in SHOP_URL, and types commands for it."""

    def declared(declaration: str) -> Type:
        file = tmp_path / "defs" / "shop" / "defs.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(declaration)
        monkeypatch.setenv("SHOP_URL", database.url)
        monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
        return typist(tmp_path, capsys)

    return declared


@pytest.fixture
def clock_ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """In the block this machine's clock is ahead of the server's, for what is removed for ever."""

    @contextmanager
    def ahead(by: timedelta = timedelta(days=3653)) -> Iterator[None]:
        with monkeypatch.context() as patch:
            clock = mock.Mock(now=lambda zone: datetime.now(zone) + by)
            patch.setattr("dbplatform.postgres.clock.datetime", clock)
            yield

    return ahead


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The flights database after ``dbplatform run flights``; read it, do not change it."""
    installation = Installation(Home(root=tmp_path_factory.mktemp("flights")))
    result = installation.command("run", "flights")
    try:
        assert result.returncode == 0, result.stdout + result.stderr
        yield installation
    finally:
        installation.server.remove()


class created:
    def __init__(self, server_url: str, template: str) -> None:
        self.server_url, self.template = server_url, template
        self.name = f"test_{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> Target:
        self._run(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(self.name), sql.Identifier(self.template)
            )
        )
        return Target(self.name, make_conninfo(self.server_url, dbname=self.name))

    def __exit__(self, *_: object) -> None:
        self._run(sql.SQL("drop database {} with (force)").format(sql.Identifier(self.name)))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(statement)
