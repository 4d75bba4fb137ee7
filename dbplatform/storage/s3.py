"""A prefix of an S3 bucket. Endpoint, region and credentials come by the standard AWS variables.

A large file goes up in parts, and an object appears only when all of them are there (Amazon S3 User Guide: "Uploading
and copying objects using multipart upload"). Each request is tried again by botocore when the network, a time-out, a
5xx or throttling was in the way; what fails then is one clean error, and the parts are aborted. Servers differ in which
checksums they know and whether they look at them, so that none is relied on: the owner compares its own SHA-256.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dbplatform.storage.place import S3_SCHEME, StorageFailed

#: Of a part; S3 takes at most 10,000 of them: 160 GB.
PART_BYTES = 16 * 1024 * 1024
_THREADS = 4
#: Of one request, the first included.
TRIES = 5
_NOT_FOUND = ("404", "NoSuchKey", "NotFound")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """The objects below ``s3://bucket/prefix``; a file is written first below the local folder ``work``."""

    bucket: str
    prefix: str
    work: Path

    @classmethod
    def at(cls, url: str, *, work: Path) -> S3Place:
        bucket, prefix = _split(url)
        return cls(bucket=bucket, prefix=prefix.strip("/"), work=work)

    def location(self, name: str) -> str:
        return f"{S3_SCHEME}{self.bucket}/{self._key(name)}"

    def partial(self, name: str) -> Path:
        final = self.work / name
        return final.with_name(f".{final.stem}.partial{final.suffix}")

    def complete(self, name: str) -> None:
        partial = self.partial(name)
        try:
            with _talking(self.location(name)):
                client().upload_file(str(partial), self.bucket, self._key(name), Config=_transfer())
        finally:
            partial.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        self.partial(name).unlink(missing_ok=True)
        key = self._key(name)
        with _talking(self.location(name)):
            found = client().list_multipart_uploads(Bucket=self.bucket, Prefix=key)
            for upload in found.get("Uploads", []):
                client().abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            client().delete_object(Bucket=self.bucket, Key=key)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


@contextmanager
def fetched(location: str) -> Iterator[BinaryIO]:
    """A local copy of the object that vanishes with the block, or with the process."""
    bucket, key = _split(location)
    with tempfile.TemporaryFile() as file:
        with _talking(location):
            client().download_fileobj(bucket, key, file, Config=_transfer())
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
    """A client of the moment: variables are read when work begins, and a client is not shared between threads."""
    own_endpoint = "AWS_ENDPOINT_URL_S3" in os.environ or "AWS_ENDPOINT_URL" in os.environ
    return boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": TRIES},
            connect_timeout=10,
            read_timeout=60,
            # Other servers than Amazon's seldom have a name for each bucket, or know its newer checksums.
            s3={"addressing_style": "path" if own_endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _transfer() -> TransferConfig:
    return TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=_THREADS,
        num_download_attempts=TRIES,
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
    except Boto3Error as error:
        # It only says which file went where, which is known.
        raise _failed(location, error.__context__ or error) from error
    except (BotoCoreError, OSError) as error:
        raise _failed(location, error) from error


def _failed(location: str, error: BaseException) -> StorageFailed:
    return StorageFailed(
        location=location,
        reason=(str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."),
        hint="See to AWS_ENDPOINT_URL_S3, the credentials and the bucket, then try again.",
    )


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix(S3_SCHEME).partition("/")
    return bucket, key
