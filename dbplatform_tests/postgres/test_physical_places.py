"""Base backups and WAL are the same wherever they lie; where they are encrypted, only who has the key restores."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from dbplatform.backups.catalogue import list_backups
from dbplatform.backups.errors import KeyMissing, WrongKey
from dbplatform.backups.keys import IDENTITY
from dbplatform.backups.physical.base import verify_base
from dbplatform.backups.physical.errors import BaseBackupFailed, WalKeyMissing
from dbplatform.backups.physical.recover import check_recovery
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.spool import waiting
from dbplatform.ledger.ledger import Ledger
from dbplatform.storage import s3
from dbplatform.storage.place import StorageFailed
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.physical_support import Archiving, archiving
from dbplatform_tests.s3 import Fate, s3_server, unreliable

#: A word of every row: nowhere readable but in the database.
READABLE = b"only to be read with the key"


@pytest.fixture
def server(ledger: Ledger) -> Iterator[Archiving]:
    with archiving(ledger) as made:
        yield made


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        name = f"backups-{uuid.uuid4().hex[:12]}"
        s3.client().create_bucket(Bucket=name)
        yield f"s3://{name}/some/where"


@pytest.mark.parametrize("fate", cases("refused", "cut", "stalled", sample=()))
def test_a_bucket_in_trouble_costs_no_wal_and_no_moment(
    server: Archiving, bucket: str, monkeypatch: pytest.MonkeyPatch, fate: Fate
) -> None:
    server = replace(server, bucket=bucket)
    key = key_of(server.system)
    first = server.base()
    server.write(10)
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    well, over = os.environ["AWS_ENDPOINT_URL_S3"], threading.Event()

    def trouble(method: str, path: str) -> Fate:
        return fate if method in ("PUT", "POST") else "answered"

    with unreliable(well, trouble, over=over) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        try:
            with pytest.raises(StorageFailed):
                server.switch()
            with pytest.raises((StorageFailed, BaseBackupFailed)):
                server.base()
        finally:
            over.set()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", well)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 60)
    waits = [path.name for path in waiting(server.spool)]
    assert waits, "what was not taken waits where the server has put it"
    assert [row for (row,) in server.run("select failed_count from pg_stat_archiver")] == [0]
    assert [one.id for one in list_backups(server.ledger, key) if one.status == "complete"] == [first.id]
    server.write(10)
    server.switch()
    archived = server.archive(server.system).files()
    assert set(waits) <= archived.keys()
    moment = server.commit_times()[15]
    second = server.base()
    assert all(verify_base(one, server.ledger).passed for one in (first, second))
    assert server.recovered(time=moment) == set(range(1, 16))


@pytest.mark.parametrize(
    ("in_bucket", "sealed"), cases((True, False), (False, True), (True, True), sample=[(True, True)])
)
def test_a_moment_comes_back_from_wherever_its_files_lie(
    server: Archiving, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_bucket: bool, sealed: bool
) -> None:
    identity, stranger = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    server = replace(
        server,
        bucket=bucket if in_bucket else None,
        encrypt_to=(str(identity.to_public()),) if sealed else (),
    )
    server.run("create table secret as select %s || g as word from generate_series(1, 500) g", READABLE.decode())
    server.base()
    server.write(10)
    # Made on a host without the key: the list of files that the parent left is readable.
    second = server.base(incremental=1)
    server.write(10)
    server.switch()
    moment = server.commit_times()[14]
    assert verify_base(second, server.ledger).passed

    store = server.destination.store(key_of(server.system))
    names = [file.name for file in store.files()]
    assert len(names) >= 8
    if sealed:
        assert all(name.endswith((".age", "manifest.json", "backup_manifest")) or ".backup-" in name for name in names)
        for name in names:
            with store.reading(name) as file:
                assert READABLE not in file.read()
        with pytest.raises(WalKeyMissing):
            server.archive(server.system).fetch(
                next(file for file in server.archive(server.system).files().values() if file.sealed), tmp_path / "x"
            )
        plan = server.plan(backup_id=second.id)
        with pytest.raises(KeyMissing):
            check_recovery(plan, server.server, "never", replace=None, room=None)
        monkeypatch.setenv(IDENTITY, str(stranger))
        with pytest.raises(WrongKey):
            check_recovery(plan, server.server, "never", replace=None, room=None)
    monkeypatch.setenv(IDENTITY, str(identity))
    assert server.recovered(time=moment) == set(range(1, 15))
    assert not server.destination.work.exists() or list(server.destination.work.rglob("*.zst*")) == []
