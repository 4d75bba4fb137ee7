"""Rows that refer to archived ones leave along with them, or hold them: none goes silently, none is left behind.

One module, because every claim is about the same family of tables: orders, their lines, the notes on these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from dbplatform.archiving import errors
from dbplatform.archiving.catalogue import ArchiveEntry, list_archives, rows_away
from dbplatform.archiving.plan import plan_archive
from dbplatform.archiving.records import deleted_rows
from dbplatform.archiving.tables import TablePlace
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    NOW,
    ORDERS,
    archive,
    ask,
    at,
    fill,
    killed,
    policy,
    prove,
    restore,
    verify,
)

#: 1000 orders, 700 of them old; two lines for each tenth order; a note for every second line.
LINES = """
    create table lines (
        id bigint generated always as identity primary key,
        order_id bigint references orders on delete cascade,
        article text not null
    );
    create index on lines (order_id);
    create table line_notes (line_id bigint references lines, n int, body text, primary key (line_id, n));
    insert into lines (order_id, article)
    select i, 'article ' || j from generate_series(10, 1000, 10) i, generate_series(1, 2) j order by i, j;
    insert into lines (order_id, article) values (null, 'of no order');
    insert into line_notes select id, 1, 'note of ' || id from lines where id % 2 = 0;
"""
FAMILY = ORDERS + LINES
TABLES = ("orders", "lines", "line_notes")
ALONG = policy(children="archive")
COUNTS = "select (select count(*) from orders), (select count(*) from lines), (select count(*) from line_notes)"


def contents(target: Target) -> list[str]:
    with connect(target, work="look") as connection:
        return [catalog.content_hash(connection, Relation.parse(table)) for table in TABLES]


def entries(ledger: Ledger) -> dict[str, ArchiveEntry]:
    return {entry.table.removeprefix("public."): entry for entry in list_archives(ledger, DATABASE)}


def plan(target: Target, **fields: Any) -> Any:
    with connect(target, work="test") as connection:
        return plan_archive(connection, policy(**fields), now=NOW)


def test_a_plan_counts_the_rows_that_leave_along(database: Target) -> None:
    fill(database, FAMILY)
    found = plan(database, children="archive")
    assert found.rows == 700
    along = [(child["table"], child["constraint"], child["rows"]) for child in found.as_json()["children"]]
    assert along == [
        ("public.lines", "lines_order_id_fkey", 140),
        ("public.line_notes", "line_notes_line_id_fkey", 70),
    ]


def test_a_plan_without_children_refuses_by_name_and_names_the_ways_out(database: Target) -> None:
    fill(database, FAMILY)
    with pytest.raises(errors.RowsReferenced, match=r"70 of the rows .*public\.lines \(lines_order_id_fkey") as caught:
        plan(database)
    assert "children: archive" in str(caught.value)


def test_children_leave_along_each_table_in_a_file_of_its_own_and_come_back(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    before = contents(database)
    report = archive(database, ledger, tmp_path, ALONG)
    assert (report.deleted, report.along) == (700, {"public.line_notes": 70, "public.lines": 140})
    assert ask(database, COUNTS) == (300, 61, 30)
    found = entries(ledger)
    assert {name: (e.rows, e.deleted_rows, e.kept, e.status) for name, e in found.items()} == {
        "orders": (700, 700, {}, "deleted"),
        "lines": (140, 140, {}, "deleted"),
        "line_notes": (70, 70, {}, "deleted"),
    }
    assert [found[name].parent_id for name in TABLES] == [None, found["orders"].id, found["lines"].id]
    old = tmp_path / DATABASE / "old"
    assert found["lines"].location == str(old / "public.lines" / f"{found['lines'].id}.parquet")
    assert pq.read_table(found["line_notes"].location).num_rows == 70
    assert [file.name for file in old.glob("*.parquet")] == [f"{found['orders'].id}.parquet"]
    assert all(verify(database, ledger, entry.id).passed for entry in found.values())

    back = restore(database, ledger, found["orders"].id)

    assert (back.restored, [one.restored for one in back.along]) == (700, [140, 70])
    assert contents(database) == before
    assert {entry.status for entry in entries(ledger).values()} == {"restored"}


def test_children_that_nobody_has_get_no_file(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, FAMILY)
    fill(database, "delete from line_notes")
    archive(database, ledger, tmp_path, ALONG)
    assert set(entries(ledger)) == {"orders", "lines"}
    assert ask(database, COUNTS) == (300, 61, 0)
    assert archive(database, ledger, tmp_path, ALONG).archives == ()


def test_children_alone_are_restored_aside_only(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, FAMILY)
    archive(database, ledger, tmp_path, ALONG)
    found = entries(ledger)
    with pytest.raises(errors.RestoredWithParents) as caught:
        restore(database, ledger, found["line_notes"].id)
    assert str(found["orders"].id) in str(caught.value)
    assert restore(database, ledger, found["lines"].id, into="lines_aside").restored == 140
    assert ask(database, COUNTS) == (300, 61, 30)


@pytest.mark.parametrize(
    ("late", "kept", "kept_lines", "kept_notes", "left"),
    [
        (
            "update lines set article = 'late' where id = 1",
            {"children": 1},
            {"changed": 1, "parent": 1},
            {"parent": 1},
            699,
        ),
        (
            "insert into lines (order_id, article) values (10, 'late')",
            {"children": 1},
            {"parent": 2},
            {"parent": 1},
            699,
        ),
        ("delete from lines where id = 1", {"children": 1}, {"gone": 1, "parent": 1}, {"parent": 1}, 699),
        ("insert into line_notes values (1, 1, 'late')", {"children": 1}, {"parent": 2}, {"parent": 1}, 699),
        ("update line_notes set body = 'late' where line_id = 2", {"children": 1}, {"parent": 2}, {"changed": 1}, 699),
        ("delete from line_notes where line_id = 2", {"children": 1}, {"parent": 2}, {"gone": 1}, 699),
        (
            "update lines set order_id = 1000 where id = 1",
            {"children": 1},
            {"changed": 1, "parent": 1},
            {"parent": 1},
            699,
        ),
        ("update orders set note = 'late' where id = 10", {"changed": 1}, {"parent": 2}, {"parent": 1}, 699),
        ("update lines set article = article where id = 1", {"children": 1}, {"parent": 2}, {"parent": 1}, 699),
        ("insert into lines (order_id, article) values (11, 'late')", {"children": 1}, {}, {}, 699),
    ],
)
def test_a_row_whose_children_changed_since_the_export_stays_with_all_of_them(
    database: Target,
    ledger: Ledger,
    tmp_path: Path,
    late: str,
    kept: dict[str, int],
    kept_lines: dict[str, int],
    kept_notes: dict[str, int],
    left: int,
) -> None:
    fill(database, FAMILY)
    before: list[Any] = []

    def change() -> None:
        fill(database, late)
        before.extend(contents(database))

    with at("verify", change):
        report = archive(database, ledger, tmp_path, ALONG)
    found = entries(ledger)
    assert (report.deleted, report.kept) == (left, kept)
    assert (found["lines"].kept, found["line_notes"].kept) == (kept_lines, kept_notes)
    assert ask(database, "select count(*) from orders where at < '2026-06-01'") == 1
    assert (
        ask(database, "select count(*) from lines l where not exists (select from orders where id = l.order_id)") == 1
    )
    restore(database, ledger, found["orders"].id)
    assert contents(database) == before, "what had left is back, what stayed is as it was changed"


def test_a_child_that_comes_while_its_parent_is_deleted_is_not_lost(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    # Its lock on the parent holds the first batch up; it is committed before the next try.
    late = "insert into lines (order_id, article) values (20, 'late')"
    with psycopg.connect(database.url) as writer, at("verify", lambda: writer.execute(late)):
        report = archive(database, ledger, tmp_path, ALONG, sleep=lambda _: writer.commit())
    assert (report.deleted, report.kept) == (699, {"children": 1})
    assert ask(database, "select count(*) from lines where order_id = 20") == 3


def test_a_parent_whose_children_no_backup_holds_is_not_exported(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    proof = prove(database)
    fill(database, "update line_notes set body = 'after the backup' where line_id = 2")
    report = archive(database, ledger, tmp_path, ALONG, proof=proof)
    assert (report.deleted, report.uncovered, report.along) == (
        699,
        1,
        {"public.line_notes": 69, "public.lines": 138},
    )
    assert archive(database, ledger, tmp_path, ALONG).deleted == 1, "a newer backup holds them"
    assert ask(database, COUNTS) == (300, 61, 30)


def test_a_backup_without_the_table_of_the_children_covers_none_of_their_parents(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    good = prove(database)
    fields = {name: getattr(good, name) for name in good.__slots__}
    proof = type(good)(**{**fields, "tables": frozenset({"public.orders", "public.lines"})})
    report = archive(database, ledger, tmp_path, ALONG, proof=proof)
    assert (report.deleted, report.uncovered) == (630, 70), "those without lines can go"
    assert ask(database, COUNTS) == (370, 201, 100)


@pytest.mark.parametrize(
    ("more", "table", "child", "constraint"),
    [
        (
            "alter table lines add column instead_of bigint references orders; update lines set instead_of = 20"
            " where id = 1",
            "orders",
            "lines",
            "lines_instead_of_fkey",
        ),
        (
            "alter table orders add column follows bigint references orders; update orders set follows = 3"
            " where id = 900",
            "orders",
            "orders",
            "orders_follows_fkey",
        ),
        (
            "alter table lines add column note_line bigint, add column note_n int, add foreign key (note_line, note_n)"
            " references line_notes; update lines set note_line = 2, note_n = 1 where id = 160",
            "line_notes",
            "lines",
            "lines_note_line_note_n_fkey",
        ),
    ],
)
def test_a_second_way_a_circle_and_the_table_itself_are_refused_by_name(
    database: Target, ledger: Ledger, tmp_path: Path, more: str, table: str, child: str, constraint: str
) -> None:
    fill(database, FAMILY)
    fill(database, more)
    before = contents(database)
    with pytest.raises(
        errors.RowsReferenced, match=rf"1 of .* from public\.{table} .* public\.{child} \({constraint}\)"
    ) as caught:
        archive(database, ledger, tmp_path, ALONG)
    assert "more than one foreign key or in a circle" in str(caught.value)
    assert (contents(database), list_archives(ledger, DATABASE)) == (before, [])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("alter table line_notes drop constraint line_notes_pkey", errors.NoKey),
        ("alter table lines add column of regclass", errors.CannotKeepType),
    ],
)
def test_a_table_of_children_that_cannot_be_archived_is_refused_by_name(
    database: Target, ledger: Ledger, tmp_path: Path, change: str, error: type[Exception]
) -> None:
    fill(database, FAMILY)
    fill(database, change)
    with pytest.raises(error, match=r"public\.line"):
        archive(database, ledger, tmp_path, ALONG)
    assert list_archives(ledger, DATABASE) == []


@pytest.mark.parametrize("table", ["lines", "line_notes", "orders"])
def test_a_trigger_that_holds_a_row_back_ends_the_batch_with_its_name(
    database: Target, ledger: Ledger, tmp_path: Path, table: str
) -> None:
    fill(database, FAMILY)
    fill(
        database,
        "create function hold() returns trigger language plpgsql as 'begin return null; end';"
        f"create trigger hold before delete on {table} for each row execute function hold()",
    )
    before = contents(database)
    with pytest.raises(errors.RowsHeldBack, match=rf"public\.{table}"):
        archive(database, ledger, tmp_path, ALONG)
    assert contents(database) == before
    fill(database, f"drop trigger hold on {table}")
    assert archive(database, ledger, tmp_path, ALONG).deleted == 700


def test_a_foreign_key_that_is_new_since_the_export_holds_its_rows(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    late = "create table labels (line_id bigint references lines on delete cascade); insert into labels values (1)"
    with at("verify", lambda: fill(database, late)):
        report = archive(database, ledger, tmp_path, ALONG)
    assert (report.deleted, report.kept) == (699, {"children": 1})
    assert ask(database, "select count(*) from labels") == 1


def test_partitioned_parents_and_children_leave_together(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(
        database,
        """
        create table orders (id int, at timestamptz, primary key (id, at)) partition by range (at);
        create table orders_1 partition of orders for values from ('2026-01-01') to ('2026-06-01');
        create table orders_2 partition of orders for values from ('2026-06-01') to ('2027-01-01');
        create table lines (id int, order_id int, order_at timestamptz, primary key (id, order_id),
            foreign key (order_id, order_at) references orders on delete cascade) partition by hash (order_id);
        create table lines_1 partition of lines for values with (modulus 2, remainder 0);
        create table lines_2 partition of lines for values with (modulus 2, remainder 1);
        create table line_notes (n int primary key);
        insert into orders select i, timestamptz '2026-01-01' + i * interval '1 day' from generate_series(1, 180) i;
        insert into lines select 1, id, at from orders;
        """,
    )
    before = contents(database)
    report = archive(database, ledger, tmp_path, ALONG)
    assert report.deleted == report.along["public.lines"] == ask(database, "select 180 - count(*) from orders")
    assert restore(database, ledger, entries(ledger)["orders"].id).restored == report.deleted
    assert contents(database) == before


def test_children_of_an_archive_in_a_table_go_into_tables_beside_it(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    before = contents(database)
    place = TablePlace(target=database, table=Relation("public", "old_orders"), variable=None, work=tmp_path)
    assert archive(database, ledger, place, ALONG).deleted == 700
    assert ask(
        database, "select (select count(*) from old_orders_lines), (select count(*) from old_orders_line_notes)"
    ) == (
        140,
        70,
    )
    found = entries(ledger)
    assert all(verify(database, ledger, entry.id).passed for entry in found.values())
    restore(database, ledger, found["orders"].id)
    assert contents(database) == before


def test_a_file_of_children_that_was_changed_keeps_every_row(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, FAMILY)
    before = contents(database)

    def change() -> None:
        file = Path(entries(ledger)["line_notes"].location)
        file.write_bytes(file.read_bytes()[:-9])

    with at("verify", change), pytest.raises(errors.ArchiveDamaged, match=r"line_notes"):
        archive(database, ledger, tmp_path, ALONG)
    assert contents(database) == before


def test_a_family_whose_file_is_gone_before_a_row_has_left_begins_anew(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, tmp_path, ALONG, recheck=lambda: None)
    Path(entries(ledger)["lines"].location).unlink()
    assert archive(database, ledger, tmp_path, ALONG).deleted == 700
    assert len(list_archives(ledger, DATABASE)) == 3
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3, "no debris"


@pytest.mark.parametrize(
    ("point", "done", "left", "listed"),
    cases(
        ("begin", 0, 1000, set()),
        ("export", 600, 1000, set()),
        ("public.lines export", 140, 1000, set()),
        ("public.line_notes export", 0, 1000, set()),
        ("public.line_notes write", 0, 1000, set()),
        ("rename", 0, 1000, set()),
        ("public.lines rename", 0, 1000, set()),
        ("public.line_notes rename", 0, 1000, set()),
        ("record", 0, 1000, {"exported"}),
        ("public.lines read back", 0, 1000, {"exported", "verified"}),
        ("verify", 0, 1000, {"verified"}),
        ("delete", 0, 1000, {"verified"}),
        ("children", 70, 1000, {"verified"}),
        ("batch", 70, 1000, {"verified"}),
        ("delete", 280, 720, {"verified"}),
        ("children", 350, 720, {"verified"}),
        ("batch", 350, 720, {"verified"}),
        ("finish", 0, 300, {"verified"}),
        ("done", 0, 300, {"deleted"}),
        sample=("public.lines rename", ("children", 350)),
    ),
)
def test_an_archive_with_children_killed_here_is_finished_by_the_next_run(
    database: Target,
    ledger: Ledger,
    tmp_path: Path,
    point: str,
    done: int,
    left: int,
    listed: set[str],
) -> None:
    fill(database, FAMILY)
    before, proof = contents(database), prove(database)
    killed("archive", database, ledger, tmp_path, proof, point, done, declared=ALONG)
    now = ask(database, COUNTS)
    # Which rows are in a batch is open, and so is how many children those have.
    assert now == (left, *{1000: (201, 100), 300: (61, 30)}.get(left, now[1:]))
    assert {entry.status for entry in list_archives(ledger, DATABASE)} == listed
    with connect(database, work="look") as connection:
        away = rows_away(ledger, DATABASE, deleted_rows(connection))
    assert tuple(away.get(f"public.{table}", 0) for table in TABLES) == (1000 - now[0], 201 - now[1], 100 - now[2])

    archive(database, ledger, tmp_path, ALONG, proof=proof)

    assert ask(database, COUNTS) == (300, 61, 30)
    found = entries(ledger)
    assert {entry.status for entry in found.values()} == {"deleted"}
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3, "no debris"
    assert restore(database, ledger, found["orders"].id).restored == 700
    assert contents(database) == before


@pytest.mark.parametrize(
    ("point", "left"),
    cases(
        ("public.lines restore", (300, 61, 30)),
        ("insert", (300, 61, 30)),
        ("public.line_notes insert", (300, 61, 30)),
        ("return", (1000, 201, 100)),
        ("restored", (1000, 201, 100)),
        sample=("public.line_notes insert",),
    ),
)
def test_a_restore_with_children_killed_here_is_finished_by_the_next_one(
    database: Target, ledger: Ledger, tmp_path: Path, point: str, left: tuple[int, int, int]
) -> None:
    fill(database, FAMILY)
    before, proof = contents(database), prove(database)
    archive(database, ledger, tmp_path, ALONG, proof=proof)
    killed("restore", database, ledger, tmp_path, proof, point, 0, str(entries(ledger)["orders"].id))
    assert ask(database, COUNTS) == left
    restore(database, ledger, entries(ledger)["orders"].id)
    assert contents(database) == before
    assert {entry.status for entry in entries(ledger).values()} == {"restored"}
