"""Lint as an asset check of ``migrations``."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.schema_checks import schema_checks
from dbplatform.postgres.connection import Target

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  migrations: {}
"""


@pytest.fixture
def files(tmp_path: Path, database: Target, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the migrations of a declared database."""
    folder = tmp_path / "defs" / "shop" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "defs.yaml").write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    return folder


def checked(files: Path) -> dg.AssetCheckEvaluation:
    """What the check says, run alone."""
    platform = Platform(Project.at(files.parent.parent.parent))
    checks = schema_checks(platform, platform.declarations.get("shop"))
    key = dg.AssetCheckKey(keys.migrations("shop"), "lint")
    done = dg.materialize(
        checks, selection=dg.AssetSelection.checks(key), resources={"options": Options()}, raise_on_error=False
    )
    [evaluation] = done.get_asset_check_evaluations()
    return evaluation


def test_open_findings_are_a_warning_with_file_line_rule_and_message(files: Path) -> None:
    (files / "V1__index.sql").write_text(
        "create index item_price on item (price);\n"
        "-- dbplatform:accept renaming-table: nobody reads it\nalter table item rename to article;\n"
    )
    found = checked(files)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == "1 open findings in 1 files, 1 accepted."
    assert found.metadata["accepted"].value == 1
    [record] = found.metadata["findings"].value.records  # type: ignore[union-attr]
    assert record.data["file"] == "defs/shop/migrations/V1__index.sql"
    assert (record.data["line"], record.data["rule"]) == (1, "require-concurrent-index-creation")


def test_files_without_findings_pass(files: Path) -> None:
    (files / "V1__item.sql").write_text("create table item (id bigint);\n")
    assert checked(files).passed


def test_lint_that_could_not_run_has_not_passed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "V1__item.sql").write_text("create table item (id bigint);\n")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    found = checked(files)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (found.description or "").startswith("Could not run: The program squawk is missing")
