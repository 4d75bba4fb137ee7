"""The declared systems to prove things on: each as its own graph makes it, once for all proofs of its module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from dbplatform.declaration.database import Database
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.conftest import created
from dbplatform_tests.postgres.test_five_systems import DEFS, declared, filled
from dbplatform_tests.typed import Type, typist


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A declared system whose database is migrated, partitioned and seeded (``dev``) on the tests' server."""

    declaration: Database
    """As it is in ``dbplatform/defs``."""
    target: Target
    ledger: Ledger
    project: Path
    """A project with this one declaration, whose URL is in the variable ``SYSTEM_URL``."""

    @property
    def name(self) -> str:
        return self.declaration.name


@pytest.fixture(scope="module")
def system(
    request: pytest.FixtureRequest, server_url: str, ledger_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """The system that the module is named after. Proofs share it: what they change for good is no other proof's."""
    name = request.module.__name__.rpartition(".test_")[2]
    project = tmp_path_factory.mktemp(name)
    declare(project / "defs" / name, DEFS / name)
    with created(server_url, "template1") as target, created(server_url, ledger_template) as kept:
        with filled(target, name, "dev"):
            pass
        ledger = Ledger(kept)
        yield System(declaration=declared(name).database, target=target, ledger=ledger, project=project)
        ledger.engine.dispose()


def declare(folder: Path, source: Path) -> None:
    """The declaration of ``source``, but for where the database is; the folders beside it are linked."""
    folder.mkdir(parents=True)
    document = yaml.safe_load((source / "defs.yaml").read_text())
    document["attributes"]["connection"] |= {"url_env": "SYSTEM_URL", "scratch_url_env": "SYSTEM_URL"}
    (folder / "defs.yaml").write_text(yaml.safe_dump(document))
    for beside in source.iterdir():
        if beside.is_dir():
            (folder / beside.name).symlink_to(beside)


@pytest.fixture
def session(system: System) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's session in the system's database, in a transaction that is rolled back."""
    with psycopg.connect(system.target.url, options="-c timezone=UTC") as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def command(system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types commands for the system, in this process."""
    monkeypatch.setenv("SYSTEM_URL", system.target.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", system.ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(system.project / "home"))
    return typist(system.project, capsys)
