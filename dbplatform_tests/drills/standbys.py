"""Synchronous standbys that are lost: one that was there until somebody killed it, and one that never was."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dbplatform.postgres import standbys
from dbplatform.postgres.client_programs import login
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.postgres.embedded_support import wait_until

_NAME = "dbplatform standby"
_STREAMS = "select 1 from pg_stat_replication where application_name = %s and sync_state = 'sync'"
_WAITS = "select 1 from pg_stat_activity where wait_event = 'SyncRep'"
_COMMITS = "select pg_current_xact_id(), pg_logical_emit_message(true, 'test', 'test')"


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a standby half a second, not a minute."""
    monkeypatch.setattr(standbys, "LOOK_S", 0.1)
    monkeypatch.setattr(standbys, "LIMIT_S", 0.5)


@contextmanager
def standby_until_lost(url: str, folder: Path) -> Iterator[Callable[[], None]]:
    """A standby that has all WAL before a commit returns; gives what kills it. Afterwards nobody waits for any."""
    access = login(Target("the server", url), work=_NAME.removeprefix("dbplatform "))
    folder.mkdir()
    # It says after each write what it has on disk, as a standby does.
    receives = [find_programs().path("pg_receivewal"), "--synchronous", "--no-loop", f"--directory={folder}"]
    with (
        _named(url, f'"{_NAME}"') as session,
        subprocess.Popen([*receives, f"--dbname={access.dbname}"], env=access.environment) as standby,
    ):
        try:
            wait_until(lambda: session.execute(_STREAMS, (_NAME,)).fetchone())
            yield lambda: _end(standby)
        finally:
            _end(standby)


@contextmanager
def no_standby(url: str) -> Iterator[None]:
    """In the block every commit on the server waits for a standby that is not there."""
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(url, autocommit=True) as probe,
        _named(url, "gone") as session,
    ):
        waits: list[Future[object]] = []

        def waiting() -> bool:
            if not waits or waits[-1].done():
                waits.append(pool.submit(probe.execute, _COMMITS))
            return session.execute(_WAITS).fetchone() is not None

        wait_until(waiting)
        yield


@contextmanager
def _named(url: str, names: str) -> Iterator[psycopg.Connection[tuple[object]]]:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"alter system set synchronous_standby_names = '{names}'".encode())
        session.execute("select pg_reload_conf()")
        try:
            yield session
        finally:
            session.execute("alter system reset synchronous_standby_names")
            session.execute("select pg_reload_conf()")
            wait_until(lambda: session.execute(_WAITS).fetchone() is None)


def _end(standby: subprocess.Popen[bytes]) -> None:
    standby.kill()
    standby.wait()
