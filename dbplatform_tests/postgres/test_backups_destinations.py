"""A backup is the same wherever it lies: in a folder or a bucket, readable or encrypted; the host that makes it needs
no key, and nothing readable or half-made is seen at the destination.

One module, because each claim is run at the same places: a bucket, and folder and bucket encrypted.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
from sqlalchemy import delete, update

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, find_backup, list_backups, load_manifest
from dbplatform.backups.destination import Destination
from dbplatform.backups.drill import drill
from dbplatform.backups.errors import BackupDamaged, BackupFailed, KeyMissing, KeyUnreadable, WrongKey
from dbplatform.backups.keys import IDENTITY, IDENTITY_FILE
from dbplatform.backups.manifest import Scope
from dbplatform.backups.proof import proven_snapshot
from dbplatform.backups.prune import apply_prune, plan_prune
from dbplatform.backups.rebuild import rebuild
from dbplatform.backups.restore import check_restore, restore_backup
from dbplatform.backups.verify import verify_backup
from dbplatform.ledger.backups import BackupRecord, DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import find_programs
from dbplatform.storage import s3
from dbplatform.storage.place import StorageFailed
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import (
    KEEP_ONE,
    NAME,
    back_up,
    databases,
    fill,
    hashes,
    killed_at,
    named_database,
    new_name,
    prove,
    server,
    statuses,
)
from dbplatform_tests.s3 import Fate, s3_server, unreliable

#: The words that ``fill`` writes into every row: readable nowhere but in the database.
READABLE = b"a large object"


@dataclass(frozen=True)
class There:
    """A destination, and what is kept there."""

    destination: Destination
    policy: dict[str, object]

    @property
    def names(self) -> list[str]:
        """Of the files that are no rest of a removal, by their names below the database's folder."""
        return sorted(file.name for file in self.destination.store(NAME).files())

    def read(self, name: str) -> bytes:
        with self.destination.store(NAME).reading(name) as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        source = self.destination.work.parent / f"new-{uuid.uuid4().hex[:8]}"
        source.write_bytes(data)
        self.destination.store(NAME).put(name, source)

    @property
    def backups(self) -> set[str]:
        """The ids that have a manifest: what a person would take for a backup."""
        return {name.split("/")[0] for name in self.names if name.endswith("/manifest.json") and name[0] != "."}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"backups-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new recipient; the file with its key is named by the variable."""
    identity = pyrage.x25519.Identity.generate()
    file = tmp_path / "key.txt"
    file.write_text(f"# created: now\n# public key: {identity.to_public()}\n{identity}\n")
    monkeypatch.setenv(IDENTITY_FILE, str(file))
    return str(identity.to_public())


@pytest.fixture
def where(request: pytest.FixtureRequest, tmp_path: Path) -> There:
    """By the test's parameter: ``folder`` or ``bucket``, with ``sealed`` before it where it is encrypted."""
    words = request.param.split()
    root = f"s3://{request.getfixturevalue('bucket')}/some/where" if "bucket" in words else str(tmp_path / "backups")
    policy = {"encrypt_to": [request.getfixturevalue("key")]} if "sealed" in words else {}
    return There(Destination(root=root, work=tmp_path / "work"), policy)


everywhere = pytest.mark.parametrize("where", ["bucket", "sealed folder", "sealed bucket"], indirect=True)


