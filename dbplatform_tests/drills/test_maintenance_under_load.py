"""``optimize full`` on a database that updates have bloated, while eight clients write; and killed at any point."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.exact import measure
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.writers import CLIENTS, SETUP, Writers
from dbplatform_tests.postgres.embedded_support import wait_until
from dbplatform_tests.typed import typist

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

LOCK_TIMEOUT_S = 2.0
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  maintenance:
    limits: {lock_timeout: 2s}
    due: {index_bloat: 0.1, table_bloat: 0.1, min_size: 256kB}
"""
#: 60,000 rows, each written anew four times, which makes a new entry for it in every index; vacuum comes in between.
BLOAT = (
    "create extension pgstattuple",
    SETUP,
    "alter table account set (autovacuum_enabled = off)",
    "alter table account add column note text not null default ''",
    "insert into account (id, note) select i, md5(i::text) from generate_series(1001, 60000) i",
    "create index account_balance on account (balance)",
    "create index account_note on account (note)",
    *("update account set balance = balance + 1, note = md5(note || id)",) * 3,
    "vacuum account",
    "update account set balance = balance + 1, note = md5(note || id) where id % 4 = 0",
)
INDEXES = ("account_pkey", "account_balance", "account_note")
_REMAINS = """
    select array(select indexrelid::regclass::text from pg_index where not indisvalid)
        || array(select tgname::text from pg_trigger where tgname like '%repack_trigger')
        || array(select oid::regclass::text from pg_class where relkind = 'r' and relname ~ '_[0-9]+$'
                 and relnamespace = to_regnamespace('repack'))
"""


@pytest.fixture
def shop(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "defs" / "shop").mkdir(parents=True)
    (tmp_path / "defs" / "shop" / "defs.yaml").write_text(DECLARATION)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    return tmp_path


@pytest.fixture
def with_repack(second_server: SecondServer) -> Iterator[Target]:
    """A database on Debian's server, with pg_repack."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    second_server.run(f"create database {name}")
    second_server.run("create extension pg_repack", database=name)
    yield Target("shop", second_server.superuser_url(name))
    second_server.run(f"drop database {name} with (force)")


def bloat(target: Target) -> None:
    with psycopg.connect(target.url, autocommit=True) as session:
        for statement in BLOAT:
            session.execute(statement.encode())


def share(target: Target, relation: str, *, fillfactor: float) -> float:
    """What of it holds nothing, counted, beyond what its fillfactor leaves free."""
    with connect(target, work="test") as connection:
        found = measure(connection, Relation.parse(relation))
    return 1 - (found.bytes - found.unused_bytes) / fillfactor / found.bytes


@pytest.mark.drill
def test_indexes_are_rebuilt_beside_eight_clients_and_the_table_is_told(
    shop: Path, database: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = maintained_under_load(shop, database, monkeypatch, capsys)
    told = [one["reason"] for one in document["not_possible"] if one["subject"] == "public.account"]
    assert any("and the extension pg_repack is not in this database" in reason for reason in told), told


@pytest.mark.drill
def test_the_table_is_written_anew_beside_eight_clients_where_pg_repack_is_installed(
    shop: Path, with_repack: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = maintained_under_load(shop, with_repack, monkeypatch, capsys)
    assert [one for one in document["not_possible"] if one["kind"] == "repack"] == []
    assert share(with_repack, "account", fillfactor=1.0) < 0.1


def maintained_under_load(
    shop: Path, target: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    """The report of ``optimize full`` beside eight clients, of whom none failed or waited beyond the limit."""
    bloat(target)
    monkeypatch.setenv("SHOP_URL", target.url)
    before = {name: round(share(target, name, fillfactor=0.9), 2) for name in INDEXES}
    assert min(before.values()) > 0.2, before
    with Writers(target.url).writing() as writers:
        typed = typist(shop, capsys)("optimize", "full", "shop", "--json")
    assert typed.code == 0, typed.out
    after = {name: round(share(target, name, fillfactor=0.9), 2) for name in INDEXES}
    with capsys.disabled():
        print(f"\n{before} -> {after}; {writers.summary}")
    assert max(after.values()) < 0.1
    assert writers.failures == []
    assert len(writers.seconds) > 10 * CLIENTS
    assert max(writers.seconds) < LOCK_TIMEOUT_S, writers.summary
    assert remains(target) == []
    return typed.json  # type: ignore[no-any-return]


def remains(target: Target) -> list[str]:
    with psycopg.connect(target.url) as session:
        row = session.execute(_REMAINS.encode()).fetchone()
    assert row is not None
    return list(row[0])


#: The run is killed when one of its sessions, or of pg_repack's, is seen at such a statement; at a number of seconds,
#: whatever it is at then.
POINTS = (
    (False, "VACUUM%"),
    (False, "REINDEX%account_pkey%"),
    (False, "REINDEX%account_note%"),
    (False, 0.5),
    (False, 2.0),
    (False, 4.0),
    (True, "LOCK TABLE%"),
    (True, "%CREATE TABLE repack.table_%"),
    (True, "INSERT INTO repack.table_%"),
    (True, "CREATE%INDEX%repack.table_%"),
    (True, "SELECT repack.repack_apply%"),
    (True, "SELECT repack.repack_swap%"),
    (True, 2.0),
    (True, 4.0),
)
_SEEN = """
    select count(*) from pg_stat_activity
    where application_name in ('dbplatform optimize full', 'pg_repack') and query ilike %s
"""
_ALIVE = "select count(*) from pg_stat_activity where application_name = 'dbplatform optimize full'"


@pytest.mark.parametrize(("repack", "point"), cases(*POINTS, sample=()))
def test_a_run_killed_at_any_point_leaves_nothing_that_the_next_does_not_clean(
    shop: Path,
    database: Target,
    with_repack: Target,
    repack: bool,
    point: str | float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = with_repack if repack else database
    bloat(target)
    monkeypatch.setenv("SHOP_URL", target.url)
    command = [sys.executable, "-m", "dbplatform.cli.main", "-C", str(shop), "optimize", "full", "shop", "--json"]
    with Writers(target.url).writing() as writers, psycopg.connect(target.url, autocommit=True) as watcher:
        process = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: watcher.execute(_ALIVE.encode()).fetchone() == (1,) or process.poll() is not None)
        seen = False
        if isinstance(point, str):
            while process.poll() is None and not seen:
                seen = watcher.execute(_SEEN.encode(), (point,)).fetchone() != (0,)
        else:
            with suppress(subprocess.TimeoutExpired):
                process.wait(point)
        process.kill()
        process.wait()
        left = remains(target)
        second = typist(shop, capsys)("optimize", "full", "shop", "--json")
    with capsys.disabled():
        print(f"\n{point}: {'seen' if seen else 'not seen'}, left: {left}; {writers.summary}")
    assert second.code == 0, second.out
    assert remains(target) == []
    assert max(share(target, name, fillfactor=0.9) for name in INDEXES) < 0.1
    assert writers.failures == []
    assert max(writers.seconds) < LOCK_TIMEOUT_S, writers.summary
