"""Tablespaces come along in a base backup, and no recovery touches the places that the live server uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from dbplatform.backups.drill import drill
from dbplatform.backups.physical.archive import WalArchive
from dbplatform.backups.physical.base import create_base
from dbplatform.backups.physical.cluster import Cluster, recovering
from dbplatform.backups.physical.errors import (
    BaseBackupFailed,
    RecoveryFailed,
    TablespaceCreated,
    WalNotLookedThrough,
)
from dbplatform.backups.physical.feed import Feed
from dbplatform.backups.physical.recover import recover_database
from dbplatform.backups.physical.tablespaces import created_in
from dbplatform.backups.physical.targets import Moment
from dbplatform.backups.physical.wal import Segments
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.programs import find_programs
from dbplatform.storage.store import store_at
from dbplatform_tests.postgres.backups_support import NAME, back_up, named_database, new_name, programs_with
from dbplatform_tests.postgres.backups_support import server as server_at
from dbplatform_tests.postgres.embedded_support import IS_ROOT
from dbplatform_tests.postgres.physical_support import Archiving, archiving


@pytest.fixture
def server(ledger: Ledger) -> Iterator[Archiving]:
    with archiving(ledger) as made:
        yield made


def place(server: Archiving, name: str) -> Path:
    """A folder for a tablespace, of the server's user."""
    folder = server.root / name
    folder.mkdir(mode=0o700)
    if IS_ROOT:
        owner = server.spool.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def moment(server: Archiving) -> datetime:
    [(now,)] = server.run("select clock_timestamp()")
    return now  # type: ignore[no-any-return]


def test_a_tablespace_is_recovered_inside_the_recovered_server_and_its_own_place_is_not_touched(
    server: Archiving,
) -> None:
    folder = place(server, "fast = disk")
    server.run(f"create tablespace fast location '{folder}'")
    server.run("alter table numbered set tablespace fast")
    server.write(3)
    server.base()
    server.write(2)
    then = moment(server)
    server.write(1)
    server.switch()
    server.run("checkpoint")
    before = content(folder)
    with recovering(server.plan(time=then), server.place, server.ledger, programs=find_programs()) as cluster:
        [inside] = (cluster.data / "pg_tblspc").iterdir()
        assert inside.is_dir()
        assert not inside.is_symlink()
        cluster.recover(Moment(words="then", time=then))
        with psycopg.connect(cluster.target("shop").url) as connection:
            assert connection.execute("select count(*) from numbered").fetchone() == (5,)
    assert content(folder) == before
    assert not any(path.is_file() for path in (server.root / "work").rglob("*"))


@pytest.mark.drill
def test_a_server_without_tablespaces_takes_everything_into_its_default_one(server: Archiving, server_url: str) -> None:
    server.run(f"create tablespace fast location '{place(server, 'fast')}'")
    server.run("alter table numbered set tablespace fast")
    server.write(3)
    server.base()
    then = moment(server)
    server.write(1)
    server.switch()
    elsewhere, programs = server_at(server_url), find_programs()
    assert server.recovered(time=then) == {1, 2, 3}
    with named_database(server_url, new_name()) as target:
        plan = server.plan(time=then)
        recover_database(plan, elsewhere, target.name, server.ledger, place=server.place, programs=programs)
        with psycopg.connect(target.url) as connection:
            assert connection.execute("select count(*) from numbered").fetchone() == (3,)
    logical = back_up(server.shop, server.backups, server.ledger)
    assert drill(logical, server.ledger, elsewhere, programs=programs).proven


@pytest.mark.drill
def test_an_incremental_base_backup_holds_tablespaces_too(server: Archiving) -> None:
    folder = place(server, "fast")
    server.run(f"create tablespace fast location '{folder}'")
    server.run("alter table numbered set tablespace fast")
    server.write(3)
    server.base()
    server.write(3)
    incremental = server.base(incremental=6)
    server.write(1)
    then = moment(server)
    server.write(1)
    server.switch()
    plan = server.plan(time=then)
    assert [link.id for link, _ in plan.chain][-1:] == [incremental.id]
    assert len(plan.chain) == 2
    assert server.recovered(time=then) == set(range(1, 8))


