"""Archives in a table of the same or of another database: the same proof as in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.archiving import errors
from dbplatform.archiving.catalogue import list_archives
from dbplatform.archiving.tables import TablePlace
from dbplatform.errors import VariableNotSet
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import (
    ORDERS,
    archive,
    ask,
    content,
    fill,
    finished_after_a_kill,
    only,
    policy,
    restore,
    verify,
)

TABLE = Relation("public", "old_orders")


@pytest.fixture
def here(database: Target, tmp_path: Path) -> TablePlace:
    """A table of the database itself."""
    return TablePlace(target=database, table=TABLE, variable=None, work=tmp_path)


@pytest.fixture
def elsewhere(database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TablePlace]:
    """A table of another database, whose URL is in a variable."""
    name = f"{psycopg.conninfo.conninfo_to_dict(database.url)['dbname']}_history"
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(f"create database {name}".encode())
        url = make_conninfo(database.url, dbname=name)
        monkeypatch.setenv("HISTORY_URL", url)
        yield TablePlace(target=Target("history", url), table=TABLE, variable="HISTORY_URL", work=tmp_path)
        session.execute(f"drop database {name} with (force)".encode())


def test_an_archive_in_a_table_and_its_restore_give_the_same_content_hash(
    database: Target, ledger: Ledger, here: TablePlace
) -> None:
    fill(database, ORDERS)
    before = content(database)
    assert archive(database, ledger, here).deleted == 700
    entry = only(ledger)
    assert entry.location == f"table:public.old_orders/{entry.id}"
    assert ask(database, "select count(*), min(archive_place), max(archive_place) from old_orders") == (700, 0, 699)
    assert list(here.work.iterdir()) == [], "no file is left"
    assert verify(database, ledger, entry.id).passed
    assert restore(database, ledger, entry.id).restored == 700
    assert content(database) == before


def test_a_table_takes_one_archive_after_the_other(database: Target, ledger: Ledger, here: TablePlace) -> None:
    fill(database, ORDERS)
    archive(database, ledger, here, policy(where="id <= 100"))
    archive(database, ledger, here)
    assert ask(database, "select count(*), count(distinct archive_id), count(distinct id) from old_orders") == (
        700,
        2,
        700,
    )
    assert all(verify(database, ledger, entry.id).passed for entry in list_archives(ledger, "shop"))


def test_an_archive_in_another_database_comes_back(
    database: Target, ledger: Ledger, elsewhere: TablePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ORDERS)
    before = content(database)
    archive(database, ledger, elsewhere)
    entry = only(ledger)
    assert entry.location == f"table:public.old_orders/{entry.id}@HISTORY_URL"
    assert ask(elsewhere.target, "select count(*) from old_orders") == 700
    with monkeypatch.context() as patched:
        patched.delenv("HISTORY_URL")
        with pytest.raises(VariableNotSet, match="HISTORY_URL"):
            verify(database, ledger, entry.id)
    assert restore(database, ledger, entry.id).restored == 700
    assert content(database) == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("update old_orders set note = 'forged' where archive_place = 7", "SHA-256 differs"),
        ("delete from old_orders where archive_place = 7", "SHA-256 differs"),
        ("delete from dbplatform.archive_held", "does not hold it"),
        ("drop table old_orders", "does not exist"),
    ],
)
def test_a_table_that_was_changed_is_found_before_a_row_is_deleted(
    database: Target, ledger: Ledger, here: TablePlace, change: str, problem: str
) -> None:
    fill(database, ORDERS)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, here, recheck=lambda: None)
    fill(database, change)
    assert problem in str(verify(database, ledger, only(ledger).id).problem)
    if problem != "does not hold it":  # where nothing has left by it, an archive that is gone begins anew
        with pytest.raises(errors.ArchiveDamaged):
            archive(database, ledger, here)
    assert ask(database, "select count(*) from orders") == 1000


def test_a_table_with_other_columns_is_refused_and_nothing_deleted(
    database: Target, ledger: Ledger, here: TablePlace
) -> None:
    fill(database, ORDERS + "create table old_orders (id int)")
    with pytest.raises(errors.ArchiveNotWritten, match="its columns are not archive_id, archive_place and those of"):
        archive(database, ledger, here)
    assert (ask(database, "select count(*) from orders"), list_archives(ledger, "shop")) == (1000, [])
    assert list(here.work.iterdir()) == []


def test_a_type_that_the_other_database_lacks_is_named(database: Target, ledger: Ledger, elsewhere: TablePlace) -> None:
    fill(
        database,
        "create type mood as enum ('sad'); create table orders (id int primary key, at date, m mood);"
        "insert into orders values (1, '2020-01-01', 'sad')",
    )
    with pytest.raises(errors.ArchiveNotWritten, match='type "mood" does not exist'):
        archive(database, ledger, elsewhere)
    assert ask(database, "select count(*) from orders") == 1


@pytest.mark.parametrize(
    ("point", "done", "listed"),
    cases(
        ("export", 600, []),
        ("write", 0, []),
        ("rename", 0, []),
        ("record", 0, ["exported"]),
        ("read back", 300, ["exported"]),
        ("batch", 350, ["verified"]),
        ("finish", 0, ["verified"]),
        ("done", 0, ["deleted"]),
        sample=("rename",),
    ),
)
def test_an_archive_into_a_table_killed_here_is_finished_by_the_next_run(
    database: Target, ledger: Ledger, here: TablePlace, point: str, done: int, listed: list[str]
) -> None:
    finished_after_a_kill(database, ledger, here, point, done, listed, lambda: list(here.work.iterdir()))
    assert ask(database, "select count(*), count(distinct archive_id) from old_orders") == (700, 1)