@everywhere
def test_it_is_made_listed_verified_proven_restored_and_pruned(
    database: Target, ledger: Ledger, server_url: str, where: There
) -> None:
    fill(database)
    older = back_up(database, where.destination, ledger, **where.policy)
    assert verify_backup(older, ledger, programs=find_programs(), work=where.destination.work).inside
    assert prove(older, ledger, server_url).proven_at is not None
    newer = prove(back_up(database, where.destination, ledger, **where.policy), ledger, server_url)
    assert where.backups == {older.id, newer.id}
    assert newer.location == f"{where.destination.root}/{NAME}/{newer.id}"
    assert proven_snapshot(ledger, NAME) is not None
    with named_database(server_url, new_name()) as target:
        restore_backup(
            older, server(server_url), target.name, ledger, programs=find_programs(), work=where.destination.work
        )
        assert hashes(target) == hashes(database)
    assert list(where.destination.work.rglob("*")) == [where.destination.work / NAME], "nothing is left on this host"

    now = newer.started_at
    assert apply_prune(ledger, plan_prune(ledger, NAME, KEEP_ONE, now=now), KEEP_ONE, now=now).pruned == (older.id,)
    assert {name.split("/")[0] for name in where.names} == {newer.id}


@pytest.mark.parametrize("where", ["sealed folder", "sealed bucket"], indirect=True)
def test_nothing_readable_but_the_manifest_leaves_the_host(
    database: Target, ledger: Ledger, where: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.delenv(IDENTITY_FILE)
    backup = back_up(database, where.destination, ledger, logical={"compression": "none"}, **where.policy)
    assert {name.rpartition(".")[2] for name in where.names} == {"age", "json"}
    sealed = [where.read(name) for name in where.names if name.endswith(".age")]
    assert all(data.startswith(b"age-encryption.org/v1\n") for data in sealed)
    assert not any(READABLE in data or b"word 1" in data for data in sealed)
    assert load_manifest(backup).encrypted_to == tuple(where.policy["encrypt_to"])  # type: ignore[arg-type]
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))


@pytest.mark.parametrize("where", ["sealed folder", "sealed bucket"], indirect=True)
def test_without_a_key_the_files_are_compared_and_nothing_else_is_claimed(
    database: Target, ledger: Ledger, server_url: str, where: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    backup = back_up(database, where.destination, ledger, **where.policy)
    monkeypatch.delenv(IDENTITY_FILE)
    found = verify_backup(backup, ledger, programs=find_programs())
    assert (found.passed, found.inside) == (True, False)
    for work in (
        lambda: drill(backup, ledger, server(server_url), programs=find_programs()),
        lambda: check_restore(backup, server(server_url), new_name(), ledger),
        lambda: restore_backup(backup, server(server_url), new_name(), ledger, programs=find_programs()),
    ):
        with pytest.raises(KeyMissing, match="is encrypted, and no key is given") as caught:
            work()
        assert IDENTITY_FILE in (caught.value.hint or "")
        assert caught.value.exit_code == 2
    assert databases(server_url) == []
    assert find_backup(ledger, NAME).damage is None, "a missing key is no damage"


@pytest.mark.parametrize("where", ["sealed folder"], indirect=True)
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (lambda: str(pyrage.x25519.Identity.generate()), WrongKey, "none of the 1 keys in DBPLATFORM_AGE_IDENTITY"),
        (lambda: "AGE-SECRET-KEY-1THISISNOKEY", KeyUnreadable, "line 1 is no line AGE-SECRET-KEY-1..."),
        (lambda: "# nothing\n", KeyUnreadable, "it is empty"),
    ],
    ids=["wrong", "rubbish", "empty"],
)
def test_a_key_that_does_not_fit_is_one_sentence_that_does_not_show_it(
    database: Target,
    ledger: Ledger,
    server_url: str,
    where: There,
    monkeypatch: pytest.MonkeyPatch,
    given: object,
    error: type[Exception],
    words: str,
) -> None:
    backup = back_up(database, where.destination, ledger, **where.policy)
    secret = given()  # type: ignore[operator]
    monkeypatch.setenv(IDENTITY, secret)
    for work in (
        lambda: drill(backup, ledger, server(server_url), programs=find_programs()),
        lambda: verify_backup(backup, ledger, programs=find_programs()),
        lambda: restore_backup(backup, server(server_url), new_name(), ledger, programs=find_programs()),
    ):
        with pytest.raises(error, match=words) as caught:
            work()
        assert secret.strip("# \n") not in str(caught.value) or secret.startswith("#")
    assert find_backup(ledger, NAME).damage is None


