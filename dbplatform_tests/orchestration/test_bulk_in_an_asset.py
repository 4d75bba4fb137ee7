"""The asset of the how-to page, as it stands there."""

from __future__ import annotations

import re
from typing import Any

import dagster as dg
import pytest

from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.installation import REPOSITORY

PAGE = REPOSITORY / "docs" / "how-to" / "seed-and-load.md"


def test_the_asset_of_the_page_loads_its_rows_and_can_run_again(
    database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(code, names)
    monkeypatch.setenv("SHOP_URL", database.url)
    with connect(database, work="test") as connection:
        connection.execute(
            "create table price (sku text primary key, price numeric, tags text[]);"
            "create table price_log (sku text, price numeric, at timestamptz default now())"
        )
        written = []
        for _ in range(2):
            result = dg.materialize([names["prices"]])
            [made] = result.asset_materializations_for_node("prices")
            written.append((made.metadata["rows"].value, made.metadata["written"].value))
        assert written == [(2, 2), (2, 0)]
        rows = connection.execute("select sku, price::float8, tags from price order by sku").fetchall()
        assert rows == [("ink", 7.25, []), ("pen", 1.5, ["blue"])]
        assert connection.execute("select count(*), count(at) from price_log").fetchone() == (4, 4)
