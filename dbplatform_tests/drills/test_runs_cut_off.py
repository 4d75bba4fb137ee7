"""A run of a job that loses what it writes to: Dagster's storage, the ledger, or the database itself."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from dbplatform.postgres.connection import Target
from dbplatform_tests.drills.breaking import unreachable
from dbplatform_tests.drills.test_dead_runs import in_its_statement, tick
from dbplatform_tests.installation import Installation, small_project

pytestmark = pytest.mark.drill
_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
"""
#: The second statement lasts until somebody makes a role, which is seen in every database.
_MIGRATION = """\
create table item (id int primary key);
do $$ begin
    while not exists (select from pg_roles where rolname = 'ready') loop
        perform pg_sleep(0.05);
    end loop;
end $$;
insert into item values (1);
"""


@pytest.mark.parametrize("lost", ["dagster", "dbplatform_ledger", "shop"])
def test_a_run_whose_sessions_are_cut_is_done_or_failed_and_the_next_ends_right(tmp_path: Path, lost: str) -> None:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as shop:
        shop.server.start()
        with shop.connect("postgres") as server:
            running = in_its_statement(shop, server)
            server.execute("select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = %s", (lost,))
            server.execute("create role ready")
            code = running.wait(timeout=300)
            assert code in ((3,) if lost == "shop" else (0, 3))
        ended_right(shop, whole=code == 0)


def test_a_run_without_its_ledger_says_so_and_the_next_ends_right(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as shop:
        shop.server.start()
        with shop.connect("postgres") as server:
            server.execute("create role ready")
        shop.json("runs", "list")
        shop.server.ensure_database("dbplatform_ledger")
        with unreachable(Target("the ledger", shop.server.url("dbplatform_ledger"))) as close:
            close()
            refused = shop.command("run", "shop", "--job", "shop_migrate")
            assert refused.returncode == 3
            assert "ledger" in refused.stdout + refused.stderr
        assert rows(shop) in (None, 1)
        ended_right(shop, whole=False)


def ended_right(shop: Installation, *, whole: bool) -> None:
    """The daemon has looked, and the next run is done; no run is left that seems to go on."""
    assert not whole or rows(shop) == 1
    assert tick(shop).wait(timeout=300) == 0
    assert shop.json("run", "shop", "--job", "shop_migrate")["status"] == "succeeded"
    assert rows(shop) == 1
    assert {one["status"] for one in shop.json("runs", "list")["runs"]} <= {"success", "failure"}


def rows(shop: Installation) -> int | None:
    """How many rows the migration has left; none while there is no table."""
    try:
        with shop.connect("shop") as connection:
            row = connection.execute("select count(*) from item").fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.OperationalError):
        return None
    return None if row is None else int(row[0])