@pytest.mark.parametrize("where", ["sealed folder"], indirect=True)
def test_one_of_several_keys_is_enough(
    database: Target, ledger: Ledger, server_url: str, where: There, tmp_path: Path
) -> None:
    others = [pyrage.x25519.Identity.generate() for _ in range(2)]
    policy = {"encrypt_to": [*where.policy["encrypt_to"], str(others[0].to_public())]}  # type: ignore[misc]
    backup = back_up(database, where.destination, ledger, **policy)
    for text in (f"{others[1]}\n{others[0]}\n", (tmp_path / "key.txt").read_text()):
        (tmp_path / "key.txt").write_text(text)
        assert prove(backup, ledger, server_url).proven_at is not None


def flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]


DAMAGE = {
    "a flipped byte": flipped,
    "cut short": lambda data: data[:-1],
    "cut at half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "gone": None,
}
FILES = {"rows": "largest", "contents": "dump/toc.dat", "roles": "globals.sql", "manifest": "manifest.json"}


@pytest.mark.parametrize("where", ["bucket", "sealed folder", "sealed bucket"], indirect=True)
@pytest.mark.parametrize(
    ("file", "damage"),
    cases(
        *((file, damage) for file in FILES for damage in DAMAGE),
        sample=(("rows", "a flipped byte"), ("manifest", "cut short")),
    ),
)
def test_damage_is_found_named_and_never_proven(
    database: Target, ledger: Ledger, server_url: str, where: There, file: str, damage: str
) -> None:
    fill(database)
    backup = back_up(database, where.destination, ledger, **where.policy)
    with ledger.session() as session:
        session.execute(update(BackupRecord).values(proven_at=backup.finished_at))
    manifest = load_manifest(backup)
    largest = max(manifest.files, key=lambda entry: entry.bytes).name
    name = largest if file == "rows" else FILES[file] + (".age" if manifest.sealed and file != "manifest" else "")
    harm = DAMAGE[damage]
    if harm is None:
        where.destination.store(NAME).remove(f"{backup.id}/{name}")
    else:
        where.write(f"{backup.id}/{name}", harm(where.read(f"{backup.id}/{name}")))

    assert proven_snapshot(ledger, NAME) is None
    assert not verify_backup(backup, ledger, programs=find_programs()).passed
    report = drill(backup, ledger, server(server_url), programs=find_programs())
    assert not report.proven
    assert any(Path(name).name in error for error in report.errors)
    with pytest.raises(BackupDamaged, match=Path(name).name.replace(".", r"\.")):
        restore_backup(backup, server(server_url), new_name(), ledger, programs=find_programs())
    (listed,) = list_backups(ledger, NAME)
    assert (listed.proven_at, Path(name).name in (listed.damage or "")) == (None, True)
    assert databases(server_url) == []


@pytest.mark.parametrize("where", ["bucket", "sealed folder", "sealed bucket"], indirect=True)
@pytest.mark.parametrize(
    ("fact", "survives"),
    cases(
        ("backup shop: dumping", False),
        ("backup shop: counted", False),
        ("sum backup shop", False),
        ("backup shop: summed", False),
        ("backup shop: described", True),
        ("upload shop", True),
        ("backup shop: published", True),
        sample=("upload shop",),
    ),
)
def test_killed_here_nothing_half_made_is_seen_and_the_next_backup_goes_on(
    database: Target, ledger: Ledger, server_url: str, where: There, fact: str, survives: bool
) -> None:
    if fact == "upload shop" and not where.destination.in_bucket:
        fact = "backup shop: described"
    fill(database)
    killed_at(
        "create",
        fact,
        database=database,
        ledger=ledger,
        folder=where.destination,
        server_url=server_url,
        **where.policy,
    )
    assert statuses(ledger) == ["running"]
    assert len(where.backups) == int(fact == "backup shop: published")

    after = back_up(database, where.destination, ledger, **where.policy)

    assert statuses(ledger) == ["complete" if survives else "failed", "complete"]
    complete = {backup.id for backup in list_backups(ledger, NAME) if backup.status == "complete"}
    assert where.backups == complete
    assert {name.split("/")[0] for name in where.names} == complete, "no file is left of what failed"
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))
    assert prove(after, ledger, server_url).proven_at is not None
    for backup in list_backups(ledger, NAME):
        if backup.status == "complete":
            assert verify_backup(backup, ledger, programs=find_programs()).passed


