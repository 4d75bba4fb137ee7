"""``dbplatform migrate`` as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.typed import Type, typist

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection:
    url_env: SHOP_URL
    environment: test
  migrations:
    directory: [common, shop]
"""


@pytest.fixture
def project(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one database and two folders of migrations."""
    folder = tmp_path / "defs" / "shop"
    texts = {
        "common/V1__item.sql": "create table item (id int primary key);\n",
        "common/U1__item.sql": "drop table item;\n",
        "shop/V2__price.sql": "alter table item add price int;\n",
        "shop/U2__price.sql": "alter table item drop column price;\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "defs.yaml").write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.delenv("DBPLATFORM_HOME", raising=False)
    return tmp_path


@pytest.fixture
def type_(project: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(project, capsys)


def test_several_folders_are_migrated_and_undone(type_: Type, database: Target) -> None:
    applied = type_("migrate", "apply", "shop", "--json").json
    assert [m["script"] for m in applied["migrations"]] == ["V1__item.sql", "V2__price.sql"]
    assert "nothing to do, at version 2" in type_("migrate", "apply", "shop").out
    planned = type_("migrate", "undo", "shop", "--target", "1", "--dry-run", "--json").json
    assert [m["script"] for m in planned["migrations"]] == ["U2__price.sql", "U1__item.sql"]
    undone = type_("migrate", "undo", "shop", "--yes", "--json").json
    assert [(m["script"], m["status"]) for m in undone["migrations"]] == [("U2__price.sql", "undone")]
    assert [row["type"] for row in type_("migrate", "history", "shop", "--json").json["history"]] == [
        "SQL",
        "SQL",
        "UNDO_SQL",
    ]


def test_undo_asks_first_and_does_nothing_without_an_answer(type_: Type, database: Target) -> None:
    type_("migrate", "apply", "shop")
    refused = type_("migrate", "undo", "shop")
    assert refused.code == 2
    assert "Run U2__price.sql on shop?" in refused.err
    assert "--yes" in refused.err
    assert type_("migrate", "plan", "shop", "--json").json["current"] == "2"


def test_up_down_up_is_tested_in_a_scratch_database_that_is_dropped(
    type_: Type, database: Target, server_url: str, project: Path
) -> None:
    passed = type_("migrate", "test", "shop", "--json")
    assert (passed.code, passed.json["passed"]) == (0, True)
    assert [v["status"] for v in passed.json["versions"]] == ["equal", "equal"]
    (project / "defs" / "shop" / "shop" / "U2__price.sql").write_text("select 1;\n")
    (project / "defs" / "shop" / "shop" / "V2__price.sql").write_text("alter table item add if not exists price int;\n")
    (project / "defs" / "shop" / "common" / "U1__item.sql").unlink()
    failed = type_("migrate", "test", "shop")
    assert failed.code == 1
    assert "V2__price.sql after its undo: column public.item.price should not be there" in failed.out
    assert "Without an undo file: V1__item.sql" in failed.err
    with connect(Target("server", server_url), work="test") as connection:
        left = "select count(*) from pg_database where datname like 'dbplatform_trial_%'"
        assert connection.execute(left.encode()).fetchone() == (0,)
    with connect(database, work="test") as connection:
        assert connection.execute("select to_regclass('item')").fetchone() == (None,)


def test_a_database_of_another_tool_is_taken_over(type_: Type, database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("create table item (id int primary key); create table alembic_version (version_num text)")
    refused = type_("migrate", "apply", "shop")
    assert refused.code == 2
    assert "was migrated by Alembic (alembic_version, 0 rows)" in refused.err
    shown = type_("migrate", "baseline", "shop", "--dry-run")
    assert "would be at version 1" in shown.out
    taken = type_("migrate", "baseline", "shop", "--json").json
    assert (taken["status"], taken["taken_over"][0]["tool"]) == ("applied", "Alembic")
    applied = type_("migrate", "apply", "shop", "--json").json
    assert [m["script"] for m in applied["migrations"]] == ["V2__price.sql"]


def test_repair_names_what_it_mends(type_: Type, project: Path) -> None:
    type_("migrate", "apply", "shop")
    assert "nothing to mend" in type_("migrate", "repair", "shop").out
    file = project / "defs" / "shop" / "shop" / "V2__price.sql"
    file.write_text(f"-- in cents\n{file.read_text()}")
    assert type_("migrate", "apply", "shop").code == 2
    dry = type_("migrate", "repair", "shop", "--checksum", "V2__price.sql", "--dry-run")
    assert "V2__price.sql: checksum" in dry.out
    assert type_("migrate", "apply", "shop").code == 2
    assert type_("migrate", "repair", "shop", "--checksum", "V2__price.sql").code == 0
    assert type_("migrate", "apply", "shop").code == 0


def test_what_changed_is_kept_in_the_ledger(type_: Type, ledger: Ledger) -> None:
    type_("migrate", "apply", "shop")
    type_("migrate", "undo", "shop", "--yes")
    with connect(ledger.target, work="test") as connection:
        rows = connection.execute("select kind, status from ledger.operation order by started_at").fetchall()
    assert rows == [("migrate", "succeeded"), ("undo", "succeeded")]


def test_callbacks_run_though_nothing_is_pending_and_are_named_by_the_plan(
    type_: Type, project: Path, database: Target
) -> None:
    (project / "defs" / "shop" / "common" / "afterMigrate__count.sql").write_text(
        "create table if not exists runs (at timestamptz); insert into runs values (now());\n"
    )
    planned = type_("migrate", "plan", "shop", "--json").json
    assert planned["callbacks"] == ["afterMigrate__count.sql"]
    assert "Callbacks around them: afterMigrate__count.sql" in type_("migrate", "apply", "shop", "--dry-run").err
    type_("migrate", "apply", "shop")
    assert "nothing to do, at version 2" in type_("migrate", "apply", "shop").out
    with connect(database, work="test") as connection:
        assert connection.execute("select count(*) from runs").fetchone() == (2,)


def test_a_missing_folder_among_several_is_refused_with_its_line(type_: Type, project: Path) -> None:
    (project / "defs" / "shop" / "defs.yaml").write_text(DECLARATION.replace("[common, shop]", "[common, sjop]"))
    refused = type_("migrate", "plan", "shop")
    assert refused.code == 2
    assert "sjop does not exist" in refused.err
    assert "defs.yaml:8" in refused.err


def test_of_two_processes_that_apply_at_once_one_applies_and_one_finds_nothing(project: Path, database: Target) -> None:
    """Whichever comes second waits for the lock, or finds it done already: the outcome is the same."""
    command = [sys.executable, "-m", "dbplatform.cli.main", "-C", str(project), "migrate", "apply", "shop", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) for _ in range(2)]
    documents = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    applied = [[m for m in d["migrations"] if m["status"] == "applied"] for d in documents]
    assert sorted(map(len, applied)) == [0, 2]
    with connect(database, work="test") as connection:
        assert connection.execute("select count(*) from flyway_schema_history").fetchone() == (2,)


def test_a_run_with_nothing_to_do_imports_neither_dagster_nor_sqlalchemy(type_: Type, project: Path) -> None:
    type_("migrate", "apply", "shop")
    program = (
        "import sys\n"
        "from dbplatform.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as left:\n"
        "    print(sorted({'dagster', 'sqlalchemy'} & set(sys.modules)), left.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-C", str(project), "migrate", "apply", "shop"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["shop: nothing to do, at version 2", "[] 0"]
