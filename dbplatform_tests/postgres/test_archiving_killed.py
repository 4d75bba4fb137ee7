"""``kill -9`` at every named point of archiving and restoring: the next run ends right, no row lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.archiving.catalogue import list_archives, rows_away
from dbplatform.archiving.records import deleted_rows
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    ORDERS,
    archive,
    ask,
    content,
    fill,
    killed,
    only,
    prove,
    restore,
    verify,
)


def away(target: Target, ledger: Ledger) -> dict[str, int]:
    with connect(target, work="look") as connection:
        return rows_away(ledger, DATABASE, deleted_rows(connection))


@pytest.mark.parametrize(
    ("point", "done", "left", "listed"),
    cases(
        ("begin", 0, 1000, []),
        ("export", 0, 1000, []),
        ("export", 600, 1000, []),
        ("write", 0, 1000, []),
        ("rename", 0, 1000, []),
        ("record", 0, 1000, ["exported"]),
        ("read back", 300, 1000, ["exported"]),
        ("verify", 0, 1000, ["verified"]),
        ("delete", 0, 1000, ["verified"]),
        ("batch", 70, 1000, ["verified"]),
        ("delete", 280, 720, ["verified"]),
        ("batch", 350, 720, ["verified"]),
        ("finish", 0, 300, ["verified"]),
        ("done", 0, 300, ["deleted"]),
        sample=(("export", 600), "read back", ("batch", 350), "finish"),
    ),
)
def test_an_archive_killed_here_is_finished_by_the_next_run(
    database: Target, ledger: Ledger, tmp_path: Path, point: str, done: int, left: int, listed: list[str]
) -> None:
    fill(database, ORDERS)
    before, proof = content(database), prove(database)
    killed("archive", database, ledger, tmp_path, proof, point, done)
    assert ask(database, "select count(*) from orders") == left
    assert away(database, ledger).get("public.orders", 0) == 1000 - left, "what has left is known at every moment"
    assert [entry.status for entry in list_archives(ledger, DATABASE)] == listed

    archive(database, ledger, tmp_path, proof=proof)

    assert ask(database, "select count(*), min(id) from orders") == (300, 701)
    entry = only(ledger)
    assert (entry.status, entry.rows, entry.deleted_rows, entry.kept) == ("deleted", 700, 700, {})
    assert verify(database, ledger, entry.id).passed
    assert [file.name for file in Path(entry.location).parent.iterdir()] == [f"{entry.id}.parquet"], "no debris"
    assert restore(database, ledger, entry.id).restored == 700
    assert content(database) == before


@pytest.mark.parametrize(
    ("point", "left", "status"),
    cases(
        ("restore", 300, "deleted"),
        ("insert", 300, "deleted"),
        ("return", 1000, "deleted"),
        ("restored", 1000, "restored"),
        sample=("return",),
    ),
)
def test_a_restore_killed_here_is_finished_by_the_next_run(
    database: Target, ledger: Ledger, tmp_path: Path, point: str, left: int, status: str
) -> None:
    fill(database, ORDERS)
    before, proof = content(database), prove(database)
    archive(database, ledger, tmp_path, proof=proof)
    killed("restore", database, ledger, tmp_path, proof, point, 0, str(only(ledger).id))
    assert (ask(database, "select count(*) from orders"), only(ledger).status) == (left, status)

    report = restore(database, ledger, only(ledger).id)

    assert report.restored + report.already_there == 700
    assert (content(database), only(ledger).status) == (before, "restored")


def test_a_restore_of_a_half_deleted_archive_brings_back_what_had_left(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    before, proof = content(database), prove(database)
    killed("archive", database, ledger, tmp_path, proof, "delete", 280)
    report = restore(database, ledger, only(ledger).id)
    assert (report.restored, report.already_there) == (280, 420)
    assert (content(database), away(database, ledger)) == (before, {})
    again = archive(database, ledger, tmp_path)
    assert (again.deleted, len(list_archives(ledger, DATABASE))) == (700, 2)
