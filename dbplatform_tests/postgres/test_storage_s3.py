"""A store keeps whole files or none, resumes what was begun, and believes its own SHA-256 alone."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbplatform.storage import s3
from dbplatform.storage.folder import FolderPlace
from dbplatform.storage.place import StorageFailed
from dbplatform.storage.s3 import S3Store
from dbplatform.storage.store import ServerSideEncryption, Store, store_at
from dbplatform_tests.s3 import Fate, s3_server, unreliable

#: The least that S3 takes for a part that is not the last.
PART = 5 * 1024 * 1024


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
    monkeypatch.setattr(s3, "PART_BYTES", PART)
    name = f"store-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, bucket: str, tmp_path: Path) -> Store:
    return store_at(f"s3://{bucket}/some/where" if request.param == "bucket" else str(tmp_path / "store"))


def local(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / f"local-{uuid.uuid4().hex[:8]}"
    path.write_bytes(data)
    return path


def content(store: Store, name: str) -> bytes:
    with store.reading(name) as file:
        return file.read()


def names(store: Store, below: str = "") -> list[str]:
    return sorted(file.name for file in store.files(below))


def uploads(bucket: str) -> list[str]:
    return [one["Key"] for one in s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def test_what_is_put_is_listed_read_and_removed(store: Store, tmp_path: Path) -> None:
    large = os.urandom(2 * PART + 17)
    heard: list[int] = []
    store.put("a/large", local(tmp_path, large), heard=heard.append)
    store.put("a/small", local(tmp_path, b"small"))
    store.put("b/empty", local(tmp_path, b""))
    assert content(store, "a/large") == large
    assert (content(store, "a/small"), content(store, "b/empty")) == (b"small", b"")
    assert sum(heard) == len(large)
    assert names(store) == ["a/large", "a/small", "b/empty"]
    assert [(file.name, file.bytes) for file in store.files("b")] == [("b/empty", 0)]
    store.remove("a/large")
    store.remove("a/large")
    assert names(store, "a") == ["a/small"]
    store.clear()
    store.clear()
    assert names(store) == []
    with pytest.raises(FileNotFoundError):
        content(store, "a/small")


def test_a_store_does_not_see_or_clear_its_neighbour(bucket: str, tmp_path: Path) -> None:
    one, two = (S3Store.below(f"s3://{bucket}/{name}") for name in ("shop", "shop2"))
    one.put("x", local(tmp_path, b"1"))
    two.put("x", local(tmp_path, b"2"))
    s3.client().create_multipart_upload(Bucket=bucket, Key="shop2/y")
    assert names(one) == ["x"]
    one.clear()
    assert (names(one), names(two), uploads(bucket)) == ([], ["x"], ["shop2/y"])


def test_an_upload_that_failed_goes_on_behind_the_parts_that_went(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setattr(s3, "_THREADS", 1)
    data = os.urandom(3 * PART + 1)
    source = local(tmp_path, data)
    sent: list[str] = []

    def fate(method: str, path: str) -> Fate:
        if method == "PUT" and "partNumber" in path:
            sent.append(path.partition("partNumber=")[2][0])
            if sent == ["1", "2", "3"]:
                return "refused"
        return "answered"

    with unreliable(endpoint, fate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        with pytest.raises(StorageFailed):
            S3Store.below(f"s3://{bucket}").put("x", source)
        assert uploads(bucket) == ["x"]
        assert names(S3Store.below(f"s3://{bucket}")) == [], "nothing half-written is seen"
        S3Store.below(f"s3://{bucket}").put("x", source)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert sorted(sent) == ["1", "2", "3", "3", "4"], "each part once, but the one that failed"
    assert content(S3Store.below(f"s3://{bucket}"), "x") == data
    assert uploads(bucket) == []


def test_whole_parts_of_a_file_that_grows_go_ahead_and_the_rest_behind_them(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(2 * PART + 5)
    source = tmp_path / "grows"
    steps = iter([data[:PART], data[PART : PART + 1], data[PART + 1 :]])
    seen: list[list[int]] = []
    sent: list[str] = []

    def parts() -> list[int]:
        for one in s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            listed = s3.client().list_parts(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])
            return [part["PartNumber"] for part in listed.get("Parts", [])]
        return []

    def ended() -> bool:
        seen.append(parts())
        piece = next(steps, None)
        if piece is not None:
            with source.open("ab") as file:
                file.write(piece)
        return piece is None

    def fate(method: str, path: str) -> Fate:
        if "partNumber" in path:
            sent.append(path.partition("partNumber=")[2][0])
        return "answered"

    with unreliable(endpoint, fate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        store = S3Store.below(f"s3://{bucket}")
        store.put_begun("x", source, ended=ended)
        assert seen == [[], [], [1], [1, 2]], "a part that may be the last one waits"
        assert names(store) == []
        store.put("x", source, sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert sorted(sent) == ["1", "2", "3"], "each once"
    assert (content(store_at(f"s3://{bucket}"), "x"), uploads(bucket)) == (data, [])


def test_a_file_that_stays_small_has_no_parts(bucket: str, tmp_path: Path) -> None:
    source = local(tmp_path, os.urandom(PART))
    looks = iter([False, True])
    store = S3Store.below(f"s3://{bucket}")
    store.put_begun("x", source, ended=lambda: next(looks))
    assert uploads(bucket) == []
    store.put("x", source)
    assert (content(store, "x"), uploads(bucket)) == (source.read_bytes(), [])


def test_ten_thousand_parts_are_enough_for_the_largest_object() -> None:
    sizes = {part.number: part.bytes for part in s3._parts(5 * 2**40)}
    assert sum(sizes.values()) == 5 * 2**40
    assert max(sizes) <= 10_000
    assert max(sizes.values()) <= 5 * 2**30, "the largest part that S3 takes"
    begun = s3._parts()
    assert all(next(begun).bytes == sizes[number] for number in range(1, max(sizes)))


def test_parts_of_another_file_are_found_out_and_sent_again(bucket: str, tmp_path: Path) -> None:
    client = s3.client()
    upload = client.create_multipart_upload(Bucket=bucket, Key="x")["UploadId"]
    client.upload_part(Bucket=bucket, Key="x", UploadId=upload, PartNumber=1, Body=b"z" * PART)
    data = os.urandom(PART + 1)
    store = S3Store.below(f"s3://{bucket}")
    store.put("x", local(tmp_path, data))
    assert content(store, "x") == data


def lying(method: str, path: str) -> Fate:
    """The server takes everything and gives back other bytes."""
    return "altered" if method == "GET" and "?" not in path else "answered"


@pytest.mark.parametrize("size", [100, PART + 1], ids=["small", "in parts"])
def test_a_server_that_gives_back_other_bytes_is_found_out_at_once(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    with unreliable(endpoint, lying) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        with pytest.raises(StorageFailed, match="other bytes than it was sent"):
            S3Store.below(f"s3://{bucket}").put("x", local(tmp_path, os.urandom(size)))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert (names(S3Store.below(f"s3://{bucket}")), uploads(bucket)) == ([], [])


def test_a_server_that_stalls_is_given_up(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "TRIES", 2)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.2)
    over = threading.Event()
    with unreliable(endpoint, lambda method, path: "stalled", over=over) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        try:
            with pytest.raises(StorageFailed, match=r"(?i)time"):
                S3Store.below(f"s3://{bucket}").put("x", local(tmp_path, b"x"))
            with pytest.raises(StorageFailed, match=r"(?i)time"):
                content(S3Store.below(f"s3://{bucket}"), "x")
        finally:
            over.set()


def test_a_reader_goes_on_where_the_connection_ended(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(PART)
    S3Store.below(f"s3://{bucket}").put("x", local(tmp_path, data))
    gets: list[str] = []

    def fate(method: str, path: str) -> Fate:
        gets.append(path)
        return "truncated" if len(gets) < 4 else "answered"

    with unreliable(endpoint, fate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        assert content(S3Store.below(f"s3://{bucket}"), "x") == data
    assert len(gets) == 4


def test_an_object_that_is_replaced_while_it_is_read_is_refused(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    S3Store.below(f"s3://{bucket}").put("x", local(tmp_path, os.urandom(PART)))
    client = s3.client()

    def fate(method: str, path: str) -> Fate:
        return "truncated"

    with unreliable(endpoint, fate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        with S3Store.below(f"s3://{bucket}").reading("x") as file:
            file.read(10)
            client.put_object(Bucket=bucket, Key="x", Body=os.urandom(PART))
            with pytest.raises(StorageFailed, match=r"(?i)precondition"):
                file.read()


@pytest.mark.parametrize("size", [100, PART + 1], ids=["small", "in parts"])
def test_the_bucket_is_asked_to_encrypt(bucket: str, tmp_path: Path, size: int) -> None:
    store = S3Store.below(f"s3://{bucket}", encryption=ServerSideEncryption(method="aws:kms", kms_key_id="the-key"))
    store.put("x", local(tmp_path, os.urandom(size)))
    head = s3.client().head_object(Bucket=bucket, Key="x")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "the-key")


def test_a_server_that_ignores_the_wish_to_encrypt_is_refused(bucket: str, tmp_path: Path) -> None:
    store = S3Store.below(f"s3://{bucket}", encryption=ServerSideEncryption(method="AES256"))
    with pytest.raises(StorageFailed, match="did not encrypt it by AES256"):
        store._require_encrypted("x", {})


def test_a_file_that_cannot_be_kept_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="File exists"):
        FolderPlace(tmp_path / "file").put("x", local(tmp_path, b"x"))


def test_the_sha256_that_is_given_is_believed_over_the_file(bucket: str, tmp_path: Path) -> None:
    store = S3Store.below(f"s3://{bucket}")
    with pytest.raises(StorageFailed, match="other bytes"):
        store.put("x", local(tmp_path, b"changed since"), sha256=hashlib.sha256(b"as it was").hexdigest())
    assert names(store) == []
