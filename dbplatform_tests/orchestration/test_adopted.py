"""Databases of other people are adopted, marked, and run: green at once, with a backup that is proven."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dbplatform.home import Home
from dbplatform.migrations.drift.objects import schema_objects
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.adopted.places import database_of
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.installation import Installation

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

SCHEMAS = cases("dvd_rental", "music_store", "forum", sample=("forum",))
HISTORY = Relation("public", "flyway_schema_history")
_TABLES = "select schemaname, tablename from pg_tables where schemaname !~ '^pg_|information_schema'"


@pytest.fixture
def adopted(server_url: str, request: pytest.FixtureRequest) -> Iterator[Target]:
    with database_of(server_url, request.param) as target:
        yield target


@pytest.fixture
def project(tmp_path: Path, adopted: Target) -> Iterator[Installation]:
    """An empty project, whose environment holds the URL."""
    (tmp_path / "ops" / "defs").mkdir(parents=True)
    home = Home(root=tmp_path / "home")
    made = Installation(home, folder=tmp_path / "ops", variables={"ADOPTED_URL": adopted.url})
    try:
        yield made
    finally:
        made.server.remove()


def everything(target: Target) -> Any:
    """The schema and the rows of a database."""
    with connect(target, work="test") as connection:
        objects = schema_objects(connection, history_table=HISTORY)
        tables = connection.execute(_TABLES).fetchall()
        rows = {table: content_hash(connection, Relation(*table)) for table in tables}
    return {key: dict(one.parts) for key, one in objects.items()}, rows


@pytest.mark.parametrize("adopted", SCHEMAS, indirect=True)
def test_what_was_adopted_runs_green_at_once(adopted: Target, project: Installation) -> None:
    name, before = adopted.name, everything(adopted)
    plan = project.here("adopt", name, "--url-env", "ADOPTED_URL", "--candidates-from", "10000")
    assert everything(adopted) == before, "adopt only reads"
    assert plan["not_seen"] == []
    folder = project.folder / "defs" / name
    written = "".join(file.read_text() for file in sorted(folder.rglob("*")) if file.is_file())
    assert "not-for-files" not in written
    marked = project.here("migrate", "baseline", name)
    assert marked["status"] == "applied"
    drift = project.here("migrate", "drift", name)
    assert drift["differences"] == [], "on an empty database the baseline makes an equal schema"
    run = project.json("run", name, "--fail-on", "error")
    assert run["verdict"] == "passed"
    assert [check for check in run["schema"] if not check["passed"]] == []
    assert run["steps"][f"{name}/restore_drill"]["proven"] is True


@pytest.mark.drill
@pytest.mark.parametrize("adopted", ["dvd_rental", "music_store", "forum"], indirect=True)
def test_dagster_and_the_doctor_load_what_was_adopted(adopted: Target, project: Installation, tmp_path: Path) -> None:
    assert project.command("init", "whole").returncode == 0
    whole = Installation(project.home, folder=project.folder / "whole", variables=project.variables)
    whole.here("adopt", adopted.name, "--url-env", "ADOPTED_URL", "--candidates-from", "10000")
    program = str(Path(sys.executable).with_name("dg"))
    answer = subprocess.run(
        [program, "check", "defs"], cwd=whole.folder, env=whole.environment, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = whole.here("doctor", adopted.name, exit_code=1)["findings"]
    # The tests' server has no TLS, and may lose what it holds.
    errors = {finding["probe"] for finding in found if finding["status"] == "error"}
    assert errors <= {"TLS", "fsync", "full_page_writes"}


@pytest.mark.drill
def test_on_an_older_server_the_baseline_makes_an_equal_schema(second_server: SecondServer, tmp_path: Path) -> None:
    (tmp_path / "ops" / "defs").mkdir(parents=True)
    with database_of(second_server.superuser_url(), "forum") as target:
        owner = conninfo_to_dict(target.url)["user"]
        second_server.run(sql.SQL("alter role {} createdb").format(sql.Identifier(str(owner))))
        made = Installation(
            Home(root=tmp_path / "home"), folder=tmp_path / "ops", variables={"ADOPTED_URL": target.url}
        )
        try:
            made.here("adopt", "forum", "--url-env", "ADOPTED_URL", "--environment", "test")
            made.here("migrate", "baseline", "forum")
            assert made.here("migrate", "drift", "forum")["differences"] == []
        finally:
            made.server.remove()
