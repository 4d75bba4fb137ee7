"""What people write: every mistake is one sentence with file, line and what is allowed; one mistake hides no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dbplatform.declaration.loading import load_project
from dbplatform.declaration.project import Project
from dbplatform.errors import PlatformError, UnknownDatabase, VariableNotSet
from dbplatform.postgres.transport import TlsNotVerified
from dbplatform.yaml_files import YamlMistake

GOOD = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  owners: ["team:data"]
  connection:
    environment: test
  migrations:
    directory: migrations
    lock_timeout: 2s
  partitioned_tables:
    - {table: public.sale, column: at, interval: 1 month, premake: 4}
  quality:
    - table: public.sale
      checks:
        - not_null: at
        - range:
            column: amount
            min: 1
            max: 9
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "defs").mkdir()
    return Project.at(tmp_path)


def declare(project: Project, text: str, folder: str = "shop") -> None:
    (project.defs / folder / "migrations").mkdir(parents=True)
    (project.defs / folder / "defs.yaml").write_text(text)


def broken(project: Project, text: str) -> PlatformError:
    """The error of a project that holds a good declaration beside this one; the good one must have loaded."""
    declare(project, GOOD.replace("name: shop", "name: other"), "other")
    declare(project, text)
    found = load_project(project)
    assert [declared.name for declared in found.databases] == ["other"]
    [one] = found.broken
    error = one.error
    assert one.folder == "shop"
    assert error.exit_code == 2
    assert error.file == "defs/shop/defs.yaml"
    assert "\n" not in error.message
    with pytest.raises(type(error)):
        found.get("shop")
    return error


def test_a_good_declaration_loads(project: Project) -> None:
    declare(project, GOOD)
    found = load_project(project)
    assert found.broken == ()
    assert found.get("shop").database.partitioned_tables[0].premake == 4


def test_the_declared_databases_of_this_repository_load() -> None:
    found = load_project(Project.find(Path(__file__)))
    assert found.broken == ()
    assert "flights" in found.by_name


@pytest.mark.parametrize(
    ("place", "line", "allowed"),
    [
        pytest.param(("attributes:\n", "attributes:\n  migration: {}\n"), 3, "migrations", id="attributes"),
        pytest.param(("environment: test", "environment: test\n    hosts: x"), 7, "url_env", id="connection"),
        pytest.param(("lock_timeout: 2s", "lock_timeouts: 2s"), 9, "lock_timeout", id="migrations"),
        pytest.param(("premake: 4", "pre_make: 4"), 11, "premake", id="partitioned_tables"),
        pytest.param(("- not_null: at", "- no_nulls: at"), 15, "not_null", id="check type"),
        pytest.param(("            min: 1", "            minimum: 1"), 18, "min", id="check option"),
        pytest.param(("type:", "kind: x\ntype:"), 1, "attributes", id="top"),
    ],
)
def test_an_unknown_key_is_refused_at_each_level(
    project: Project, place: tuple[str, str], line: int, allowed: str
) -> None:
    error = broken(project, GOOD.replace(*place))
    assert error.line == line
    assert allowed in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    ("place", "line", "words"),
    [
        pytest.param(("environment: test", "environment: prod"), 6, "production", id="bad enum"),
        pytest.param(
            ("environment: test", "environment: test\n    replica_pool: {size: 2}"),
            5,
            "replica_url_env",
            id="a pool on no replica",
        ),
        pytest.param(("interval: 1 month", "interval: monthly"), 11, "1 month", id="bad interval"),
        pytest.param(("lock_timeout: 2s", "lock_timeout: 2"), 9, "unit", id="interval without unit"),
        pytest.param(("premake: 4", "premake: four"), 11, "integer", id="wrong type"),
        pytest.param(("premake: 4", "premake: 0"), 11, "1", id="impossible number"),
        pytest.param(("name: shop", "name: Shop-1"), 3, "name", id="bad name"),
        pytest.param(('"team:data"', "data"), 4, "team:", id="bad owner"),
        pytest.param(("  name: shop\n", ""), 2, "name", id="missing key"),
        pytest.param(("max: 9", "max: 0"), 18, "max", id="minimum above maximum"),
        pytest.param(("directory: migrations", "directory: sql"), 8, "does not exist", id="missing folder"),
        pytest.param(("  owners:", "  name: again\n  owners:"), 4, "twice", id="key written twice"),
        pytest.param(('"team:data"', "a@b.c"), 4, "e-mail", id="owner that Dagster refuses"),
        pytest.param(
            ("  owners:", '  maintenance: {daily: "0 0 30 2 *"}\n  owners:'), 4, "never", id="a day that never comes"
        ),
        pytest.param(("  owners:", '  maintenance: {daily: "daily"}\n  owners:'), 4, "cron", id="no cron"),
        pytest.param(("name: shop", "name: !odd shop"), 3, "cannot be read", id="unknown tag"),
        pytest.param(("premake: 4", "premake: 4, start: 2026-13-01"), 11, "2026-13-01", id="impossible date"),
        pytest.param(("name: shop", "name: dagster"), 2, "taken", id="a name of the platform"),
        pytest.param(("attributes:", "attributes: []\nx:"), 3, "x", id="key beside attributes"),
        pytest.param(
            ("    - table: public.sale", "    - table: app.sale\n      checks: [not_null: at]\n    - table: app__sale"),
            2,
            "one asset",
            id="two tables of one word",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    project: Project, place: tuple[str, str], line: int, words: str
) -> None:
    error = broken(project, GOOD.replace(*place))
    assert error.line == line
    assert words in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    ("written", "near"), [("My-Shop", "my_shop"), ("2nd Shop!", "nd_shop"), ("'…'", "my_shop"), ("s" * 60, "s" * 48)]
)
def test_a_bad_name_is_told_the_rule_and_an_example_that_holds(project: Project, written: str, near: str) -> None:
    error = broken(project, GOOD.replace("name: shop", f"name: {written}"))
    assert error.line == 3
    assert error.message.endswith(
        "cannot be a name: it begins with a lower case letter; lower case letters, digits and underscores may follow, "
        "48 characters at most."
    )
    assert error.hint == f"Write, for example, {near}."
    (project.defs / "shop" / "defs.yaml").write_text(GOOD.replace("name: shop", f"name: {near}"))
    assert load_project(project).broken == ()


def test_a_url_in_place_of_its_variable_is_refused_and_not_repeated(project: Project) -> None:
    error = broken(project, GOOD.replace("environment: test", 'url_env: "postgresql://u:secret@h/d"'))
    assert error.line == 6
    assert "not the name of an environment variable" in error.message
    assert "secret" not in f"{error} {error.as_json()}"


def test_a_tab_is_called_a_tab(project: Project) -> None:
    error = broken(project, GOOD.replace("  name: shop", "\tname: shop"))
    assert "tabs" in str(error.hint)


def test_an_empty_file_is_refused(project: Project) -> None:
    error = broken(project, "")
    assert (error.line, error.message) == (1, "the file is empty.")
    assert "dbplatform.ManagedDatabase" in str(error.hint)


def test_a_file_that_is_not_yaml_is_refused_with_its_line(project: Project) -> None:
    error = broken(project, GOOD.replace("  owners: [", "  owners: [["))
    assert error.line is not None
    assert "not YAML" in error.message


def test_attributes_that_are_a_list_are_refused(project: Project) -> None:
    error = broken(project, "type: dbplatform.ManagedDatabase\nattributes: []\n")
    assert (error.line, error.message) == (2, "attributes must be a mapping.")


def test_an_alias_inside_of_itself_is_refused(project: Project) -> None:
    error = broken(
        project,
        GOOD.replace("  owners:", "  migrations: &m {placeholders: *m}\n  owners:", 1).replace(
            "  migrations:\n    directory: migrations\n    lock_timeout: 2s\n", ""
        ),
    )
    assert "alias" in error.message


def test_a_folder_in_place_of_the_file_is_refused(project: Project) -> None:
    (project.defs / "shop" / "defs.yaml").mkdir(parents=True)
    [one] = load_project(project).broken
    assert "cannot be read" in one.error.message


@pytest.mark.parametrize("name", ["shop_quality", "shop_periods_sale"])
def test_a_database_named_as_a_job_of_another_is_refused(project: Project, name: str) -> None:
    declare(project, GOOD)
    declare(project, GOOD.replace("name: shop", f"name: {name}"), name)
    [one] = load_project(project).broken
    assert (one.folder, one.error.line) == (name, 3)
    assert "job of the database 'shop'" in one.error.message


def test_a_broken_declaration_is_found_by_the_name_in_it_too(project: Project) -> None:
    declare(project, GOOD.replace("name: shop", "name: store").replace("premake: 4", "premake: 0"), "a_folder")
    with pytest.raises(YamlMistake):
        load_project(project).get("store")


def test_a_database_name_declared_twice_names_the_first(project: Project) -> None:
    declare(project, GOOD, "a_first")
    declare(project, GOOD, "b_second")
    found = load_project(project)
    [one] = found.broken
    assert (one.folder, one.error.line) == ("b_second", 3)
    assert "defs/a_first/defs.yaml" in one.error.message


def test_an_unset_variable_is_named_with_its_line_and_only_when_the_database_is_used(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_URL", raising=False)
    declare(project, GOOD.replace("environment: test", "url_env: SHOP_URL"))
    declared = load_project(project).get("shop")
    with pytest.raises(VariableNotSet) as raised:
        declared.url_from_environment()
    assert (raised.value.file, raised.value.line) == ("defs/shop/defs.yaml", 6)
    assert "SHOP_URL" in raised.value.message


def test_an_unknown_database_is_answered_with_the_nearest_name(project: Project) -> None:
    declare(project, GOOD)
    with pytest.raises(UnknownDatabase, match="Did you mean shop"):
        load_project(project).get("shopp")


def test_errors_have_the_shape_of_the_contract(project: Project) -> None:
    error = broken(project, "")
    document = json.loads(json.dumps(error.as_json()))
    assert set(document) == {"kind", "message", "hint", "file", "line"}


def test_a_url_of_production_must_verify_the_server(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(project, GOOD.replace("    environment: test", "    url_env: SHOP_URL\n    environment: production"))
    shop = load_project(project).get("shop")
    monkeypatch.setenv("SHOP_URL", "postgresql://u:secret@db.example.org/shop?sslmode=require")
    with pytest.raises(TlsNotVerified) as refused:
        shop.url_from_environment()
    assert (refused.value.file, refused.value.line) == ("defs/shop/defs.yaml", 6)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("SHOP_URL", "postgresql://u@db.example.org/shop?sslmode=verify-full")
    assert shop.url_from_environment() is not None
