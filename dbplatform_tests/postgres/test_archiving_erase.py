"""Rows erased on purpose leave their table and its archives, and do not come back by any restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from dbplatform.archiving import errors, rewrite
from dbplatform.archiving.catalogue import list_archives, rows_away
from dbplatform.archiving.erase import Chosen, ErasurePlan, plan_erasure
from dbplatform.archiving.records import deleted_rows
from dbplatform.archiving.replay import ReplayReport, replay
from dbplatform.archiving.tables import TablePlace
from dbplatform.errors import LockNotAcquired
from dbplatform.ledger.archives import ErasedKeys, Erasure, RemovedArchive
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    NAMED,
    archive,
    ask,
    at,
    copies,
    erase,
    fill,
    killed,
    only,
    policy,
    prove,
    restore,
    verify,
)

#: 100 people, 70 of them old; the key is their address. Two orders each for ten of them.
PEOPLE = """
    create table orders (email text primary key, at timestamptz not null, name text);
    insert into orders select 'p' || i || '@example.org', timestamptz '2026-01-01' + i * interval '1 day',
        'Person ' || i from generate_series(1, 70) i;
    insert into orders select 'p' || i || '@example.org', '2026-06-20', 'Person ' || i from generate_series(71, 100) i;
"""


def plan(target: Target, ledger: Ledger, chosen: Chosen = NAMED, table: str = "orders") -> ErasurePlan:
    with connect(target, work="test") as connection:
        return plan_erasure(connection, ledger, Relation.parse(table), chosen, database=DATABASE)


def again(target: Target, ledger: Ledger, **options: Any) -> ReplayReport:
    with connect(target, work="test") as connection:
        return replay(connection, ledger, DATABASE, **options)


def stored(ledger: Ledger, model: type[Any]) -> list[Any]:
    with ledger.session() as session:
        return list(session.query(model))


def addresses(path: str) -> set[str]:
    return set(pq.read_table(path).column("email").to_pylist())


@pytest.fixture
def copied(database: Target) -> Iterator[Callable[[], Target]]:
    with copies(database) as copy:
        yield copy


def test_a_plan_counts_rows_in_the_table_and_in_each_archive_and_changes_nothing(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    found = plan(database, ledger)
    assert (found.rows, [(entry.id, rows) for entry, rows in found.archives]) == (1, [(only(ledger).id, 1)])
    assert ask(database, "select count(*) from orders") == 30
    assert stored(ledger, Erasure) == []


def test_erased_rows_leave_the_table_and_a_new_file_takes_the_place_of_the_old(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    old = only(ledger)
    (report,) = erase(database, ledger, tmp_path, note="letter of 2 July")
    assert (report.keys, report.rows, report.archives) == (2, 1, {str(old.id): 1})
    assert ask(database, "select count(*) from orders where name = 'Person 90'") == 0
    new = only(ledger)
    assert (new.rows, new.deleted_rows, new.status, new.kept) == (69, 69, "deleted", {})
    assert new.created_at == old.created_at
    assert verify(database, ledger, new.id).passed
    assert "p7@example.org" not in addresses(new.location)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [Path(new.location)], "the old file is gone"
    (gone,) = stored(ledger, RemovedArchive)
    assert (gone.id, gone.replaced_by, gone.sha256) == (old.id, new.id, old.sha256)
    assert gone.removed_at is not None
    with connect(database, work="look") as connection:
        assert rows_away(ledger, DATABASE, deleted_rows(connection)) == {"public.orders": 69}
    assert restore(database, ledger, new.id).restored == 69
    assert ask(database, "select count(*) from orders") == 98


def test_the_list_keeps_neither_key_nor_condition(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    erase(database, ledger, tmp_path, Chosen(values={"email": "p7@example.org"}))
    with psycopg.connect(ledger.target.url) as session:
        text = "".join(
            str(row[0])
            for table in ("erasure", "erased_keys", "removed_archive", "archive")
            for row in session.execute(sql.SQL("select x::text from {} as x").format(sql.Identifier("ledger", table)))
        )
    assert "p7" not in text
    (keys,) = stored(ledger, ErasedKeys)
    assert len(keys.hashes) == 32


def test_an_archive_whose_rows_are_all_erased_goes_without_another(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    erase(database, ledger, tmp_path, Chosen(where="true"))
    assert list_archives(ledger, DATABASE) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert ask(database, "select count(*) from orders") == 0


def test_rows_that_stayed_in_the_table_are_not_in_the_new_file(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, PEOPLE)
    late = "update orders set name = 'late' where email = 'p8@example.org'"
    with at("verify", lambda: fill(database, late)):
        archive(database, ledger, tmp_path)
    erase(database, ledger, tmp_path)
    assert (only(ledger).rows, only(ledger).kept) == (68, {})
    assert restore(database, ledger, only(ledger).id).restored == 68
    assert ask(database, "select name from orders where email = 'p8@example.org'") == "late"


@pytest.mark.parametrize("columns", ["add column more int", "alter column name type varchar(100)"])
def test_rows_leave_an_archive_of_a_table_that_has_changed_since(
    database: Target, ledger: Ledger, tmp_path: Path, columns: str
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    fill(database, f"alter table orders {columns}")
    (report,) = erase(database, ledger, tmp_path)
    assert len(report.archives) == 1
    assert "p7@example.org" not in addresses(only(ledger).location)


def test_rows_leave_an_archive_in_a_table(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, PEOPLE)
    place = TablePlace(target=database, table=Relation("public", "old_orders"), variable=None, work=tmp_path)
    archive(database, ledger, place)
    erase(database, ledger, tmp_path)
    assert ask(database, "select count(*), count(*) filter (where name = 'Person 7') from old_orders") == (69, 0)
    assert ask(database, "select count(*) from dbplatform.archive_held") == 1
    assert verify(database, ledger, only(ledger).id).passed


def test_a_copy_from_before_is_erased_again_and_one_from_after_is_left_alone(
    database: Target, ledger: Ledger, tmp_path: Path, copied: Callable[[], Target]
) -> None:
    fill(database, PEOPLE)
    before = copied()
    archive(database, ledger, tmp_path)
    erase(database, ledger, tmp_path)
    assert again(before, ledger, dry_run=True).rows == {"public.orders": 2}
    assert ask(before, "select count(*) from orders") == 100
    assert again(before, ledger).rows == {"public.orders": 2}
    assert ask(before, "select count(*) from orders where name in ('Person 7', 'Person 90')") == 0
    assert again(before, ledger).erasures == 0
    fill(database, "insert into orders values ('p7@example.org', now(), 'came back by themselves')")
    after = copied()
    assert again(after, ledger).rows == {}
    assert ask(after, "select count(*) from orders where email = 'p7@example.org'") == 1


@pytest.mark.parametrize(
    ("action", "orders", "lines"), [("no action", 98, 8), ("cascade", 98, 8), ("set null", 98, 10)]
)
def test_what_refers_to_an_erased_row_in_a_copy_goes_as_its_foreign_key_says(
    database: Target, ledger: Ledger, tmp_path: Path, copied: Callable[[], Target], action: str, orders: int, lines: int
) -> None:
    fill(database, PEOPLE)
    fill(database, f"create table lines (id int primary key, email text references orders on delete {action})")
    fill(
        database,
        "insert into lines select i, 'p' || (6 + i % 5) || '@example.org' from generate_series(1, 10) i;"
        "create table notes (line int references lines on delete cascade); insert into notes values (1), (2)",
    )
    before = copied()
    fill(database, "delete from notes; delete from lines where email = 'p7@example.org'")
    erase(database, ledger, tmp_path)
    report = again(before, ledger)
    assert (ask(before, "select count(*) from orders"), ask(before, "select count(*) from lines")) == (orders, lines)
    assert report.rows["public.orders"] == 2
    assert report.rows.get("public.lines", 0) == 10 - lines


def test_an_old_file_that_is_listed_again_does_not_bring_erased_rows_back(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    monkeypatch.setattr("dbplatform.archiving.erase.rewrite", lambda *_, **__: 0)
    erase(database, ledger, tmp_path)
    report = restore(database, ledger, only(ledger).id)
    assert (report.restored, report.erased, report.left_out) == (69, 1, 0)
    assert ask(database, "select count(*) from orders where name = 'Person 7'") == 0


def test_rows_that_others_refer_to_are_refused_by_name(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, PEOPLE)
    fill(
        database,
        "create table lines (id int primary key, email text references orders on delete cascade);"
        "insert into lines values (1, 'p90@example.org')",
    )
    with pytest.raises(errors.ErasedRowsReferenced, match=r"public\.lines.*lines_email_fkey"):
        erase(database, ledger, tmp_path)
    assert (ask(database, "select count(*) from orders"), stored(ledger, Erasure)) == (100, [])
    assert erase(database, ledger, tmp_path, Chosen(values={"id": "1"}), table="lines")[0].rows == 1
    assert erase(database, ledger, tmp_path)[0].rows == 2


def test_archived_rows_that_archived_children_refer_to_are_refused_until_these_are_erased(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, PEOPLE)
    fill(
        database,
        "create table lines (id int primary key, email text references orders);"
        "insert into lines values (1, 'p7@example.org'), (2, 'p8@example.org')",
    )
    archive(database, ledger, tmp_path, policy(children="archive"))
    with pytest.raises(errors.ErasedRowsReferenced, match=r"1 rows of public\.lines in the archive"):
        erase(database, ledger, tmp_path)
    erase(database, ledger, tmp_path, Chosen(values={"id": "1"}), table="lines")
    erase(database, ledger, tmp_path)
    found = {entry.table: entry for entry in list_archives(ledger, DATABASE)}
    assert {name: entry.rows for name, entry in found.items()} == {"public.orders": 69, "public.lines": 1}
    assert found["public.lines"].parent_id == found["public.orders"].id
    restore(database, ledger, found["public.orders"].id)
    assert ask(database, "select (select count(*) from orders), (select count(*) from lines)") == (98, 1)


@pytest.mark.parametrize("condition", ["no_such_column = 1", "name", "name ="])
def test_a_condition_that_is_none_is_refused(database: Target, ledger: Ledger, condition: str) -> None:
    fill(database, PEOPLE)
    with pytest.raises(errors.UnsuitableErasure, match=r"public\.orders"):
        plan(database, ledger, Chosen(where=condition))


def test_an_unfinished_archive_is_finished_first(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, PEOPLE)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, tmp_path, recheck=lambda: None)
    with pytest.raises(errors.ErasureMustWait, match=str(only(ledger).id)):
        erase(database, ledger, tmp_path)
    archive(database, ledger, tmp_path)
    assert len(erase(database, ledger, tmp_path)) == 1


def test_a_locked_row_ends_the_erasure_and_the_next_run_goes_on(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    monkeypatch.setattr("dbplatform.archiving.erase.LOCK_TIMEOUT_MS", 50)
    with psycopg.connect(database.url) as writer:
        writer.execute("select from orders where name = 'Person 90' for update")
        with pytest.raises(LockNotAcquired):
            erase(database, ledger, tmp_path)
        assert only(ledger).rows == 70
    (report,) = erase(database, ledger, tmp_path, Chosen(where="false"))
    assert (report.rows, len(report.archives), only(ledger).rows) == (1, 1, 69)


def test_a_trigger_that_holds_a_row_back_is_named(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, PEOPLE)
    fill(
        database,
        "create function hold() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger hold before delete on orders for each row execute function hold()",
    )
    with pytest.raises(errors.RowsHeldBack, match=r"2 rows of public\.orders"):
        erase(database, ledger, tmp_path)
    fill(database, "drop trigger hold on orders")
    assert erase(database, ledger, tmp_path, Chosen(where="false"))[0].rows == 2


@pytest.mark.parametrize(
    "point", cases("erase decided", "erase erased", "complete", "rewritten", "erase removed", sample=("complete",))
)
def test_an_erasure_killed_here_is_finished_by_the_next_one(
    database: Target, ledger: Ledger, tmp_path: Path, point: str
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    killed("erase", database, ledger, tmp_path, prove(database), point, 0)
    erase(database, ledger, tmp_path, Chosen(where="false"))
    assert ask(database, "select count(*) from orders") == 29
    entry = only(ledger)
    assert (entry.rows, verify(database, ledger, entry.id).passed) == (69, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [Path(entry.location)], "no debris"
    with connect(database, work="look") as connection:
        assert rows_away(ledger, DATABASE, deleted_rows(connection)) == {"public.orders": 69}
    assert all(one.done_at is not None for one in stored(ledger, Erasure))
    assert restore(database, ledger, entry.id).restored == 69


def test_a_new_file_that_does_not_give_back_the_rows_leaves_the_old_one(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    lines_of = rewrite.lines_of
    monkeypatch.setattr(
        rewrite,
        "lines_of",
        lambda *given: ([line.replace(b"Person 9", b"Person X") for line in lines] for lines in lines_of(*given)),
    )
    old = only(ledger)
    with pytest.raises(errors.ReadBackDiffers):
        erase(database, ledger, tmp_path)
    assert (only(ledger).id, verify(database, ledger, old.id).passed) == (old.id, True)
    monkeypatch.undo()
    erase(database, ledger, tmp_path, Chosen(where="false"))
    assert only(ledger).rows == 69
