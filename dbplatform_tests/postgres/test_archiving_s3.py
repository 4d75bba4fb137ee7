"""Archives in a bucket: the same proof as in a folder, also while the storage fails at random."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbplatform.archiving import errors
from dbplatform.archiving.catalogue import list_archives
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.storage import s3
from dbplatform.storage.place import StorageFailed, exists, opened
from dbplatform.storage.s3 import S3Place
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    ORDERS,
    archive,
    ask,
    content,
    erase,
    fill,
    finished_after_a_kill,
    only,
    policy,
    restore,
    verify,
)
from dbplatform_tests.postgres.test_archiving_children import COUNTS, FAMILY, TABLES, contents
from dbplatform_tests.postgres.test_archiving_erase import PEOPLE
from dbplatform_tests.s3 import Fate, s3_server, unreliable

#: The least that S3 takes for a part that is not the last.
PART = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def place(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Place:
    """A prefix of a new bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"archives-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=bucket)
    return S3Place.at(f"s3://{bucket}/cold/", work=tmp_path / "work")


def keys(place: S3Place) -> list[str]:
    found = s3.client().list_objects_v2(Bucket=place.bucket)
    return [one["Key"] for one in found.get("Contents", [])]


def uploads(place: S3Place) -> list[str]:
    """The keys of uploads that were begun and have not ended."""
    return [one["Key"] for one in s3.client().list_multipart_uploads(Bucket=place.bucket).get("Uploads", [])]


def local_files(place: S3Place) -> list[str]:
    return [str(path) for path in place.work.rglob("*") if path.is_file()]


@contextmanager
def failing_at_random(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, seed: int, *, tries: int, weights: tuple[int, int, int, int]
) -> Iterator[None]:
    """During the block the storage answers, refuses, cuts and truncates in these parts; asked ``tries`` times."""
    chance = random.Random(seed)

    def fate(method: str, path: str) -> Fate:
        return chance.choices(("answered", "refused", "cut", "truncated"), weights=weights)[0]

    with monkeypatch.context() as patch, unreliable(endpoint, fate) as proxy:
        patch.setattr(s3, "TRIES", tries)
        patch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        yield


def put(place: S3Place, name: str, data: bytes) -> None:
    place.partial(name).parent.mkdir(parents=True, exist_ok=True)
    place.partial(name).write_bytes(data)
    place.complete(name)


def test_an_archive_in_a_bucket_and_its_restore_give_the_same_content_hash(
    database: Target, ledger: Ledger, place: S3Place
) -> None:
    fill(database, ORDERS)
    before = content(database)
    assert archive(database, ledger, place).deleted == 700
    entry = only(ledger)
    assert entry.location == f"s3://{place.bucket}/cold/{DATABASE}/old/{entry.id}.parquet"
    assert keys(place) == [f"cold/{DATABASE}/old/{entry.id}.parquet"]
    assert local_files(place) == [], "nothing is left on the local disk"
    assert verify(database, ledger, entry.id).passed
    assert restore(database, ledger, entry.id).restored == 700
    assert content(database) == before


def test_a_large_file_goes_up_in_parts_and_comes_back(place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", PART)
    data = os.urandom(2 * PART + 17)
    put(place, "a/b.parquet", data)
    head = s3.client().head_object(Bucket=place.bucket, Key="cold/a/b.parquet")
    assert head["ETag"].strip('"').endswith("-3"), "three parts"
    with opened(place.location("a/b.parquet")) as file:
        assert file.read() == data


def test_an_object_that_was_changed_is_found_before_a_row_is_deleted(
    database: Target, ledger: Ledger, place: S3Place
) -> None:
    fill(database, ORDERS)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, place, recheck=lambda: None)
    with opened(only(ledger).location) as file:
        data = bytearray(file.read())
    data[len(data) // 2] ^= 1
    (key,) = keys(place)
    s3.client().put_object(Bucket=place.bucket, Key=key, Body=bytes(data))
    with pytest.raises(errors.ArchiveDamaged, match="SHA-256 differs"):
        archive(database, ledger, place)
    assert ask(database, "select count(*) from orders") == 1000
    assert not verify(database, ledger, only(ledger).id).passed


def test_an_object_that_is_gone_is_damage_and_an_export_without_it_begins_anew(
    database: Target, ledger: Ledger, place: S3Place
) -> None:
    fill(database, ORDERS)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, place, recheck=lambda: None)
    s3.client().delete_object(Bucket=place.bucket, Key=keys(place)[0])
    assert "there is no object" in str(verify(database, ledger, only(ledger).id).problem)
    assert archive(database, ledger, place).deleted == 700
    assert only(ledger).status == "deleted"


def test_without_the_bucket_nothing_is_deleted_or_listed(database: Target, ledger: Ledger, place: S3Place) -> None:
    fill(database, ORDERS)
    elsewhere = S3Place(bucket="no-such-bucket", prefix="", work=place.work)
    with pytest.raises(
        errors.ArchiveNotWritten, match=r"s3://no-such-bucket/shop/old.*: An error.*NoSuchBucket"
    ) as caught:
        archive(database, ledger, elsewhere)
    assert "Nothing was deleted" in str(caught.value)
    assert (ask(database, "select count(*) from orders"), list_archives(ledger, DATABASE)) == (1000, [])
    assert local_files(place) == []
    assert archive(database, ledger, place).deleted == 700


