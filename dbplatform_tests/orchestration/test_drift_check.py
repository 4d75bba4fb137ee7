"""Drift as an asset check of ``migrations``."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import schema
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.schema_checks import schema_checks
from dbplatform.postgres.connection import Target, connect

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  migrations: {}
"""


@pytest.fixture
def platform(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A project with one migrated database."""
    folder = tmp_path / "defs" / "shop" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "defs.yaml").write_text(DECLARATION)
    (folder / "V1__item.sql").write_text("create table item (id bigint primary key, price int default 0);\n")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    platform = Platform(Project.at(tmp_path))
    schema.apply(platform, platform.declarations.get("shop"))
    return platform


def checked(platform: Platform) -> dg.AssetCheckEvaluation:
    """What the check says, run alone."""
    checks = schema_checks(platform, platform.declarations.get("shop"))
    key = dg.AssetCheckKey(keys.migrations("shop"), "drift")
    done = dg.materialize(
        checks, selection=dg.AssetSelection.checks(key), resources={"options": Options()}, raise_on_error=False
    )
    [evaluation] = done.get_asset_check_evaluations()
    return evaluation


def test_a_schema_without_drift_passes(platform: Platform) -> None:
    found = checked(platform)
    assert found.passed
    assert found.description == "Differences between the schema and what its migrations make: none, at version 1."


def test_differences_are_a_warning_with_their_sentences_and_sql(platform: Platform, database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("alter table item alter price drop default; alter table item add name text")
    found = checked(platform)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == "Differences between the schema and what its migrations make: 2, at version 1."
    told = [record.data for record in found.metadata["differences"].value.records]  # type: ignore[union-attr]
    assert [(row["kind"], row["object"]) for row in told] == [
        ("column", "public.item.name"),
        ("column", "public.item.price"),
    ]
    assert told[1]["sentence"] == "column public.item.price has no default, the migrations give it 0"
    assert told[1]["fix_sql"] == "alter table public.item alter column price set default 0;"


def test_what_cannot_be_compared_has_not_passed(platform: Platform, database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("update flyway_schema_history set type = 'JDBC'")
    found = checked(platform)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (found.description or "").startswith("Could not run: The schema of shop could not be compared")