def test_a_recovery_stops_before_it_would_create_a_tablespace_where_the_live_server_is(server: Archiving) -> None:
    server.write(2)
    server.base()
    server.write(1)
    before = moment(server)
    server.write(1)
    server.switch()
    folder = place(server, "late")
    server.run(f"create tablespace late location '{folder}'")
    server.run("create table there tablespace late as select 1 as one")
    server.run("checkpoint")
    after = moment(server)
    server.write(1)
    server.switch()
    untouched = content(folder)
    assert untouched
    assert server.recovered(time=before) == {1, 2, 3}
    with pytest.raises(TablespaceCreated, match=f"creates the tablespace in {folder}") as refused:
        server.recovered(time=after)
    assert "take a base backup now" in (refused.value.hint or "")
    assert content(folder) == untouched
    assert server.run("select one from there") == [(1,)]
    server.base()
    then = moment(server)
    server.write(1)
    server.switch()
    assert server.recovered(time=then) == {1, 2, 3, 4, 5}


def recovering_server(folder: Path) -> Cluster:
    """One that has not begun, with a feed that has refused WAL."""
    feed = Feed(
        folder=folder / "feed",
        account=account_for(folder),
        archive=WalArchive("1", store_at(str(folder / "wal"))),
        wal=(),
        others=(),
        task="recover",
        waldump=folder,
        segments=Segments(16 << 20),
    )
    feed.make()
    feed.refusal = TablespaceCreated(lsn="0/1", location="/somewhere", hint="Choose a moment before it.")
    (feed.folder / "wanted" / "000000010000000000000002").touch()
    plan: Any = SimpleNamespace(database=NAME)
    return Cluster(
        plan=plan,
        folder=folder,
        socket=folder,
        account=feed.account,
        programs=find_programs(),
        feed=feed,
        control={},
    )


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("FATAL:  recovery ended before configured recovery target was reached", TablespaceCreated),
        ("FATAL:  WAL ends before consistent recovery point", TablespaceCreated),
        ("PANIC:  could not write to file: No space left on device", RecoveryFailed),
        ("LOG:  startup process (PID 7) was terminated by signal 9: Killed", RecoveryFailed),
    ],
)
def test_wal_that_was_refused_is_the_cause_only_where_the_recovery_had_no_more(
    tmp_path: Path, said: str, failure: type[Exception]
) -> None:
    cluster = recovering_server(tmp_path)
    (tmp_path / "log").write_text(f"2026-01-31 12:00:00 UTC {said}\n")
    assert type(cluster._ended(Moment(words="then"))) is failure
    cluster.feed.begin()
    assert cluster.feed.refusal is None, "it was of the recovery before"
    assert not any((cluster.feed.folder / "wanted").iterdir())


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", "pg_waldump was ended by signal 9"),
        ("echo 'pg_waldump: error: could not find file \"0001\": gone' >&2; kill -9 $$", "ended by signal 9"),
        ("echo 'pg_waldump: error: out of memory' >&2; exit 1", "out of memory"),
        ("echo 'pg_waldump: error: error in WAL record at 0/1: out of memory' >&2; exit 1", "out of memory"),
        ("exit 127", "ended with code 127"),
    ],
)
def test_wal_that_could_not_be_looked_through_is_not_taken_for_harmless(tmp_path: Path, script: str, said: str) -> None:
    waldump = programs_with(tmp_path / "programs", "pg_waldump", script).path("pg_waldump")
    with pytest.raises(WalNotLookedThrough, match=said):
        created_in(tmp_path, waldump, timeline=1, start=1 << 24, end=2 << 24)


@pytest.mark.parametrize(
    "words",
    [
        "could not find a valid record after 0/1000000",
        "error in WAL record at 0/1000028: invalid record length at 0/1000060: expected at least 24, got 0",
        'could not find file "000000010000000000000002": No such file or directory',
    ],
)
def test_where_the_wal_ends_nothing_more_can_be_created(tmp_path: Path, words: str) -> None:
    script = f"echo 'pg_waldump: error: {words}' >&2; exit 1"
    waldump = programs_with(tmp_path / "programs", "pg_waldump", script).path("pg_waldump")
    assert created_in(tmp_path, waldump, timeline=1, start=1 << 24, end=2 << 24) is None


@pytest.mark.drill
def test_a_tablespace_that_is_created_too_late_to_be_mapped_fails_the_base_backup(
    server: Archiving, tmp_path: Path
) -> None:
    folder = place(server, "meanwhile")
    create = f"create tablespace meanwhile location '{folder}'"
    script = f'"$REAL/psql" -X -q -d postgres -c "{create}" && exec "$REAL/pg_basebackup" "$@"'
    programs = programs_with(tmp_path / "programs", "pg_basebackup", script)
    with pytest.raises(BaseBackupFailed, match="meanwhile"):
        create_base(server.shop, server.destination, server.ledger, database=NAME, programs=programs, incremental=0)
    assert {path.name for path in folder.iterdir()} == {path.name for path in folder.glob("PG_*")}
    server.run("create table there tablespace meanwhile as select 1 as one")
    assert server.run("select one from there") == [(1,)]
