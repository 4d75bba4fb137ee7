"""What may be declared about backups, and the sentence for each mistake."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dbplatform.backups.policy import BackupPolicy
from dbplatform.postgres.words import Interval

RECIPIENT = "age1qh4czflf4v7d2vrzqclzqtfejtyzve6c099ujzsspkd3uyc5ruvqnywqjq"


def test_the_defaults_are_those_of_the_contract() -> None:
    policy = BackupPolicy()
    assert policy.destination is None
    assert (policy.logical.schedule, policy.logical.compression, policy.logical.jobs) == (None, "zstd:1", 2)
    assert (policy.retain.daily, policy.retain.weekly, policy.retain.monthly) == (7, 4, 12)
    assert policy.drill.max_age == Interval(days=8)


def test_the_block_of_the_contract_is_accepted() -> None:
    policy = BackupPolicy.model_validate(
        {
            "destination": "s3://bucket/backups",
            "server_side_encryption": "aws:kms",
            "encrypt_to": [RECIPIENT],
            "logical": {"schedule": "0 2 * * *", "compression": "gzip:6", "jobs": 4},
            "physical": {"schedule": "0 3 * * 0", "wal_archive": True},
            "retain": {"daily": 1, "weekly": 0, "monthly": 0},
            "drill": {"schedule": "0 5 * * 0", "max_age": "2 days"},
        }
    )
    assert policy.drill.max_age == Interval(days=2)
    assert policy.logical.jobs == 4
    assert policy.physical is not None
    assert (policy.physical.wal_archive, policy.physical.incremental) == (True, 6)


def test_physical_backups_are_left_out_or_declared_as_none() -> None:
    assert BackupPolicy().physical is None
    assert BackupPolicy.model_validate({"physical": False}).physical is None


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ({"destination": "s3:///backups"}, "names no bucket; write s3://bucket/prefix"),
        ({"destination": "ftp://host/x"}, "is no destination; name a folder, or s3://bucket/prefix"),
        ({"server_side_encryption": "AES256"}, "server_side_encryption is for a bucket"),
        ({"destination": "s3://b", "kms_key_id": "x"}, "kms_key_id needs server_side_encryption: aws:kms"),
        ({"physical": {"wal_archive": "yes"}}, "valid boolean"),
        ({"physical": {"incremental": 31}}, "less than or equal to 30"),
        ({"physical": {"max_slot_wal_mb": 1}}, "greater than or equal to 64"),
        ({"encrypt_to": ["age1xyz"]}, "'age1xyz' is no age recipient; write the line age1"),
        ({"encrypt_to": ["AGE-SECRET-KEY-1QQ"]}, "a secret key was written down; write the public one (age1...)"),
        ({"logical": {"schedule": "at two"}}, "'at two' is no cron schedule"),
        ({"logical": {"compression": "zip"}}, "'zip' is no compression; write zstd:1"),
        ({"logical": {"compression": "gzip:12"}}, "gzip has the levels 1 to 9, not 12"),
        ({"logical": {"jobs": 0}}, "greater than or equal to 1"),
        ({"logical": {"jobs": "2"}}, "valid integer"),
        ({"retain": {"daily": 0, "weekly": 0, "monthly": 0}}, "nothing would be kept"),
        ({"retain": {"daily": -1}}, "greater than or equal to 0"),
        ({"drill": {"max_age": "1 month"}}, "write days"),
        ({"retention": {}}, "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_one_sentence(block: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BackupPolicy.model_validate(block)
    assert sentence in str(caught.value)


def test_a_secret_key_in_the_declaration_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        BackupPolicy.model_validate({"encrypt_to": ["AGE-SECRET-KEY-1QQQQ"]})
    assert "QQQQ" not in str(caught.value)


def test_every_field_says_what_it_is() -> None:
    for name, definition in BackupPolicy.model_json_schema()["$defs"].items():
        for field, schema in definition["properties"].items():
            assert schema.get("description"), f"{name}.{field}"
