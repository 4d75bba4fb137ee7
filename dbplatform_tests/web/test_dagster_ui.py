"""The Dagster UI as a person uses it: the run with its checks, the report one click away, a dry run."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from dbplatform_tests.installation import Installation
from dbplatform_tests.web.conftest import Open
from dbplatform_tests.web.developing import Dev, developing

_SECONDS = 180


@pytest.fixture(scope="module")
def dev(flights: Installation) -> Iterator[Dev]:
    """``dbplatform dev`` over the finished run."""
    with developing(flights) as running:
        yield running


def test_the_run_is_green_and_its_report_is_one_click_away(dev: Dev, flights: Installation, open_page: Open) -> None:
    report = flights.json("report", "show", "flights", "--run", dev.run_id)
    assert (report["checks"], report["failed"] > 10) == (38, True)
    # The log of a run shows only what is in sight: the step of the report is chosen, as by a click on it.
    page = open_page(f"{dev.ui}/runs/{dev.run_id}?logs=step%3Aflights__quality_report", width=1600).page
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=_SECONDS * 1000)
    expect(page.get_by_text(re.compile(r"^\d\d checks$"))).to_be_visible()
    with page.context.expect_page() as opened:
        page.locator('a[href*="/reports/run/"]').first.click()
    expect(opened.value).to_have_title(re.compile("data quality of flights"))
    expect(opened.value.get_by_text(f"{report['failed']} of 38 checks failed on 4 of 5 tables")).to_be_visible()
    expect(opened.value.get_by_role("link", name="Open this run in Dagster")).to_be_visible()


def in_ledger(flights: Installation, query: str, run_id: str) -> int:
    """What the ledger says of a run: how many rows depends on how many were archived before it."""
    with flights.connect("dbplatform_ledger") as connection:
        row = connection.execute(query.encode(), (run_id, "public.flights")).fetchone()
    assert row is not None
    return int(row[0])


def test_failing_checks_are_shown_as_failing_with_their_rows(dev: Dev, flights: Installation, open_page: Open) -> None:
    query = "select failed_rows from ledger.quality_result where run_id = %s and table_name = %s and name = "
    orphans = in_ledger(flights, query + "'relationship_tailnum'", dev.run_id)
    page = open_page(f"{dev.ui}/assets/flights/tables/flights?view=checks", width=1600).page
    page.get_by_text("relationship_tailnum").first.click(timeout=_SECONDS * 1000)
    expect(page.get_by_text("more than the tolerance of 1%")).to_be_visible()
    expect(page.get_by_text(str(orphans)).first).to_be_visible()
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()


def test_an_alert_is_a_failed_check_that_names_its_cause(dev: Dev, flights: Installation, open_page: Open) -> None:
    listed = flights.json("alerts", "list", "flights", exit_code=1)["alerts"]
    firing = [alert for alert in listed if alert["key"].startswith("check:") and alert["state"] == "firing"]
    assert "flights relationship_tailnum" in {alert["metric"] for alert in firing}
    page = open_page(f"{dev.ui}/assets/flights/alerts?view=checks", width=1600).page
    page.get_by_text("quality", exact=True).first.click(timeout=_SECONDS * 1000)
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(page.get_by_text(firing[0]["cause"]).first).to_be_visible()


def test_an_asset_shows_owner_kinds_rows_and_columns(dev: Dev, flights: Installation, open_page: Open) -> None:
    query = "select row_count from ledger.quality_table where run_id = %s and table_name = %s"
    rows = in_ledger(flights, query, dev.run_id)
    page = open_page(f"{dev.ui}/assets/flights/tables/flights", width=1600).page
    for words in (f"{rows:,}", "postgres", "data", "Scheduled departure, cut to the hour"):
        expect(page.get_by_text(words).first).to_be_visible(timeout=_SECONDS * 1000)


def test_the_schedules_run(dev: Dev) -> None:
    states = dev.graphql(
        'query { schedulesOrError(repositorySelector: {repositoryLocationName: "dbplatform", '
        'repositoryName: "__repository__"}) { ... on Schedules { results { name scheduleState { status } } } } }'
    )
    found = {s["name"]: s["scheduleState"]["status"] for s in states["schedulesOrError"]["results"]}
    assert {"flights_daily", "flights_backup_schedule", "flights_drill_schedule"} <= found.keys()
    assert set(found.values()) == {"RUNNING"}


def test_a_dry_run_from_the_launchpad_changes_nothing(dev: Dev, flights: Installation, open_page: Open) -> None:
    before = flights.hashes()
    page = open_page(f"{dev.ui}/locations/dbplatform/jobs/flights/playground", width=1600).page
    expect(page.locator(".CodeMirror").first).to_contain_text("dry_run", timeout=_SECONDS * 1000)
    page.evaluate(
        "text => document.querySelector('.CodeMirror').CodeMirror.setValue(text)",
        "resources:\n  options:\n    config:\n      dry_run: true\n",
    )
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url(re.compile("/runs/[0-9a-f-]{36}"), timeout=_SECONDS * 1000)
    run_id = page.url.rsplit("/", 1)[1].split("?")[0]
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=_SECONDS * 1000)
    found = dev.graphql(
        "query ($run: ID!) { runOrError(runId: $run) { ... on Run { assetMaterializations "
        "{ assetKey { path } metadataEntries { label ... on BoolMetadataEntry { boolValue } } } } } }",
        run=run_id,
    )
    dry = {
        "/".join(m["assetKey"]["path"]): next(e["boolValue"] for e in m["metadataEntries"] if e["label"] == "dry run")
        for m in found["runOrError"]["assetMaterializations"]
        if "tables" not in m["assetKey"]["path"]
    }
    stages = (
        "migrations partitions/flights partitions/weather seed quality_report backup restore_drill backup_retention"
    )
    assert {f"flights/{stage}" for stage in (*stages.split(), "archive/old_flights")} <= dry.keys()
    assert set(dry.values()) == {True}
    assert flights.hashes() == before
    assert run_id not in [report["run_id"] for report in flights.json("report", "list")["reports"]]
