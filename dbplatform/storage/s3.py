"""A prefix of an S3 bucket. Endpoint, region and credentials come by the standard AWS variables.

A large file goes up in parts, and an object appears only when all of them are there (Amazon S3 User Guide: "Uploading
and copying objects using multipart upload"). Each request is tried again by botocore when the network, a time-out, a
5xx or throttling was in the way; what fails then is one clean error. The parts stay, and the next try of the same file
goes on behind them.

Each request is signed with the SHA-256 of what it sends, which every server compares. Servers differ in which other
checksums they know and whether they look at them, and an ETag is no proof: after an upload the whole object is read
back, and its SHA-256 compared with that of the file. One module, because a listing, a reader and an upload that goes on
share the client, its errors, and what a part is.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.utils import ReadFileChunk
from urllib3.exceptions import HTTPError

from dbplatform.storage.place import S3_SCHEME, StorageFailed
from dbplatform.storage.store import ServerSideEncryption, StoredFile, ignore

#: Of each of the first 1,000 parts. After as many they are twice as large, and so on: what a part holds does not depend
#: on the size of the file, and the 10,000 parts that S3 takes are enough for the 5 TB that an object may have.
PART_BYTES = 16 * 1024 * 1024
_PARTS_OF_A_SIZE = 1000
_THREADS = 4
#: Of one client: a few files at a time, each by so many threads.
_CONNECTIONS = 4 * _THREADS
#: Of one request, the first included.
TRIES = 5
CONNECT_TIMEOUT_S = 10
#: Without a byte; a server that stalls is asked again, and given up after ``TRIES``.
READ_TIMEOUT_S = 60
_NOT_FOUND = ("404", "NoSuchKey", "NotFound")
_REMOVED_AT_ONCE = 1000
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Of a file that goes up in parts."""

    number: int
    start: int
    bytes: int

    @property
    def end(self) -> int:
        return self.start + self.bytes


