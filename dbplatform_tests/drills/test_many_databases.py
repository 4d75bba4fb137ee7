"""A hundred databases in one tick, some of them broken in every way: bounded, alone at each, none hides another."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring import record
from dbplatform.operations import alerts
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform_tests.drills.matrix import cases

_DECLARED = """\
type: dbplatform.ManagedDatabase
attributes:
  name: {name}
  connection: {{url_env: {variable}}}
"""


@contextmanager
def mute() -> Iterator[int]:
    """A port that takes connections and never says a word: what a dead firewall looks like."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("databases", "refused", "silent"), cases((100, 10, 5), (12, 2, 1), sample=[12]))
def test_broken_databases_hide_no_other_and_hold_no_tick_up(
    database: Target,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    databases: int,
    refused: int,
    silent: int,
) -> None:
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WELL_URL", database.url)
    monkeypatch.setenv("REFUSED_URL", "postgresql://someone@127.0.0.1:1/nothing")
    with mute() as port:
        monkeypatch.setenv("SILENT_URL", f"postgresql://someone@127.0.0.1:{port}/nothing?connect_timeout=2")
        kinds = ["REFUSED_URL"] * refused + ["SILENT_URL"] * silent
        kinds += ["WELL_URL"] * (databases - len(kinds))
        for number, variable in enumerate(kinds):
            file = tmp_path / "defs" / f"d{number:03}" / "defs.yaml"
            file.parent.mkdir(parents=True)
            file.write_text(_DECLARED.format(name=f"d{number:03}", variable=variable))
        platform = Platform(Project.at(tmp_path))
        declared = platform.declarations.databases
        seen: set[str] = set()
        now = datetime.now(UTC)
        for tick in range(3):  # what one tick does not reach, the next one begins with
            looks, failed = alerts.watch_all(platform, declared, now=now + timedelta(minutes=tick), runs={})
            assert all("not done after" in why or "StillBusy" in why for why in failed.values()), failed
            seen |= {look.database for look in looks if look.metrics is not None or look.problem is not None}
            if len(seen) == databases:
                break
        well = [one.name for one in declared if one.database.connection.url_env == "WELL_URL"]
        assert seen == {one.name for one in declared}
        assert all(record.latest(ledger, name) is not None for name in well)
        platform.ledger.engine.dispose()


def test_a_database_at_which_a_look_still_works_is_not_looked_at_twice() -> None:
    begun, go_on = threading.Event(), threading.Event()
    times: list[str] = []

    def work(name: str) -> str:
        times.append(name)
        begun.set()
        assert go_on.wait(60)
        return name

    done, failed = alerts._side_by_side(work, {"slow": "slow"}, workers=2, seconds=0.0)
    assert begun.wait(60)
    assert (done, "not done after" in failed["slow"]) == ({}, True)
    done, failed = alerts._side_by_side(work, {"slow": "slow"}, workers=2, seconds=60.0)
    assert (done, times) == ({}, ["slow"])
    assert "has not ended yet" in failed["slow"]
    go_on.set()
    deadline = time.monotonic() + 60
    while alerts._busy:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert alerts._side_by_side(work, {"slow": "slow"}, workers=2, seconds=60.0) == ({"slow": "slow"}, {})
