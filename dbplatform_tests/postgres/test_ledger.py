"""The ledger: its schema is what its models say, and every operation is recorded however it ends."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from sqlalchemy import UniqueConstraint, inspect, select
from sqlalchemy.types import TypeEngine

import dbplatform.ledger
from dbplatform.ledger.access import AuditEntry
from dbplatform.ledger.acting import acting, in_run, note
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import SCHEMA, Base, Operation, QualityRun
from dbplatform.postgres.connection import Target, sqlalchemy_url
from dbplatform.quality.record import start_run


def test_the_schema_that_the_migrations_build_is_what_the_models_say(ledger: Ledger) -> None:
    for module in pkgutil.iter_modules(dbplatform.ledger.__path__):
        importlib.import_module(f"dbplatform.ledger.{module.name}")
    found = inspect(ledger.engine)
    declared = {table.name for table in Base.metadata.sorted_tables}
    assert set(found.get_table_names(SCHEMA)) - {"schema_history"} == declared
    for table in Base.metadata.sorted_tables:
        columns = {c["name"]: (_kind(c["type"], ledger), c["nullable"]) for c in found.get_columns(table.name, SCHEMA)}
        expected = {c.name: (_kind(c.type, ledger), bool(c.nullable)) for c in table.columns}
        assert columns == expected, table.name
        primary = found.get_pk_constraint(table.name, SCHEMA)["constrained_columns"]
        assert set(primary) == {c.name for c in table.primary_key}, table.name
        unique = {tuple(u["column_names"]) for u in found.get_unique_constraints(table.name, SCHEMA)}
        wanted = {tuple(c.name for c in u.columns) for u in table.constraints if isinstance(u, UniqueConstraint)}
        assert unique >= wanted, table.name


def _kind(type_: TypeEngine[Any], ledger: Ledger) -> str:
    """The type as PostgreSQL would write it; a model's ``str`` and ``float`` have one SQL type each."""
    written = type_.compile(dialect=ledger.engine.dialect)
    return {"VARCHAR": "TEXT", "FLOAT": "DOUBLE PRECISION"}.get(written, written)


def test_an_operation_is_recorded_as_it_ended(ledger: Ledger) -> None:
    with ledger.operation("shop", "migrate", run_id="r1") as summary:
        with ledger.session() as session:
            assert session.scalars(select(Operation.status)).all() == ["running"]
        summary["applied"] = 3

    def fail() -> None:
        with ledger.operation("shop", "seed") as summary:
            summary["loaded"] = 1
            raise ZeroDivisionError("no rows")

    with pytest.raises(ZeroDivisionError):
        fail()
    with ledger.session() as session:
        rows = session.scalars(select(Operation).order_by(Operation.started_at)).all()
        assert [(r.kind, r.status, r.actor == "dagster") for r in rows] == [
            ("migrate", "succeeded", True),
            ("seed", "failed", False),
        ]
        assert rows[0].summary == {"applied": 3}
        assert rows[1].summary == {"loaded": 1, "error": "no rows"}
        assert all(r.finished_at is not None for r in rows)


def test_what_a_step_of_dagster_does_has_the_id_of_its_run_unless_it_says_another(ledger: Ledger) -> None:
    with acting(in_run("r1")):
        with ledger.operation("shop", "prune"), ledger.operation("shop", "seed", run_id="r2"):
            pass
        start_run(ledger, "shop", "r1")
        start_run(ledger, "shop", "by-hand")
        with ledger.session() as session:
            note(session, "remove", "a backup")
    with ledger.operation("shop", "cleanup"):
        pass
    with ledger.session() as session:
        operations = session.scalars(select(Operation)).all()
        assert {one.kind: (one.run_id, one.actor == "dagster") for one in operations} == {
            "prune": ("r1", True), "seed": ("r2", True), "cleanup": (None, False),
        }  # fmt: skip
        assert {one.run_id: one.in_dagster for one in session.scalars(select(QualityRun))} == {
            "r1": True, "by-hand": False,
        }  # fmt: skip
        noted = session.scalars(select(AuditEntry)).one()
        assert (noted.actor, noted.way, noted.run_id) == ("dagster", "dagster", "r1")


def test_a_url_keeps_its_settings_on_the_way_to_sqlalchemy() -> None:
    url = sqlalchemy_url(Target("x", "postgresql://me:s%40cret@db:6432/app?sslmode=verify-full&options=-c%20a%3Db"))
    assert (url.username, url.password, url.host, url.port, url.database) == ("me", "s@cret", "db", 6432, "app")
    assert dict(url.query) == {"sslmode": "verify-full", "options": "-c a=b"}
