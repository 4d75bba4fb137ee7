"""``health`` as a person types it: one database, the fleet, and the audits of structure and security."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.typed import Type, typist

SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  migrations: {}
"""
NEW = SHOP.replace("shop", "new").replace("SHOP_URL", "NEW_URL").replace("  migrations: {}\n", "")
MIGRATION = "create table item (id int primary key, name text); create table note (id int primary key, item int);"


@pytest.fixture
def project(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    declare(tmp_path, "shop", SHOP)
    (tmp_path / "defs" / "shop" / "migrations").mkdir()
    (tmp_path / "defs" / "shop" / "migrations" / "V1__items.sql").write_text(MIGRATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    return tmp_path


@pytest.fixture
def type_(project: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    typed = typist(project, capsys)
    assert typed("migrate", "apply", "shop").code == 0
    return typed


def declare(project: Path, name: str, declaration: str) -> None:
    file = project / "defs" / name / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(declaration)


def by_hand(database: Target, *statements: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_each_deduction_names_its_page_and_the_evidence(type_: Type, project: Path) -> None:
    declare(project, "shop", SHOP + '  thresholds: [{metric: connections_used_ratio, warn: ">= 0%"}]\n')
    shown = type_("health", "shop", "--json")
    (deduction,) = [one for one in shown.json["deductions"] if one["metric"] == "connections_used_ratio"]
    assert deduction["document"].startswith("https://www.postgresql.org/docs/")
    assert {"value", "limit", "points", "advice", "sample"} <= deduction.keys()
    assert (shown.code, shown.json["judged"] >= 5) == (1, True)
    assert deduction["document"] in type_("health", "shop").out
    assert type_("metrics", "shop", "--json").json["metrics"]["health_score"]["value"] == shown.json["score"]


def test_the_fleet_shows_each_database_as_it_was_measured_last(type_: Type, project: Path) -> None:
    declare(project, "new", NEW)
    never = type_("health", "--json").json
    assert (never["score"], {one["reason"] for one in never["databases"]}) == (None, {"it was not measured yet"})

    score = type_("health", "shop", "--json").json["score"]
    fleet = type_("health", "--json")
    shop, new = fleet.json["databases"]
    assert (shop["database"], shop["score"], shop["below"], fleet.code) == ("shop", score, False, 0)
    assert (fleet.json["score"], shop["measured_at"] is not None, new["score"]) == (score, True, None)

    declare(project, "shop", SHOP + '  thresholds: [{metric: health_score, warn: "<= 100"}]\n')
    below = type_("health", "--json")
    assert (below.code, below.json["databases"][0]["below"], below.json["databases"][0]["limit"]) == (1, True, "<= 100")
    table = type_("health").out
    assert "<= 100 (breached)" in table
    assert "never" in table
    (project / "defs" / "new" / "defs.yaml").write_text(
        "type: dbplatform.ManagedDatabase\nattributes: {name: new, x: 1}"
    )
    assert type_("health").code == 2


def test_a_ledger_that_does_not_answer_is_an_error_and_not_an_empty_fleet(
    type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", "postgresql://nobody@127.0.0.1:1/ledger")
    told = type_("health", "--json")
    assert (told.code, told.json["error"]["kind"]) == (3, "fleet_unknown")


def test_the_structure_is_compared_with_what_the_migrations_make(type_: Type, database: Target) -> None:
    unknown = type_("health", "shop", "--structure", "--json")
    assert (unknown.code, unknown.json["verdict"]) == (1, "errored")
    assert "migrate drift shop" in unknown.json["not_examined"]["not_as_migrated"]

    assert type_("migrate", "drift", "shop").code == 0
    known = type_("health", "shop", "--structure", "--json")
    assert (known.code, known.json["verdict"], known.json["findings"]) == (0, "passed", [])
    assert known.json["migrated"] == {"version": "1", "tables": 2, "indexes": 2, "foreign_keys": 0}
    assert known.json["counts"] == {"tables": 2, "indexes": 2, "foreign_keys": 0, "columns": 4}

    by_hand(database, "alter table note add foreign key (item) references item not valid", "drop table if exists gone")
    changed = type_("health", "shop", "--structure", "--json")
    rules = {finding["rule"] for finding in changed.json["findings"]}
    assert (changed.code, rules) == (
        1,
        {"small_foreign_key_without_index", "constraint_not_validated", "not_as_migrated"},
    )
    shown = type_("health", "shop", "--structure").out
    assert "2 tables, 2 indexes, 1 foreign keys" in shown
    assert "its migrations make 2 tables, 2 indexes, 0 foreign keys, at version 1" in shown
    assert "CREATE INDEX CONCURRENTLY ON public.note (item);" in shown


def test_security_is_told_with_who_can_log_in_and_what_is_meant_can_be_accepted(
    type_: Type, project: Path, database: Target
) -> None:
    by_hand(database, "grant select on item to public")
    found = type_("health", "shop", "--security", "--json")
    (open_,) = [one for one in found.json["findings"] if one["rule"] == "public_read"]
    assert (found.code, open_["object"], open_["severity"]) == (1, "public.item", "warning")
    assert open_["mend"] == "REVOKE ALL ON TABLE public.item FROM PUBLIC;"
    assert any(role["superuser"] for role in found.json["access"])
    shown = type_("health", "shop", "--security").out
    assert "who can log in" in shown
    assert "REVOKE ALL ON TABLE public.item FROM PUBLIC;" in shown

    accept = "  health: {accept: [{rule: public_read, object: public.item, reason: a price list}]}\n"
    declare(project, "shop", SHOP + accept)
    (open_,) = [
        one for one in type_("health", "shop", "--security", "--json").json["findings"] if one["rule"] == "public_read"
    ]
    assert open_["accepted"] == "a price list"
    declare(project, "shop", SHOP + accept.replace("public_read", "publicly_read"))
    assert type_("health", "shop", "--security", "--json").json["error"]["line"] == 6


def test_one_report_at_a_time_of_a_database_that_is_named(type_: Type) -> None:
    for arguments in (("shop", "--structure", "--security"), ("--structure",)):
        refused = type_("health", *arguments, "--json")
        assert (refused.code, refused.json["error"]["kind"]) == (2, "one_report")
