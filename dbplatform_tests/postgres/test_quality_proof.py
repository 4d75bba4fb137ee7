"""What the catalog proves is not read, and what it does not prove is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbplatform.postgres.connection import AutocommitConnection, Target, connect, snapshot
from dbplatform.quality.engine import run_table
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.proof import proofs
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

UNIQUE: dict[str, Any] = {"unique": ["a", "b"]}
NOT_NULL: dict[str, Any] = {"not_null": "a"}
REFERENCE: dict[str, Any] = {"relationship": {"column": "a", "to": "other.id"}}


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        session.execute("create table other (id int primary key)")
        yield session


def proof(connection: AutocommitConnection, check: Any, *, table: str = "t") -> str | None:
    policy = TablePolicy(table=table, checks=[check])
    with snapshot(connection) as moment:
        return proofs(moment, policy.table, policy.checks).get(policy.checks[0].name)


@pytest.mark.parametrize(
    ("ddl", "check"),
    [
        ("create table t (a int, b int, unique (a, b))", UNIQUE),
        ("create table t (a int, b int, unique (b))", UNIQUE),
        ("create table t (a int, b int, unique nulls not distinct (a))", UNIQUE),
        ("create table t (a int, b int); create unique index on t (b) include (a)", UNIQUE),
        ("create table t (a int, b int, unique (a))", {**UNIQUE, "where": "b > 0", "tolerance": 3}),
        ("create table t (a text, b int, unique (a))", UNIQUE),
        ("create table t (a int, b int, primary key (a)) partition by range (a)", UNIQUE),
        ("create table t (a int not null)", NOT_NULL),
        ("create table t (a int primary key)", {"null_ratio": {"column": "a", "max": 0.5}}),
        ("create table t (a int not null) partition by range (a); create table p partition of t default", NOT_NULL),
        ("create table t (a int not null); create table p () inherits (t)", NOT_NULL),
        ("create table t (a int references other)", REFERENCE),
        ("create table t (a int references other deferrable initially deferred)", {**REFERENCE, "where": "a > 1"}),
        ("create table t (a int references other) partition by range (a)", REFERENCE),
    ],
)
def test_the_catalog_proves_it(connection: AutocommitConnection, ddl: str, check: Any) -> None:
    connection.execute(ddl.encode())
    assert proof(connection, check) is not None
    assert proof(connection, {**check, "where": "true"}) is None
    found = run_table(connection, TablePolicy(table="t", checks=[check])).checks[0]
    assert (found.status, found.failed_rows) == ("passed", 0)
    assert "proven by" in found.message


@pytest.mark.parametrize(
    ("ddl", "check"),
    [
        ("create table t (a int, b int, c int, unique (a, b, c))", UNIQUE),
        ("create table t (a int, b int, unique (a) deferrable initially deferred)", UNIQUE),
        ("create table t (a int, b int); create index on t (a, b)", UNIQUE),
        ("create table t (a int, b int); create unique index on t (a) where b > 0", UNIQUE),
        ("create table t (a int, b int); create unique index on t (abs(a))", UNIQUE),
        ("create table t (a text, b int); create unique index on t (a text_pattern_ops)", UNIQUE),
        ('create table t (a text, b int); create unique index on t (a collate "C")', UNIQUE),
        ("create table t (a int, b int, unique (a)); create table p () inherits (t)", UNIQUE),
        ("create table t (a int, b int, unique (a, b)) partition by range (a)", {"unique": "b"}),
        ("create table t (a int)", NOT_NULL),
        ("create type pair as (x int, y int); create table t (a pair not null)", NOT_NULL),
        ("create table t (a int check (a is not null))", NOT_NULL),
        ("create table t (a int)", REFERENCE),
        ("create table t (a int); alter table t add foreign key (a) references other not valid", REFERENCE),
        ("create table t (a int references other); alter table t disable trigger all", REFERENCE),
        ("create table t (a int references other); create table p () inherits (t)", REFERENCE),
        ("create table t (a int references other)", {"relationship": {"column": "a", "to": "t.a"}}),
        ("create table t (a int references other, b int)", {"relationship": {"column": "b", "to": "other.id"}}),
        (
            "create table two (id int, k int, primary key (id, k)); "
            "create table t (a int, k int, foreign key (a, k) references two)",
            {"relationship": {"column": "a", "to": "two.id"}},
        ),
    ],
)
def test_the_catalog_does_not_prove_it(connection: AutocommitConnection, ddl: str, check: Any) -> None:
    connection.execute(ddl.encode())
    assert proof(connection, check) is None
    assert "proven" not in run_table(connection, TablePolicy(table="t", checks=[check])).checks[0].message


def test_an_invalid_index_proves_nothing(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int, b int); insert into t values (1, 1), (1, 1)")
    with pytest.raises(Exception, match="could not create unique index"):
        connection.execute("create unique index concurrently broken on t (a, b)")
    assert proof(connection, UNIQUE) is None
    assert run_table(connection, TablePolicy(table="t", checks=[UNIQUE])).checks[0].failed_rows == 2


def test_rows_that_a_parent_shows_without_their_references_are_not_proven(connection: AutocommitConnection) -> None:
    """Row-level security hides the referenced rows from who checks, and so today's answer is that they are missing."""
    connection.execute("create table t (a int references other); alter table other enable row level security")
    assert proof(connection, REFERENCE) is not None
    role = f"reader_{connection.info.dbname}"
    connection.execute(f"create role {role}; grant usage on schema public to {role}".encode())
    connection.execute(f"grant select on t, other to {role}; set role {role}".encode())
    assert proof(connection, REFERENCE) is None
    connection.execute(f"reset role; drop owned by {role}; drop role {role}".encode())


def test_a_proof_is_of_the_moment_that_is_checked(connection: AutocommitConnection, emptied: Target) -> None:
    """An index made after the snapshot says nothing about the rows that the snapshot sees."""
    connection.execute("create table t (a int, b int); insert into t values (1, 1), (1, 1)")
    policy = TablePolicy(table="t", checks=[UNIQUE, NOT_NULL])
    with connect(emptied, work="writer") as writer, snapshot(connection) as moment:
        moment.execute("select 1")
        writer.execute("delete from t; alter table t alter a set not null, add unique (a, b)")
        assert proofs(moment, policy.table, policy.checks) == {}
    assert len(proofs_now(connection, policy)) == 2


def proofs_now(connection: AutocommitConnection, policy: TablePolicy) -> dict[str, str]:
    with snapshot(connection) as moment:
        return proofs(moment, policy.table, policy.checks)


def test_a_proven_check_still_errs_where_its_condition_does(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int primary key); insert into t values (0)")
    found = run_table(connection, TablePolicy(table="t", checks=[{"not_null": "a", "where": "1 / a > 0"}])).checks[0]
    assert (found.status, found.message) == ("errored", "division by zero.")


def test_a_proven_check_counts_the_rows_it_considered(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int primary key); insert into t select generate_series(1, 9)")
    found = run_table(connection, TablePolicy(table="t", checks=[{"unique": "a", "where": "a > 4"}])).checks[0]
    assert (found.considered_rows, found.failed_rows) == (5, 0)
    assert found.message == "a repeats in none of 5 rows where a > 4, proven by the unique index t_pkey."
