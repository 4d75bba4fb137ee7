"""Archives while the clock is wrong: more or fewer rows are old, but none is lost and none is there twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from dbplatform.archiving.catalogue import list_archives, rows_away
from dbplatform.archiving.records import deleted_rows
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.drills.breaking import cut
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    NOW,
    ORDERS,
    archive,
    ask,
    at,
    content,
    fill,
    prove,
    restore,
)

YEARS = timedelta(days=3650)


@pytest.mark.parametrize("off", cases(YEARS, -YEARS, sample=(YEARS,)))
def test_an_archive_cut_short_and_gone_on_with_by_a_wrong_clock_loses_and_doubles_no_row(
    database: Target, ledger: Ledger, tmp_path: Path, off: timedelta
) -> None:
    fill(database, ORDERS)
    before, proof = content(database), prove(database)
    with at("batch", lambda: cut(database), done=350), pytest.raises(WorkError, match="was lost"):
        archive(database, ledger, tmp_path, proof=proof)
    for now in (NOW + off, NOW, NOW + off):
        archive(database, ledger, tmp_path, proof=proof, now=now)
        with connect(database, work="look") as connection:
            away = rows_away(ledger, DATABASE, deleted_rows(connection))["public.orders"]
        assert ask(database, "select count(*) from orders") == 1000 - away
        assert away >= 700
    for entry in list_archives(ledger, DATABASE):
        restore(database, ledger, entry.id)
    assert content(database) == before
