"""The service's own pages in a real browser, under the headers that they are served with."""

from __future__ import annotations

import pytest

from dbplatform.reporting.store import WrittenReport
from dbplatform_tests.web.conftest import Open


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_pages_fit_and_ask_for_nothing_but_themselves(
    service: str, written: WrittenReport, open_page: Open, width: int, scheme: str
) -> None:
    paths = ("/", "/reports/?verdict=errored&reviewed=no", "/reports/flights/", f"/reviews/{written.run_id}")
    for path in (*paths, f"/reports/{written.location}"):
        opened = open_page(service + path, width=width, scheme=scheme)
        assert opened.overflow <= 0, path
        assert opened.console == [], path
        assert [url for url in opened.requests if not url.startswith("data:")] == [service + path]


def test_a_person_clicks_from_the_index_to_a_failing_check(
    service: str, written: WrittenReport, open_page: Open
) -> None:
    page = open_page(service + "/").page
    page.get_by_role("link", name="Newest report").click()
    assert page.url == f"{service}/reports/{written.location}"
    page.locator(".bars").get_by_role("link", name="tailnum is not null").click()
    anchor = page.url.split("#")[1]
    assert "tailnum is not null" in page.locator(f"#{anchor}").inner_text()