@pytest.mark.parametrize("where", ["sealed bucket"], indirect=True)
@pytest.mark.parametrize("fact", cases("read", "created", "loaded", "recorded", sample=("loaded",)))
def test_a_killed_drill_leaves_nothing_readable_for_longer_than_the_next(
    database: Target, ledger: Ledger, server_url: str, where: There, fact: str
) -> None:
    fill(database)
    backup = back_up(database, where.destination, ledger, **where.policy)
    killed_at(
        "drill",
        f"drill {NAME}: {fact}",
        database=database,
        ledger=ledger,
        folder=where.destination,
        server_url=server_url,
    )
    assert (find_backup(ledger, NAME).proven_at is not None) == (fact == "recorded")
    assert drill(backup, ledger, server(server_url), programs=find_programs(), work=where.destination.work).proven
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))


def refused(method: str, path: str) -> Fate:
    return "refused" if method == "PUT" else "answered"


def altered(method: str, path: str) -> Fate:
    return "altered" if method == "GET" and ".dat" in path else "answered"


def manifest_refused(method: str, path: str) -> Fate:
    return "refused" if method == "PUT" and "manifest.json" in path else "answered"


@pytest.mark.parametrize("where", ["bucket", "sealed bucket"], indirect=True)
@pytest.mark.parametrize(
    "trouble",
    cases(refused, altered, manifest_refused, sample=(manifest_refused,)),
    ids=["refuses files", "gives other bytes", "refuses the manifest"],
)
def test_a_bucket_in_trouble_lists_no_backup_and_the_next_one_goes_on(
    database: Target,
    ledger: Ledger,
    server_url: str,
    where: There,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    trouble: object,
) -> None:
    fill(database)
    monkeypatch.setattr(s3, "TRIES", 1)
    with unreliable(endpoint, trouble) as proxy:  # type: ignore[arg-type]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        with pytest.raises(BackupFailed, match="The storage of s3://") as caught:
            back_up(database, where.destination, ledger, **where.policy)
        assert "goes on with their upload" in (caught.value.hint or "")
        assert caught.value.exit_code == 3
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert (statuses(ledger), where.backups) == (["failed"], set())
    refusal = plan_prune(ledger, NAME, KEEP_ONE, now=list_backups(ledger, NAME)[0].started_at).refusal
    assert "failed" in (refusal or "")

    after = back_up(database, where.destination, ledger, **where.policy)

    assert statuses(ledger) == ["complete", "complete"], "what was dumped is not lost"
    for backup in list_backups(ledger, NAME):
        assert verify_backup(backup, ledger, programs=find_programs()).passed
    assert prove(after, ledger, server_url).proven_at is not None
    assert not any(path.is_file() for path in where.destination.work.rglob("*"))


