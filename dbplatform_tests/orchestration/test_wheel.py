"""The installed wheel: all of it is in there, and it works in a virtual environment and a folder of its own.

``make dist`` runs this for the files in ``dist/``, else they are built here.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import email.policy
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbplatform.declaration.project import PACKAGE
from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.installation import REPOSITORY, free_port

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

_UV = Path(sys.prefix) / "uv" / "bin" / "uv"
_SECONDS = 180
_ORDERS = """
insert into customer (email) select 'c' || g || '@example.com' from generate_series(1, 10) g;
insert into orders (customer_id, placed_at, cents)
select 1 + g % 10, now() - g * interval '2 days', 100 + g from generate_series(1, 200) g;
"""


#: What ``make dist`` has built.
_DIST = os.environ.get("DBPLATFORM_DIST")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    [built] = (Path(_DIST) if _DIST else _built(tmp_path_factory.mktemp("wheel"), "wheel")).glob("*.whl")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from this tree."""
    [built] = (Path(_DIST) if _DIST else _built(tmp_path_factory.mktemp("sdist"), "sdist")).glob("*.tar.gz")
    return built


def _built(folder: Path, target: str, *, tree: Path = REPOSITORY) -> Path:
    _done([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)], cwd=tree)
    return folder


@dataclass(frozen=True)
class Installed:
    """The wheel in a virtual environment of its own, typed at in a folder that is no part of this repository."""

    programs: Path
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DBPLATFORM_", "DAGSTER_", "PYTHON"))}
        return {**kept, **self.variables, "PATH": f"{self.programs}:{os.environ['PATH']}"}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / "dbplatform", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        answer = self.command(*arguments, "--json")
        assert answer.returncode == exit_code, answer.stderr + answer.stdout
        return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an empty virtual environment, into which come what images install, by hash, and the wheel."""
    made = tmp_path_factory.mktemp("environment") / "venv"
    _done([_UV, "venv", "--quiet", "--python", sys.executable, made])
    python, lock = made / "bin" / "python", REPOSITORY / "deploy" / "requirements.lock"
    _done([_UV, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock])
    _done([_UV, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel])
    _done([_UV, "pip", "check", "--quiet", "--python", python])
    return made / "bin"


@pytest.fixture
def shop(programs: Path, tmp_path: Path, second_server: SecondServer) -> Iterator[Installed]:
    """A new project for an empty database on the second server, owned by a role of its own."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    second_server.run(
        f"create role {name} login password 'pass word'",
        f"grant pg_monitor to {name}",
        f"create database {name} owner {name}",
    )
    outside = Installed(programs, tmp_path)
    made = outside.json("init", "ops", "--name", "shop", "--url-env", "SHOP_URL")
    assert made["project"] == str(tmp_path / "ops")
    project = Installed(
        programs, tmp_path / "ops", {"SHOP_URL": second_server.url(name, user=name, password="pass word")}
    )
    try:
        yield project
    finally:
        EmbeddedServer(Home(root=project.folder / ".dbplatform")).remove()
        second_server.run(f"drop database {name} with (force)", f"drop role {name}")


