"""Pools: a profile per environment, what is declared otherwise, and what a pool does under load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from dbplatform.postgres.connection import Target
from dbplatform.postgres.pools import PROFILES, DatabasePool, PoolExhausted, PoolPolicy, PoolSettings, pool_settings

_SMALL = PoolSettings(size=1, max_overflow=1, timeout_s=0.2, idle_s=60)


@pytest.fixture
def pool(database: Target) -> Iterator[DatabasePool]:
    pool = DatabasePool(database, _SMALL)
    yield pool
    pool.close()


def backend(pool: DatabasePool) -> int:
    with pool.connection() as connection:
        return int(connection.execute(text("select pg_backend_pid()")).scalar_one())


def test_only_production_ends_statements_after_ten_seconds_and_it_has_the_most_connections() -> None:
    assert {name: profile.statement_timeout_s for name, profile in PROFILES.items()} == {
        "development": 0,
        "test": 0,
        "staging": 0,
        "production": 10,
    }
    assert [profile.most for profile in PROFILES.values()] == [5, 3, 20, 50]


def test_what_is_declared_replaces_the_profile_and_nothing_else() -> None:
    declared = PoolPolicy.model_validate({"size": 5, "max_overflow": 10, "pre_ping": False})
    assert pool_settings("production", declared) == replace(
        PROFILES["production"], size=5, max_overflow=10, pre_ping=False
    )


def test_the_server_ends_a_statement_that_takes_longer_than_the_pool_allows(database: Target) -> None:
    pool = DatabasePool(database, replace(_SMALL, statement_timeout_s=0.1))
    with pytest.raises(OperationalError, match="statement timeout"), pool.connection() as connection:
        connection.execute(text("select pg_sleep(30)"))
    pool.close()


def test_a_caller_beyond_the_limit_is_refused_by_name_and_counted(pool: DatabasePool) -> None:
    with pool.connection(), pool.connection():
        with pytest.raises(PoolExhausted, match="All 2 connections") as refused, pool.connection():
            pass
        assert pool.statistics.in_use == 2
    found = pool.statistics
    assert (found.in_use, found.idle, found.most_in_use, found.refused, found.used_ratio) == (0, 1, 2, 1, 1.0)
    assert "max_overflow" in (refused.value.hint or "")


def test_callers_that_wait_are_served_when_a_connection_comes_back(database: Target) -> None:
    pool = DatabasePool(database, replace(_SMALL, timeout_s=60))
    served: list[int] = []

    def work() -> None:
        for _ in range(5):
            served.append(backend(pool))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) == 40
    assert pool.statistics.most_in_use <= 2
    assert pool.statistics.refused == 0
    pool.close()


def test_a_connection_that_the_server_ended_is_replaced_before_it_is_used(pool: DatabasePool) -> None:
    first = backend(pool)
    with pool.connection() as one, pool.connection() as other:
        pids = {c: c.execute(text("select pg_backend_pid()")).scalar_one() for c in (one, other)}
        assert first in pids.values()
        other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pids[one]})
        one.invalidate()
    assert backend(pool) != pids[one]


def test_a_connection_that_was_idle_for_too_long_is_replaced(database: Target) -> None:
    pool = DatabasePool(database, replace(_SMALL, idle_s=0))
    assert backend(pool) != backend(pool)
    assert pool.statistics.opened >= 2
    pool.close()


def test_a_session_of_the_pool_says_who_it_is(pool: DatabasePool) -> None:
    with pool.connection() as connection:
        assert connection.execute(text("show application_name")).scalar_one() == "dbplatform pool"
