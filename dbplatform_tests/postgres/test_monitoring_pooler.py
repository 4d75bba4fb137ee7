"""The pools of a real PgBouncer as metrics: full, waited for, and one that is away."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring import pooler as pools_of
from dbplatform.monitoring.errors import PoolerSilent
from dbplatform.monitoring.metrics import Metrics
from dbplatform.operations import watching
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.processes import free_port
from dbplatform_tests.postgres.embedded_support import open_folder, wait_until
from dbplatform_tests.postgres.test_doctor_pooler import CONFIGURATION

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

_DECLARED = """\
type: dbplatform.ManagedDatabase
attributes:
  name: pooled
  connection: {url_env: POOLED_URL, pgbouncer_url_env: CONSOLE_URL}
"""
_POOLER = "pool_mode = transaction\ndefault_pool_size = 2\nstats_users = postgres\nmax_client_conn = 20"


@pytest.fixture
def pooler(second_server: SecondServer) -> Iterator[int]:
    """A PgBouncer with two server connections for each pool; its port."""
    program = which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert program is not None, "there is no PgBouncer: see dbplatform_tests/debian.sh"
    second_server.run("drop database if exists pooled with (force)", "create database pooled")
    with open_folder() as folder:
        account = account_for(folder)
        account.own(folder)
        port = free_port()
        words = {"server": second_server.port, "port": port, "folder": folder, "more": _POOLER}
        (folder / "ini").write_text(CONFIGURATION.format(**words))
        (folder / "users").write_text('"postgres" "only for tests"\n')
        for file in folder.iterdir():
            account.own(file)
        started = account.run([program, "-d", "-q", folder / "ini"], cwd=folder, new_session=True)
        assert started.returncode == 0, started.stderr
        wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
        try:
            yield port
        finally:
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
            wait_until(lambda: not (folder / "pid").exists())


def test_a_full_pool_its_queue_and_a_pooler_that_is_away(
    second_server: SecondServer, pooler: int, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "defs" / "pooled" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_DECLARED)
    through = second_server.url("pooled").replace(str(second_server.port), str(pooler))
    console = second_server.url("pgbouncer").replace(str(second_server.port), str(pooler))
    monkeypatch.setenv("POOLED_URL", second_server.url("pooled"))
    monkeypatch.setenv("CONSOLE_URL", console)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    platform = Platform(Project.at(tmp_path))
    declared = platform.declarations.get("pooled")

    def look() -> Metrics:
        return watching.measure(platform, declared)

    assert look().absent["pool_used_ratio"] == "PgBouncer has no pool to it yet"
    with psycopg.connect(through) as one, psycopg.connect(through) as other, psycopg.connect(through) as third:
        one.execute("select 1")
        half = look().values["pool_used_ratio"]
        assert (half.value, half.labels) == (0.5, {"pool": "pooled/postgres"})
        other.execute("select 1")
        waiting = threading.Thread(target=third.execute, args=("select 1",))
        waiting.start()
        wait_until(lambda: look().values["pool_waiting_clients"].value == 1)
        found = look().values
        assert (found["pool_used_ratio"].value, found["pool_wait_s"].value > 0) == (1.0, True)
        one.rollback()
        waiting.join()
        other.rollback()
        third.rollback()
    monkeypatch.setenv("CONSOLE_URL", console.replace(str(pooler), "1"))
    away = look()
    assert "pool_used_ratio" in away.unmeasured
    assert "only for tests" not in away.unmeasured["pool_used_ratio"]
    platform.ledger.engine.dispose()


@pytest.fixture
def hanging() -> Iterator[Target]:
    """A console that lets everybody in and then answers nothing."""

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.recv(1024)
            peer.sendall(b"R" + struct.pack("!II", 8, 0) + b"Z" + struct.pack("!I", 5) + b"I")
            while peer.recv(1024):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Target("the pooler", f"postgresql://a@127.0.0.1:{listening.getsockname()[1]}/pgbouncer?sslmode=disable")
        thread.join(timeout=10)
        assert not thread.is_alive(), "nobody hung up"


def test_a_pooler_that_does_not_answer_holds_nobody_up(hanging: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools_of, "_ANSWER_S", 0.1)
    with pytest.raises(PoolerSilent):
        pools_of.pools(hanging, "pooled")
