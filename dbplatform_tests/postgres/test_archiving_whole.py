"""A partition may be dropped when each of its rows lies, as it is, in an archive that can still be read."""

from __future__ import annotations

from pathlib import Path

from dbplatform.archiving.whole import PartitionStanding, archived_whole
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.postgres.archiving_support import DATABASE, archive, fill, flip, only, restore

#: 100 rows in January, 100 in June; the first are old at NOW.
SALES = """
    create table orders (at timestamptz not null, id int not null, note text, primary key (id, at))
        partition by range (at);
    create table orders_01 partition of orders for values from ('2026-01-01') to ('2026-02-01');
    create table orders_06 partition of orders for values from ('2026-06-01') to ('2026-07-01');
    insert into orders select timestamptz '2026-01-01' + i * interval '1 hour', i from generate_series(1, 100) i;
    insert into orders select timestamptz '2026-06-02' + i * interval '1 hour', i from generate_series(1, 100) i;
"""
TABLE, OLD = Relation("public", "orders"), Relation("public", "orders_01")


def standing(target: Target, ledger: Ledger, partition: Relation = OLD) -> PartitionStanding:
    with connect(target, work="test") as connection:
        return archived_whole(connection, ledger, database=DATABASE, table=TABLE, partition=partition)


def test_a_partition_that_was_never_archived_is_not_whole(database: Target, ledger: Ledger) -> None:
    fill(database, SALES)
    found = standing(database, ledger)
    assert (found.rows, found.archived, found.whole, found.archives) == (100, 0, False, ())


def test_a_partition_whose_rows_have_left_is_whole(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, SALES)
    archive(database, ledger, tmp_path)
    assert (standing(database, ledger).rows, standing(database, ledger).whole) == (0, True)
    assert not standing(database, ledger, Relation("public", "orders_06")).whole


def test_rows_that_came_back_count_while_they_are_what_the_file_holds(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, SALES)
    archive(database, ledger, tmp_path)
    restore(database, ledger, only(ledger).id)
    fill(database, "alter table orders detach partition orders_01")
    found = standing(database, ledger)
    assert (found.rows, found.archived, found.whole, [e.id for e in found.archives]) == (
        100,
        100,
        True,
        [only(ledger).id],
    )
    fill(database, "update orders_01 set note = 'new' where id = 7; insert into orders_01 values ('2026-01-31', 101)")
    found = standing(database, ledger)
    assert (found.rows, found.archived, found.whole) == (101, 99, False)


def test_a_damaged_file_counts_for_nothing_and_is_named(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, SALES)
    archive(database, ledger, tmp_path)
    restore(database, ledger, only(ledger).id)
    flip(Path(only(ledger).location))
    found = standing(database, ledger)
    assert (found.archived, found.whole) == (0, False)
    assert only(ledger).location in found.problems[0]


def test_a_row_that_lies_in_two_files_counts_once(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, SALES)
    for _ in range(2):
        (made,) = archive(database, ledger, tmp_path).archives
        restore(database, ledger, made.id)
    fill(database, "insert into orders values ('2026-01-30', 999)")
    found = standing(database, ledger)
    assert (found.rows, found.archived, found.whole) == (101, 100, False)