def test_a_bucket_is_asked_for_without_writing_to_it(place: S3Place) -> None:
    s3.require_bucket(place.location(""))
    with pytest.raises(StorageFailed, match="there is no bucket no-such-bucket"):
        s3.require_bucket("s3://no-such-bucket/cold")
    assert keys(place) == []


def test_a_storage_that_does_not_answer_is_no_damage(
    database: Target, ledger: Ledger, place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, place)
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(StorageFailed, match="Could not connect"):
        verify(database, ledger, only(ledger).id)


@pytest.mark.parametrize("seed", cases(*range(6), sample=(0,)))
def test_a_storage_that_fails_at_random_loses_and_doubles_nothing(
    database: Target, ledger: Ledger, place: S3Place, endpoint: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    fill(database, ORDERS)
    before = content(database)
    with failing_at_random(endpoint, monkeypatch, seed, tries=3, weights=(6, 2, 1, 1)):
        for _ in range(10):
            try:
                archive(database, ledger, place)
            except (errors.ArchiveNotWritten, errors.ArchiveDamaged, StorageFailed):
                assert ask(database, "select count(*) from orders") == 1000, "it failed before the delete step"
            if ask(database, "select count(*) from orders") == 300:
                break
    archive(database, ledger, place)
    entry = only(ledger)
    assert (entry.status, entry.deleted_rows) == ("deleted", 700)
    assert restore(database, ledger, entry.id).restored == 700
    assert content(database) == before


def test_parts_of_an_upload_that_fails_are_taken_back(
    place: S3Place, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", PART)
    monkeypatch.setattr(s3, "TRIES", 1)
    with unreliable(endpoint, lambda _, path: "refused" if "partNumber=2" in path else "answered") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        with pytest.raises(StorageFailed):
            put(place, "x.parquet", os.urandom(2 * PART + 1))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert not exists(place.location("x.parquet"))
    assert (keys(place), uploads(place)) == ([], [])


def test_what_a_killed_upload_leaves_is_discarded(place: S3Place) -> None:
    s3.client().create_multipart_upload(Bucket=place.bucket, Key="cold/x.parquet")
    place.partial("x.parquet").parent.mkdir(parents=True)
    place.partial("x.parquet").write_bytes(b"half")
    place.discard("x.parquet")
    assert (uploads(place), place.partial("x.parquet").exists()) == ([], False)


@pytest.mark.parametrize("seed", cases(*range(6), sample=(0,)))
def test_a_storage_that_fails_at_random_never_parts_rows_from_those_that_refer_to_them(
    database: Target, ledger: Ledger, place: S3Place, endpoint: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    fill(database, FAMILY)
    before = contents(database)
    along = policy(children="archive")
    with failing_at_random(endpoint, monkeypatch, seed, tries=2, weights=(7, 1, 1, 1)):
        for _ in range(10):
            try:
                archive(database, ledger, place, along)
            except (errors.ArchiveNotWritten, errors.ArchiveDamaged, StorageFailed):
                assert ask(database, COUNTS) == (1000, 201, 100), "it failed before the delete step"
            if ask(database, COUNTS) == (300, 61, 30):
                break
    archive(database, ledger, place, along)
    assert ask(database, COUNTS) == (300, 61, 30)
    found = {entry.table: entry for entry in list_archives(ledger, DATABASE)}
    assert [found[f"public.{table}"].deleted_rows for table in TABLES] == [700, 140, 70]
    assert len(keys(place)) == 3, "no debris"
    restore(database, ledger, found["public.orders"].id)
    assert contents(database) == before


@pytest.mark.parametrize("seed", cases(*range(4), sample=(0,)))
def test_an_erasure_in_a_storage_that_fails_at_random_ends_with_one_archive_without_the_rows(
    database: Target, ledger: Ledger, place: S3Place, endpoint: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, place)
    with failing_at_random(endpoint, monkeypatch, seed, tries=2, weights=(5, 2, 1, 1)):
        for _ in range(10):
            try:
                erase(database, ledger, place.work)
                break
            except (errors.ArchiveNotWritten, errors.ArchiveDamaged, StorageFailed):
                assert len(list_archives(ledger, DATABASE)) == 1
    erase(database, ledger, place.work)
    assert ask(database, "select count(*) from orders where name in ('Person 7', 'Person 90')") == 0
    entry = only(ledger)
    assert (entry.rows, verify(database, ledger, entry.id).passed, len(keys(place))) == (69, True, 1)
    assert uploads(place) == []
    assert restore(database, ledger, entry.id).restored == 69


@pytest.mark.parametrize(
    ("point", "done", "listed"),
    cases(
        ("export", 600, []),
        ("write", 0, []),
        ("rename", 0, []),
        ("record", 0, ["exported"]),
        ("batch", 350, ["verified"]),
        ("finish", 0, ["verified"]),
        sample=("rename",),
    ),
)
def test_an_archive_into_a_bucket_killed_here_is_finished_by_the_next_run(
    database: Target, ledger: Ledger, place: S3Place, point: str, done: int, listed: list[str]
) -> None:
    finished_after_a_kill(
        database, ledger, place, point, done, listed, lambda: uploads(place) + keys(place)[1:] + local_files(place)
    )
