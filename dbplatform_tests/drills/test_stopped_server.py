"""A clean-up on an embedded server that is stopped: it is started, and nothing is left out in silence."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from dbplatform_tests.installation import small_project

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
"""
_MIGRATION = "create table item (id int primary key, name text); insert into item values (1, 'pen'), (2, 'pen');\n"


@pytest.mark.drill
def test_what_is_left_over_is_seen_although_the_server_was_stopped(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as shop:
        shop.json("migrate", "apply", "shop")
        with shop.connect("shop") as connection, pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("create unique index concurrently by_hand on item (name)")
        shop.server.stop()
        found = shop.json("cleanup", "shop", "--dry-run")
        assert ("invalid index", "public.by_hand") in [(one["kind"], one["name"]) for one in found["leftovers"]]
