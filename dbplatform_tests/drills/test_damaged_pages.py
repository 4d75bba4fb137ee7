"""A page of a table that is not what the server wrote: what reads it says so, what does not goes on, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dbplatform.maintenance.model import Outcome
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.postgres.archiving_support import ask
from dbplatform_tests.postgres.embedded_support import embedded, open_folder
from dbplatform_tests.postgres.maintenance_support import maintain
from dbplatform_tests.typed import Type

pytestmark = pytest.mark.drill
PAGE = 8192
TABLES = """
    create table item (a int primary key, b text) with (autovacuum_enabled = off);
    insert into item select i, md5(i::text) from generate_series(1, 20000) i;
    create table other (like item including all) with (autovacuum_enabled = off);
    insert into other table item;
    delete from item where a % 5 <> 0;
    delete from other where a % 5 <> 0;
"""
SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  quality:
    - {table: item, checks: [{not_null: b}, {row_count: {min: 4000, max: 4000}}]}
    - {table: other, checks: [{not_null: b}, {row_count: {min: 4000, max: 4000}}]}
"""


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with open_folder() as home, embedded(home / "home", settings={"fsync": "off"}) as server:
        server.start()
        server.ensure_database("shop")
        with psycopg.connect(server.url("shop"), autocommit=True) as session:
            session.execute(TABLES)
            session.execute("select pg_stat_force_next_flush()")
        yield server


@pytest.fixture
def database(server: EmbeddedServer) -> Target:
    return Target("shop", server.url("shop"))


@contextmanager
def a_damaged_page(server: EmbeddedServer, table: str) -> Iterator[None]:
    """One bit of the second page of the table is another one within the block."""
    database = Target("shop", server.url("shop"))
    file = server.status().data_directory / str(ask(database, f"select pg_relation_filepath('{table}')"))
    flip(server, file)
    yield
    flip(server, file)


def flip(server: EmbeddedServer, file: Path) -> None:
    server.stop()
    with file.open("r+b") as data:
        data.seek(PAGE + PAGE // 2)
        [byte] = data.read(1)
        data.seek(-1, 1)
        data.write(bytes([byte ^ 1]))
    server.start()


def test_checks_that_would_read_it_have_errored_and_those_of_other_tables_have_not(
    declare_shop: Callable[[str], Type], server: EmbeddedServer
) -> None:
    typed = declare_shop(SHOP)
    with a_damaged_page(server, "item"):
        found = typed("check", "shop", "--json").json
        assert found["verdict"] == "errored"
        statuses = {table["table"]: {check["status"] for check in table["checks"]} for table in found["tables"]}
        assert statuses == {"public.item": {"errored"}, "public.other": {"passed"}}
        [said] = {check["message"] for check in found["tables"][0]["checks"]}
        assert "invalid page in block 1" in said
    assert typed("check", "shop", "--json").json["verdict"] == "passed"


def test_maintenance_that_would_read_it_fails_for_that_table_alone_and_is_done_once_it_is_mended(
    server: EmbeddedServer, database: Target
) -> None:
    with a_damaged_page(server, "item"):
        first = of_vacuum(maintain(database, kinds=["vacuum"]).outcomes)
        assert {table: one.state for table, one in first.items()} == {"public.item": "failed", "public.other": "done"}
        assert "invalid page in block 1" in first["public.item"].words
    again = of_vacuum(maintain(database, kinds=["vacuum"]).outcomes)
    assert {table: one.state for table, one in again.items()} == {"public.item": "done"}
    assert ask(database, "select count(*), sum(a) from item") == (4000, 40010000)


def of_vacuum(outcomes: tuple[Outcome, ...]) -> dict[str, Outcome]:
    return {str(one.item.subject): one for one in outcomes}
