"""Reviews over HTTP: from a page of the service, or as JSON with what is asked for; from nowhere else."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.reviews import Review, reviews_of
from dbplatform.operations.tokens import create_token
from dbplatform.reporting.store import WrittenReport, write_report
from dbplatform.web.access import Access
from dbplatform.web.app import create_app
from dbplatform.web.writing import Writing
from dbplatform_tests.web.conftest import Open
from dbplatform_tests.web.report_samples import SCRIPT, Made, put_run

RUN = "0123456789"
PAGE, API = f"/reviews/{RUN}", f"/api/v1/reports/{RUN}/reviews"
SAID = {"by": "Ada", "comment": "known"}


@pytest.fixture
def report(ledger: Ledger, tmp_path: Path) -> WrittenReport:
    put_run(ledger, RUN, [Made(name="a", status="failed", failed_rows=3)])
    return write_report(ledger, "flights", RUN, folder=tmp_path / "reports")


def client_of(ledger: Ledger, tmp_path: Path, access: Access | None = None) -> TestClient:
    app = create_app(ledger, tmp_path / "reports", access=access)
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def client(ledger: Ledger, tmp_path: Path, report: WrittenReport) -> TestClient:
    return client_of(ledger, tmp_path)


def noted(ledger: Ledger) -> list[Review]:
    return reviews_of(ledger, [RUN]).get(RUN, [])


def word_on(client: TestClient) -> str:
    found = re.search(r'name="word" value="([0-9a-f]{64})"', client.get(PAGE).text)
    assert found is not None
    return found[1]


def test_a_form_of_the_service_notes_a_review(client: TestClient, ledger: Ledger) -> None:
    answer = client.post(PAGE, data={**SAID, "word": word_on(client)}, headers={"sec-fetch-site": "same-origin"})
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    assert [(one.reviewer, one.comment, one.way) for one in noted(ledger)] == [("Ada", "known", "service")]
    assert "Ada" in client.get(PAGE).text
    assert "by <bdi>Ada</bdi>" in client.get("/reports/").text


def test_a_form_of_another_site_is_refused(client: TestClient, ledger: Ledger) -> None:
    own, foreign = word_on(client), Writing().word(RUN)  # as of another start of the service
    for word, site in (
        ("", None), ("0" * 64, None), ("ü", None), (foreign, None), (own, "cross-site"), (own, "same-site"),
    ):  # fmt: skip
        headers = {"sec-fetch-site": site} if site else {}
        answer = client.post(PAGE, data={**SAID, "word": word}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (403, "writing_refused"), (word, site)
    assert client.post(PAGE, data=SAID).status_code == 403
    assert noted(ledger) == []


def test_a_program_sends_json_that_no_foreign_page_could_send(client: TestClient, ledger: Ledger) -> None:
    body = b'{"by": "Ada", "comment": "known"}'
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "sec-fetch-site": "cross-site"},
    ):
        assert client.post(API, content=body, headers=headers).status_code in (403, 422)
    assert noted(ledger) == []
    answer = client.post(API, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["reviews"][0]["by"]) == (201, "Ada")


def test_a_reader_is_shown_no_form_and_notes_nothing(ledger: Ledger, tmp_path: Path, report: WrittenReport) -> None:
    _, token = create_token(ledger, "reader", "read", length=timedelta(days=1), now=datetime.now(UTC))
    client = client_of(ledger, tmp_path, Access(tokens=True))
    client.headers["authorization"] = f"Bearer {token}"
    page = client.get(PAGE).text
    assert ('action="/reviews/' in page, "You may read here, and not act" in page) == (False, True)
    assert client.post(API, json=SAID).status_code == 403
    assert client.post(PAGE, data={**SAID, "word": Writing().word(RUN)}).status_code == 403
    assert noted(ledger) == []


def test_a_known_caller_reviews_in_no_other_name(ledger: Ledger, tmp_path: Path, report: WrittenReport) -> None:
    _, token = create_token(ledger, "bob", "act", length=timedelta(days=1), now=datetime.now(UTC))
    client = client_of(ledger, tmp_path, Access(tokens=True))
    client.headers["authorization"] = f"Bearer {token}"
    assert client.post(API, json=SAID).json()["reviews"][0]["by"] == "bob"
    assert client.post(API, json={"comment": "known"}).json()["reviews"][0]["by"] == "bob"
    assert re.search(r'name="by" value="bob" readonly', client.get(PAGE).text)
    assert client.post(PAGE, data={**SAID, "word": word_on(client)}).status_code == 303
    assert [one.reviewer for one in noted(ledger)] == ["bob"] * 3


def test_what_is_missing_is_told_on_the_page_and_what_was_written_stays(client: TestClient, ledger: Ledger) -> None:
    answer = client.post(PAGE, data={"by": "Ada & <b>", "comment": " ", "word": word_on(client)})
    assert answer.status_code == 422
    assert "A review needs a comment" in answer.text
    assert 'value="Ada &amp; &lt;b&gt;"' in answer.text
    assert client.post(API, json={"by": "", "comment": "x"}).status_code == 422
    assert client.post(API, json={"comment": "x"}).status_code == 422
    assert client.post(PAGE, content=b"comment=" + b"x" * 70_000).status_code == 413
    assert client.post("/api/v1/reports/unknown/reviews", json=SAID).status_code == 404
    assert client.get("/reviews/unknown").status_code == 404
    assert client.get("/reviews/%00").status_code == 404
    assert noted(ledger) == []


def test_only_the_page_with_the_form_may_send_one(client: TestClient, report: WrittenReport) -> None:
    assert "form-action 'self'" in client.get(PAGE).headers["content-security-policy"]
    for path in ("/", "/reports/", f"/reports/{report.location}"):
        assert "form-action 'none'" in client.get(path).headers["content-security-policy"], path


def test_lists_show_what_is_asked_for(client: TestClient, ledger: Ledger, tmp_path: Path) -> None:
    put_run(ledger, "passed", [Made(name="a")], database="other")
    write_report(ledger, "other", "passed", folder=tmp_path / "reports")

    def runs(query: str) -> list[str]:
        page = client.get(f"/reports/{query}").text
        listed = client.get(f"/api/v1/reports{query.replace('=no', '=false').replace('=yes', '=true')}").json()
        found = [entry["run_id"] for entry in listed["reports"]]
        assert all(f'<span class="mono">{run_id[:8]}</span>' in page for run_id in found)
        assert page.count('<span class="mono">') == len(found)
        return sorted(found)

    assert runs("") == [RUN, "passed"]
    assert runs("?verdict=failed") == [RUN]
    assert runs("?reviewed=no") == [RUN]
    assert runs("?reviewed=yes") == []
    assert client.get("/reports/?verdict=nonsense").status_code == 422
    assert client.get("/reports/other/?reviewed=no").status_code == 200
    assert "1 not reviewed" in client.get("/").text


def test_every_form_of_a_report_is_served_as_what_it_is(client: TestClient, report: WrittenReport) -> None:
    base = f"/reports/{report.location.removesuffix('.html')}"
    types = {end: client.get(base + end).headers["content-type"] for end in (".html", ".json", ".junit.xml")}
    assert types == {
        ".html": "text/html; charset=utf-8", ".json": "application/json", ".junit.xml": "application/xml",
    }  # fmt: skip
    assert client.get(base + ".xml").status_code == 404


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_a_person_marks_a_report_as_reviewed_in_the_browser(
    service: str, ledger: Ledger, report: WrittenReport, open_page: Open, width: int, scheme: str
) -> None:
    opened = open_page(f"{service}/reports/", width=width, scheme=scheme)
    page = opened.page
    page.get_by_role("link", name="review it").click()
    page.get_by_label("Your name").wait_for()
    assert opened.overflow <= 0
    page.get_by_label("Your name").fill(f"<b>Ada</b> {width}")
    page.get_by_label("What you found, and what is done about it").fill(SCRIPT)
    page.get_by_role("button", name="Mark as reviewed").click()
    page.get_by_role("heading", name="Add a review").wait_for()
    assert [(one.reviewer, one.comment) for one in noted(ledger)] == [(f"<b>Ada</b> {width}", SCRIPT)]
    assert page.locator(".said .comment").inner_text() == SCRIPT
    assert page.locator("script, img").count() == 0
    assert opened.overflow <= 0
    assert opened.console == []
