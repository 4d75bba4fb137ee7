"""What the tests of ``doctor`` share: a project with a database on the second server, and what doctor says of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from dbplatform.cli.main import main
from dbplatform.declaration.project import Project
from dbplatform.operations.diagnosis.examine import examine, now_here
from dbplatform.operations.diagnosis.model import Finding
from dbplatform.operations.platform import Platform

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

PASSWORD = "hunter2"
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: ENVIRONMENT}
  migrations: {}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, start: 2026-01-01}
  archives:
    - {name: old_sales, table: public.sale, column: at, older_than: 6 months}
  backups: {}
  quality:
    - {table: item, checks: [not_null: name]}
"""
SCHEMA = (
    "create table item (id int primary key, name text)",
    "create table sale (at timestamptz not null, item_id int) partition by range (at)",
)


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A project with one declared database, its owner's URL in SHOP_URL."""

    folder: Path
    server: SecondServer
    patch: pytest.MonkeyPatch
    name: str = field(default_factory=lambda: f"shop_{uuid.uuid4().hex[:8]}")
    """Of the database on its server, and of its owner."""

    def open(self) -> None:
        """Make the database with two tables, and its owner."""
        (self.folder / "defs" / "shop" / "migrations").mkdir(parents=True)
        self.declare(DECLARATION)
        self.run("create role {shop} login password {password}", database="postgres")
        self.run("create database {shop} owner {shop}", database="postgres")
        self.run("set role {shop}; " + "; ".join(SCHEMA))
        self.log_in()

    def close(self) -> None:
        """Drop both."""
        self.run("drop database {shop} with (force)", database="postgres")
        self.run("drop role {shop}", database="postgres")

    def declare(self, text: str, *, environment: str = "development") -> None:
        """Write the declaration."""
        text = text.replace("ENVIRONMENT", environment)
        (self.folder / "defs" / "shop" / "defs.yaml").write_text(text)

    def log_in(self, *, user: str | None = None, password: str = PASSWORD, url: str | None = None) -> None:
        """Put a URL into the variable: the owner's where nothing else is said."""
        found = url or self.server.url(self.name, user=user or self.name, password=password)
        self.patch.setenv("SHOP_URL", found)

    def run(self, statement: str, *, database: str | None = None) -> None:
        """Run SQL as the superuser: ``{shop}`` is the name of database and owner."""
        known = {"shop": sql.Identifier(self.name), "password": sql.Literal(PASSWORD)}
        self.server.run(sql.SQL(statement).format(**known), database=database or self.name)

    def examined(self, *, now: Callable[[], datetime] = now_here) -> dict[str, Finding]:
        """What doctor finds, by probe; each probe is there once."""
        found = examine(Platform(Project.at(self.folder)), "shop", now=now)
        assert len({finding.probe for finding in found}) == len(found)
        assert PASSWORD not in "".join(f"{finding.message} {finding.mend}" for finding in found)
        return {finding.probe: finding for finding in found}

    def typed(self, *arguments: str) -> int:
        """Type a command in the project; its exit code."""
        with pytest.raises(SystemExit) as ended:
            main(["-C", str(self.folder), *arguments])
        return int(ended.value.code or 0)


@contextmanager
def opened(server: SecondServer, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop of its own on the server, with nothing of the caller's environment; closed at the end."""
    patch.setenv("DBPLATFORM_HOME", str(folder / "home"))
    for variable in ("DBPLATFORM_LEDGER_URL", "DBPLATFORM_PG_BIN", "PGOPTIONS", "PGTZ"):
        patch.delenv(variable, raising=False)
    shop = Shop(folder=folder, server=server, patch=patch)
    shop.open()
    try:
        yield shop
    finally:
        shop.close()


def problems(found: dict[str, Finding]) -> dict[str, str]:
    """The probes that are not ok, with their status."""
    return {probe: finding.status for probe, finding in found.items() if finding.status != "ok"}
