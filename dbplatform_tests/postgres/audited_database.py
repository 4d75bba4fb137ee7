"""One database for all tests of an audit, empty again before each of them; used by ``pytest_plugins``."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.postgres.connection import Target
from dbplatform_tests.by_hand import by_hand


@pytest.fixture(scope="module")
def kept(server_url: str) -> Iterator[Target]:
    """One database for all tests of the module."""
    name = f"audited_{uuid.uuid4().hex[:8]}"
    server = Target("server", server_url)
    by_hand(server, f"create database {name}")
    yield Target(name, make_conninfo(server_url, dbname=name))
    by_hand(server, f"drop database {name} with (force)")


@pytest.fixture
def audited_database(kept: Target) -> Target:
    """The same database, empty again."""
    by_hand(kept, "drop schema public cascade", "create schema public", "grant usage on schema public to public")
    by_hand(kept, "drop schema if exists shut, migrations, dbplatform cascade")
    return kept
