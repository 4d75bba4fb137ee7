"""Whatever goes wrong while a backup is made or proven, no success is claimed, and the list says what is there."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform import progress
from dbplatform.backups import create
from dbplatform.backups.catalogue import find_backup, list_backups
from dbplatform.backups.drill import drill, list_drills
from dbplatform.backups.errors import BackupFailed, NotUnpacked
from dbplatform.backups.restore import restore_backup
from dbplatform.backups.verify import verify_backup
from dbplatform.errors import LockNotAcquired, PlatformError, WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import find_programs
from dbplatform.postgres.standbys import StandbyDoesNotAnswer
from dbplatform.storage import s3
from dbplatform_tests.drills.breaking import cut
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.standbys import hurry, no_standby
from dbplatform_tests.postgres.backups_support import (
    NAME,
    back_up,
    databases,
    fill,
    hashes,
    hidden,
    prove,
    server,
    statuses,
    visible,
)
from dbplatform_tests.postgres.embedded_support import embedded, open_folder, wait_until
from dbplatform_tests.postgres.test_backups_destinations import There, bucket, endpoint, key, where
from dbplatform_tests.s3 import unreliable

#: How a file that may not grow is told: by the system's words, or as the signal that ended pg_dump.
FULL = "File too large|pg_dump was ended by signal 25"

__all__ = ["bucket", "endpoint", "key", "where"]


@contextmanager
def at(fact: str, do: object) -> Iterator[None]:
    """Do something once, when the fact is told."""
    done: list[str] = []

    def hear(heard: progress.Progress) -> None:
        if heard.task == fact and not done:
            done.append(fact)
            do()  # type: ignore[operator]

    with progress.listening(hear):
        yield
    assert done, f"{fact} was not told"


@pytest.fixture
def disk() -> Iterator[Disk]:
    with_limit = Disk()
    yield with_limit
    with_limit.empty()


class Disk:
    """Full for every file that grows beyond a few bytes: what an ordinary user can bring about."""

    def __init__(self) -> None:
        self._was = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, self._was[1]))

    def empty(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._was)


@pytest.mark.parametrize("where", ["folder", "sealed folder", "sealed bucket"], indirect=True)
@pytest.mark.parametrize("fact", cases("exported", "dumped", "counted", "summed", sample=("exported",)))
def test_a_full_disk_fails_the_backup_and_leaves_nothing(
    database: Target, ledger: Ledger, where: There, disk: Disk, fact: str
) -> None:
    fill(database)
    if fact == "counted" and "encrypt_to" not in where.policy:
        fact = "dumped"
    with at(f"backup {NAME}: {fact}", disk.full), pytest.raises(BackupFailed, match=FULL):
        back_up(database, where.destination, ledger, logical={"compression": "none"}, **where.policy)
    disk.empty()
    assert (statuses(ledger), where.backups, where.names) == (["failed"], set(), [])
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))
    assert verify_backup(
        back_up(database, where.destination, ledger, **where.policy), ledger, programs=find_programs()
    ).passed


@pytest.mark.parametrize("where", ["sealed folder", "bucket"], indirect=True)
def test_no_room_to_unpack_is_no_damage(
    database: Target, ledger: Ledger, server_url: str, where: There, disk: Disk
) -> None:
    fill(database)
    backup = prove(back_up(database, where.destination, ledger, **where.policy), ledger, server_url)
    with at(f"drill {NAME}: started", disk.full), pytest.raises(NotUnpacked, match="File too large"):
        drill(backup, ledger, server(server_url), programs=find_programs(), work=where.destination.work)
    disk.empty()
    assert list_drills(ledger, NAME)[0].status == "errored"
    assert find_backup(ledger, NAME).proven_at == backup.proven_at
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))


@pytest.mark.parametrize("where", ["bucket", "sealed bucket"], indirect=True)
def test_a_bucket_that_stalls_is_given_up_and_the_upload_goes_on_later(
    database: Target,
    ledger: Ledger,
    where: There,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(database)
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    over = threading.Event()
    with unreliable(endpoint, lambda method, path: "stalled" if method == "PUT" else "answered", over=over) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        try:
            with pytest.raises(BackupFailed, match=r"(?i)timed? ?out"):
                back_up(database, where.destination, ledger, **where.policy)
        finally:
            over.set()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 60)
    assert (statuses(ledger), where.backups) == (["failed"], set())
    back_up(database, where.destination, ledger, **where.policy)
    assert statuses(ledger) == ["complete", "complete"]
    assert all(verify_backup(one, ledger, programs=find_programs()).passed for one in list_backups(ledger, NAME))


@pytest.mark.parametrize("ledger_too", [False, True], ids=["the source", "source and ledger"])
@pytest.mark.parametrize("fact", cases("exported", "dumping", "dumped", "counted", sample=("dumping",)))
def test_a_server_that_restarts_in_the_middle_ends_in_a_failed_backup_or_a_whole_one(
    server_url: str, ledger: Ledger, tmp_path: Path, fact: str, ledger_too: bool
) -> None:
    with open_folder() as home, embedded(home / "home") as restarting:
        restarting.start()
        restarting.ensure_database("shop")
        source = Target(NAME, restarting.url("shop"))
        fill(source)
        kept = ledger
        if ledger_too:
            restarting.ensure_database("ledger")
            kept = Ledger(Target("ledger", restarting.url("ledger")))
            apply_ledger_schema(kept.target)

        def restart() -> None:
            restarting.stop()
            restarting.start()

        with at(f"backup {NAME}: {fact}", restart), suppress(WorkError, psycopg.Error):
            back_up(source, tmp_path, kept)
        before = statuses(kept)
        if before == ["complete"]:
            assert verify_backup(find_backup(kept, NAME), kept, programs=find_programs()).passed
        back_up(source, tmp_path, kept)
        assert statuses(kept)[-1] == "complete"
        assert "running" not in statuses(kept)
        for backup in list_backups(kept, NAME):
            assert (backup.status == "complete") == backup.folder.is_dir()
        proven = prove(find_backup(kept, NAME), kept, server_url)
        assert proven.proven_at is not None
        kept.engine.dispose()


@pytest.mark.parametrize("fact", cases("exported", "dumping", "dumped", "counted", sample=("dumping",)))
def test_a_backup_whose_sessions_are_cut_fails_or_is_whole_and_the_next_is_proven(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, fact: str
) -> None:
    fill(database)
    with at(f"backup {NAME}: {fact}", lambda: cut(database)), suppress(WorkError):
        back_up(database, tmp_path, ledger)
    for backup in list_backups(ledger, NAME):
        whole = backup.status == "complete"
        assert backup.status in ("complete", "failed")
        assert whole == backup.folder.is_dir()
        assert not whole or verify_backup(backup, ledger, programs=find_programs()).passed
    back_up(database, tmp_path, ledger)
    assert prove(find_backup(ledger, NAME), ledger, server_url).proven_at is not None


@pytest.mark.parametrize("fact", cases("created", "loaded", sample=("loaded",)))
def test_a_scratch_server_that_restarts_errs_the_drill_and_leaves_the_proof(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, fact: str
) -> None:
    fill(database)
    backup = prove(back_up(database, tmp_path, ledger), ledger, server_url)
    with open_folder() as home, embedded(home / "home") as restarting:
        restarting.start()
        scratch = Target("scratch", restarting.url("postgres"))

        def restart() -> None:
            restarting.stop()
            restarting.start()

        with at(f"drill {NAME}: {fact}", restart), pytest.raises((PlatformError, psycopg.Error)):
            drill(backup, ledger, scratch, programs=find_programs())
        assert list_drills(ledger, NAME)[0].status == "errored"
        assert find_backup(ledger, NAME).proven_at == backup.proven_at
        assert drill(backup, ledger, scratch, programs=find_programs()).proven
        assert databases(scratch.url) == []


def test_a_lost_connection_to_the_ledger_lists_no_backup_that_is_not_there(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)

    def end_sessions() -> None:
        with psycopg.connect(make_conninfo(server_url), autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (ledger.target.name,)
            )

    with at(f"backup {NAME}: counted", end_sessions), suppress(WorkError, psycopg.Error):
        back_up(database, tmp_path, ledger)
    for backup in list_backups(ledger, NAME):
        assert (backup.status == "complete") == backup.folder.is_dir()
    assert prove(back_up(database, tmp_path, ledger), ledger, server_url).proven_at is not None


def test_a_table_that_stays_locked_fails_the_backup_and_names_who_locks_it(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(create, "LOCK_WAIT_S", 1)
    with psycopg.connect(database.url, application_name="nightly import") as holder:
        holder.execute("lock table plain in access exclusive mode")
        with pytest.raises(LockNotAcquired, match=r"holds public.plain so that nobody reads it") as told:
            back_up(database, tmp_path, ledger)
        assert f"Backend {holder.info.backend_pid} (nightly import, in its transaction" in (told.value.hint or "")
    assert (statuses(ledger), visible(tmp_path), hidden(tmp_path)) == (["failed"], set(), set())
    assert prove(back_up(database, tmp_path, ledger), ledger, server_url).proven_at is not None
    assert statuses(ledger) == ["failed", "complete"]


@pytest.mark.drill
def test_a_table_that_somebody_wants_for_himself_while_it_is_dumped_fails_the_backup_and_the_next_is_proven(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who dumps and who counts ask for the lock behind whoever waits for the table, and for our own session."""
    fill(database)
    monkeypatch.setattr(create, "LOCK_WAIT_S", 1)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database.url) as altering:
        waiting: list[Future[object]] = []

        def alter() -> None:
            waiting.append(pool.submit(altering.execute, "alter table plain add more int"))
            asked = "select 1 from pg_locks where pid = %s and not granted"
            with psycopg.connect(database.url, autocommit=True) as other:
                wait_until(lambda: other.execute(asked, (altering.info.backend_pid,)).fetchone())

        with at(f"backup {NAME}: exported", alter), pytest.raises(WorkError, match=r"(?i)lock"):
            back_up(database, tmp_path, ledger)
        waiting[0].result()
        altering.commit()
    assert (statuses(ledger), visible(tmp_path), hidden(tmp_path)) == (["failed"], set(), set())
    assert prove(back_up(database, tmp_path, ledger), ledger, server_url).proven_at is not None


@pytest.mark.drill
def test_where_the_standby_is_lost_a_backup_is_made_and_a_restore_given_up_and_the_next_ends_right(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    with open_folder() as home, embedded(home / "home", settings={"fsync": "off"}) as alone:
        alone.start()
        alone.ensure_database("shop")
        source, postgres = Target(NAME, alone.url("shop")), Target("alone", alone.url("postgres"))
        fill(source)
        with no_standby(postgres.url):
            backup = back_up(source, tmp_path, ledger)
            with pytest.raises(StandbyDoesNotAnswer):
                restore_backup(backup, postgres, "restored", ledger, programs=find_programs())
        assert databases(postgres.url, "^restored$") == []
        restore_backup(backup, postgres, "restored", ledger, programs=find_programs())
        assert hashes(Target("restored", alone.url("restored"))) == hashes(source)
        assert databases(postgres.url) == []