def test_the_wheel_holds_every_file_of_the_package_but_the_examples(wheel: Path) -> None:
    wanted = {
        str(file.relative_to(PACKAGE.parent))
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and PACKAGE / "defs" not in file.parents
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert {"dbplatform/ledger/schema/V1__ledger.sql", "dbplatform/declaration/templates/project/dg.toml"} <= held


def test_the_wheel_holds_what_it_says_and_says_what_is_declared(wheel: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert wheel.name == f"dbplatform-{project['version']}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        [folder] = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        said = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(archive.read(f"{folder}/METADATA"))
        record = list(csv.reader(io.StringIO(archive.read(f"{folder}/RECORD").decode())))
        assert {row[0] for row in record} == set(archive.namelist())
        for name, digest, size in record:
            if digest:
                content = archive.read(name)
                found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                assert (f"sha256={found}", str(len(content))) == (digest, size), name
        entries = archive.read(f"{folder}/entry_points.txt").decode()
        assert archive.read(f"{folder}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()
    assert (said["Name"], said["Version"], said["Summary"]) == (
        project["name"],
        project["version"],
        project["description"],
    )
    assert (said["License-Expression"], said["Requires-Python"]) == ("Apache-2.0", project["requires-python"])
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload(decode=True) == (REPOSITORY / "README.md").read_bytes()
    assert set(said.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert "dbplatform = dbplatform.cli.main:main" in entries
    assert "[dagster_dg_cli.registry_modules]\ndbplatform = dbplatform" in entries


@pytest.mark.drill
def test_from_the_source_distribution_the_same_wheel_is_built(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [tree] = tmp_path.iterdir()
    assert tree.name == wheel.name.removesuffix("-py3-none-any.whl")
    folders = {path.name for path in tree.iterdir() if path.is_dir()}
    assert folders == {"dbplatform", "dbplatform_tests", "deploy", "docs"}
    assert (tree / "deploy" / "requirements.lock").is_file()
    assert (tree / "dbplatform" / "defs" / "flights" / "defs.yaml").is_file()
    [again] = _built(tmp_path / "again", "wheel", tree=tree).glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        sums = [{one.filename: one.CRC for one in archive.infolist()} for archive in (first, second)]
    assert sums[0] == sums[1]


@pytest.mark.drill
def test_from_the_wheel_a_new_project_runs_green_with_nothing_else_at_hand(programs: Path, tmp_path: Path) -> None:
    Installed(programs, tmp_path).json("init", "shop")
    project = Installed(programs, tmp_path / "shop")
    try:
        ran = project.json("run", "shop", "--fail-on", "warn")
        assert ran["verdict"] == "passed"
        [backup] = project.json("backup", "list", "shop")["backups"]
        assert backup["proven_at"]
        version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
        assert project.command("--version").stdout.strip().endswith(version)
    finally:
        EmbeddedServer(Home(root=project.folder / ".dbplatform")).remove()


@pytest.mark.drill
def test_outside_of_a_project_the_installed_command_says_so(programs: Path, tmp_path: Path) -> None:
    error = Installed(programs, tmp_path).json("list", exit_code=2)["error"]
    assert error["kind"] == "no_project"
    assert str(tmp_path) in error["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.drill
def test_from_the_wheel_a_database_on_another_server_runs_green(shop: Installed, second_server: SecondServer) -> None:
    # What a migration does is tried out on a server of the same version, and the embedded one is newer.
    declaration = shop.folder / "defs" / "shop" / "defs.yaml"
    scratch = 'url_env: "SHOP_URL"\n    scratch_url_env: SHOP_SCRATCH_URL'
    declaration.write_text(declaration.read_text().replace('url_env: "SHOP_URL"', scratch, 1))
    shop.variables["SHOP_SCRATCH_URL"] = second_server.superuser_url()
    assert shop.json("run", "shop", "--fail-on", "warn")["verdict"] == "passed"
    [backup] = shop.json("backup", "list", "shop")["backups"]
    assert backup["proven_at"]
    manifest = json.loads((Path(backup["location"]) / "manifest.json").read_text())
    assert manifest["source"]["server_major"] == 15

    with psycopg.connect(shop.variables["SHOP_URL"], autocommit=True) as session:
        session.execute(_ORDERS)
    assert shop.json("check", "shop")["verdict"] == "passed"
    shop.json("backup", "create", "shop")
    drill = shop.json("drill", "shop")
    assert drill["proven"] is True
    assert {table["table"]: table["rows"] for table in drill["tables"]}["public.orders"] == 200
    assert shop.json("archive", "plan", "shop", exit_code=2)["error"]["kind"] == "not_declared"

    declaration.write_text(declaration.read_text().replace("  # archives:\n  #   -", "  archives:\n    -"))
    [archived] = shop.json("archive", "apply", "shop")["archives"]
    assert archived["deleted_rows"] == 200 - 182
    assert shop.json("check", "shop")["verdict"] == "passed"

    declaration.write_text(declaration.read_text().replace("quality:", "qualty:"))
    mistake = shop.json("list", exit_code=2)["broken"][0]
    assert (mistake["file"], "quality" in mistake["hint"]) == ("defs/shop/defs.yaml", True)


@pytest.mark.drill
def test_from_the_wheel_the_ui_and_the_service_answer(shop: Installed) -> None:
    port, service_port = free_port(), free_port()
    with subprocess.Popen(
        [shop.programs / "dbplatform", "dev", "--port", str(port), "--service-port", str(service_port)],
        cwd=shop.folder,
        env=shop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as dev:
        too_late = threading.Timer(_SECONDS, dev.kill)
        too_late.start()
        assert dev.stdout is not None
        said = []
        for line in dev.stdout:
            said.append(line)
            if "Serving dagster-webserver" in line:
                break
        try:
            assert "Serving dagster-webserver" in "".join(said), "".join(said)
            query = b'{"query": "{ assetNodes { assetKey { path } } }"}'
            assets = json.loads(_answer(dev, f"http://127.0.0.1:{port}/graphql", query))["data"]["assetNodes"]
            assert ["shop", "restore_drill"] in [asset["assetKey"]["path"] for asset in assets]
            assert "<title>dbplatform" in _answer(dev, f"http://127.0.0.1:{service_port}/")
        finally:
            dev.send_signal(signal.SIGINT)
            dev.stdout.read()
            too_late.cancel()
    assert dev.returncode == 0


def _answer(dev: subprocess.Popen[str], url: str, data: bytes | None = None) -> str:
    """What a server says, as soon as it listens: it tells that it serves a moment before it does."""
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or dev.poll() is not None:
                raise
            time.sleep(0.2)


def _done(command: list[Any], *, cwd: Path | None = None) -> None:
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
