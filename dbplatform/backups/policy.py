"""What may be declared about backups."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from dbplatform.backups.keys import recipients
from dbplatform.postgres.words import Cron, DurationWords, Interval, Policy
from dbplatform.storage.place import S3_SCHEME
from dbplatform.storage.place import destination as is_destination

#: The levels that pg_dump takes, by method.
_LEVELS = {"none": (0, 0), "gzip": (1, 9), "lz4": (1, 12), "zstd": (1, 22)}


def _compression(value: str) -> str:
    match = re.fullmatch(r"([a-z0-9]+)(?::(\d+))?", value)
    if match is None or match[1] not in _LEVELS:
        raise ValueError(f"{value!r} is no compression; write zstd:1, gzip:6, lz4:1 or none")
    low, high = _LEVELS[match[1]]
    if match[2] is not None and not low <= int(match[2]) <= high:
        raise ValueError(f"{match[1]} has the levels {low} to {high}, not {match[2]}")
    return value


def _recipient(value: str) -> str:
    recipients([value])
    return value


class LogicalPolicy(Policy):
    """Dumps of the database by pg_dump, in its directory format."""

    schedule: Cron | None = Field(
        default=None,
        description="When a backup is taken, proven and old ones removed, by itself: five cron words, in the "
        "database's time zone. Left out: daily, with the job <database>_daily.",
    )
    compression: Annotated[str, AfterValidator(_compression)] = Field(
        default="zstd:1",
        description="How pg_dump packs the data: zstd, gzip or lz4 with a level, or none. Where the program cannot do "
        "it, gzip:1; the manifest tells which it was.",
    )
    jobs: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        default=2, description="How many tables are dumped, or restored, side by side; each takes a connection."
    )


class PhysicalPolicy(Policy):
    """Copies of the whole server by pg_basebackup, and its WAL, from which any moment in between is restored."""

    schedule: Cron | None = Field(
        default=None,
        description="When a base backup is taken by itself: five cron words, in the database's time zone. It serves "
        "all databases there. Left out: weekly, with the job <database>_weekly.",
    )
    wal_archive: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether the server's WAL is kept, so that a moment can be restored. The embedded server archives "
        "it from its next start and its first base backup on; for others run dbplatform wal receive.",
    )
    incremental: Annotated[int, Field(strict=True, ge=0, le=30)] = Field(
        default=6,
        description="How many incremental base backups may follow a full one, from PostgreSQL 17 on with "
        "summarize_wal; 0: each is a full one.",
    )
    recovery_window: DurationWords = Field(
        default=Interval(days=14),
        validate_default=True,
        description="How far back every moment stays restorable: WAL older than that is pruned.",
    )
    max_slot_wal_mb: Annotated[int, Field(strict=True, ge=64)] = Field(
        default=16_384,
        description="How many MB of WAL the server may keep back for wal receive before that is a finding.",
    )


class RetainPolicy(Policy):
    """What is kept: the newest backup of each of so many days, ISO weeks and months that have one, in UTC."""

    daily: Annotated[int, Field(strict=True, ge=0)] = Field(default=7, description="How many days.")
    weekly: Annotated[int, Field(strict=True, ge=0)] = Field(default=4, description="How many weeks.")
    monthly: Annotated[int, Field(strict=True, ge=0)] = Field(default=12, description="How many months.")

    @model_validator(mode="after")
    def _keeps_something(self) -> RetainPolicy:
        if not (self.daily or self.weekly or self.monthly):
            raise ValueError("nothing would be kept; let daily, weekly or monthly be at least 1")
        return self


class DrillPolicy(Policy):
    """How often a restore proves the newest backup."""

    schedule: Cron | None = Field(
        default=None,
        description="When drills run besides those behind each backup: five cron words, in the database's time zone.",
    )
    max_age: DurationWords = Field(
        default=Interval(days=8),
        validate_default=True,
        description="How old the newest proof may be; with an older one nothing is pruned or archived.",
    )
    checks: Annotated[bool, Field(strict=True)] = Field(
        default=True, description="Whether the declared data-quality checks run on the restored copy, too."
    )
    checks_limit: DurationWords = Field(
        default=Interval(microseconds=1_800_000_000),
        validate_default=True,
        description="How long they may take together; what has not run by then is undecided.",
    )


class BackupPolicy(Policy):
    """How one database is backed up, how long backups are kept, and how they are proven."""

    destination: Annotated[str, AfterValidator(is_destination), Field(min_length=1)] | None = Field(
        default=None,
        description="A folder, or s3://bucket/prefix, whose endpoint and credentials come by the standard AWS "
        "variables; each database has a folder of its name in it. Left out: the folder backups in DBPLATFORM_HOME.",
    )
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, description="How the bucket is asked to encrypt what it keeps; left out: as it is set up."
    )
    kms_key_id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The key of aws:kms or aws:kms:dsse; left out: the account's own."
    )
    encrypt_to: list[Annotated[str, AfterValidator(_recipient)]] = Field(
        default=[],
        description="age recipients (age1...): the files are encrypted to them before they leave this host, which "
        "cannot read them again. Restores and drills take the key from the file that DBPLATFORM_AGE_IDENTITY_FILE "
        "names, or from DBPLATFORM_AGE_IDENTITY.",
    )
    # Made when they are needed: a model is built at its first use, and a short command uses few.
    logical: LogicalPolicy = Field(default_factory=LogicalPolicy)
    physical: PhysicalPolicy | None = Field(
        default=None, description="Base backups of the server and its WAL, besides the dumps; left out: none."
    )
    retain: RetainPolicy = Field(default_factory=RetainPolicy)
    drill: DrillPolicy = Field(default_factory=DrillPolicy)

    @model_validator(mode="after")
    def _of_a_bucket(self) -> BackupPolicy:
        in_bucket = self.destination is not None and self.destination.startswith(S3_SCHEME)
        if self.server_side_encryption is not None and not in_bucket:
            raise ValueError("server_side_encryption is for a bucket; for a folder, encrypt the files by encrypt_to")
        if self.kms_key_id is not None and self.server_side_encryption in (None, "AES256"):
            raise ValueError("kms_key_id needs server_side_encryption: aws:kms")
        return self

    @model_validator(mode="before")
    @classmethod
    def _none_of_physical(cls, value: Any) -> Any:
        """``physical: false`` is none."""
        if isinstance(value, dict):
            return {name: item for name, item in value.items() if name != "physical" or item is not False}
        return value
