"""WAL on its way: from the server into the spool, from the spool into the archive, whole or not at all, and checked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dbplatform import progress
from dbplatform.backups.physical.archive import WalArchive
from dbplatform.backups.physical.errors import WalConflict, WalDamaged
from dbplatform.backups.physical.spool import ship, waiting
from dbplatform.postgres.embedded import launch
from dbplatform.storage.folder import FolderPlace
from dbplatform.storage.place import StorageFailed
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import flip_byte

FIRST, SECOND, THIRD = (f"00000001000000000000000{number}" for number in (1, 2, 3))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "wal"
    folder.mkdir()
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> WalArchive:
    return WalArchive("7", FolderPlace(tmp_path / "archive"))


def put_down(spool: Path, path: Path, name: str, *, tools: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What the server does with a finished segment; ``tools`` hold other programs than the machine's."""
    script = spool.parent / "archive_wal.sh"
    shutil.copy(Path(launch.__file__).with_name("archive_wal.sh"), script)
    search = f"{tools}:{os.environ['PATH']}" if tools else os.environ["PATH"]
    return subprocess.run(["sh", script, path, name], env={"PATH": search}, capture_output=True, text=True)


def segment(folder: Path, content: bytes = b"wal", name: str = "segment") -> Path:
    path = folder / name
    path.write_bytes(content * 100_000)
    return path


def test_the_server_puts_a_segment_down_once_and_is_content_to_be_asked_again(spool: Path, tmp_path: Path) -> None:
    path = segment(tmp_path)
    for _ in range(2):
        answer = put_down(spool, path, FIRST)
        assert (answer.returncode, answer.stderr) == (0, "")
    assert [file.name for file in spool.iterdir()] == [FIRST]
    assert (spool / FIRST).read_bytes() == path.read_bytes()


def test_a_server_that_is_told_so_lets_a_segment_go(spool: Path, tmp_path: Path) -> None:
    (spool / ".let_go").touch()
    assert put_down(spool, segment(tmp_path), FIRST).returncode == 0
    assert waiting(spool) == []
    (spool / ".let_go").unlink()
    assert put_down(spool, segment(tmp_path), SECOND).returncode == 0
    assert [path.name for path in waiting(spool)] == [SECOND]


def test_the_server_never_puts_a_segment_over_a_different_one(spool: Path, tmp_path: Path) -> None:
    put_down(spool, segment(tmp_path), FIRST)
    before = (spool / FIRST).read_bytes()
    answer = put_down(spool, segment(tmp_path, b"other"), FIRST)
    assert answer.returncode == 1
    assert "is there with other content" in answer.stderr
    assert (spool / FIRST).read_bytes() == before


@pytest.mark.parametrize(
    ("program", "does"),
    cases(
        ("cp", 'head -c 1000 "$1" > "$2"; kill -9 $PPID'),
        ("cp", 'head -c 1000 "$1" > "$2"; echo No space left >&2; exit 1'),
        ("sync", "kill -9 $PPID"),
        ("ln", "kill -9 $PPID"),
        ("rm", "kill -9 $PPID"),
        ("sync", "exit 1"),
        sample=["cp", "rm"],
    ),
)
def test_a_segment_whose_putting_down_failed_is_never_seen_half(
    spool: Path, tmp_path: Path, program: str, does: str
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / program).write_text(f"#!/bin/sh\n{does}\n")
    (tools / program).chmod(0o755)
    path = segment(tmp_path)
    assert put_down(spool, path, FIRST, tools=tools).returncode != 0
    assert all(file.read_bytes() == path.read_bytes() for file in waiting(spool))
    assert put_down(spool, path, FIRST).returncode == 0
    assert [file.read_bytes() for file in waiting(spool)] == [path.read_bytes()]


def test_what_was_shipped_is_the_same_when_it_is_fetched(spool: Path, archive: WalArchive, tmp_path: Path) -> None:
    history = segment(spool, b"1\t0/5000000\tx\n", "00000002.history")
    paths = [segment(spool, name.encode(), name) for name in (FIRST, SECOND, THIRD)]
    contents = {path.name: path.read_bytes() for path in (*paths, history)}
    (spool / f"{THIRD}.partial").write_bytes(b"not finished")
    assert set(ship(spool, archive)) == set(contents)
    files = archive.files()
    for name, content in contents.items():
        archive.fetch(files[name], tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    # pg_receivewal looks at the newest one to know where to go on.
    assert sorted(path.name for path in spool.iterdir()) == [THIRD, f"{THIRD}.partial"]
    assert ship(spool, archive) == ()


def test_nothing_leaves_the_spool_before_it_is_in_the_archive(spool: Path, tmp_path: Path) -> None:
    for name in (FIRST, SECOND, THIRD):
        segment(spool, name.encode(), name)
    full = tmp_path / "archive"
    full.write_text("a file where the folder should be")
    with pytest.raises(StorageFailed, match=str(full)):
        ship(spool, WalArchive("7", FolderPlace(full)))
    assert [path.name for path in waiting(spool)] == [FIRST, SECOND, THIRD]


def test_a_shipping_that_was_interrupted_goes_on(spool: Path, archive: WalArchive) -> None:
    for name in (FIRST, SECOND, THIRD):
        segment(spool, name.encode(), name)

    def interrupt(fact: progress.Progress) -> None:
        if fact.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress.listening(interrupt):
        ship(spool, archive)
    assert set(archive.files()) == {FIRST}
    assert ship(spool, archive) == (SECOND, THIRD)
    assert set(archive.files()) == {FIRST, SECOND, THIRD}


def test_two_servers_that_archive_to_one_place_are_noticed(spool: Path, archive: WalArchive, tmp_path: Path) -> None:
    segment(spool, b"mine", FIRST)
    ship(spool, archive)
    segment(spool, b"theirs", FIRST)
    with pytest.raises(WalConflict, match=FIRST):
        ship(spool, archive)
    assert [path.name for path in waiting(spool)] == [FIRST]
    archive.fetch(archive.files()[FIRST], tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"mine" * 100_000


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _end_missing(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _rubbish(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _another(path: Path) -> None:
    shutil.copy(next(other for other in path.parent.iterdir() if other != path), path)


@pytest.mark.parametrize(
    "damage",
    cases(flip_byte, _empty, _cut, _end_missing, _rubbish, _another, Path.unlink, sample=[flip_byte, _another]),
)
def test_an_archived_file_that_is_not_what_was_put_there_is_never_handed_out(
    spool: Path, archive: WalArchive, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for name in (FIRST, SECOND):
        (spool / name).write_bytes(os.urandom(500_000))
    ship(spool, archive)
    file = archive.files()[FIRST]
    damage(tmp_path / "archive" / file.object)
    with pytest.raises(WalDamaged, match=FIRST):
        archive.fetch(file, tmp_path / "fetched")
