"""The WAL of a server that the platform does not run, of another major version: received, and restored from."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbplatform.backups.physical.slot import Slot, slot_name
from dbplatform.home import Home
from dbplatform_tests.installation import Installation
from dbplatform_tests.postgres.physical_support import until

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

_DECLARATION = """
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  backups:
    destination: backups
    physical: {wal_archive: true, max_slot_wal_mb: 64}
"""


@dataclass(frozen=True)
class Shop(Installation):
    """A project whose database lies on the second server."""

    url: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "SHOP_URL": self.url}

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def active(self) -> bool:
        return self.run("select active from pg_replication_slots") == [(True,)]

    @contextmanager
    def receiving(self) -> Iterator[subprocess.Popen[str]]:
        """``wal receive`` at work; ended by the test, or killed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dbplatform.cli.main", "wal", "receive", "shop"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: self.active or process.poll() is not None)
            assert process.poll() is None
            yield process
        finally:
            process.kill()
            process.communicate()


def command_lines(program: str) -> Iterator[bytes]:
    """Those of all processes of a program."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and program in (process / "comm").read_text():
                yield (process / "cmdline").read_bytes()


@pytest.fixture
def shop(second_server: SecondServer, tmp_path: Path) -> Iterator[Shop]:
    definition = tmp_path / "defs" / "shop" / "defs.yaml"
    definition.parent.mkdir(parents=True)
    definition.write_text(_DECLARATION)
    second_server.run("create database shop")
    made = Shop(Home(root=tmp_path / "home"), folder=tmp_path, url=second_server.url("shop"))
    try:
        made.run("create table numbered (number bigint generated always as identity, word text)")
        yield made
    finally:
        made.server.remove()
        second_server.run(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null"
        )
        until(lambda: not made.active)
        made.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
        second_server.run("drop database if exists shop_restored with (force)", "drop database shop with (force)")


def test_received_wal_restores_any_moment_also_behind_a_killed_receiver(shop: Shop) -> None:
    with shop.receiving() as receiver:
        backup = shop.here("backup", "create", "shop", "--kind", "physical")
        assert backup["status"] == "complete"
        shop.run("insert into numbered (word) select 'first' from generate_series(1, 10)")
        shop.run("select pg_switch_wal()")
        receiver.send_signal(signal.SIGKILL)
        receiver.wait()
    shop.run("insert into numbered (word) select 'while nobody received' from generate_series(1, 10)")
    shop.run("select pg_switch_wal()")
    with shop.receiving() as receiver:
        shop.run("insert into numbered (word) select 'second' from generate_series(1, 10)")
        [(moment,)] = shop.run("select clock_timestamp()")
        shop.run("delete from numbered")
        restored = shop.here("restore", "shop", "--time", moment.isoformat(), "--into", "shop_restored")
        assert [table["rows"] for table in restored["tables"]] == [30]
        [window] = shop.here("wal", "status", "shop")["windows"]
        assert window["missing"] is None
        receiver.terminate()
        assert receiver.wait(60) == 0
        until(lambda: not shop.active)
    told = shop.here("wal", "status", "shop")
    assert told["slot"]["name"] == slot_name(told["system_identifier"])
    assert (told["slot"]["active"], told["archiving"]) == (False, "off")


def test_a_second_receiver_is_refused_and_no_command_line_holds_the_password(shop: Shop) -> None:
    with shop.receiving():
        commands = list(command_lines("pg_receivewal"))
        assert commands
        assert all(b"only for tests" not in command for command in commands)
        second = shop.command("wal", "receive", "shop")
        assert second.returncode == 3
        assert "another process receives it" in second.stderr
        assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({}, None),
        ({"kept_bytes": 65 << 20}, "keeps 65.0 MB of WAL"),
        ({"wal_status": "lost"}, "has removed WAL"),
    ],
)
def test_what_a_slot_keeps_back_is_watched(change: dict[str, Any], finding: str | None) -> None:
    slot = Slot(**{
        "name": "s", "active": False, "wal_status": "reserved", "restart_lsn": "0/1000000", "kept_bytes": 1, **change
    })  # fmt: skip
    found = slot.finding(64 << 20)
    assert found is None if finding is None else finding in (found or "")
