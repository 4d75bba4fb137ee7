"""``seed`` as a person types it: scale, production, and what ``verify`` finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbplatform.cli.main import main
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: production}
  seeds:
    - {profile: dev, directory: seeds}
  quality:
    - table: item
      checks:
        - range: {column: price, min: 0}
        - range: {column: price, min: 5, severity: warn, name: cheap}
    - {table: other, checks: [{row_count: {min: 1}}]}
"""
SEED = """\
tables:
- table: item
  rows: 100
  key: [id]
  generate:
    id: {sequence: 1}
    price: {integer: {min: 0, max: 9}}
"""
Type = Callable[..., tuple[int, Any]]


@pytest.fixture
def type_(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Type:
    """Type a command with ``--json`` in a project of one production database; its exit code and document."""
    (tmp_path / "defs" / "shop" / "seeds").mkdir(parents=True)
    (tmp_path / "defs" / "shop" / "defs.yaml").write_text(DECLARATION)
    (tmp_path / "defs" / "shop" / "seeds" / "seed.yaml").write_text(SEED)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    with connect(database, work="test") as connection:
        connection.execute("create table item (id int primary key, price int); create table other (id int)")

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["-C", str(tmp_path), *arguments, "--json"])
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def test_production_is_seeded_only_when_it_is_allowed(type_: Type) -> None:
    code, refused = type_("seed", "apply", "shop")
    assert (code, refused["error"]["kind"]) == (2, "seeding_refused")
    assert "--allow-production" in refused["error"]["hint"]
    code, report = type_("seed", "apply", "shop", "--allow-production")
    assert (code, report["loaded_rows"]) == (0, 100)


def test_a_scale_multiplies_generated_rows_and_is_remembered(type_: Type) -> None:
    assert type_("seed", "apply", "shop", "--allow-production", "--rows-scale", "2.5")[1]["loaded_rows"] == 250
    assert type_("seed", "apply", "shop", "--allow-production")[1]["loaded_rows"] == 0
    code, found = type_("seed", "verify", "shop")
    assert code == 0
    assert found["tables"][0]["rows"] == 250


def test_verify_runs_the_checks_of_seeded_tables_and_a_warning_is_no_finding(type_: Type, database: Target) -> None:
    type_("seed", "apply", "shop", "--allow-production")
    code, found = type_("seed", "verify", "shop")
    assert (code, found["passed"]) == (0, True)
    [item] = found["quality"]
    assert [(check["name"], check["status"]) for check in item["checks"]] == [
        ("range_price", "passed"),
        ("cheap", "failed"),
    ]
    with connect(database, work="test") as connection:
        connection.execute("update item set price = -1 where id = 1")
    code, found = type_("seed", "verify", "shop")
    assert (code, found["passed"]) == (1, False)
    assert found["quality"][0]["checks"][0]["failed_rows"] == 1


def test_rows_that_are_missing_from_a_keyed_seed_are_found_and_rows_of_others_are_not_counted(
    type_: Type, database: Target
) -> None:
    type_("seed", "apply", "shop", "--allow-production")
    with connect(database, work="test") as connection:
        connection.execute("insert into item values (1000, 1)")
        assert type_("seed", "verify", "shop")[0] == 0
        connection.execute("delete from item where id > 98")
    code, found = type_("seed", "verify", "shop")
    assert code == 1
    assert found["tables"][0]["match"] is False
