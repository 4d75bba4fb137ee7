"""Files go to their destination while pg_dump still dumps others, and whatever happens then, nothing half is a backup.

The pg_dump of these tests has dumped everything, and then holds one more file open until it is told to go on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dbplatform import progress
from dbplatform.backups.catalogue import find_backup, load_manifest
from dbplatform.backups.errors import BackupFailed
from dbplatform.backups.files import check_files
from dbplatform.backups.growing import is_finished
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.storage import s3
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import NAME, back_up, fill, killed_at, programs_with, statuses
from dbplatform_tests.postgres.test_backups_destinations import There, bucket, endpoint, key, where
from dbplatform_tests.postgres.test_backups_faults import Disk, disk
from dbplatform_tests.s3 import Fate, unreliable

__all__ = ["bucket", "disk", "endpoint", "key", "where"]

SENT = f"backup {NAME}: sent ahead"
_HELD = """
"$REAL/pg_dump" "$@" || exit $?
for word in "$@"; do case $word in --file=*) folder=${word#--file=};; esac; done
exec 3> "$folder/99999.dat"
if [ -e GO.begins ]; then cat GO.begins >&3; fi
echo begun >&3
while [ ! -e GO ]; do sleep 0.02; done
echo ended >&3
exit CODE
"""


@dataclass(frozen=True)
class Held:
    """Such a pg_dump is the one that is found."""

    go: Path

    def begins_with(self, data: bytes) -> None:
        """The file that is held open begins with it."""
        self.go.with_name("go.begins").write_bytes(data)

    def let_go(self) -> None:
        self.go.touch()


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Held]:
    """The exit code is the test's parameter, by default 0."""
    go = tmp_path / "go"
    script = _HELD.replace("GO", f"'{go}'").replace("CODE", str(getattr(request, "param", 0)))
    found = programs_with(tmp_path / "programs", "pg_dump", script)
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(found.bin_dir))
    made = Held(go)
    yield made
    made.let_go()


@contextmanager
def at_first(fact: str, do: Callable[[], None]) -> Iterator[list[str]]:
    """Do something when the fact is told for the first time; yields the times it was told."""
    told: list[str] = []

    def hear(heard: progress.Progress) -> None:
        if heard.task == fact:
            told.append(fact)
            if len(told) == 1:
                do()

    with progress.listening(hear):
        yield told


def test_only_a_file_that_nobody_writes_is_taken_for_finished(tmp_path: Path) -> None:
    path = tmp_path / "1.dat"
    with path.open("w") as writer, path.open():
        writer.write("half")
        writer.flush()
        assert not is_finished(path)
    with path.open():
        assert is_finished(path), "readers do not matter"


def test_a_file_that_was_only_just_made_is_not_taken_for_finished(tmp_path: Path) -> None:
    path = tmp_path / "1.dat"
    path.touch()
    assert not is_finished(path)


def test_whoever_opens_a_file_while_it_is_asked_about_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.dat"
    path.write_text("whole")
    met = []

    def opened_meanwhile(descriptor: int) -> os.stat_result:
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        return path.stat()

    def note(number: int, frame: object) -> None:
        met.append(number)

    before = signal.signal(signal.SIGIO, note)
    try:
        monkeypatch.setattr(os, "fstat", opened_meanwhile)
        is_finished(path)
        monkeypatch.undo()
    finally:
        signal.signal(signal.SIGIO, before)
    assert met == [], "by default it ends the process"


@pytest.mark.parametrize("where", ["sealed bucket"], indirect=True)
def test_what_is_finished_is_at_the_destination_before_pg_dump_ends(
    database: Target, ledger: Ledger, where: There, held: Held
) -> None:
    fill(database)
    seen: list[list[str]] = []

    def look() -> None:
        seen.append(where.names)
        held.let_go()

    with at_first(SENT, look):
        backup = back_up(database, where.destination, ledger, **where.policy)
    manifest = load_manifest(backup)
    ahead = {name.partition("/")[2] for name in seen[0]}
    assert any(name.endswith(".dat.zst.age") for name in ahead)
    assert ahead < {entry.name for entry in manifest.files}, "they belong to it, and there is more"
    assert ahead.isdisjoint({"manifest.json", "dump/toc.dat.age", "dump/99999.dat.age"}), "what is not finished is not"
    assert "dump/99999.dat.age" in {entry.name for entry in manifest.files}
    assert check_files(backup, manifest) == ()
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))


