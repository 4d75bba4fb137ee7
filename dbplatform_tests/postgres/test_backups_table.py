"""One table comes back as it was dumped, in its place, beside it or alone; a backup of a part proves nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbplatform.backups.catalogue import Backup, find_backup, load_manifest
from dbplatform.backups.errors import NotWhole, TableExists, TableNotInBackup, UnknownBackup
from dbplatform.backups.extract import write_globals
from dbplatform.backups.manifest import Scope
from dbplatform.backups.prune import plan_prune
from dbplatform.backups.restore import restore_backup
from dbplatform.backups.scope import EMPTY_HASH, ScopeUnclear, scope_of
from dbplatform.backups.table import restore_table
from dbplatform.backups.verify import verify_backup
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.catalog import TableMissing, count_and_hash
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import (
    KEEP_ONE,
    NAME,
    back_up,
    databases,
    fill,
    hashes,
    killed_at,
    named_database,
    new_name,
    prove,
    server,
)

_SHOP = """
    create type size as enum ('small', 'large');
    create function stamped() returns trigger language plpgsql as $$ begin new.note = 'stamped'; return new; end $$;
    create table customers (id int primary key, name text);
    insert into customers select g, 'customer ' || g from generate_series(1, 100) g;
    create table sales (id serial primary key, customer int references customers, size size, note text,
                        unique (customer, id));
    insert into sales (customer, size) select g % 100 + 1, 'small' from generate_series(1, 500) g;
    create index sales_by_size on sales (size);
    create trigger stamp before insert on sales for each row execute function stamped();
    create view seen as select * from sales;
