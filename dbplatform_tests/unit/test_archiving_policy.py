"""What may be declared of an archive, and in which words a mistake is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dbplatform.archiving.policy import ArchivePolicy, TableDestination
from dbplatform.postgres.identifiers import Relation

GOOD = {"name": "old_flights", "table": "public.flights", "column": "time_hour", "older_than": "6 months"}


def test_a_declared_archive_is_read() -> None:
    policy = ArchivePolicy(**GOOD)
    assert (str(policy.table), policy.older_than.months, policy.to) == ("public.flights", 6, None)


def test_the_rule_is_said_in_words() -> None:
    both = ArchivePolicy(**{**GOOD, "where": "cancelled"})
    assert both.rule == "time_hour is older than 6 months and cancelled"
    assert ArchivePolicy(name="x", table="t", where=" not open ").rule == "not open"


def test_a_bare_name_is_a_table_of_the_same_database() -> None:
    to = ArchivePolicy(**{**GOOD, "to": "history.flights"}).to
    assert to == TableDestination(table=Relation("history", "flights"))


def test_every_field_is_described() -> None:
    assert all(field.description for field in ArchivePolicy.model_fields.values())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"to": "s3://"}, "names no bucket"),
        ({"to": "s3://A/b"}, "names no bucket"),
        ({"to": "GS://bucket"}, "archiving to GS:// is not built yet"),
        ({"to": {"table": "a.b.c"}}, "a.b.c"),
        ({"to": {"url_env": "X"}}, "Field required"),
        ({"to": {"table": "a", "url_env": "postgresql://x"}}, "pattern"),
        ({"name": "Old"}, "pattern"),
        ({"name": "a/b"}, "pattern"),
        ({"older_than": "soon"}, "is not an interval"),
        ({"older_than": "0 days"}, "longer than zero"),
        ({"column": "a.b"}, "not the name of one column"),
        ({"compression": "gzip"}, "Extra inputs"),
        ({"column": None}, "belong together"),
        ({"older_than": None, "where": "done"}, "belong together"),
        ({"column": None, "older_than": None}, "nothing says which rows"),
        ({"where": " "}, "at least 1 character"),
    ],
)
def test_a_mistake_is_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ArchivePolicy(**{**GOOD, **given})


@pytest.mark.parametrize(
    ("to", "destination"),
    [
        (None, "/home/archives"),
        ("./archives", "/project/archives"),
        ("data/old", "/project/data/old"),
        ("/mnt/x", "/mnt/x"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
    ],
)
def test_a_folder_is_taken_from_the_declarations_own(to: str | None, destination: str) -> None:
    policy = ArchivePolicy(**{**GOOD, "to": to})
    assert policy.destination(base=Path("/project"), default=Path("/home/archives")) == destination


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"column": "at", "older_than": "1 year", "keep": "12 months"}, "keep must be longer"),
        ({"column": "at", "older_than": "1 year", "keep": "90 days"}, "keep must be longer"),
        ({"where": "done", "keep": "7 years"}, "write column and older_than"),
        ({"by": "partition", "keep": "7 years"}, "not built yet where whole partitions"),
    ],
)
def test_keep_that_says_nothing_or_less_than_the_age_is_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ArchivePolicy(name="old", table="orders", **fields)
