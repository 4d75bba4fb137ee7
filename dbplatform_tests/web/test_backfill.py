"""A year of months, back-filled in the Dagster UI as a person does it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect

from dbplatform_tests.installation import Installation, small_project
from dbplatform_tests.web.conftest import Open
from dbplatform_tests.web.developing import Dev, developing

_SECONDS = 180
_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 1, start: 11 months}
"""
_MIGRATION = """\
create table sale (id int not null, at timestamptz not null, primary key (id, at)) partition by range (at);
create table sale_rest partition of sale default;
insert into sale select i, date_trunc('month', now()) - i * interval '1 month' from generate_series(0, 11) i;
"""
_PARTITIONS = """
    query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
        partitionStats { numPartitions numMaterialized numFailed }
        assetMaterializations(limit: 50) {
            partition runOrError { ... on Run { runId } } metadataEntries { label ... on IntMetadataEntry { intValue } }
        }
    } } }
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Twelve rows, a month each, in a default partition."""
    with small_project(tmp_path_factory.mktemp("shop"), _DECLARATION, _MIGRATION) as installation:
        installation.json("run", "shop")
        yield installation


@pytest.fixture(scope="module")
def dev(shop: Installation) -> Iterator[Dev]:
    with developing(shop) as running:
        yield running


@pytest.mark.drill
def test_a_year_of_months_is_back_filled_in_one_run(dev: Dev, shop: Installation, open_page: Open) -> None:
    page = open_page(f"{dev.ui}/assets/shop/periods/sale", width=1600).page
    expect(page.get_by_text("Never materialized")).to_be_visible()
    page.get_by_role("button", name="Materialize…").first.click()
    page.get_by_text("All", exact=True).click()
    expect(page.get_by_text("12 partitions", exact=True)).to_be_visible()
    page.get_by_role("button", name="Launch backfill").click()
    expect(page.get_by_text("Launch backfill")).to_be_hidden()

    page.goto(f"{dev.ui}/assets/shop/periods/sale?view=partitions")
    # The daemon looks for back-fills twice a minute, and starts an interpreter.
    expect(page.get_by_text("Materialized (12)")).to_be_visible(timeout=_SECONDS * 1000)
    page.goto(f"{dev.ui}/assets/shop/periods/sale?view=partitions&partition={datetime.now(UTC):%Y-%m}")
    expect(page.get_by_text("content hash").first).to_be_visible()
    expect(page.get_by_text("public.sale_p").first).to_be_visible()

    found = dev.graphql(_PARTITIONS, key={"path": ["shop", "periods", "sale"]})["assetNodeOrError"]
    assert found["partitionStats"] == {"numPartitions": 12, "numMaterialized": 12, "numFailed": 0}
    events = found["assetMaterializations"]
    assert len({event["runOrError"]["runId"] for event in events}) == 1
    counts = [e["intValue"] for event in events for e in event["metadataEntries"] if e["label"] == "dagster/row_count"]
    assert counts == [1] * 12