@pytest.mark.parametrize("where", ["bucket", "sealed bucket"], indirect=True)
def test_parts_of_a_file_that_still_grows_are_at_the_destination_before_pg_dump_ends(
    database: Target, ledger: Ledger, where: There, held: Held, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 << 20
    monkeypatch.setattr(s3, "PART_BYTES", part)
    held.begins_with(os.urandom(2 * part))
    fill(database)
    sent: list[tuple[str, bool]] = []

    def fate(method: str, path: str) -> Fate:
        if method == "PUT" and "partNumber=" in path:
            sent.append((path.partition("partNumber=")[2][0], held.go.exists()))
            if len(sent) == 2:
                held.let_go()
        return "answered"

    with unreliable(endpoint, fate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        backup = back_up(database, where.destination, ledger, **where.policy)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert sent[:2] == [("1", False), ("2", False)]
    assert sorted(number for number, _ in sent) == ["1", "2", "3"], "each once"
    assert check_files(backup, load_manifest(backup)) == ()


def refuses(method: str, path: str) -> Fate:
    return "refused" if method in ("PUT", "POST") else "answered"


def stalls(method: str, path: str) -> Fate:
    return "stalled" if method in ("PUT", "POST") else "answered"


def gives_other_bytes(method: str, path: str) -> Fate:
    return "altered" if method == "GET" and ".dat" in path else "answered"


def ends_amid_an_answer(method: str, path: str) -> Fate:
    return "truncated" if method == "GET" and ".dat" in path else "answered"


@pytest.mark.parametrize("where", ["bucket", "sealed bucket"], indirect=True)
@pytest.mark.parametrize(
    "trouble",
    cases(refuses, stalls, gives_other_bytes, ends_amid_an_answer, sample=()),
)
def test_a_bucket_that_is_in_trouble_while_pg_dump_works_and_well_afterwards_has_the_whole_backup(
    database: Target,
    ledger: Ledger,
    where: There,
    held: Held,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[str, str], Fate],
) -> None:
    fill(database)
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.5)
    over, met = threading.Event(), threading.Event()

    def fate(method: str, path: str) -> Fate:
        chosen = trouble(method, path) if not held.go.exists() else "answered"
        if chosen != "answered":
            met.set()
        return chosen

    def ends_when_it_was_met() -> None:
        met.wait()
        held.let_go()

    with unreliable(endpoint, fate, over=over) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        ender = threading.Thread(target=ends_when_it_was_met)
        ender.start()
        try:
            backup = back_up(database, where.destination, ledger, **where.policy)
        finally:
            over.set()
            met.set()
            ender.join()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert met.is_set()
    assert statuses(ledger) == ["complete"]
    assert check_files(backup, load_manifest(backup)) == ()


@pytest.mark.parametrize("held", [1], indirect=True)
@pytest.mark.parametrize("where", ["sealed bucket"], indirect=True)
def test_a_dump_that_fails_after_files_were_sent_leaves_none_of_them(
    database: Target, ledger: Ledger, where: There, held: Held
) -> None:
    fill(database)
    with at_first(SENT, held.let_go) as told, pytest.raises(BackupFailed, match="ended with code 1"):
        back_up(database, where.destination, ledger, **where.policy)
    assert told
    assert (statuses(ledger), where.names) == (["failed"], [])
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))


@pytest.mark.parametrize("where", ["sealed bucket"], indirect=True)
def test_killed_while_files_are_sent_nothing_is_a_backup_and_the_next_one_clears_up(
    database: Target, ledger: Ledger, server_url: str, where: There, held: Held
) -> None:
    fill(database)
    killed_at(
        "create",
        SENT,
        database=database,
        ledger=ledger,
        folder=where.destination,
        server_url=server_url,
        **where.policy,
    )
    held.let_go()
    assert (statuses(ledger), where.backups) == (["running"], set())
    assert where.names, "something had been sent"
    after = back_up(database, where.destination, ledger, **where.policy)
    assert statuses(ledger) == ["failed", "complete"]
    assert {name.partition("/")[0] for name in where.names} == {after.id}
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))


@pytest.mark.drill
@pytest.mark.parametrize("where", ["bucket", "sealed bucket"], indirect=True)
def test_a_disk_that_gets_full_while_files_are_sent_fails_the_backup_and_leaves_nothing(
    database: Target, ledger: Ledger, where: There, held: Held, disk: Disk
) -> None:
    fill(database)

    def full() -> None:
        disk.full()
        held.let_go()

    with at_first(SENT, full) as told, pytest.raises(BackupFailed, match="File too large"):
        back_up(database, where.destination, ledger, **where.policy)
    disk.empty()
    assert told
    assert (statuses(ledger), where.names) == (["failed"], [])
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))
    held.let_go()
    back_up(database, where.destination, ledger, **where.policy)
    assert find_backup(ledger, NAME).status == "complete"
