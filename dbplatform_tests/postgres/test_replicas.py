"""Reads on a real streaming replica: while it keeps up, and on the primary when it lags, is lost, or ends the read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import checks
from dbplatform.operations.platform import Platform
from dbplatform.operations.reading import open_pool, read
from dbplatform.postgres.connection import ServerRefused, Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.replicas import reason_not_to_read
from dbplatform_tests.postgres.embedded_support import embedded, open_folder, replica, wait_until

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection:
    url_env: SHOP_URL
    pool: {size: 2, max_overflow: 1}
    replica_url_env: SHOP_REPLICA_URL
    replica_lag: 30s
    replica_pool: {size: 5, max_overflow: 15}
  quality:
    - table: item
      checks:
        - not_null: name
"""
_WAIT = timedelta(seconds=30)


@pytest.fixture(scope="module")
def primary() -> Iterator[EmbeddedServer]:
    with open_folder() as folder, embedded(folder / "home", settings={"fsync": "off"}) as server:
        server.start()
        yield server


@pytest.fixture
def shop(
    primary: EmbeddedServer, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Platform, Target, Target]]:
    """A platform with one database on the primary, the primary's target and that of a replica that has it all."""
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_DECLARATION)
    source = Target("shop", primary.url("postgres"))
    run(source, "drop table if exists item", "create table item (id int primary key, name text)")
    run(source, "insert into item values (1, 'pen')")
    with replica(primary) as standby:
        monkeypatch.setenv("SHOP_URL", source.url)
        monkeypatch.setenv("SHOP_REPLICA_URL", standby.url)
        monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
        monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
        assert reason_not_to_read(standby, source, wait=_WAIT) is None
        platform = Platform(Project.at(tmp_path))
        yield platform, source, standby
        platform.ledger.engine.dispose()
    run(source, "select pg_drop_replication_slot('replica')")


def run(target: Target, *statements: str) -> None:
    with psycopg.connect(target.url, autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def is_replica(target: Target) -> bool:
    with connect(target, work="test") as session:
        row = session.execute("select pg_is_in_recovery()").fetchone()
    assert row is not None
    return bool(row[0])


def test_reads_go_to_the_replica_while_it_keeps_up_and_to_the_primary_otherwise(
    shop: tuple[Platform, Target, Target],
) -> None:
    platform, source, standby = shop
    declared = platform.declarations.get("shop")

    found = read(platform, declared, is_replica)
    assert (found.value, found.from_replica, found.reason) == (True, True, None)
    with open_pool(platform, declared, on_replica=True).connection() as connection:
        assert connection.exec_driver_sql("select pg_is_in_recovery()").scalar_one() is True

    # What was committed before the read was asked for is never missed: it waits for that, or reads the primary.
    run(standby, "select pg_wal_replay_pause()")
    run(source, "insert into item values (2, null)")
    wait_until(lambda: reason_not_to_read(standby, source, wait=timedelta(0)) is not None)
    late = reason_not_to_read(standby, source, wait=timedelta(0))
    assert late is not None
    assert "still lacks" in late
    run(standby, "select pg_wal_replay_resume()")
    assert read(platform, declared, count).value == 2

    # It ends a read in the middle, as it does when replay must go on.
    def ended(target: Target) -> bool:
        if is_replica(target):
            raise ServerRefused(
                target=target.name, reason="canceling statement due to conflict with recovery", sqlstate="40001"
            )
        return False

    conflict = read(platform, declared, ended)
    assert (conflict.value, conflict.from_replica) == (False, False)
    assert "conflict with recovery" in (conflict.reason or "")

    # A mistake of the reading itself is none of the replica's, and is not tried twice.
    def wrong(target: Target) -> None:
        raise ServerRefused(target=target.name, reason="syntax error", sqlstate="42601")

    with pytest.raises(ServerRefused, match="syntax error"):
        read(platform, declared, wrong)


def test_a_pool_on_the_replica_has_numbers_of_its_own_and_on_the_primary_those_of_the_primary(
    shop: tuple[Platform, Target, Target], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    platform, source, standby = shop
    declared = platform.declarations.get("shop")
    replicas = open_pool(platform, declared, on_replica=True)
    assert (replicas.target.url, replicas.settings.size, replicas.settings.most) == (standby.url, 5, 20)
    monkeypatch.delenv("SHOP_REPLICA_URL")
    for on_replica in (False, True):
        primarys = open_pool(platform, declared, on_replica=on_replica)
        assert (primarys.target.url, primarys.settings.size, primarys.settings.most) == (source.url, 2, 3)
    assert "SHOP_REPLICA_URL" in caplog.text


def count(target: Target) -> int:
    with psycopg.connect(target.url) as session:
        row = session.execute("select count(*) from item").fetchone()
    assert row is not None
    return int(row[0])


def test_checks_are_asked_of_the_replica_and_of_the_primary_once_it_is_lost(
    shop: tuple[Platform, Target, Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, source, standby = shop
    declared = platform.declarations.get("shop")
    table = declared.database.quality[0].table
    asked: list[bool] = []
    real = checks.run_table
    monkeypatch.setattr(
        checks, "run_table", lambda session, *a, **k: asked.append(in_recovery(session)) or real(session, *a, **k)
    )

    result = checks.check_table(platform, declared, table, run_id="", record=False)
    assert [one.status for one in result.checks] == ["passed"]
    run(standby, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    monkeypatch.setenv("SHOP_REPLICA_URL", standby.url.replace("127.0.0.1", "127.0.0.2"))
    run(source, "insert into item values (4, null)")
    result = checks.check_table(platform, declared, table, run_id="", record=False)
    assert [one.status for one in result.checks] == ["failed"]
    monkeypatch.delenv("SHOP_REPLICA_URL")
    checks.check_table(platform, declared, table, run_id="", record=False)
    assert asked == [True, False, False]


def in_recovery(session: psycopg.Connection[tuple[bool]]) -> bool:
    return session.execute("select pg_is_in_recovery()").fetchone() == (True,)


def test_what_is_no_replica_is_not_read_in_its_place(database: Target) -> None:
    found = reason_not_to_read(Target("the replica of shop", database.url), database, wait=_WAIT)
    assert found == "the replica of shop is no replica"


def test_a_replica_of_another_server_is_not_read(shop: tuple[Platform, Target, Target], database: Target) -> None:
    _, _, standby = shop
    found = reason_not_to_read(standby, database, wait=_WAIT)
    assert found is not None
    assert found.endswith("is of another server, timeline or database")
