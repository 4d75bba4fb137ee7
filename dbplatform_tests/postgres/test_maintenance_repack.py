"""pg_repack of Debian's package on its own server: a bloated table is written anew, and a killed one leaves nothing."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbplatform.maintenance.pace import Pace
from dbplatform.maintenance.repack import find_repacker
from dbplatform.postgres.client_programs import ProgramFailed
from dbplatform.postgres.connection import Target
from dbplatform_tests.postgres.embedded_support import wait_until
from dbplatform_tests.postgres.maintenance_support import item, maintain, outcome, pace, planned, policy

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

_REMAINS = """
    select (select count(*) from pg_trigger where tgrelid = 'item'::regclass and tgname like '%%repack_trigger'),
           (select count(*) from pg_class where relnamespace = 'repack'::regnamespace and relname ~ '_[0-9]+$'
            and relkind = 'r')
"""

# The advisory lock that pg_repack holds while it works on the table.
_AT_WORK = "select pg_advisory_lock(16185446, ('item'::regclass::oid::bigint - 2147483648)::int)"


@pytest.fixture
def shop(second_server: SecondServer) -> Iterator[Target]:
    """A database with pg_repack, and a table of which four of five rows are gone."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    second_server.run(f"create database {name}")
    second_server.run(
        "create extension pg_repack",
        "create table item (a int primary key, b text) with (autovacuum_enabled = off)",
        "insert into item select i, md5(i::text) from generate_series(1, 50000) i",
        "delete from item where a % 5 <> 0",
        "select pg_stat_force_next_flush()",
        "vacuum analyze item",
        database=name,
    )
    yield Target("shop", second_server.superuser_url(name))
    second_server.run(f"drop database {name} with (force)")


def test_a_bloated_table_is_written_anew_with_its_indexes(shop: Target) -> None:
    found = planned(shop, kinds=["repack", "reindex"])
    assert [(one.kind, str(one.subject)) for one in found.items] == [("repack", "public.item")], "one after the other"
    assert "--no-kill-backend" in item(found, "repack", "public.item").statements[0]
    with psycopg.connect(shop.url) as session:
        before = session.execute("select count(*), sum(hashtext(item::text)) from item").fetchone()

    report = maintain(shop, kinds=["repack", "reindex"])

    done = outcome(report, "repack", "public.item")
    assert (done.state, done.words) == ("done", "")
    assert done.after["bloat"] < 0.1 < 0.7 < done.item.evidence["bloat"]
    assert done.after["bytes"] < done.item.evidence["bytes"] / 3
    assert done.after["index_bytes"] < done.item.evidence["index_bytes"] / 3
    assert len(report.outcomes) == 1
    with psycopg.connect(shop.url) as session:
        assert session.execute("select count(*), sum(hashtext(item::text)) from item").fetchone() == before
        assert session.execute(_REMAINS.encode()).fetchone() == (0, 0)


