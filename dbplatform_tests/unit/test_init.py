"""``dbplatform init``: what it writes loads as it is, and nothing of the user's is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dbplatform.cli.main import main
from dbplatform.declaration.database import Database
from dbplatform.declaration.loading import load_project
from dbplatform.declaration.project import Project
from dbplatform.declaration.scaffold import CannotWrite, NameNotValid, database_name, plan_project, write_project
from dbplatform.migrations.files import discover
from dbplatform.seeding.manifest import read_manifest


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard output of a command."""
    with pytest.raises(SystemExit) as left:
        main(["init", *arguments])
    assert isinstance(left.value.code, int)
    return left.value.code, capsys.readouterr().out


def declared(folder: Path) -> Database:
    """The one database of a project."""
    found = load_project(Project.at(folder))
    assert found.broken == ()
    [only] = found.databases
    assert [file.script for file in discover(only.folder / "migrations")] == [
        "U1__first_tables.sql",
        "V1__first_tables.sql",
    ]
    return only.database


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_project_loads_and_shows_the_whole_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = typed(capsys, str(tmp_path / "made" / "my-shop"))
    assert code == 0
    assert "dbplatform run my_shop" in said
    database = declared(tmp_path / "made" / "my-shop")
    assert (database.name, database.connection.url_env) == ("my_shop", None)
    assert database.backups is not None
    assert [archive.name for archive in database.archives] == ["old_orders"]
    assert [str(table.table) for table in database.partitioned_tables] == ["public.orders"]
    assert {str(table.table) for table in database.quality} == {"public.customer", "public.orders"}
    [seed] = database.seeds
    manifest = read_manifest(tmp_path / "made" / "my-shop" / "defs" / "my_shop" / seed.directory, seed)
    assert [str(table.table) for table in manifest.tables] == ["public.customer", "public.orders"]
    assert names(tmp_path / "made" / "my-shop") == {
        *(".gitignore", "README.md", "definitions.py", "dg.toml", "workspace.yaml", "defs")
    }


def test_on_a_server_of_ones_own_nothing_is_seeded_and_nothing_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = typed(capsys, str(tmp_path / "ops"), "--name", "shop", "--url-env", "SHOP_URL")
    assert code == 0
    assert "export SHOP_URL=" in said
    database = declared(tmp_path / "ops")
    assert (database.name, database.connection.url_env) == ("shop", "SHOP_URL")
    assert database.connection.environment == "production"
    assert database.seeds == database.archives == []
    assert database.backups is not None
    assert database.quality
    assert not (tmp_path / "ops" / "defs" / "shop" / "seeds").exists()
    declaration = tmp_path / "ops" / "defs" / "shop" / "defs.yaml"
    declaration.write_text(declaration.read_text().replace("  # archives:\n  #   -", "  archives:\n    -"))
    assert [archive.name for archive in declared(tmp_path / "ops").archives] == ["old_orders"]


def test_dry_run_lists_the_files_and_writes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = typed(capsys, str(tmp_path / "shop"), "--dry-run", "--json")
    document = json.loads(said)
    assert code == 0
    assert not (tmp_path / "shop").exists()
    typed(capsys, str(tmp_path / "shop"))
    assert [file for file in document["files"] if not (tmp_path / "shop" / file).is_file()] == []
    assert (document["project"], document["database"]) == (str(tmp_path / "shop"), "shop")


@pytest.mark.parametrize(
    ("folder", "name"), [("Shop", "shop"), ("my shop.v2", "my_shop_v2"), ("2024-shop", "shop"), ("x" * 60, "x" * 48)]
)
def test_the_database_is_named_as_its_folder(folder: str, name: str) -> None:
    assert database_name(folder) == name


@pytest.mark.parametrize(("arguments", "word"), [(["2024"], "'2024'"), (["ok", "--name", "My Shop"], "'My Shop'")])
def test_a_name_that_cannot_be_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = typed(capsys, *arguments, "--json")
    error = json.loads(said)["error"]
    assert (code, error["kind"]) == (2, "name_not_valid")
    assert word in error["message"]
    assert "--name" in error["hint"]
    assert names(tmp_path) == set()


def test_the_names_of_the_platform_are_taken_on_the_embedded_server_alone(tmp_path: Path) -> None:
    with pytest.raises(NameNotValid, match="taken"):
        plan_project(tmp_path / "dagster")
    assert plan_project(tmp_path / "dagster", url_env="URL").database == "dagster"


def test_a_url_in_the_place_of_a_variable_is_refused_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = typed(capsys, str(tmp_path / "shop"), "--url-env", "postgresql://me:secret@host/shop", "--json")
    assert (code, json.loads(said)["error"]["kind"]) == (2, "not_a_variable")
    assert "secret" not in said
    assert names(tmp_path) == set()


def test_what_is_there_is_named_and_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine")
    code, said = typed(capsys, str(tmp_path), "--name", "shop", "--json")
    error = json.loads(said)["error"]
    assert (code, error["kind"]) == (2, "would_overwrite")
    assert "README.md" in error["message"]
    assert (tmp_path / "README.md").read_text() == "mine"
    assert names(tmp_path) == {"README.md"}


def test_files_of_others_stay_beside_a_new_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert typed(capsys, str(tmp_path), "--name", "shop")[0] == 0
    assert declared(tmp_path).name == "shop"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    code, said = typed(capsys, str(tmp_path), "--name", "shop", "--json")
    assert (code, json.loads(said)["error"]["kind"]) == (2, "would_overwrite")
    assert "a project already" in json.loads(said)["error"]["hint"]


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    code, said = typed(capsys, str(tmp_path / "file"), "--json")
    assert (code, json.loads(said)["error"]["kind"]) == (2, "not_a_folder")
    code, said = typed(capsys, str(tmp_path / "file" / "shop"), "--json")
    assert (code, json.loads(said)["error"]["kind"]) == (3, "cannot_write")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("existing", [True, False], ids=["a folder that was there", "a new folder"])
def test_a_failure_half_way_leaves_no_half_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    folder = tmp_path / "shop"
    if existing:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    plan = plan_project(folder)
    move = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target == folder / "defs":
            raise OSError(28, "No space left on device")
        return move(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(CannotWrite, match="No space left on device"):
        write_project(plan)
    monkeypatch.undo()
    assert names(tmp_path) == ({"shop"} if existing else set())
    assert not existing or names(folder) == {"notes.txt"}
    write_project(plan)
    assert declared(folder).name == "shop"
