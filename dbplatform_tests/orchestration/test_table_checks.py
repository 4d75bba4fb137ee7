"""What Dagster shows of a table's checks: judgement, rows moved aside, and nothing that is masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.checks import table_assets
from dbplatform.orchestration.resources import Options
from dbplatform.postgres.connection import Target

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  quality:
    - table: person
      mask: [email]
      checks:
        - matches: {column: email, regex: "^[^@]+@[^@]+$", name: address}
          blocking: true
          quarantine: true
        - not_null: {column: age, blocking: true, owner: "team:data"}
          accepted_until: {date: 9999-12-31, reason: "nobody asks for it"}
        - sql: {name: cast, rows: "select id from person where email::int > 1"}
"""


@pytest.fixture
def platform(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Platform:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    with psycopg.connect(database.url) as session:
        session.execute(
            "create table person (id int primary key, email text, age int);"
            "insert into person values (1, 'ada@lovelace.org', null), (2, 'top secret', null)"
        )
    return Platform(Project.at(tmp_path))


def ran(platform: Platform, options: Options) -> dg.ExecuteInProcessResult:
    assets = table_assets(platform, platform.declarations.get("shop"), deps=[])
    return dg.materialize(assets, resources={"options": options}, raise_on_error=False)


def shown(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def test_a_dry_run_says_what_would_be_moved_and_a_run_moves_it(platform: Platform, database: Target) -> None:
    planned = {one.check_name: one for one in ran(platform, Options(dry_run=True)).get_asset_check_evaluations()}
    assert (planned["address"].description or "").endswith("Its rows would be moved to dbplatform.quarantine_person.")

    done = ran(platform, Options())
    checks = {one.check_name: one for one in done.get_asset_check_evaluations()}
    address, age, cast = checks["address"], checks["not_null_age"], checks["cast"]
    assert (address.passed, address.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert shown(address) | {"rows moved aside": 1, "quarantine": "dbplatform.quarantine_person"} == shown(address)
    assert (age.passed, age.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (age.description or "").endswith("Accepted until 9999-12-31: nobody asks for it")
    assert shown(age)["accepted because"] == "nobody asks for it"
    assert "SQLSTATE 22P02" in (cast.description or "")
    [table] = done.asset_materializations_for_node("shop__tables__person")
    assert (table.metadata["checks accepted"].value, table.metadata["rows moved aside"].value) == (1, 1)
    [failed] = [event for event in done.all_events if event.is_step_failure]
    assert "1 of its checks could not run (public.person cast)" in str(failed), "neither of the blocking ones stops"
    assert "blocking" not in str(failed.event_specific_data)
    assert "secret" not in "".join(map(str, done.all_events))
    with psycopg.connect(database.url) as session:
        assert session.execute("select email from person").fetchall() == [("ada@lovelace.org",)]