def _parts(size: int | None = None) -> Iterator[_Part]:
    """The parts of a file of that size; of one that still grows, all that it may have."""
    start = 0
    for number in count(1):
        full = PART_BYTES << ((number - 1) // _PARTS_OF_A_SIZE)
        if size is not None and start + full >= size:
            yield _Part(number=number, start=start, bytes=size - start)
            return
        yield _Part(number=number, start=start, bytes=full)
        start += full


def _size_so_far(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@dataclass(frozen=True, kw_only=True)
class S3Store:
    """The objects below ``s3://bucket/prefix``. Variables are read when it is first used: make one for each work."""

    bucket: str
    prefix: str
    encryption: ServerSideEncryption | None = None

    @classmethod
    def below(cls, url: str, *, encryption: ServerSideEncryption | None = None) -> S3Store:
        bucket, prefix = _split(url)
        return cls(bucket=bucket, prefix=prefix.strip("/"), encryption=encryption)

    @cached_property
    def _client(self) -> Any:
        """One for all threads."""
        return client()

    def location(self, name: str = "") -> str:
        return f"{S3_SCHEME}{self.bucket}/{self._key(name)}"

    def put(self, name: str, source: Path, *, sha256: str | None = None, heard: Callable[[int], None] = ignore) -> None:
        with source.open("rb") as file:
            wanted = sha256 or hashlib.file_digest(file, "sha256").hexdigest()
        resumed = self._put(name, source, heard)
        if self._sha256(name) == wanted:
            return
        # The parts that were there may have been of another file.
        if resumed:
            self._put(name, source, ignore)
            if self._sha256(name) == wanted:
                return
        self.remove(name)
        raise _failed(self.location(name), "it gave back other bytes than it was sent")

    def put_begun(self, name: str, source: Path, *, ended: Callable[[], bool]) -> None:
        key, upload, parts = self._key(name), None, _parts()
        part = next(parts)
        with _talking(self.location(name)):
            while not ended():
                # One that may be the last is left to ``put``: a small file has no parts at all.
                if part.end < _size_so_far(source):
                    upload = upload or self._begin(key)
                    self._put_part(key, upload, source, part)
                    part = next(parts)

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        with _Object(self._client, self.bucket, self._key(name)) as raw:
            yield cast("BinaryIO", io.BufferedReader(raw, _PIECE))

    def files(self, below: str = "") -> Iterator[StoredFile]:
        start = self._folder("")
        with _talking(self.location(below)):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._folder(below)
            )
            found = [one for page in pages for one in page.get("Contents", [])]
        for one in found:
            yield StoredFile(name=one["Key"].removeprefix(start), bytes=one["Size"])

    def remove(self, name: str) -> None:
        key = self._key(name)
        with _talking(self.location(name)):
            self._abort(key, exactly=True)
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def clear(self) -> None:
        with _talking(self.location()):
            self._abort(self._folder(""), exactly=False)
            names = [{"Key": self._key(file.name)} for file in self.files()]
            for start in range(0, len(names), _REMOVED_AT_ONCE):
                some = names[start : start + _REMOVED_AT_ONCE]
                answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": some, "Quiet": True})
                for refused in answer.get("Errors", []):
                    raise _failed(f"{S3_SCHEME}{self.bucket}/{refused['Key']}", str(refused.get("Message")))

    def _put(self, name: str, source: Path, heard: Callable[[int], None]) -> bool:
        """Upload; whether parts of an earlier try were taken for granted."""
        key, size = self._key(name), source.stat().st_size
        with _talking(self.location(name)):
            if size > PART_BYTES:
                return self._put_parts(key, source, size, heard)
            with source.open("rb") as body:
                answer = self._client.put_object(Bucket=self.bucket, Key=key, Body=body, **self._encrypted())
            self._require_encrypted(key, answer)
            heard(size)
        return False

    def _put_parts(self, key: str, source: Path, size: int, heard: Callable[[int], None]) -> bool:
        parts = {part.number: part for part in _parts(size)}
        upload, tags = self._begun(key, {part.number: part.bytes for part in parts.values()})
        resumed = bool(tags)
        upload = upload or self._begin(key)
        heard(sum(parts[number].bytes for number in tags))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3-upload") as pool:
            sent = {
                pool.submit(self._put_part, key, upload, source, part): part
                for part in parts.values()
                if part.number not in tags
            }
            try:
                for future in as_completed(sent):
                    tags[sent[future].number] = future.result()
                    heard(sent[future].bytes)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        listed = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        self._client.complete_multipart_upload(
            Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": listed}
        )
        return resumed

    def _begin(self, key: str) -> str:
        answer = self._client.create_multipart_upload(Bucket=self.bucket, Key=key, **self._encrypted())
        self._require_encrypted(key, answer)
        return str(answer["UploadId"])

    def _put_part(self, key: str, upload: str, source: Path, part: _Part) -> str:
        with ReadFileChunk.from_filename(str(source), part.start, part.bytes) as body:
            answer = self._client.upload_part(
                Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=part.number, Body=body
            )
        return str(answer["ETag"])

    def _begun(self, key: str, lengths: dict[int, int]) -> tuple[str | None, dict[int, str]]:
        """An upload of that key that did not end, and its parts of the right length; others are of no use."""
        for upload in self._uploads(key, exactly=True):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=key, UploadId=upload["UploadId"]
            )
            found = {one["PartNumber"]: one for page in pages for one in page.get("Parts", [])}
            if all(lengths.get(number) == one["Size"] for number, one in found.items()):
                return upload["UploadId"], {number: one["ETag"] for number, one in found.items()}
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload["UploadId"])
        return None, {}

    def _uploads(self, key: str, *, exactly: bool) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=key)
        try:
            uploads = [one for page in pages for one in page.get("Uploads", [])]
        except self._client.exceptions.NoSuchUpload:
            # The answer of rclone serve s3 for a bucket that has none.
            return []
        return [one for one in uploads if not exactly or one["Key"] == key]

    def _abort(self, key: str, *, exactly: bool) -> None:
        for upload in self._uploads(key, exactly=exactly):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _sha256(self, name: str) -> str:
        with self.reading(name) as file:
            return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()

    def _encrypted(self) -> dict[str, str]:
        if self.encryption is None:
            return {}
        key = {"SSEKMSKeyId": self.encryption.kms_key_id} if self.encryption.kms_key_id else {}
        return {"ServerSideEncryption": self.encryption.method, **key}

    def _require_encrypted(self, key: str, answer: dict[str, Any]) -> None:
        """A server that does not know the header ignores it."""
        if self.encryption is not None and answer.get("ServerSideEncryption") != self.encryption.method:
            raise _failed(
                f"{S3_SCHEME}{self.bucket}/{key}", f"the server did not encrypt it by {self.encryption.method}"
            )

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.prefix, name) if part)

    def _folder(self, name: str) -> str:
        key = self._key(name)
        return f"{key}/" if key else ""