@pytest.mark.drill
def test_who_holds_a_lock_on_the_table_keeps_pg_repack_away_and_is_not_cancelled(
    shop: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbplatform.maintenance.repack.WAIT_S", 1)
    with psycopg.connect(shop.url) as client:
        client.execute("insert into item values (-1, 'mine')")
        report = maintain(shop, kinds=["repack"], with_pace=pace(policy(), sleep=lambda _: None))
        found = outcome(report, "repack", "public.item")
        assert (found.state, found.words) == ("left", "pg_repack did not get its lock")
        client.commit()
    with psycopg.connect(shop.url) as session:
        assert session.execute("select b from item where a = -1").fetchone() == ("mine",)
        assert session.execute(_REMAINS.encode()).fetchone() == (0, 0)


def test_what_a_killed_pg_repack_left_is_removed_by_the_next_run(shop: Target) -> None:
    found = item(planned(shop, kinds=["repack"]), "repack", "public.item")
    environment = {**os.environ, **_login(shop)}
    with psycopg.connect(shop.url, autocommit=True) as watcher, psycopg.connect(shop.url) as old:
        # pg_repack sets up its trigger, and then waits for every older transaction.
        old.execute("select pg_current_xact_id()")
        program = "/usr/lib/postgresql/15/bin/pg_repack"
        process = subprocess.Popen(
            [program, *shlex.split(found.statements[0])[1:]], env=environment, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: watcher.execute(_REMAINS.encode()).fetchone() != (0, 0))
        assert planned(shop, kinds=["repack"]).items == (), "one that is at work is left alone"
        process.send_signal(signal.SIGKILL)
        process.wait()
        alive = "select count(*) from pg_stat_activity where application_name = 'pg_repack'"
        old.rollback()
        wait_until(lambda: watcher.execute(alive.encode()).fetchone() == (0,))
        assert watcher.execute(_REMAINS.encode()).fetchone() != (0, 0)

    report = maintain(shop, kinds=["repack"])

    assert [(one.item.verb, one.state) for one in report.outcomes] == [("clean", "done"), ("repack", "done")]
    with psycopg.connect(shop.url) as session:
        assert session.execute(_REMAINS.encode()).fetchone() == (0, 0)


def test_another_pg_repack_that_is_at_work_keeps_its_trigger(shop: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(shop.url, autocommit=True) as other:

        def too_late(*_: object) -> bool:
            other.execute(_AT_WORK.encode())
            other.execute("do $$ begin execute 'create table repack.log_' || 'item'::regclass::oid || '()'; end $$")
            raise ProgramFailed("Another pg_repack command may be running on the table")

        monkeypatch.setattr("dbplatform.maintenance.apply.repack", too_late)
        report = maintain(shop, kinds=["repack"])
        assert [one.state for one in report.outcomes] == ["failed"]
        assert other.execute(_REMAINS.encode()).fetchone() == (0, 1)
        [told] = report.not_possible
        assert "a pg_repack is at work on it" in told.reason


def test_what_cannot_be_done_any_more_is_left_with_its_reason_and_not_called_needless(
    shop: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begins(pace: Pace, _: object) -> bool:
        other.execute(_AT_WORK.encode())
        return True

    with psycopg.connect(shop.url, autocommit=True) as other:
        monkeypatch.setattr(Pace, "begins", begins)
        found = outcome(maintain(shop, kinds=["repack"]), "repack", "public.item")
    assert found.state == "left"
    assert found.words.startswith("not possible now: ")
    assert found.words.endswith("a pg_repack is at work on it")


def test_a_table_that_is_dropped_meanwhile_ends_its_item_and_not_the_run(
    shop: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*given: object) -> object:
        found = find_repacker(*given)  # type: ignore[arg-type]
        with psycopg.connect(shop.url, autocommit=True) as other:
            other.execute("drop table if exists item")
        return found

    monkeypatch.setattr("dbplatform.maintenance.apply.find_repacker", find)
    with psycopg.connect(shop.url, autocommit=True) as other:
        other.execute("create table bystander (a int) with (autovacuum_enabled = off)")
        other.execute("insert into bystander select generate_series(1, 1000)")
        other.execute("select pg_stat_force_next_flush()")
    report = maintain(shop, policy(budget={"time": "1 hour"}), kinds=["repack", "analyze"])
    assert outcome(report, "analyze", "public.bystander").state == "done"
    assert outcome(report, "repack", "public.item").state in ("failed", "not needed")


def _login(target: Target) -> dict[str, str]:
    parts = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(target.url).items()}
    return {
        "PGHOST": parts["host"],
        "PGPORT": parts["port"],
        "PGUSER": parts["user"],
        "PGPASSWORD": parts["password"],
        "PGDATABASE": parts["dbname"],
        "PGAPPNAME": "pg_repack",
    }


def test_a_table_without_a_key_is_told(shop: Target) -> None:
    with psycopg.connect(shop.url, autocommit=True) as session:
        session.execute("alter table item drop constraint item_pkey")
    [told] = planned(shop, kinds=["repack"]).not_possible
    assert "pg_repack needs a primary key, or a unique one that is not null" in told.reason


def test_a_lock_timeout_shorter_than_pg_repacks_own_waits_is_told(shop: Target) -> None:
    [told] = planned(shop, policy(limits={"lock_timeout": "500 ms"}), kinds=["repack"]).not_possible
    assert "pg_repack waits up to 1 s for its lock" in told.reason
