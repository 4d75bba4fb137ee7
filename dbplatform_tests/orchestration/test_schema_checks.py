"""The checks of ``migrations``, and its rehearsal, as Dagster shows them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import rehearsal, schema
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.assets import rehearsal_assets
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
def files(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the migrations of a declared database."""
    folder = tmp_path / "defs" / "shop" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "defs.yaml").write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    return folder


@pytest.fixture
def migrated(files: Path) -> Path:
    """The same, with one migration, applied."""
    (files / "V1__item.sql").write_text("create table item (id bigint primary key, price int default 0);\n")
    platform = Platform(Project.at(files.parent.parent.parent))
    schema.apply(platform, platform.declarations.get("shop"))
    return files


def checked(files: Path, name: str) -> dg.AssetCheckEvaluation:
    """What a check says, run alone."""
    platform = Platform(Project.at(files.parent.parent.parent))
    checks = schema_checks(platform, platform.declarations.get("shop"))
    key = dg.AssetCheckKey(keys.migrations("shop"), name)
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
    found = checked(files, "lint")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == "1 open findings in 1 files, 1 accepted."
    assert found.metadata["accepted"].value == 1
    [record] = found.metadata["findings"].value.records  # type: ignore[union-attr]
    assert record.data["file"] == "defs/shop/migrations/V1__index.sql"
    assert (record.data["line"], record.data["rule"]) == (1, "require-concurrent-index-creation")


def test_files_without_findings_pass(files: Path) -> None:
    (files / "V1__item.sql").write_text("create table item (id bigint);\n")
    assert checked(files, "lint").passed


def test_lint_that_could_not_run_has_not_passed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "V1__item.sql").write_text("create table item (id bigint);\n")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    found = checked(files, "lint")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (found.description or "").startswith("Could not run: The program squawk is missing")


def test_an_undo_file_that_does_not_undo_is_a_warning_and_equal_files_are_tried_once(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "V1__item.sql").write_text("create table item (id bigint);\n")
    (files / "U1__item.sql").write_text("-- dbplatform:allow drop table\ndrop table item; create table rest ();\n")
    found = checked(files, "undo")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "gives another schema" in (found.description or "")
    [record] = found.metadata["versions"].value.records  # type: ignore[union-attr]
    assert (record.data["script"], record.data["status"]) == ("V1__item.sql", "different")

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it was tried again")

    monkeypatch.setattr("dbplatform.operations.schema_care.round_trip", again)
    assert checked(files, "undo").metadata["tried at"] == found.metadata["tried at"]


def test_a_check_without_a_scratch_database_has_not_passed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "V1__item.sql").write_text("create table item (id bigint);\n")
    declaration = files.parent / "defs.yaml"
    declaration.write_text(DECLARATION.replace("url_env: SHOP_URL", "url_env: SHOP_URL, scratch_url_env: SCRATCH_URL"))
    monkeypatch.setenv("SCRATCH_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    for name in ("undo", "drift"):
        found = checked(files, name)
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert (found.description or "").startswith("Could not run: Cannot connect to nobody@127.0.0.1:1/nowhere")


def test_a_rehearsal_shows_what_each_statement_did_and_counts_for_apply(files: Path, database: Target) -> None:
    platform = Platform(Project.at(files.parent.parent.parent))
    declared = platform.declarations.get("shop")
    (files / "V1__item.sql").write_text("create table item (id bigint);\n")
    schema.apply(platform, declared)
    (files / "V2__name.sql").write_text("alter table item add name text;\n")
    done = dg.materialize(rehearsal_assets(platform, declared), resources={"options": Options()})
    [event] = done.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert (metadata["pending"].value, metadata["passed"].value) == (1, True)
    assert metadata["on"].value == "an empty copy of the schema"
    [record] = metadata["statements"].value.records  # type: ignore[union-attr]
    assert (record.data["script"], record.data["lock"]) == ("V2__name.sql", "ACCESS EXCLUSIVE")
    with connect(database, work="test") as connection:
        rehearsal.require(platform, declared, schema.plan(platform, declared), connection)


def test_a_schema_without_drift_passes(migrated: Path) -> None:
    found = checked(migrated, "drift")
    assert found.passed
    assert found.description == "Differences between the schema and what its migrations make: none, at version 1."


def test_differences_are_a_warning_with_their_sentences_and_sql(migrated: Path, database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("alter table item alter price drop default; alter table item add name text")
    found = checked(migrated, "drift")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == "Differences between the schema and what its migrations make: 2, at version 1."
    told = [record.data for record in found.metadata["differences"].value.records]  # type: ignore[union-attr]
    assert [(row["kind"], row["object"]) for row in told] == [
        ("column", "public.item.name"),
        ("column", "public.item.price"),
    ]
    assert told[1]["sentence"] == "column public.item.price has no default, the migrations give it 0"
    assert told[1]["fix_sql"] == "alter table public.item alter column price set default 0;"


def test_what_cannot_be_compared_has_not_passed(migrated: Path, database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("update flyway_schema_history set type = 'JDBC'")
    found = checked(migrated, "drift")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (found.description or "").startswith("Could not run: The schema of shop could not be compared")