@dataclass(frozen=True, kw_only=True)
class S3Place(S3Store):
    """The same as a place: a file is written first below the local folder ``work``."""

    work: Path

    @classmethod
    def at(cls, url: str, *, work: Path) -> S3Place:
        bucket, prefix = _split(url)
        return cls(bucket=bucket, prefix=prefix.strip("/"), work=work)

    def partial(self, name: str) -> Path:
        final = self.work / name
        return final.with_name(f".{final.stem}.partial{final.suffix}")

    def complete(self, name: str) -> None:
        partial = self.partial(name)
        try:
            self.put(name, partial)
        except (StorageFailed, OSError) as error:
            # Its local file goes, so that nobody can go on with the parts.
            with suppress(StorageFailed):
                self.remove(name)
            raise error if isinstance(error, StorageFailed) else _failed(self.location(name), error) from error
        finally:
            partial.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        self.partial(name).unlink(missing_ok=True)
        self.remove(name)


class _Object(io.RawIOBase):
    """An object as a stream. Where the connection ends amid it, the rest is asked for, of the same version."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        self._at = self._size = self._failures = 0
        self._version: dict[str, str] = {}
        self._body: Any = None
        self._talk(self._open)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._talk(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
        super().close()

    def _open(self) -> None:
        rest = {"Range": f"bytes={self._at}-"} if self._at else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **rest, **self._version)
        if not self._at:
            self._size = answer["ContentLength"]
            self._version = {"IfMatch": answer["ETag"]}
        self._body = answer["Body"]

    def _read(self, length: int) -> bytes:
        while self._at < self._size:
            try:
                if self._body is None:
                    self._open()
                data: bytes = self._body.read(length)
            except (BotoCoreError, HTTPError, OSError):
                self._failures += 1
                if self._failures >= TRIES:
                    raise
            else:
                if data:
                    self._at += len(data)
                    self._failures = 0
                    return data
                self._failures += 1
                if self._failures >= TRIES:
                    raise OSError("the object ends too early")
            self._body = None
        return b""

    def _talk(self, ask: Callable[[], Any]) -> Any:
        with _talking(f"{S3_SCHEME}{self._bucket}/{self._key}"):
            return ask()


@contextmanager
def fetched(location: str) -> Iterator[BinaryIO]:
    """A local copy of the object that vanishes with the block, or with the process."""
    bucket, key = _split(location)
    with tempfile.TemporaryFile() as file:
        with S3Store(bucket=bucket, prefix="").reading(key) as source:
            while piece := source.read(_PIECE):
                file.write(piece)
        file.seek(0)
        yield cast("BinaryIO", file)


def is_there(location: str) -> bool:
    """Whether there is an object."""
    bucket, key = _split(location)
    try:
        with _talking(location):
            client().head_object(Bucket=bucket, Key=key)
    except FileNotFoundError:
        return False
    return True


def require_bucket(location: str) -> None:
    """Raise ``StorageFailed`` unless the bucket is there and answers to the credentials."""
    bucket, _ = _split(location)
    try:
        with _talking(location):
            client().head_bucket(Bucket=bucket)
    except FileNotFoundError:
        raise StorageFailed(
            location=location, reason=f"there is no bucket {bucket}", hint="Make it, then try again."
        ) from None


def client() -> Any:
    """A client of the moment: variables are read when work begins."""
    own_endpoint = "AWS_ENDPOINT_URL_S3" in os.environ or "AWS_ENDPOINT_URL" in os.environ
    return boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": TRIES},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=_CONNECTIONS,
            s3={
                # Other servers than Amazon's seldom have a name for each bucket, or know its newer checksums.
                "addressing_style": "path" if own_endpoint else "auto",
                "payload_signing_enabled": True,
            },
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def _talking(location: str) -> Iterator[None]:
    """Errors of the storage as ours; what is not there is ``FileNotFoundError``."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NOT_FOUND:
            raise FileNotFoundError(f"there is no object {location}") from error
        raise _failed(location, error) from error
    except (Boto3Error, BotoCoreError, HTTPError, OSError) as error:
        raise _failed(location, error) from error


def _failed(location: str, error: BaseException | str) -> StorageFailed:
    return StorageFailed(
        location=location,
        reason=(str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."),
        hint="See to AWS_ENDPOINT_URL_S3, the credentials and the bucket, then try again.",
    )


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix(S3_SCHEME).partition("/")
    return bucket, key
