"""The command line as a person types it: results on standard output, one sentence for an error, the exit code."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.cli.main import main
from dbplatform.errors import CannotConnect
from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.typed import Type, typist

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection:
    url_env: SHOP_URL
    environment: test
  migrations: {}
  seeds:
    - {profile: dev, directory: seeds}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 2, start: 2026-01-01}
  quality:
    - table: item
      checks:
        - not_null: name
        - range: {column: price, min: 0, severity: warn}
"""

MIGRATION = """\
create table item (id int primary key, name text, price int);
create table sale (at timestamptz not null, item_id int references item) partition by range (at);
"""


@pytest.fixture
def project(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project elsewhere with one database, on servers of its own."""
    folder = tmp_path / "defs" / "shop"
    (folder / "migrations").mkdir(parents=True)
    (folder / "seeds").mkdir()
    (folder / "defs.yaml").write_text(DECLARATION)
    (folder / "migrations" / "V1__first.sql").write_text(MIGRATION)
    (folder / "seeds" / "item.csv").write_text("id,name,price\n1,pen,3\n2,,4\n3,ink,-1\n")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.delenv("DBPLATFORM_HOME", raising=False)
    return tmp_path


def declare(project: Path, text: str) -> None:
    (project / "defs" / "shop" / "defs.yaml").write_text(text)


@pytest.fixture
def type_(project: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(project, capsys)


def test_a_database_is_built_filled_and_checked_without_dagster(type_: Type, project: Path) -> None:
    assert [m["status"] for m in type_("migrate", "apply", "shop", "--json").json["migrations"]] == ["applied"]
    made = type_("partition", "apply", "shop", "--json").json["tables"][0]["create"]
    assert made[0]["name"] == "sale_p2026_01"
    assert type_("seed", "apply", "shop", "--json").json["loaded_rows"] == 3
    assert type_("seed", "verify", "shop").code == 1
    checked = type_("check", "shop", "--json")
    assert checked.code == 1
    assert {c["name"]: (c["status"], c["failed_rows"]) for c in checked.json["tables"][0]["checks"]} == {
        "not_null_name": ("failed", 1),
        "range_price": ("failed", 1),
    }
    assert Path(checked.json["report"]).is_relative_to(project / ".dbplatform")
    assert type_("report", "show", "shop", "--json").json["verdict"] == "failed"
    assert [r["failed"] for r in type_("report", "list", "--json").json["reports"]] == [2]
    [row] = type_("migrate", "history", "shop", "--json").json["history"]
    assert (row["version"], row["script"], row["success"]) == ("1", "V1__first.sql", True)


@pytest.mark.parametrize(
    "command",
    [("migrate", "apply"), ("partition", "apply"), ("seed", "apply")],
)
def test_a_dry_run_shows_the_plan_and_changes_nothing(type_: Type, database: Target, command: tuple[str, str]) -> None:
    if command[0] != "migrate":
        type_("migrate", "apply", "shop")
    before = contents(database)
    planned = type_(*command, "shop", "--dry-run")
    assert planned.code == 0, planned.err
    assert planned.out
    assert contents(database) == before


def contents(database: Target) -> list[tuple[Any, ...]]:
    """Every relation with the hash of its rows."""
    with connect(database, work="test") as connection:
        found = connection.execute(
            "select n.nspname, c.relname, c.relkind::text "
            "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname !~ '^(pg_|information)' order by 1, 2"
        ).fetchall()
        return [(*row, content_hash(connection, Relation(row[0], row[1])) if row[2] in "rp" else None) for row in found]


def test_a_second_apply_says_that_there_is_nothing_to_do(type_: Type) -> None:
    type_("migrate", "apply", "shop")
    again = type_("migrate", "apply", "shop")
    assert again.code == 0
    assert "nothing to do, at version 1" in again.out


def test_check_explain_tells_how_each_check_would_be_answered_and_runs_none(type_: Type) -> None:
    type_("migrate", "apply", "shop")
    told = type_("check", "shop", "--explain", "--json")
    assert (told.code, told.json["database"]) == (0, "shop")
    (table,) = told.json["tables"]
    assert table["stream"] == "the table is small, about 0 rows"
    assert {way["check"]: way["how"] for way in table["checks"]} == {"not_null_name": "fused", "range_price": "fused"}
    assert "the table is small" in type_("check", "shop", "--explain").out
    assert type_("report", "list", "shop", "--json").json["reports"] == []


def test_health_and_metrics_are_measured_and_explained(type_: Type) -> None:
    type_("migrate", "apply", "shop")
    measured = type_("metrics", "shop", "--json")
    assert measured.code == 0
    assert measured.json["metrics"]["database_bytes"]["value"] > 1_000_000
    judged = type_("health", "shop", "--json")
    assert judged.code == (1 if judged.json["deductions"] else 0)
    assert 0 <= judged.json["score"] <= 100
    assert judged.json["score"] == 100 - sum(deduction["points"] for deduction in judged.json["deductions"])
    assert "of 100, grade" in type_("health", "shop").out
    assert "connections_used_ratio" in type_("metrics", "shop").out


def test_one_check_of_one_table_can_be_run_alone(type_: Type) -> None:
    type_("migrate", "apply", "shop")
    alone = type_("check", "shop", "--table", "item", "--check", "range_price", "--json")
    assert [c["name"] for c in alone.json["tables"][0]["checks"]] == ["range_price"]
    assert alone.code == 0


def test_a_check_that_cannot_run_is_an_error_and_not_a_finding(type_: Type, project: Path) -> None:
    declare(project, DECLARATION.replace("column: price", "column: cost"))
    type_("migrate", "apply", "shop")
    checked = type_("check", "shop", "--json")
    assert checked.code == 3
    assert checked.json["verdict"] == "errored"
    assert {c["name"]: c["status"] for c in checked.json["tables"][0]["checks"]} == {
        "not_null_name": "passed",
        "range_cost": "errored",
    }


def test_a_missing_table_is_shown_where_it_is_declared(type_: Type, project: Path) -> None:
    declare(project, DECLARATION.replace("table: item", "table: itms").replace("table: sale", "table: sails"))
    type_("migrate", "apply", "shop")
    for command, line in ((("check",), 13), (("partition", "plan"), 11)):
        missing = type_(*command, "shop", "--json")
        assert missing.code == 2
        error = missing.json["error"]
        assert (error["kind"], error["file"], error["line"]) == ("table_missing", "defs/shop/defs.yaml", line)
        assert "public.item" in error["hint"]


def test_an_unset_variable_is_one_sentence_with_its_line(type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_URL")
    refused = type_("migrate", "plan", "shop")
    assert refused.code == 2
    assert "defs/shop/defs.yaml:5: The environment variable SHOP_URL" in refused.err
    assert "export SHOP_URL=" in refused.err
    assert type_("list").code == 0
    assert type_("run", "shop").code == 2


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://nobody@127.0.0.1:1/shop", "Connection refused"),
        ("this is no url", "URL cannot be read"),
        ("{server}", "does not exist"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_sentence(
    type_: Type, database: Target, monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    monkeypatch.setenv("SHOP_URL", url.format(server=make_conninfo(database.url, dbname="missing")))
    failed = type_("migrate", "plan", "shop", "--json")
    assert failed.code == 3
    assert says in failed.json["error"]["message"]
    assert failed.json["error"]["hint"]


def test_the_password_is_in_no_output(type_: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = "hunter2-in-the-url"
    monkeypatch.setenv("SHOP_URL", f"postgresql://somebody:{secret}@127.0.0.1:1/shop")
    outputs = [type_("migrate", "plan", "shop"), type_("migrate", "plan", "shop", "--json"), type_("list", "--json")]
    assert all(secret not in printed.out + printed.err for printed in outputs)
    assert not any(secret in file.read_text(errors="ignore") for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize("password", ["SeCr%zzword", "SeCr@zzword", "SeCr/zzword", "SeCr:zz@word"])
def test_a_password_that_breaks_the_url_is_not_shown_by_the_traceback_either(password: str) -> None:
    target = Target("shop", f"postgresql://somebody:{password}@127.0.0.1:1/shop")
    with pytest.raises(CannotConnect) as caught, connect(target, work="test"):
        pass
    shown = "".join(traceback.format_exception(caught.value))
    assert "SeCr" not in shown
    assert "zz" not in shown


@pytest.mark.parametrize("url", ["postgresql://u:p@a..b/x", "postgresql://u:p@127.0.0.1:1/x?connect_timeout=abc"])
def test_a_url_that_cannot_be_used_is_one_sentence(type_: Type, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SHOP_URL", url)
    error = type_("metrics", "shop", "--json").json["error"]
    assert error["kind"] == "cannot_connect"
    assert type_("doctor", "shop").code == 1


def test_production_is_not_seeded(type_: Type, project: Path) -> None:
    declare(project, DECLARATION.replace("environment: test", "environment: production"))
    type_("migrate", "apply", "shop")
    refused = type_("seed", "apply", "shop")
    assert refused.code == 2
    assert "defs/shop/defs.yaml:6" in refused.err


def test_a_broken_declaration_is_shown_beside_those_that_hold(type_: Type, project: Path) -> None:
    (project / "defs" / "empty").mkdir()
    (project / "defs" / "empty" / "defs.yaml").write_text("")
    listed = type_("list", "--json")
    assert listed.code == 2
    assert [database["name"] for database in listed.json["databases"]] == ["shop"]
    [broken] = listed.json["broken"]
    assert (broken["file"], broken["line"]) == ("defs/empty/defs.yaml", 1)
    assert type_("migrate", "plan", "shop").code == 0
    assert type_("migrate", "plan", "empty").code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("migrat",), "No such command 'migrat'. Did you mean 'migrate'?"),
        (("migrate", "aply"), "Did you mean 'apply'?"),
        (("migrate", "apply"), "DATABASE"),
        (("migrate", "plan", "shopp"), "No database named 'shopp'"),
        (("migrate", "apply", "shop", "--fast"), "--fast"),
        (("check", "shop", "--table", "nope"), "declares no checks on the table nope"),
        (("check", "shop", "--check", "nope"), "nope"),
        (("seed", "apply", "shop", "--profile", "prod"), "prod"),
        (("report", "show", "shop"), "report"),
    ],
)
def test_a_wrong_command_is_one_sentence_with_the_next_step(type_: Type, words: tuple[str, ...], says: str) -> None:
    refused = type_(*words, "--json")
    assert refused.code == 2
    error = refused.json["error"]
    assert says in error["message"]
    assert error["hint"]


def test_a_folder_without_defs_is_no_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-C", str(tmp_path / "nothing"), "list"])
    assert ended.value.code == 2
    assert "a project is a folder that holds defs/" in capsys.readouterr().err


def test_a_failing_migration_names_file_and_line(type_: Type, project: Path) -> None:
    (project / "defs" / "shop" / "migrations" / "V2__wrong.sql").write_text("select 1;\ncreate table item (id int);\n")
    failed = type_("migrate", "apply", "shop", "--json")
    assert failed.code == 3
    assert failed.json["error"]["file"].endswith("V2__wrong.sql")
    assert failed.json["error"]["line"] == 2


def test_missing_rights_are_one_sentence(
    type_: Type, database: Target, monkeypatch: pytest.MonkeyPatch, server_url: str
) -> None:
    role = f"weak_{os.getpid()}"
    with connect(database, work="test") as connection:
        connection.execute(f"create role {role} login password 'weak'".encode())
        try:
            monkeypatch.setenv("SHOP_URL", f"{database.url} user={role} password=weak")
            refused = type_("migrate", "apply", "shop", "--json")
            assert refused.code == 3
            assert "permission denied" in refused.json["error"]["message"]
        finally:
            connection.execute(f"drop role {role}".encode())


def test_the_home_lies_in_the_project_unless_told_otherwise(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Home.of(project).root == project / ".dbplatform"
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "elsewhere"))
    assert Home.of(project).root == tmp_path / "elsewhere"
