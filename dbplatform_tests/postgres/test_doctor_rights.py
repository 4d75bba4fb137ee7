"""Rights and settings that are missing: each is found by doctor with the SQL that mends it, and the SQL mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.diagnosis.model import Finding
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.postgres.doctor_support import DECLARATION, PASSWORD, Shop, opened, problems
from dbplatform_tests.postgres.embedded_support import embedded, open_folder, wait_until
from dbplatform_tests.postgres.test_monitoring_servers import replica

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)


@pytest.fixture
def shop(second_server: SecondServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with opened(second_server, tmp_path, monkeypatch) as shop:
        yield shop


@pytest.fixture
def guest(shop: Shop) -> Iterator[str]:
    """A user who may connect to the shop and nothing else; the URL is his."""
    name = f"{shop.name}_guest"
    with psycopg.connect(shop.server.superuser_url(), autocommit=True) as session:
        words = {"guest": sql.Identifier(name), "password": sql.Literal(PASSWORD)}
        session.execute(sql.SQL("create role {guest} login password {password}").format(**words))
        shop.log_in(user=name)
        yield name
        with psycopg.connect(shop.server.superuser_url(shop.name), autocommit=True) as inside:
            inside.execute(sql.SQL("reassign owned by {guest} to postgres").format(**words))
            inside.execute(sql.SQL("drop owned by {guest}").format(**words))
        session.execute(sql.SQL("drop role {guest}").format(**words))


def mend(shop: Shop, finding: Finding) -> None:
    """Do what the finding says: its SQL, the first where there is a choice, as the superuser."""
    assert finding.mend is not None
    shop.server.run(finding.mend.split(" or: ")[0], database=shop.name)


def test_every_missing_right_is_told_and_its_grant_mends_it(shop: Shop, guest: str) -> None:
    shop.run("create schema dbplatform")
    found = shop.examined()
    assert {probe for probe, status in problems(found).items() if status == "error"} == {
        "schema dbplatform",
        "schema public",
        "table public.item",
        "table public.sale",
        "dump",
    }
    assert (found["monitoring"].status, found["restore"].status) == ("warn", "warn")
    assert "lacks CREATE on the schema public" in found["schema public"].message
    assert "lacks SELECT on the table public.item" in found["table public.item"].message
    assert f"belongs to {shop.name}" in found["table public.sale"].message
    assert "public.item, public.sale" in found["dump"].message
    for probe in ("schema dbplatform", "schema public", "table public.item", "dump", "monitoring", "restore"):
        mend(shop, found[probe])
    shop.run("grant {shop} to " + f'"{guest}"')
    again = problems(shop.examined())
    assert set(again) <= {"fsync", "data_checksums", "tables to come"}


def test_a_schema_that_is_missing_and_may_not_be_made_is_told(shop: Shop, guest: str) -> None:
    finding = shop.examined()["schema dbplatform"]
    assert finding.status == "error"
    assert "lacks CREATE on the database" in finding.message
    mend(shop, finding)
    assert shop.examined()["schema dbplatform"].status == "ok"


def test_rights_that_are_missing_on_tables_whose_rows_leave_along_are_told(shop: Shop, guest: str) -> None:
    shop.run("create table part (id int primary key, item_id int references item)")
    shop.run("create table piece (part_id int references part); create table other (id int)")
    shop.declare(
        DECLARATION.replace(
            "{name: old_sales, table: public.sale, column: at, older_than: 6 months}",
            "{name: old_items, table: item, where: name = 'old', children: archive}",
        )
    )
    found = shop.examined()
    for table in ("item", "part", "piece"):
        assert "lacks DELETE, SELECT, UPDATE" in found[f"table public.{table}"].message
        mend(shop, found[f"table public.{table}"])
    assert "table public.other" not in found
    assert not {probe for probe in problems(shop.examined()) if probe.startswith("table public.p")}


def test_at_most_five_unreadable_tables_are_named(shop: Shop, guest: str) -> None:
    for number in range(7):
        shop.run("create table a" + str(number) + " (id int)")
    assert "public.a0, public.a1, public.a2, public.a3, public.a4 and 4 more" in shop.examined()["dump"].message


def test_row_security_and_large_objects_that_a_dump_cannot_read_are_told(shop: Shop, guest: str) -> None:
    shop.run("alter table item enable row level security")
    shop.run("select lo_create(0)")
    shop.run("grant pg_read_all_data to " + f'"{guest}"')
    found = shop.examined()
    assert (found["row security"].status, found["large objects"].status) == ("error", "error")
    assert "public.item" in found["row security"].message
    mend(shop, found["row security"])
    assert "row security" not in shop.examined()


def test_missing_rights_are_one_sentence_when_the_work_itself_is_begun(
    shop: Shop, guest: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    (shop.folder / "defs" / "shop" / "migrations" / "V1__more.sql").write_text("create table more (id int);")
    assert shop.typed("migrate", "apply", "shop") == 3
    assert "permission denied for schema public" in capsys.readouterr().err
    assert shop.typed("backup", "create", "shop") == 3
    assert "permission denied for table item" in capsys.readouterr().err


def test_time_limits_are_told_with_the_statement_that_resets_them(shop: Shop) -> None:
    shop.run("alter role {shop} set statement_timeout = '5s'", database="postgres")
    shop.run("alter database {shop} set idle_in_transaction_session_timeout = '1min'", database="postgres")
    shop.run("alter role {shop} in database {shop} set idle_session_timeout = '1min'", database="postgres")
    found = shop.examined()
    limits = ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
    assert [found[limit].status for limit in limits] == ["warn"] * 3
    assert "5000ms" in found["statement_timeout"].message
    for limit in limits:
        mend(shop, found[limit])
    assert shop.examined()["time limits"].status == "ok"


def test_too_few_connections_for_a_backup_are_told(shop: Shop) -> None:
    shop.run("alter role {shop} connection limit 4", database="postgres")
    finding = shop.examined()["connections"]
    assert finding.status == "warn"
    assert f"The connection limit of {shop.name} leaves 3 connections" in finding.message


def test_local_time_is_told_where_a_declared_column_has_no_zone(shop: Shop) -> None:
    shop.run("alter database {shop} set timezone = 'Europe/Berlin'", database="postgres")
    assert shop.examined()["time zone"].status == "ok"
    shop.run("drop table sale; create table sale (at timestamp not null) partition by range (at)")
    found = shop.examined()["time zone"]
    assert found.status == "warn"
    assert "sale.at (timestamp without time zone)" in found.message
    shop.run("alter database {shop} set timezone = 'UTC'", database="postgres")
    assert shop.examined()["time zone"].status == "ok"


def test_settings_that_endanger_data_are_errors_in_production_alone(shop: Shop) -> None:
    shop.run("alter role {shop} set synchronous_commit = off", database="postgres")
    found = shop.examined()
    assert (found["fsync"].status, found["full_page_writes"].status) == ("warn", "ok")
    assert found["synchronous_commit"].status == "ok"
    shop.declare(DECLARATION, environment="production")
    found = shop.examined()
    assert (found["fsync"].status, found["full_page_writes"].status) == ("error", "ok")
    assert found["synchronous_commit"].status == "warn"
    assert found["WAL archive"].status == "warn"
    assert found["pg_stat_statements"].status in ("warn", "not_checked")


def test_a_read_only_role_is_told(shop: Shop) -> None:
    shop.run("alter role {shop} set default_transaction_read_only = on", database="postgres")
    finding = shop.examined()["replica"]
    assert finding.status == "error"
    mend(shop, finding)
    assert shop.examined()["replica"].status == "ok"


def test_a_probe_that_may_not_look_hides_no_other(shop: Shop) -> None:
    shop.run("revoke select on pg_stat_database from public")
    try:
        found = shop.examined()
    finally:
        shop.run("grant select on pg_stat_database to public")
    assert found["connections"].status == "not_checked"
    assert "permission denied for view pg_stat_database" in found["connections"].message
    assert found["extensions"].status == "ok"


@pytest.fixture(scope="module")
def archiving() -> Iterator[EmbeddedServer]:
    """A server whose archive_command fails."""
    settings = {"fsync": "off", "archive_mode": "on", "archive_command": "false"}
    with pytest.MonkeyPatch.context() as patch, open_folder() as folder:
        patch.delenv("DBPLATFORM_PG_PORT", raising=False)
        with embedded(folder / "home", settings=settings) as server:
            server.start()
            yield server


def test_a_replica_is_told_because_nothing_can_be_written_there(shop: Shop, archiving: EmbeddedServer) -> None:
    with replica(archiving) as standby:
        shop.log_in(url=standby.url)
        found = shop.examined()
    assert found["replica"].status == "error"
    assert "Name the primary" in (found["replica"].mend or "")


def test_an_archive_command_that_fails_is_told_until_it_works(shop: Shop, archiving: EmbeddedServer) -> None:
    shop.log_in(url=archiving.url("postgres"))
    with psycopg.connect(archiving.url("postgres"), autocommit=True) as session:
        session.execute("create table for_archive (a int)")
        session.execute("select pg_switch_wal()")
        wait_until(lambda: shop.examined()["WAL archive"].status == "error")
        assert shop.examined()["WAL archive"].message.startswith("Archiving WAL fails: 0000000100000000")
        session.execute("alter system set archive_command = 'true'")
        session.execute("select pg_reload_conf()")
        wait_until(lambda: shop.examined()["WAL archive"].status == "ok")
