"""Many declarations in one project: one is found without reading the others, and they are chosen by owner."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from dbplatform.declaration import loading
from dbplatform.declaration.loading import OwnsNothing, load_named, load_project
from dbplatform.declaration.project import Project
from dbplatform.errors import UnknownDatabase
from dbplatform.operations.platform import Platform
from dbplatform.operations.servers import EMBEDDED, bounds, server_of
from dbplatform.yaml_files import YamlMistake

_DECLARED = """\
type: dbplatform.ManagedDatabase
attributes:
  name: {name}
  owners: ["team:{team}"]
  connection: {{url_env: {variable}}}
{more}"""


def declare(folder: Path, name: str, *, team: str = "data", variable: str = "ONE_URL", more: str = "") -> None:
    file = folder / "defs" / name / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_DECLARED.format(name=name, team=team, variable=variable, more=more))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for number in range(30):
        declare(tmp_path, f"c{number:02}", team=f"team{number % 3}")
    return Project.at(tmp_path)


def read(work: object) -> list[str]:
    """The folders whose declarations are read while ``work`` is called."""
    with mock.patch.object(loading, "load_file", wraps=loading.load_file) as loaded:
        work()  # type: ignore[operator]
    return [call.args[0].parent.name for call in loaded.call_args_list]


def test_one_of_many_is_found_by_reading_its_own_file_alone(project: Project) -> None:
    assert read(lambda: Platform(project).declared("c07")) == ["c07"]
    assert sorted(read(lambda: load_project(project))) == [f"c{number:02}" for number in range(30)]
    platform = Platform(project)
    assert len(platform.declarations.databases) == 30
    assert read(lambda: platform.declared("c07")) == [], "what is read already is not read again"


def test_a_name_that_cannot_stand_is_found_out_without_reading_all(project: Project) -> None:
    declare(project.root, "c07_backup")
    with pytest.raises(YamlMistake, match="is the name of a job of the database 'c07'"):
        load_named(project, "c07_backup")
    twin = project.defs / "twin" / "defs.yaml"
    twin.parent.mkdir()
    twin.write_text((project.defs / "c09" / "defs.yaml").read_text())
    assert load_named(project, "c09").folder.name == "c09"
    with pytest.raises(YamlMistake, match="is taken by"):
        load_named(project, "twin")


def test_what_is_not_declared_is_answered_with_what_is_near(project: Project) -> None:
    with pytest.raises(UnknownDatabase) as unknown:
        load_named(project, "c0z")
    assert unknown.value.hint is not None
    assert "Did you mean c" in unknown.value.hint


def test_databases_are_chosen_by_owner_and_left_out_by_name(project: Project) -> None:
    declarations = load_project(project)
    of_team = declarations.chosen(owner="team1", without=["c01"])
    assert [one.name for one in of_team] == [f"c{number:02}" for number in range(4, 30, 3)]
    assert declarations.chosen(owner="team:team1") == declarations.chosen(owner="team1")
    assert len(declarations.chosen()) == 30
    with pytest.raises(OwnsNothing):
        declarations.chosen(owner="nobody")
    with pytest.raises(UnknownDatabase):
        declarations.chosen(without=["nothing"])


def test_the_lowest_bound_of_a_server_holds_for_all_its_databases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_URL", "postgresql://me@db1:6000/a")
    monkeypatch.setenv("TWO_URL", "host=db1 port=6000 dbname=b")
    monkeypatch.setenv("THREE_URL", "postgresql://me@db2/c")
    monkeypatch.delenv("UNSET_URL", raising=False)
    declare(tmp_path, "a", more="  runs: {per_server: 3}\n")
    declare(tmp_path, "b", variable="TWO_URL", more="  runs: {per_server: 2}\n")
    declare(tmp_path, "c", variable="THREE_URL")
    declare(tmp_path, "d", variable="UNSET_URL", more="  runs: {per_server: 1}\n")
    here = tmp_path / "defs" / "e" / "defs.yaml"
    here.parent.mkdir()
    here.write_text("type: dbplatform.ManagedDatabase\nattributes: {name: e, runs: {per_server: 1}}\n")
    databases = load_project(Project.at(tmp_path)).databases
    assert [server_of(one) for one in databases] == ["db1:6000", "db1:6000", "db2:5432", None, EMBEDDED]
    assert bounds(databases) == {"db1:6000": 2, EMBEDDED: 1}
