"""A declared database whose runs are spread over machines that share no disk: its steps land on all of them, what one
made the others use, and the loss of a machine is one failed run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psycopg
import pytest

from dbplatform.declaration.scaffold import plan_project, write_project
from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.drills.machines import HUB, Machine, machines, reached
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.embedded_support import open_folder
from dbplatform_tests.s3 import s3_server
from dbplatform_tests.workers import PASSWORD, Said, execute, newest_run, redis_server, worker_command

_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
#: The worker that has this step is to be killed in it.
_MIGRATION = """\
create table item (id int primary key);
select pg_sleep(case when exists (select from pg_roles where rolname = 'ready') then 0 else 3600 end);
"""


@dataclass(frozen=True)
class Fleet:
    """The hub with its PostgreSQL, S3, Redis and UI, and the workers."""

    hub: Machine
    workers: list[Machine]
    image: Path
    server: EmbeddedServer
    environment: dict[str, str]

    def work(self, machine: Machine, name: str) -> Said:
        """Begin a worker of that name on a machine; it is ready."""
        said = Said(machine.start(worker_command(name), image=self.image, environment=self.environment))
        said.wait_for(" ready.")
        return said

    def execute(self, job: str) -> subprocess.CompletedProcess[str]:
        return execute(job, cwd=self.hub.disk / "project", environment=self.environment)

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """A Python module on the hub, its output to be read."""
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.hub.disk / "project",
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def json(self, *arguments: str) -> Any:
        answer = subprocess.run(
            [sys.executable, "-m", "dbplatform.cli.main", *arguments, "--json"],
            cwd=self.hub.disk / "project",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert answer.returncode in (0, 1), answer.stdout + answer.stderr
        return json.loads(answer.stdout)

    @contextmanager
    def connect(self, database: str) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.server.url(database), autocommit=True) as session:
            yield session

    def newest_run(self) -> tuple[dg.DagsterRun, dict[str, str]]:
        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            return newest_run(instance)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """While it is there, the test is in the network of the hub."""
    with ExitStack() as opened:
        folder = opened.enter_context(open_folder())
        hub, workers = opened.enter_context(machines(folder / "disk", workers=3))
        image = _project(tmp_path / "image")
        shutil.copytree(image, hub.disk / "project")
        opened.enter_context(hub.inside())
        server = EmbeddedServer(Home(root=folder / "postgres"), settings={"fsync": "off"})
        opened.callback(server.remove)
        server.start()
        for name in ("shop", "dbplatform_ledger", "dagster"):
            server.ensure_database(name)
        port = server.status().port
        assert port is not None
        opened.enter_context(reached(port))
        s3 = opened.enter_context(s3_server(HUB))
        boto3.client("s3", endpoint_url=s3, **_client_keys()).create_bucket(Bucket="shop")
        broker = opened.enter_context(redis_server(6379, host=HUB))
        home = hub.disk / "home"
        (home / "dagster").mkdir(parents=True)
        shutil.copy(REPOSITORY / "dbplatform" / "orchestration" / "dagster.yaml", home / "dagster")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DBPLATFORM_", "DAGSTER_", "AWS_"))}
        environment = {
            **kept,
            **_KEYS,
            "PYTHONPATH": str(REPOSITORY),
            "AWS_ENDPOINT_URL_S3": s3,
            "SHOP_URL": _reached(server, "shop"),
            "DBPLATFORM_LEDGER_URL": _reached(server, "dbplatform_ledger"),
            "DBPLATFORM_DAGSTER_URL": _reached(server, "dagster").replace("postgresql:", "postgresql+psycopg2:", 1),
            "DBPLATFORM_CELERY_URL": broker,
            "DBPLATFORM_PROJECT": str(hub.disk / "project"),
            "DBPLATFORM_HOME": str(home),
            "DAGSTER_HOME": str(home / "dagster"),
        }
        monkeypatch.setenv("DBPLATFORM_DAGSTER_URL", environment["DBPLATFORM_DAGSTER_URL"])
        yield Fleet(hub, workers, image, server, environment)


def _project(folder: Path) -> Path:
    """The project that ``dbplatform init`` writes, its database on a server and all that it keeps in a bucket."""
    write_project(plan_project(folder, name="shop"))
    database = folder / "defs" / "shop"
    text = (database / "defs.yaml").read_text()
    for old, new in (
        ("    environment: development", "    url_env: SHOP_URL\n    environment: development"),
        ("  backups:\n", "  backups:\n    destination: s3://shop/backups\n"),
        ("older_than: 12 months}", "older_than: 12 months, to: 's3://shop/archives'}"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (database / "defs.yaml").write_text(text + "  reports: {destination: 's3://shop/reports'}\n")
    (database / "migrations" / "V2__item.sql").write_text(_MIGRATION)
    return folder


def _reached(server: EmbeddedServer, database: str) -> str:
    return server.url(database).replace("@127.0.0.1:", f"@{HUB}:", 1)


def _client_keys() -> dict[str, str]:
    return {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


@pytest.mark.drill
def test_runs_are_spread_over_machines_that_share_no_disk_and_survive_the_loss_of_one(fleet: Fleet) -> None:
    first, second, third = fleet.workers

    # A machine is lost in the middle of a step: its run fails in one sentence, and nothing of it goes on.
    one = fleet.work(first, "one")
    lost = fleet.begin("dagster", "job", "execute", "-m", "dbplatform.definitions", "-j", "shop_migrate")
    one.wait_for("execute_plan")
    with fleet.connect("postgres") as session:
        _until(session, "select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
        first.lose()
        said, _ = lost.communicate(timeout=240)
        assert lost.returncode == 1
        assert "The worker that had this step is gone" in said
        _until(session, "select not exists (select from pg_stat_activity where wait_event = 'PgSleep')")
        session.execute("create role ready")
    run, taken = fleet.newest_run()
    assert (run.status, taken) == (dg.DagsterRunStatus.FAILURE, {"shop/migrations": "one"})

    # The next run goes on where it stood, over two other machines.
    workers = {"two": fleet.work(second, "two"), "three": fleet.work(third, "three")}
    answer = fleet.execute("shop")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    run, taken = fleet.newest_run()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert set(taken.values()) == {"two", "three"}
    assert {"shop/migrations", "shop/backup", "shop/restore_drill", "shop/archive/old_orders"} <= set(taken)
    with fleet.connect("dbplatform_ledger") as ledger:
        unfinished = ledger.execute("select count(*) from ledger.operation where status = 'running'").fetchone()
    assert unfinished == (1,), "of the lost step, until the watch looks"

    # What was made lies in the bucket, and on no machine.
    [backup] = fleet.json("backup", "list", "shop")["backups"]
    assert backup["location"].startswith("s3://shop/backups/shop/")
    assert backup["proven_at"]
    [archive] = fleet.json("archive", "list", "shop")["archives"]
    assert (archive["status"], archive["location"].startswith("s3://shop/archives/")) == ("deleted", True)
    homes = [Path(f"/proc/{said.process.pid}/root") / fleet.hub.disk.relative_to("/") for said in workers.values()]
    assert len({home.stat().st_dev for home in [*homes, fleet.hub.disk]}) == 3
    for home in homes:
        left = [path for path in (home / "home").rglob("*") if path.suffix in (".html", ".parquet", ".zst", ".age")]
        assert left == []

    # The backup that one machine made is proven by the other, when only that is left.
    made_on = taken["shop/backup"]
    gone, proves = (second, "three") if made_on == "two" else (third, "two")
    gone.lose()
    answer = fleet.execute("shop_drill")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    _, taken = fleet.newest_run()
    assert taken == {"shop/restore_drill": proves}
    [again] = fleet.json("backup", "list", "shop")["backups"]
    assert (again["id"], again["proven_at"] > backup["proven_at"]) == (backup["id"], True)

    # The status service reads the report from the bucket; nobody has said the password of the broker.
    page = _served(fleet, f"/reports/run/{run.run_id}")
    assert "shop" in page
    assert run.run_id[:8] in page
    assert PASSWORD not in said + "".join(line for one in workers.values() for line in one.lines)
    found = {one["probe"]: one for one in fleet.json("doctor")["findings"] if one["database"] is None}
    assert found["machines"]["message"].startswith("several: the broker answers")


def _until(session: psycopg.Connection[Any], question: str) -> None:
    """Until the server says yes."""
    for _ in range(6000):
        row = session.execute(question.encode()).fetchone()
        if row is not None and row[0]:
            return
        session.execute("select pg_sleep(0.02)")
    raise AssertionError(question)


def _served(fleet: Fleet, path: str) -> str:
    """What the status service on the hub answers."""
    with fleet.begin("dbplatform.cli.main", "serve", "--port", "8765") as service:
        try:
            Said(service).wait_for("reports: http://")
            with urllib.request.urlopen(f"http://127.0.0.1:8765{path}", timeout=60) as answer:
                return str(answer.read().decode())
        finally:
            service.kill()
