"""``dbplatform partition convert`` as a person types it, and on PostgreSQL 15."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.partitioning.conversion.errors import CannotConvert
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.postgres.conversion_support import PLAIN, RICH, back, contents, forward, kind, left_over
from dbplatform_tests.typed import Type, typist

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  partitioned_tables:
    - {table: public.event, column: at, interval: 1 month, premake: 2}
"""


@pytest.fixture
def type_(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Type:
    (tmp_path / "defs" / "shop").mkdir(parents=True)
    (tmp_path / "defs" / "shop" / "defs.yaml").write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    return typist(tmp_path, capsys)


def test_a_table_is_shown_converted_and_undone(type_: Type, database: Target, ledger: Ledger) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(PLAIN)
        rows = contents(connection)
        dry = type_("partition", "convert", "shop", "--table", "event", "--dry-run")
        assert dry.code == 0
        assert 'attach partition "public"."event_legacy" for values from (minvalue)' in dry.out
        assert "-- lock: ACCESS EXCLUSIVE on public.event" in dry.out
        assert kind(connection) == "r"

        done = type_("partition", "convert", "shop", "--table", "public.event")
        assert done.code == 0, done.err
        assert "public.event is partitioned: public.event_legacy holds everything below" in done.out
        assert (kind(connection), contents(connection)) == ("p", rows)
        again = type_("partition", "convert", "shop", "--table", "event", "--json")
        assert (again.json["state"], again.json["phases"]) == ("converted", [])
        assert type_("partition", "plan", "shop", "--json").json["tables"][0]["existing"] == 3

        undone = type_("partition", "convert", "shop", "--table", "event", "--undo", "--json")
        assert undone.json["state"] == "plain"
        assert (kind(connection), contents(connection)) == ("r", rows)
    with psycopg.connect(ledger.target.url) as records:
        found = records.execute("select kind, status from ledger.operation order by started_at").fetchall()
    assert found == [("convert", "succeeded"), ("unconvert", "succeeded")]


def test_what_stands_in_the_way_is_exit_2_with_its_place(type_: Type, database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(PLAIN)
        connection.execute("create table line (event bigint references event)")
    refused = type_("partition", "convert", "shop", "--table", "event", "--json")
    assert refused.code == 2
    error = refused.json["error"]
    assert (error["kind"], error["line"]) == ("cannot_convert", 6)
    assert "line_event_fkey of public.line refers to (id), a key without at" in error["message"]
    other = type_("partition", "convert", "shop", "--table", "line", "--json")
    assert (other.code, other.json["error"]["kind"]) == (2, "table_not_declared")
    nothing = type_("partition", "convert", "shop", "--table", "event", "--undo", "--json")
    assert (nothing.code, nothing.json["error"]["kind"]) == (2, "nothing_to_undo")


def test_version_15_converts_and_undoes_all_but_identity_columns(second_server: SecondServer) -> None:
    second_server.run("create database conversion")
    try:
        target = Target("conversion", second_server.superuser_url("conversion"))
        with connect(target, work="test") as connection:
            connection.execute(RICH)
            with pytest.raises(
                CannotConvert, match="identity column, which partitioned tables have from PostgreSQL 17"
            ):
                forward(connection)
            connection.execute("alter table event alter number drop identity")
            rows = contents(connection)
            forward(connection)
            assert (kind(connection), contents(connection)) == ("p", rows)
            connection.execute("insert into event (at, number) values ('2026-06-05', 1)")
            back(connection)
            assert kind(connection) == "r"
            assert contents(connection)[0] == rows[0] + 1
            assert left_over(connection) == []
    finally:
        second_server.run("drop database conversion with (force)")
