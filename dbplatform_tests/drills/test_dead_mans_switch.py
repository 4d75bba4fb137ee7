"""The dead man's switch with real processes: the daemon killed, a sensor that raises, the embedded server stopped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbplatform_tests.installation import Installation, free_port, small_project
from dbplatform_tests.receiver import Receiver

pytestmark = pytest.mark.drill

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  notify: [{url_env: ALERT_URL}]
"""
_MIGRATION = "create table item (id int primary key, name text);"
#: The promise, in seconds, and what a busy machine may take to start Dagster.
_WITHIN, _START = 120.0, 300.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def shop(tmp_path: Path, receiver: Receiver) -> Iterator[Installation]:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as installation:
        installation.variables["ALERT_URL"] = receiver.url
        installation.json("run", "shop")
        yield installation


@contextmanager
def started(installation: Installation, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dbplatform.cli.main", *arguments],
        cwd=installation.folder,
        env=installation.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def until(told: Receiver, words: str, *, seconds: float) -> float:
    """How long it took until such a title arrived."""
    begun = time.monotonic()
    while not any(words in title for title in told.titles):
        assert time.monotonic() - begun < seconds, told.titles
        time.sleep(0.2)
    return time.monotonic() - begun


def watched(installation: Installation) -> None:
    """Wait for the first tick of the watch."""
    begun = time.monotonic()
    while True:
        with installation.connect("dbplatform_ledger") as ledger:
            if ledger.execute("select from ledger.heartbeat where name = 'watch'").fetchone() is not None:
                return
        assert time.monotonic() - begun < _START
        time.sleep(0.5)


def test_a_killed_daemon_a_raising_sensor_and_a_stopped_server_are_told_within_two_minutes(
    shop: Installation, receiver: Receiver
) -> None:
    ports = ("--port", str(free_port()), "--service-port", str(free_port()))
    with started(shop, "serve", "--port", str(free_port())):
        with started(shop, "dev", *ports) as dev:
            watched(shop)
            with shop.connect("dbplatform_ledger") as ledger:
                ledger.execute("alter table ledger.watch rename to watch_is_gone")
            assert until(receiver, "[critical] dbplatform: watch", seconds=_WITHIN) > 0
            with shop.connect("dbplatform_ledger") as ledger:
                ledger.execute("alter table ledger.watch_is_gone rename to watch")
            assert until(receiver, "[resolved] dbplatform: watch", seconds=_START) > 0

            receiver.taken.clear()
            dev.kill()
        assert until(receiver, "[critical] dbplatform: watch", seconds=_WITHIN) > 0
        assert len([title for title in receiver.titles if "dbplatform: watch" in title]) == 1

        receiver.taken.clear()
        shop.server.stop()
        assert until(receiver, "[critical] dbplatform: the ledger does not answer", seconds=_WITHIN) > 0
        shop.server.start()
        assert until(receiver, "[resolved] dbplatform: the ledger answers", seconds=_WITHIN) > 0
