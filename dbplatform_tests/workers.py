"""A broker, a project, and runs whose steps workers execute: what the tests of workers share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.installation import REPOSITORY

_SECONDS = 600
PASSWORD = "only-for-tests-of-workers"

SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  migrations: {}
  quality: [{table: public.item, checks: [{row_count: {min: 1}}]}]
"""


@contextmanager
def redis_server(port: int, *, host: str = "127.0.0.1") -> Iterator[str]:
    """The URL of a new, empty Redis that keeps nothing on disk."""
    settings = f'bind {host}\nport {port}\nrequirepass {PASSWORD}\nsave ""\nappendonly no\n'
    with subprocess.Popen(
        ["redis-server", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(settings)
            process.stdin.close()
            said = Said(process)
            said.wait_for("Ready to accept connections")
            yield f"redis://:{PASSWORD}@{host}:{port}/0"
        finally:
            process.kill()


class Said:
    """What a process says, read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, list[str]()
        self._more = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()
        with self._more:
            self.lines.append("(it has ended)\n")
            self._more.notify_all()

    def wait_for(self, words: str) -> None:
        """Until it has said these words; fails when it ends without them."""
        with self._more:
            assert self._more.wait_for(
                lambda: any(words in line or line.startswith("(it has ended)") for line in self.lines), _SECONDS
            ), "".join(self.lines)
        assert any(words in line for line in self.lines), "".join(self.lines)


def worker_command(name: str) -> list[str]:
    return [sys.executable, "-m", "dbplatform.cli.main", "worker", "--name", name]


def execute_command(job: str) -> list[str]:
    return [sys.executable, "-m", "dagster", "job", "execute", "-m", "dbplatform.definitions", "-j", job]


def execute(job: str, *, cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Execute a job with the executor that is its own, as a run of the UI or of a schedule is."""
    return subprocess.run(
        execute_command(job),
        cwd=cwd,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def newest_run(instance: dg.DagsterInstance) -> tuple[dg.DagsterRun, dict[str, str]]:
    """The newest run, and which worker each of its steps was given to, by the name of both."""
    [record] = instance.get_run_records(limit=1)
    run = record.dagster_run
    taken: dict[str, str] = {}
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        data: Any = event.engine_event_data if event is not None else None
        worker = data.metadata.get("Celery worker") if data is not None else None
        if event is not None and event.step_key is not None and worker is not None:
            taken[event.step_key.replace("__", "/")] = str(worker.value).partition("@")[0]
    return run, taken


@contextmanager
def begun(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process, its output to be read; killed at the end, if it is still there."""
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def shop_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one database; nothing of the environment says where anything lies."""
    for name in [name for name in os.environ if name.startswith(("DBPLATFORM_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DBPLATFORM_HOME", str(folder / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "home" / "dagster"))
    monkeypatch.setenv("SHOP_URL", "postgresql://nobody@127.0.0.1:1/shop")
    declare(folder, SHOP)
    migrations = folder / "defs" / "shop" / "migrations"
    migrations.mkdir()
    (migrations / "V1__item.sql").write_text("create table item (at timestamptz); insert into item values (now());")
    return Project.at(folder)


def declare(folder: Path, text: str) -> None:
    file = folder / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def spread_environment(project: Project, database: Target, ledger: Ledger, broker: str) -> dict[str, Any]:
    """What the worker and the run share; Dagster's tables lie beside those of the test."""
    home = project.root / "home"
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text(
        (REPOSITORY / "dbplatform" / "orchestration" / "dagster.yaml").read_text()
    )
    there = conninfo_to_dict(ledger.target.url)
    who = f"{there['user']}:{quote(str(there['password']), '')}"
    url = f"{who}@{there['host']}:{there['port']}/{there['dbname']}"
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "SHOP_URL": database.url,
        "DBPLATFORM_LEDGER_URL": ledger.target.url,
        "DBPLATFORM_DAGSTER_URL": f"postgresql+psycopg2://{url}",
        "DBPLATFORM_CELERY_URL": broker,
        "DBPLATFORM_PROJECT": str(project.root),
        "DBPLATFORM_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
    }
