"""The dead man's switch with real processes: the daemon killed, a sensor that raises, the embedded server stopped."""

from __future__ import annotations

import subprocess
import sys
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


def await_first_tick(installation: Installation) -> None:
    """Wait until the watch gives its first sign of life: the ledger tells."""
    with installation.connect("dbplatform_ledger") as ledger:
        ledger.execute("listen sign_of_life")
        ledger.execute(
            "create function tell() returns trigger language plpgsql as"
            " $$ begin perform pg_notify('sign_of_life', new.name); return null; end $$"
        )
        ledger.execute(
            "create trigger tell after insert or update on ledger.heartbeat for each row execute function tell()"
        )
        if ledger.execute("select from ledger.heartbeat where name = 'watch'").fetchone() is not None:
            return
        assert any(sign.payload == "watch" for sign in ledger.notifies(timeout=_START)), (
            "the watch gave no sign of life"
        )


def test_a_killed_daemon_a_raising_sensor_and_a_stopped_server_are_told_within_two_minutes(
    shop: Installation, receiver: Receiver
) -> None:
    ports = ("--port", str(free_port()), "--service-port", str(free_port()))
    with started(shop, "serve", "--port", str(free_port())):
        with started(shop, "dev", *ports) as dev:
            await_first_tick(shop)
            with shop.connect("dbplatform_ledger") as ledger:
                ledger.execute("alter table ledger.watch rename to watch_is_gone")
            assert receiver.wait_for("[critical] dbplatform: watch", seconds=_WITHIN), receiver.titles
            with shop.connect("dbplatform_ledger") as ledger:
                ledger.execute("alter table ledger.watch_is_gone rename to watch")
            assert receiver.wait_for("[resolved] dbplatform: watch", seconds=_START), receiver.titles

            receiver.taken.clear()
            dev.kill()
        assert receiver.wait_for("[critical] dbplatform: watch", seconds=_WITHIN), receiver.titles
        assert len([title for title in receiver.titles if "dbplatform: watch" in title]) == 1

        receiver.taken.clear()
        shop.server.stop()
        assert receiver.wait_for("[critical] dbplatform: the ledger does not answer", seconds=_WITHIN), receiver.titles
        shop.server.start()
        assert receiver.wait_for("[resolved] dbplatform: the ledger answers", seconds=_WITHIN), receiver.titles
