"""A full disk: no file grows beyond a limit, as under a quota; nothing is lost, and nothing is left behind."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbplatform.archiving import errors
from dbplatform.archiving.catalogue import list_archives
from dbplatform.archiving.erase import Chosen
from dbplatform.archiving.tables import TablePlace
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    archive,
    ask,
    erase,
    fill,
    only,
    policy,
    restore,
    verify,
)
from dbplatform_tests.postgres.test_archiving_children import COUNTS, FAMILY, contents
from dbplatform_tests.postgres.test_archiving_erase import PEOPLE

#: Text that does not shrink, so that the file of the lines is larger than the other two.
LARGE = "update lines set article = (select string_agg(md5(id::text || i), '') from generate_series(1, 20) i)"
ALONG = policy(children="archive")


@contextmanager
def no_file_above(bytes_: int) -> Iterator[None]:
    """Writing more than so many bytes into one file fails, for this process (which ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("limit", [0, 4_000, 30_000])
def test_without_room_for_a_file_nothing_is_deleted_listed_or_left_behind(
    database: Target, ledger: Ledger, tmp_path: Path, limit: int
) -> None:
    """30,000 bytes are enough for the orders, and not for their lines."""
    fill(database, FAMILY + LARGE)
    before = contents(database)
    with no_file_above(limit), pytest.raises(errors.ArchiveNotWritten, match=r"File too large.*Nothing was deleted"):
        archive(database, ledger, tmp_path, ALONG)
    assert (contents(database), list_archives(ledger, DATABASE), files(tmp_path)) == (before, [], [])
    assert archive(database, ledger, tmp_path, ALONG).deleted == 700
    found = {entry.table: entry for entry in list_archives(ledger, DATABASE)}
    assert found["public.orders"].bytes < 30_000 < found["public.lines"].bytes
    restore(database, ledger, found["public.orders"].id)
    assert contents(database) == before


def test_without_room_for_the_file_that_goes_into_a_table_nothing_is_deleted(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    place = TablePlace(target=database, table=Relation("public", "old_orders"), variable=None, work=tmp_path)
    with no_file_above(4_000), pytest.raises(errors.ArchiveNotWritten):
        archive(database, ledger, place, ALONG)
    assert (ask(database, COUNTS), files(tmp_path)) == ((1000, 201, 100), [])
    assert archive(database, ledger, place, ALONG).deleted == 700


def test_without_room_for_the_new_file_of_an_erasure_the_old_one_stays_until_there_is(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, PEOPLE)
    archive(database, ledger, tmp_path)
    old = only(ledger)
    with no_file_above(1_000), pytest.raises(errors.ArchiveNotWritten):
        erase(database, ledger, tmp_path)
    assert (only(ledger).id, verify(database, ledger, old.id).passed) == (old.id, True)
    assert files(tmp_path) == [Path(old.location)]
    erase(database, ledger, tmp_path, Chosen(where="false"))
    assert (only(ledger).rows, files(tmp_path)) == (69, [Path(only(ledger).location)])