@pytest.mark.parametrize("where", ["bucket"], indirect=True)
def test_a_bucket_that_does_not_answer_is_no_damage_and_takes_no_proof(
    database: Target, ledger: Ledger, server_url: str, where: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = prove(back_up(database, where.destination, ledger), ledger, server_url)
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    for work in (
        lambda: verify_backup(backup, ledger, programs=find_programs()),
        lambda: drill(backup, ledger, server(server_url), programs=find_programs()),
        lambda: restore_backup(backup, server(server_url), new_name(), ledger, programs=find_programs()),
        lambda: proven_snapshot(ledger, NAME),
    ):
        with pytest.raises(StorageFailed, match="Could not connect"):
            work()
    found = find_backup(ledger, NAME)
    assert (found.damage, found.proven_at) == (None, backup.proven_at)


@pytest.mark.parametrize("where", ["sealed bucket"], indirect=True)
def test_two_at_once_do_not_disturb_each_other(database: Target, ledger: Ledger, where: There) -> None:
    fill(database)
    inner: list[Backup] = []
    begun: list[str] = []

    def once(fact: progress.Progress) -> None:
        if fact.task == f"backup {NAME}: described" and not begun:
            begun.append(fact.task)
            inner.append(back_up(database, where.destination, ledger, **where.policy))

    with progress.listening(once):
        outer = back_up(database, where.destination, ledger, **where.policy)
    assert where.backups == {outer.id, inner[0].id}
    for backup in (outer, *inner):
        assert verify_backup(backup, ledger, programs=find_programs()).passed


@pytest.mark.parametrize("where", ["sealed folder"], indirect=True)
def test_one_host_backs_up_with_the_public_key_and_another_restores_with_the_secret(
    database: Target,
    ledger: Ledger,
    server_url: str,
    where: There,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fill(database)
    key = (tmp_path / "key.txt").read_text().splitlines()[-1]
    monkeypatch.delenv(IDENTITY_FILE)
    backup = back_up(database, where.destination, ledger, **where.policy)
    made_by = os.environ.copy()
    monkeypatch.setenv(IDENTITY, key)
    elsewhere = tmp_path / "another host"
    with named_database(server_url, new_name()) as target:
        restore_backup(backup, server(server_url), target.name, ledger, programs=find_programs(), work=elsewhere)
        assert hashes(target) == hashes(database)
    said = capfd.readouterr()
    kept = json.dumps([one.as_json() for one in list_backups(ledger, NAME)])
    assert key not in said.out + said.err + kept + (backup.folder / "manifest.json").read_text()
    assert key not in made_by.values()


@pytest.mark.parametrize("where", ["bucket", "sealed folder", "sealed bucket"], indirect=True)
def test_a_lost_ledger_is_made_again_from_the_destination(
    database: Target, ledger: Ledger, server_url: str, where: There
) -> None:
    fill(database)
    proven = prove(back_up(database, where.destination, ledger, **where.policy), ledger, server_url)
    plain = back_up(database, where.destination, ledger, **where.policy)
    part = back_up(database, where.destination, ledger, scope=Scope(what="schema"), **where.policy)
    with ledger.session() as session:
        session.execute(delete(DrillRecord))
        session.execute(delete(BackupRecord))
    assert list_backups(ledger, NAME) == ()

    assert set(rebuild(ledger, where.destination, NAME)) == {proven.id, plain.id, part.id}

    assert list_backups(ledger, NAME) == (part, plain, proven), "as it was, the proof too"
    assert rebuild(ledger, where.destination, NAME) == ()
    assert verify_backup(plain, ledger, programs=find_programs()).passed
    snapshot = proven_snapshot(ledger, NAME)
    assert snapshot is not None
    assert snapshot.backup_id == proven.id


@pytest.mark.parametrize("where", ["bucket", "sealed folder"], indirect=True)
def test_only_what_is_whole_and_ours_is_taken_up_again(
    database: Target, ledger: Ledger, server_url: str, where: There
) -> None:
    backup = prove(back_up(database, where.destination, ledger, **where.policy), ledger, server_url)
    data = where.read(f"{backup.id}/manifest.json")
    where.write("another/manifest.json", data)
    where.write("rubbish/manifest.json", b"{}")
    where.write("half/dump/toc.dat", b"x")
    where.write(f"{backup.id}/manifest.json", data + b"\n")
    with ledger.session() as session:
        session.execute(delete(DrillRecord))
        session.execute(delete(BackupRecord))
    assert rebuild(ledger, where.destination, NAME) == (backup.id,)
    assert find_backup(ledger, NAME).proven_at is None, "the proof was of another manifest"
