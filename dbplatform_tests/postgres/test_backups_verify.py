"""Damage of every kind is found, and the file named, by the verification and by the drill; then nothing is proven."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from dbplatform.backups.catalogue import Backup, find_backup, load_manifest
from dbplatform.backups.drill import drill, list_drills
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.files import describe_files
from dbplatform.backups.proof import proven_snapshot
from dbplatform.backups.restore import restore_backup
from dbplatform.backups.verify import verify_backup
from dbplatform.ledger.backups import BackupRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.postgres.backups_support import (
    NAME,
    back_up,
    databases,
    fill,
    flip_byte,
    new_name,
    prove,
    server,
)


def data_file(backup: Backup) -> Path:
    """The biggest file of a table's rows."""
    return max(backup.dump.glob("[0-9]*.dat*"), key=lambda path: path.stat().st_size)


def flip(name: Callable[[Backup], Path]) -> Callable[[Backup], str]:
    def damage(backup: Backup) -> str:
        flip_byte(name(backup))
        return name(backup).name

    return damage


def remove(backup: Backup) -> str:
    data_file(backup).unlink()
    return data_file_name_missing(backup)


def data_file_name_missing(backup: Backup) -> str:
    there = {path.name for path in backup.folder.rglob("*")}
    return next(Path(file.name).name for file in load_manifest(backup).files if Path(file.name).name not in there)


def cut(backup: Backup) -> str:
    file = data_file(backup)
    os.truncate(file, file.stat().st_size - 1)
    return file.name


def add(backup: Backup) -> str:
    (backup.dump / "9999.dat.zst").write_bytes(b"")
    return "9999.dat.zst"


def link(backup: Backup) -> str:
    file = data_file(backup)
    elsewhere = backup.folder.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    return file.name


def lose_manifest(backup: Backup) -> str:
    (backup.folder / "manifest.json").unlink()
    return "manifest.json"


def lose_all(backup: Backup) -> str:
    backup.folder.rename(backup.folder.with_name("lost"))
    return "manifest.json"


DAMAGE = {
    "a byte of the data": flip(data_file),
    "a byte of the table of contents": flip(lambda backup: backup.dump / "toc.dat"),
    "a byte of a large object": flip(lambda backup: next(backup.dump.glob("blob_*.dat*"))),
    "a byte of the list of large objects": flip(lambda backup: next(backup.dump.glob("blobs*.toc"))),
    "a byte of the manifest": flip(lambda backup: backup.folder / "manifest.json"),
    "a missing file": remove,
    "a file cut short": cut,
    "a file too many": add,
    "a link in the place of a file": link,
    "no manifest": lose_manifest,
    "no folder": lose_all,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_and_takes_the_proof_away(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, damage: Callable[[Backup], str]
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    with ledger.session() as session:
        session.execute(update(BackupRecord).values(proven_at=backup.finished_at))
    assert proven_snapshot(ledger, NAME) is not None

    file = damage(backup)

    assert proven_snapshot(ledger, NAME) is None, "archiving must see it before anybody has verified"
    report = drill(backup, ledger, server(server_url), programs=find_programs())
    assert not report.proven
    assert any(file in error for error in report.errors)
    assert report.as_json()["proven"] is False
    assert find_backup(ledger, NAME).proven_at is None
    verification = verify_backup(backup, ledger, programs=find_programs())
    assert not verification.passed
    assert file in {Path(problem.file).name for problem in verification.problems}
    assert file in (find_backup(ledger, NAME).damage or "")
    with pytest.raises(BackupDamaged, match=file.replace(".", r"\.")):
        restore_backup(backup, server(server_url), new_name(), ledger, programs=find_programs())
    assert databases(server_url) == []


def test_damage_older_than_the_manifest_is_found_by_reading_all_the_data(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    """``pg_restore --list`` says 0 of it; so would hashes alone, because they were taken of the damaged file."""
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    file = data_file(backup)
    os.truncate(file, file.stat().st_size // 2)
    backup = rewrite_manifest(backup, ledger)
    listed = subprocess.run([find_programs().path("pg_restore"), "--list", backup.dump], capture_output=True)
    assert listed.returncode == 0

    verification = verify_backup(backup, ledger, programs=find_programs())

    assert [Path(problem.file).name for problem in verification.problems] == [file.name]
    assert "pg_restore" in verification.problems[0].what
    report = drill(backup, ledger, server(server_url), programs=find_programs())
    assert not report.proven
    assert report.errors
    assert databases(server_url) == []


def test_an_undamaged_backup_passes(database: Target, ledger: Ledger, tmp_path: Path, server_url: str) -> None:
    fill(database)
    backup = prove(back_up(database, tmp_path, ledger), ledger, server_url)
    verification = verify_backup(backup, ledger, programs=find_programs())
    assert verification.as_json() == {
        "backup_id": backup.id,
        "passed": True,
        "files": len(load_manifest(backup).files) + 1,
        "bytes": backup.bytes,
        "inside": True,
        "problems": [],
    }
    assert find_backup(ledger, NAME).proven_at == backup.proven_at


def test_a_drill_after_the_mend_proves_again(database: Target, ledger: Ledger, tmp_path: Path, server_url: str) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    flip_byte(data_file(backup))
    assert not drill(backup, ledger, server(server_url), programs=find_programs()).proven
    flip_byte(data_file(backup))
    assert prove(backup, ledger, server_url).damage is None
    assert [record.status for record in list_drills(ledger, NAME)] == ["proven", "not proven"]


def rewrite_manifest(backup: Backup, ledger: Ledger) -> Backup:
    """As if the files had been damaged before they were described."""
    manifest = load_manifest(backup)
    manifest = manifest.model_copy(update={"files": describe_files(backup.folder, task="test")})
    data = manifest.model_dump_json(indent=2).encode()
    (backup.folder / "manifest.json").write_bytes(data)
    with ledger.session() as session:
        session.execute(update(BackupRecord).values(sha256=hashlib.sha256(data).hexdigest()))
    return find_backup(ledger, NAME, backup.id)
