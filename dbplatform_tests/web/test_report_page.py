"""The report as a person sees it, in a real browser that reaches nothing but the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.reporting.store import WrittenReport, write_report
from dbplatform_tests.web.conftest import Open
from dbplatform_tests.web.report_samples import SCRIPT, Made, put_run

_OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"

# WCAG 2 contrast of an element's text against the nearest background that is not transparent.
_CONTRAST = """elements => elements.map(element => {
    const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const parts = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => { const [r, g, b] = parts(colour); return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b); };
    let behind = element;
    while (behind && (parts(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), element.className, element.textContent.slice(0, 40)];
})"""  # noqa: E501


@pytest.mark.parametrize("width", [320, 390, 768, 1200, 1440])
def test_report_page_never_scrolls_sideways(written: WrittenReport, open_page: Open, width: int) -> None:
    opened = open_page(written.path.as_uri(), width=width)
    assert opened.overflow <= 0
    opened.page.evaluate(_OPEN_ALL)
    assert opened.overflow <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_page_asks_for_nothing_and_complains_of_nothing(
    written: WrittenReport, open_page: Open, scheme: str
) -> None:
    opened = open_page(written.path.as_uri(), scheme=scheme)
    opened.page.evaluate(_OPEN_ALL)
    opened.page.screenshot(full_page=True)
    assert [url for url in opened.requests if not url.startswith("data:")] == [written.path.as_uri()]
    assert opened.console == []


def test_report_page_shows_markup_in_data_as_text(written: WrittenReport, open_page: Open) -> None:
    opened = open_page(written.path.as_uri())
    opened.page.evaluate(_OPEN_ALL)
    assert opened.page.title() == "Errored: data quality of flights, 2026-11-21 02:00:00 UTC"
    assert opened.page.locator("script, img, iframe, u, [onerror]").count() == 0
    assert opened.page.locator("table.data td", has_text=SCRIPT).count() == 1
    assert opened.page.locator("td.msg", has_text=SCRIPT).count() == 1
    assert opened.page.locator("pre", has_text="'</code></pre>" + SCRIPT).count() == 1


def test_report_page_gives_the_verdict_first_and_without_scripts(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri(), javascript=False).page
    assert page.locator("h1").all_inner_texts() == ["Errored"]
    assert page.locator("main > :first-child h1").count() == 1
    sentence = page.locator(".sentence").inner_text()
    assert sentence == "6 of 28 checks failed and 1 could not be judged on 3 of 5 tables, 1 failure accepted."
    assert page.get_by_role("link", name="Open this run in Dagster").get_attribute("href") == (
        f"http://127.0.0.1:3000/runs/{written.run_id}"
    )


def test_report_page_tells_failed_from_errored_by_word_and_by_shape(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri()).page
    seen = {
        (pill.inner_text().strip(), pill.locator("use").get_attribute("href"))
        for pill in page.locator("td.st .pill").all()
    }
    assert seen == {
        ("Failed", "#i-failed"),
        ("Errored", "#i-errored"),
        ("Accepted", "#i-accepted"),
        ("Passed", "#i-passed"),
    }


def test_report_page_lists_failing_checks_before_passed_ones(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri()).page
    words = page.locator("table.checks").first.locator("td.st .pill").all_inner_texts()
    assert [word.strip() for word in words][:6] == ["Failed", "Failed", "Failed", "Errored", "Failed", "Passed"]


def test_report_page_says_what_changed_since_the_run_before(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri()).page
    headings = page.locator(".changes h3").all_inner_texts()
    assert [text.strip() for text in headings] == ["New (3)", "Fixed (1)", "No longer checked (1)", "Still failing (4)"]
    assert page.locator(".changes li", has_text="lat in range").count() == 1
    moved = page.locator(".changes li", has_text="relationship tailnum").inner_text()
    assert "+5,506 rows, for 14 runs, since 2026-11-08 02:00:00 UTC" in moved


def test_report_page_shows_twenty_failed_rows_and_the_exact_number(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri()).page
    rows = page.locator("details", has_text="20 failed rows of 52,606")
    table = rows.locator("table.data")
    assert not table.is_visible()
    rows.locator("summary").focus()
    page.keyboard.press("Enter")
    assert table.is_visible()
    assert table.locator("tbody tr").count() == 20


def test_report_page_has_headings_in_order_and_headers_with_scope(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri()).page
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "found => found.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("svg:not([aria-hidden]):not([role=img][aria-label])").count() == 0
    assert page.locator("html[lang=en]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_page_can_be_read_by_its_contrast(written: WrittenReport, open_page: Open, scheme: str) -> None:
    page = open_page(written.path.as_uri(), scheme=scheme).page
    page.evaluate(_OPEN_ALL)
    ratios = page.eval_on_selector_all(
        "h1, h2, h3, p, a, dt, dd, th, td, .pill, .note, .muted, .what, summary, pre", _CONTRAST
    )
    assert len(ratios) > 100
    assert [found for found in ratios if found[0] < 4.5] == []


def test_report_page_prints_the_failed_rows_that_are_folded_on_screen(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri(), scheme="dark").page
    table = page.locator("details", has_text="20 failed rows of 52,606").locator("table.data")
    assert not table.is_visible()
    page.emulate_media(media="print")
    assert table.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_report_page_printed_on_paper_cuts_nothing_off(ledger: Ledger, tmp_path: Path, open_page: Open) -> None:
    wide = {f"column_{n}": f"value {n}" for n in range(19)}
    put_run(ledger, "wide", [Made(name="a", status="failed", failed_rows=1, rows=[wide], sql="select " + "x, " * 99)])
    written = write_report(ledger, "flights", "wide", folder=tmp_path)
    opened = open_page(written.path.as_uri(), width=680)  # as wide as A4 between its margins
    opened.page.emulate_media(media="print")
    assert opened.overflow <= 0
    clipped = opened.page.eval_on_selector_all(
        "main *",
        "found => found.filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible')"
        ".map(e => e.className)",
    )
    assert [name for name in clipped if name != "sr"] == []
    assert opened.page.locator("table.data td").all_inner_texts() == [f"value {n}" for n in range(19)]
    label = opened.page.locator("table.data td").first.evaluate("td => getComputedStyle(td, '::before').content")
    assert label == '"column_0 "'


def test_report_page_tells_what_happened_before_a_failure(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri(), width=390, javascript=False).page
    cause = page.locator("#w1")
    assert "2026-11-20 02:00:00 UTC (run a1b2e2c3) to 2026-11-21 02:00:00 UTC (this run)" in cause.inner_text()
    assert cause.locator(".facts-list .tag").all_inner_texts() == [
        "job", "migration", "job", "job", "setting", "setting", "rows", "rows",
    ]  # fmt: skip
    assert "archive old_flights: 84,102 rows left public.flights" in cause.inner_text()
    assert f"7 tail numbers {SCRIPT} (V7__tail_numbers.sql), by deploy" in cause.inner_text()
    assert "work_mem: 4MB → 64MB (configuration file)" in cause.inner_text()
    page.locator("tr.ev", has_text="Last good on").first.get_by_role("link", name="what happened before").click()
    assert page.url.endswith("#w1")


def test_report_page_tells_what_could_not_run_and_who_is_asked(written: WrittenReport, open_page: Open) -> None:
    page = open_page(written.path.as_uri()).page
    assert 'column "arr_tme" does not exist' in page.locator(".broken").inner_text()
    owners = page.locator(".owners div").all_inner_texts()
    assert [" ".join(text.split())[:40] for text in owners[1:3]] == [
        "team:data (1) tailnum is not null", "team:fleet (1) relationship tailnum to p",
    ]  # fmt: skip


def test_report_page_of_a_run_without_checks_claims_nothing(ledger: Ledger, tmp_path: Path, open_page: Open) -> None:
    put_run(ledger, "empty", [], row_counts={"public.flights": None})
    written = write_report(ledger, "flights", "empty", folder=tmp_path)
    opened = open_page(written.path.as_uri(), width=390)
    assert opened.page.locator("h1").inner_text() == "Errored"
    assert "No check ran, so nothing is proven." in opened.page.inner_text("main")
    assert "Passed" not in opened.page.locator(".pill").all_inner_texts()
    assert opened.overflow <= 0
    assert opened.console == []


def test_report_page_counts_failing_rows_exactly_however_many(ledger: Ledger, tmp_path: Path, open_page: Open) -> None:
    made = [
        Made(name="many", status="failed", failed_rows=9_007_199_254_740_993, considered_rows=9_007_199_254_740_999),
        Made(name="few", status="failed", failed_rows=100_001, message="ünïcödé 😀"),
    ]
    put_run(ledger, "large", made)
    written = write_report(ledger, "flights", "large", folder=tmp_path)
    opened = open_page(written.path.as_uri(), width=390)
    text = opened.page.inner_text("table.checks")
    assert "9,007,199,254,740,993 of 9,007,199,254,740,999 (> 99.99 %)" in " ".join(text.split())
    assert "100,001" in text
    assert opened.overflow <= 0