"""


@pytest.fixture
def shop(database: Target) -> Target:
    fill(database)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(_SHOP)
    return database


def run(database: Target, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def content(database: Target, table: str) -> tuple[int, str]:
    with connect(database, work="test") as connection:
        return count_and_hash(connection, Relation.parse(table))


def bring(backup: Backup, database: Target, ledger: Ledger, table: str, **where: str) -> dict[str, object]:
    report = restore_table(
        backup,
        database,
        Relation.parse(table),
        ledger,
        programs=find_programs(),
        **where,  # type: ignore[arg-type]
    )
    return report.as_json()


def test_a_dropped_table_comes_back_in_its_place_with_all_that_is_its_own(
    shop: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    before = content(shop, "sales")
    described = "select indexdef from pg_indexes where tablename = 'sales' order by 1"
    constraints = (
        "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 'sales'::regclass order by 1"
    )
    triggers = "select pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'sales'::regclass and not tgisinternal"
    was = [run(shop, query) for query in (described, constraints, triggers)]
    backup = back_up(shop, tmp_path, ledger)
    run(shop, "drop table sales cascade")
    found = bring(backup, shop, ledger, "sales")
    assert (found["restored"], found["rows"], found["notes"]) == ("public.sales", 500, [])
    assert content(shop, "sales") == before
    assert [run(shop, query) for query in (described, constraints, triggers)] == was
    assert run(shop, "insert into sales (customer) values (1) returning id, note") == [(501, "stamped")]
    assert databases(server_url) == []


def test_a_partitioned_table_comes_back_with_its_partitions(shop: Target, ledger: Ledger, tmp_path: Path) -> None:
    before = content(shop, "events")
    backup = back_up(shop, tmp_path, ledger)
    run(shop, "drop table events")
    bring(backup, shop, ledger, "events")
    assert content(shop, "events") == before
    assert run(shop, "select relid::text from pg_partition_tree('events') order by 1") == [
        ("events",),
        ("events_1",),
        ("events_2",),
    ]


def test_a_table_that_is_there_is_refused_and_comes_back_aside(
    shop: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    before = content(shop, "sales")
    backup = back_up(shop, tmp_path, ledger)
    run(shop, "delete from sales where id > 10")
    with pytest.raises(TableExists, match=r"The table public\.sales exists") as caught:
        bring(backup, shop, ledger, "sales")
    assert "--aside restored_sales" in (caught.value.hint or "")
    assert content(shop, "sales")[0] == 10
    found = bring(backup, shop, ledger, "sales", aside="restored_sales")
    assert found["restored"] == "restored_sales.sales"
    assert (content(shop, "restored_sales.sales"), content(shop, "sales")[0]) == (before, 10)
    run(shop, "insert into sales select * from restored_sales.sales where id > 10")
    with pytest.raises(TableExists, match="The schema restored_sales exists"):
        bring(backup, shop, ledger, "sales", aside="restored_sales")
    assert databases(server_url) == []


def test_a_partitioned_table_comes_back_aside(shop: Target, ledger: Ledger, tmp_path: Path) -> None:
    before = content(shop, "events")
    backup = back_up(shop, tmp_path, ledger)
    run(shop, "truncate events")
    bring(backup, shop, ledger, "events", aside="old")
    assert (content(shop, "old.events"), content(shop, "events")[0]) == (before, 0)


def test_a_table_comes_back_into_a_database_of_its_own(
    shop: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    backup = back_up(shop, tmp_path, ledger)
    with named_database(server_url, new_name()) as target:
        bring(backup, shop, ledger, "sales", into=target.name)
        assert content(target, "sales") == content(shop, "sales")
        assert content(target, "customers")[0] == 0


def test_a_foreign_key_that_points_at_nothing_any_more_is_said(shop: Target, ledger: Ledger, tmp_path: Path) -> None:
    backup = back_up(shop, tmp_path, ledger)
    run(shop, "drop table sales cascade; delete from customers where id = 7")
    found = bring(backup, shop, ledger, "sales")
    assert "sales_customer_fkey" in str(found["notes"])
    assert content(shop, "sales")[0] == 500


def test_an_odd_name_comes_back(shop: Target, ledger: Ledger, tmp_path: Path) -> None:
    name = '"Odd ""name"" too"'
    before = content(shop, name)
    backup = back_up(shop, tmp_path, ledger)
    run(shop, f"drop table {name}")
    bring(backup, shop, ledger, name)
    assert content(shop, name) == before


def test_a_table_that_was_not_there_is_one_sentence(shop: Target, ledger: Ledger, tmp_path: Path) -> None:
    backup = back_up(shop, tmp_path, ledger)
    with pytest.raises(TableNotInBackup, match=r"holds no table public\.never"):
        bring(backup, shop, ledger, "never")


@pytest.mark.parametrize("fact", cases("loaded", "compared", "moved", sample=("compared",)))
def test_killed_here_nothing_half_restored_is_seen(
    shop: Target, ledger: Ledger, tmp_path: Path, server_url: str, fact: str
) -> None:
    before = content(shop, "sales")
    backup = back_up(shop, tmp_path, ledger)
    run(shop, "drop table sales cascade")
    killed_at(
        "table",
        f"restore public.sales: {fact}",
        database=shop,
        ledger=ledger,
        folder=tmp_path,
        server_url=server_url,
        name="sales",
    )
    if fact == "moved":
        assert content(shop, "sales") == before
        bring(backup, shop, ledger, "sales", aside="old")
    else:
        assert run(shop, "select to_regclass('sales')") == [(None,)]
        bring(backup, shop, ledger, "sales")
        assert content(shop, "sales") == before
    assert databases(server_url) == []


def test_a_backup_of_a_part_proves_nothing_and_is_not_what_a_drill_takes(
    shop: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    back_up(shop, tmp_path, ledger, scope=Scope(what="schema"))
    with pytest.raises(UnknownBackup, match="that is complete"):
        find_backup(ledger, NAME)
    whole = prove(back_up(shop, tmp_path, ledger), ledger, server_url)
    part = back_up(shop, tmp_path, ledger, scope=Scope(what="data"))
    assert find_backup(ledger, NAME).id == whole.id
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=part.started_at)
    assert {kept.backup.id for kept in plan.keep} == {whole.id, part.id}
    assert [backup.scope for backup in plan.prune] == ["schema"], "older than every backup of everything that stays"
    for backup in (whole, part):
        assert verify_backup(backup, ledger, programs=find_programs()).passed


def test_a_backup_of_the_schema_gives_the_tables_without_rows(
    shop: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    backup = back_up(shop, tmp_path, ledger, scope=Scope(what="schema"))
    with named_database(server_url, new_name()) as target:
        report = restore_backup(backup, server(server_url), target.name, ledger, programs=find_programs())
        assert all(table.match and table.rows == 0 for table in report.tables)
        assert hashes(target).keys() == hashes(shop).keys()
    assert content(shop, "empty_one") == (0, EMPTY_HASH)
    with pytest.raises(TableNotInBackup):
        bring(backup, shop, ledger, "sales", aside="old")


@pytest.mark.parametrize("scope", [Scope(what="data"), Scope(what="tables", tables=("public.sales", "public.events"))])
def test_a_backup_of_rows_makes_no_database_but_gives_its_tables(
    shop: Target, ledger: Ledger, tmp_path: Path, server_url: str, scope: Scope
) -> None:
    before = content(shop, "sales"), content(shop, "events")
    backup = back_up(shop, tmp_path, ledger, scope=scope)
    assert {table.table for table in load_manifest(backup).tables} >= {"public.sales", "public.events"}
    with pytest.raises(NotWhole, match="no database can be made from it"):
        restore_backup(backup, server(server_url), new_name(), ledger, programs=find_programs())
    run(shop, "delete from sales; delete from events")
    bring(backup, shop, ledger, "sales", aside="old_sales")
    bring(backup, shop, ledger, "events", aside="old_events")
    assert (content(shop, "old_sales.sales"), content(shop, "old_events.events")) == before
    assert databases(server_url) == []


def test_a_table_of_a_backup_of_tables_comes_back_in_its_place(shop: Target, ledger: Ledger, tmp_path: Path) -> None:
    before = content(shop, "sales")
    backup = back_up(shop, tmp_path, ledger, scope=Scope(what="tables", tables=("public.sales",)))
    run(shop, "drop table sales cascade")
    bring(backup, shop, ledger, "sales")
    assert content(shop, "sales") == before


def test_a_table_that_is_not_there_is_not_backed_up(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(TableMissing):
        back_up(database, tmp_path, ledger, scope=Scope(what="tables", tables=("public.never",)))


def test_the_words_of_a_scope() -> None:
    assert scope_of(()).whole
    assert str(scope_of(("schema",))) == "schema"
    assert str(scope_of(("b", 'public."A"', "public.b"))) == 'tables: public.b, public."A"'
    for words in (("schema", "a"), ("a b",)):
        with pytest.raises(ScopeUnclear):
            scope_of(words)


@pytest.fixture
def role(server_url: str) -> Iterator[str]:
    name = f"keeper_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create role {name} login password 'a-secret-word'".encode())
        yield name
        connection.execute(f"drop role {name}".encode())


def test_the_roles_lie_beside_the_dump_without_passwords(
    database: Target, ledger: Ledger, tmp_path: Path, role: str
) -> None:
    backup = back_up(database, tmp_path, ledger)
    write_globals(backup, ledger, tmp_path / "roles.sql")
    text = (tmp_path / "roles.sql").read_text()
    assert f"CREATE ROLE {role};" in text
    assert "PASSWORD" not in text
    assert "passwords" in load_manifest(backup).warnings[-1]
    assert (tmp_path / "roles.sql").stat().st_mode & 0o777 == 0o600
