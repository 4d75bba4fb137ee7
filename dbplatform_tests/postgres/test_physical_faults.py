"""Physical backups under faults: no wrong success, nothing half-made that looks whole, nothing left behind.

One server and one base backup for all cases; a case damages a copy of its files, or kills the work at a chosen point.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, list_backups
from dbplatform.backups.errors import BackupDamaged, BackupUnreadable, NoRoom, NoSameProgram
from dbplatform.backups.physical import base as base_module
from dbplatform.backups.physical import cluster as cluster_module
from dbplatform.backups.physical import witness
from dbplatform.backups.physical.base import create_base, verify_base
from dbplatform.backups.physical.errors import (
    BaseBackupFailed,
    BaseBackupRunning,
    NoPhysicalBackup,
    RecoveryFailed,
    ReplicationForbidden,
    WalDamaged,
)
from dbplatform.backups.physical.recover import RecoveryReport, recover_database
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.targets import RecoveryPlan
from dbplatform.errors import PlatformError
from dbplatform.home import Home
from dbplatform.ledger.backups import BackupRecord
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.programs import Programs, find_programs
from dbplatform.postgres.standbys import StandbyDoesNotAnswer
from dbplatform_tests.drills.breaking import crash
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.standbys import hurry, no_standby
from dbplatform_tests.postgres.backups_support import databases, flip_byte, programs_with
from dbplatform_tests.postgres.physical_support import NAME, Archiving, archiving, killed_at, ledger_of

#: The name that killed restores restore into.
KILLED = "killed_one"
_STEPS = ("started", "witnessed", "copied", "verified", "packed", "described", "published", "recorded")


@dataclass(frozen=True, kw_only=True)
class Past:
    server: Archiving
    backup: Backup
    wal: tuple[str, ...]
    """The two segments behind the base backup."""
    moment: datetime
    """Behind row 15, in the second of them."""


@pytest.fixture(scope="module")
def past(server_url: str, ledger_template: str) -> Iterator[Past]:
    with ledger_of(server_url, ledger_template) as ledger, archiving(ledger) as server:
        backup = server.base()
        server.write(10)
        first = server.switch()
        server.write(10)
        second = server.switch()
        yield Past(server=server, backup=backup, wal=(first, second), moment=server.commit_times()[15])


def _first(path: Path) -> None:
    _flip(path, 3)


def _last(path: Path) -> None:
    _flip(path, -1)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _one_byte_less(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


_DAMAGES = (flip_byte, _first, _last, _cut, _one_byte_less, _empty, Path.unlink, _folder)


@contextmanager
def damaged(path: Path, damage: Callable[[Path], None], server: Archiving) -> Iterator[None]:
    """The file damaged for the block; what the ledger came to know of it is forgotten afterwards."""
    aside = server.root / "aside"
    shutil.copy2(path, aside)
    try:
        damage(path)
        yield
    finally:
        if path.is_dir():
            path.rmdir()
        shutil.move(aside, path)
        with server.ledger.session() as session:
            for record in session.query(BackupRecord):
                record.damage = None


def carry_out(server: Archiving, plan: RecoveryPlan) -> RecoveryReport:
    """What was planned before something happened to its files."""
    return recover_database(plan, server.server, KILLED, server.ledger, place=server.place, programs=find_programs())


def nothing_is_left(server: Archiving) -> bool:
    """Neither databases of our own naming nor folders of recoveries nor their processes."""
    return databases(server.server.url) == [] and list(server.place.glob("*")) == []


@pytest.mark.parametrize(
    ("file", "damage"),
    cases(
        *((name, damage) for name in ("base.tar.zst", "backup_manifest", "manifest.json") for damage in _DAMAGES),
        sample=[("base.tar.zst", flip_byte), ("manifest.json", Path.unlink)],
    ),
)
def test_a_damaged_base_backup_restores_nothing(past: Past, file: str, damage: Callable[[Path], None]) -> None:
    server = past.server
    plan = server.plan(time=past.moment)
    with damaged(past.backup.folder / file, damage, server):
        try:
            found = verify_base(past.backup, server.ledger)
        except BackupUnreadable:
            assert damage is _folder
        else:
            assert not found.passed
        with pytest.raises((NoPhysicalBackup, BackupDamaged, BackupUnreadable)):
            server.recover(KILLED, time=past.moment)
        if file != "manifest.json" and damage is not _folder:
            with pytest.raises(BackupDamaged):
                carry_out(server, plan)
            [listed] = [b for b in list_backups(server.ledger, key_of(server.system)) if b.id == past.backup.id]
            assert listed.damage is not None
    assert KILLED not in databases(server.server.url, "")
    assert nothing_is_left(server)


@pytest.mark.parametrize(
    ("which", "damage"),
    cases(
        *((which, damage) for which in (0, 1) for damage in _DAMAGES),
        sample=[(0, flip_byte), (1, Path.unlink)],
    ),
)
def test_damaged_wal_restores_nothing(past: Past, which: int, damage: Callable[[Path], None]) -> None:
    server = past.server
    plan = server.plan(time=past.moment)
    [file] = server.wal(server.system).glob(f"{past.wal[which]}-*")
    with damaged(file, damage, server), pytest.raises((WalDamaged, OSError)):
        carry_out(server, plan)
    assert KILLED not in databases(server.server.url, "")
    assert nothing_is_left(server)


def test_wal_that_ends_before_the_target_fails_and_does_not_hang(past: Past) -> None:
    server = past.server
    plan = server.plan(time=past.moment)
    with pytest.raises(RecoveryFailed, match="recovery ended before configured recovery target was reached"):
        carry_out(server, replace(plan, wal=plan.wal[:1]))
    assert nothing_is_left(server)


@pytest.mark.parametrize(
    "fact",
    cases(
        "cleared", "unpacked", "verified", "recovered", "created", "copied", "compared", "renamed",
        sample=["copied"],
    ),
)  # fmt: skip
def test_a_killed_recovery_leaves_nothing_that_looks_restored_and_the_next_one_clears_up(past: Past, fact: str) -> None:
    server = past.server
    killed_at("recover", fact, server, into=KILLED, time=past.moment)
    names = databases(server.server.url, "")
    if KILLED in names:
        assert fact == "renamed"
        with psycopg.connect(make_conninfo(server.server.url, dbname=KILLED)) as connection:
            assert connection.execute("select count(*) from numbered").fetchone() == (15,)
        with psycopg.connect(server.server.url, autocommit=True) as connection:
            connection.execute(f"drop database {KILLED} with (force)".encode())
    assert server.recovered(time=past.moment) == set(range(1, 16))
    assert nothing_is_left(server)


@pytest.mark.parametrize(
    "fact",
    cases(*_STEPS, sample=["published"]),
)
def test_a_killed_base_backup_is_whole_or_nothing(past: Past, fact: str) -> None:
    server = past.server
    key = key_of(server.system)
    before = {backup.id for backup in list_backups(server.ledger, key, pruned=True)}
    killed_at("base", fact, server)
    complete = server.base()
    [killed] = [
        backup for backup in list_backups(server.ledger, key, pruned=True) if backup.id not in before | {complete.id}
    ]
    assert killed.status == ("complete" if fact in ("published", "recorded") else "failed")
    if killed.status == "complete":
        assert verify_base(killed, server.ledger).passed
    folders = {path.name for path in (server.backups / key).iterdir() if path.name != "wal"}
    assert folders == {b.id for b in list_backups(server.ledger, key) if b.status == "complete"}


@pytest.mark.parametrize("fact", cases(*_STEPS, sample=()))
def test_a_base_backup_whose_server_crashes_is_whole_or_nothing(past: Past, fact: str) -> None:
    embedded = EmbeddedServer(Home(root=past.server.root / "home"), settings={"fsync": "off"}, archive_wal=lambda: True)
    whole_or_nothing(past.server, fact, lambda: crash(embedded))


@pytest.mark.parametrize("fact", cases(*_STEPS, sample=()))
def test_a_base_backup_whose_sessions_are_cut_is_whole_or_nothing(past: Past, fact: str) -> None:
    everybody = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where pid <> pg_backend_pid() and %s"
    mine = "(application_name ~ '^dbplatform' or backend_type = 'walsender')"
    whole_or_nothing(past.server, fact, lambda: past.server.run(everybody % mine))


def whole_or_nothing(server: Archiving, fact: str, do: Callable[[], object]) -> None:
    """A base backup during which something is done at the fact: it fails and leaves nothing, or it verifies."""
    key, done = key_of(server.system), []
    before = {backup.id for backup in list_backups(server.ledger, key, pruned=True)}

    def hear(heard: progress.Progress) -> None:
        if heard.task.endswith(f": {fact}") and not done:
            done.append(fact)
            do()

    with progress.listening(hear), suppress(PlatformError):
        server.base()
    assert done == [fact]
    server.base()
    made = [backup for backup in list_backups(server.ledger, key, pruned=True) if backup.id not in before]
    assert [backup.status for backup in made[:1]] == ["complete"], "the next one is there"
    for backup in made:
        assert backup.status in ("complete", "failed")
        assert backup.status == "failed" or verify_base(backup, server.ledger).passed
    folders = {path.name for path in (server.backups / key).iterdir() if path.name != "wal"}
    assert folders == {b.id for b in list_backups(server.ledger, key) if b.status == "complete"}


@pytest.mark.parametrize(
    ("program", "script", "why"),
    cases(
        ("pg_basebackup", 'echo "pg_basebackup: error: no space" >&2; exit 1', "no space"),
        ("pg_basebackup", "exit 3", "ended with code 3"),
        ("pg_basebackup", "kill -9 $$", "was ended by signal 9"),
        ("pg_basebackup", '"$REAL/pg_basebackup" "$@"; echo "pg_basebackup: error: lost" >&2', "lost"),
        ("pg_verifybackup", 'echo "pg_verifybackup: error: checksum mismatch" >&2; exit 1', "checksum mismatch"),
        sample=["pg_verifybackup"],
    ),
)
def test_a_base_backup_whose_program_fails_leaves_no_file(
    past: Past, tmp_path: Path, program: str, script: str, why: str
) -> None:
    server = past.server
    programs = programs_with(tmp_path / "bin", program, script)
    key = key_of(server.system)
    folders = set((server.backups / key).iterdir())
    with pytest.raises(BaseBackupFailed, match=why):
        create_base(server.shop, server.destination, server.ledger, database=NAME, programs=programs, incremental=0)
    assert set((server.backups / key).iterdir()) == folders
    assert list_backups(server.ledger, key)[0].status == "failed"


def test_a_bit_that_flips_while_the_server_is_copied_is_found(past: Past) -> None:
    server = past.server

    def flip(fact: progress.Progress) -> None:
        if fact.task.endswith(": copied"):
            [data] = server.backups.glob("server-*/.*.partial/data")
            flip_byte(max((data / "base").rglob("*"), key=lambda path: path.stat().st_size))

    with progress.listening(flip), pytest.raises(BaseBackupFailed, match="pg_verifybackup says"):
        server.base()


def test_a_second_base_backup_at_the_same_time_is_refused(past: Past) -> None:
    refused = []

    def again(fact: progress.Progress) -> None:
        if fact.task.endswith(": started") and not refused:
            with pytest.raises(BaseBackupRunning) as error:
                past.server.base()
            refused.append(error.value)

    with progress.listening(again):
        assert past.server.base().status == "complete"
    assert len(refused) == 1


def test_a_table_that_stays_locked_is_left_out_of_the_witness_and_holds_no_base_backup_up(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = past.server
    monkeypatch.setattr(witness, "LOCK_WAIT_MS", 100)
    with psycopg.connect(server.shop.url) as holder:
        holder.execute("lock table quiet in access exclusive mode")
        backup = server.base()
        newest = [one for one in witness.witnesses(server.ledger, server.system) if one.tables][-1]
        assert set(newest.tables) == {"public.numbered"}, "it says nothing of what it has not read"
        with connect(server.shop, work="test") as connection:
            assert set(witness.quiet_tables(connection, newest)) == {"public.numbered"}
            older = next(one for one in witness.witnesses(server.ledger, server.system) if one.tables)
            assert "public.quiet" in older.tables.keys() - witness.quiet_tables(connection, older).keys()
            assert connection.execute("show lock_timeout").fetchone() == ("0",)
    assert verify_base(backup, server.ledger).passed
    server.base()
    assert set(witness.witnesses(server.ledger, server.system)[-2].tables) == {"public.numbered", "public.quiet"}


@pytest.mark.drill
def test_a_base_backup_whose_commits_wait_for_a_lost_standby_fails_and_the_next_is_whole(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = past.server
    hurry(monkeypatch)
    with no_standby(server.server.url), pytest.raises(StandbyDoesNotAnswer):
        server.base()
    complete = server.base()
    key = key_of(server.system)
    assert [backup.status for backup in list_backups(server.ledger, key, pruned=True)][:2] == ["complete", "failed"]
    assert verify_base(complete, server.ledger).passed
    folders = {path.name for path in (server.backups / key).iterdir() if path.name != "wal"}
    assert folders == {b.id for b in list_backups(server.ledger, key) if b.status == "complete"}


def test_no_room_is_said_before_anything_is_copied(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, needed: int, *, work: str) -> None:
        raise NoRoom(folder=str(folder), free="1 MB", work=work, needed=str(needed))

    server = past.server
    monkeypatch.setattr(base_module, "require_room", full)
    monkeypatch.setattr(cluster_module, "require_room", full)
    with pytest.raises(NoRoom, match="a base backup of"):
        server.base()
    with pytest.raises(NoRoom, match="the recovered server of shop"):
        server.recover(KILLED, time=past.moment)
    assert nothing_is_left(server)


def test_what_a_server_forbids_is_said_in_one_sentence(past: Past) -> None:
    server = past.server
    server.run("create role reader login password 'only for tests'")
    reader = Target(NAME, make_conninfo(server.shop.url, user="reader", password="only for tests"))
    with pytest.raises(ReplicationForbidden, match="the user reader may not replicate") as refused:
        create_base(reader, server.destination, server.ledger, database=NAME, programs=find_programs(), incremental=0)
    assert "managed service" in (refused.value.hint or "")


def test_programs_of_another_major_version_are_not_used(past: Past, tmp_path: Path) -> None:
    real = find_programs()
    other = Programs(bin_dir=tmp_path, version="11.0", major=11)
    with pytest.raises(NoSameProgram, match=f"No pg_basebackup of PostgreSQL {real.major} was found"):
        create_base(
            past.server.shop, past.server.destination, past.server.ledger, database=NAME, programs=other, incremental=0
        )
