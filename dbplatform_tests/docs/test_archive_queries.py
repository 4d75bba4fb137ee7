"""The query of the archives' page, asked of real archive files."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.postgres.archiving_support import archive, fill, policy

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "back-up-and-archive.md"
SALES = """
    create table sale (id int primary key, at timestamptz not null, amount numeric(12, 2));
    insert into sale select i, timestamptz '2026-01-01 12:00Z' + i * interval '1 day', i / 4.0
    from generate_series(0, 89) i;
"""


def test_the_query_of_the_page_adds_up_what_was_archived(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, SALES)
    archive(database, ledger, tmp_path, policy("sale", where="id < 60"))
    archive(database, ledger, tmp_path, policy("sale"))
    found = re.search(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, "the page shows no query"
    query = found[1].replace(".dbplatform/archives/shop/old_sales", str(tmp_path / "shop" / "old"))
    with duckdb.connect() as session:
        session.execute("set timezone = 'UTC'")
        rows = session.execute(query).fetchall()
    assert [(str(month)[:7], count, float(amount)) for month, count, amount in rows] == [
        ("2026-01", 31, 116.25),
        ("2026-02", 28, 311.5),
        ("2026-03", 31, 573.5),
    ]
