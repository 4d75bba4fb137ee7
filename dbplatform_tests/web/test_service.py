"""The status service over a real ledger: what it serves, what it refuses, and how."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fastapi.testclient import TestClient

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation, Report
from dbplatform.monitoring.metrics import Metric, Metrics
from dbplatform.monitoring.record import record
from dbplatform.postgres.connection import Target
from dbplatform.reporting.errors import NotAWebAddress
from dbplatform.reporting.periods import Period, write_period
from dbplatform.reporting.store import WrittenReport, write_report
from dbplatform.storage import s3
from dbplatform.web.answers import PortTaken
from dbplatform.web.app import create_app
from dbplatform.web.server import guarded, listen
from dbplatform_tests.s3 import Fate, s3_server, unreliable
from dbplatform_tests.web.report_samples import START, Made, put_run

_BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture
def client(ledger: Ledger, reports: Path) -> Iterator[TestClient]:
    app = create_app(ledger, reports, dagster_url="http://127.0.0.1:3000")
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture
def report(ledger: Ledger, reports: Path) -> WrittenReport:
    put_run(ledger, "0123456789", [Made(name="a", status="failed", failed_rows=3), Made(name="b", status="errored")])
    return write_report(ledger, "flights", "0123456789", folder=reports)


@pytest.fixture
def silent() -> Iterator[TestClient]:
    """A service whose ledger nobody answers for."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        ledger = Ledger(Target("ledger", f"postgresql://keeper:secret-word@127.0.0.1:{port}/ledger"))
        with TestClient(create_app(ledger, Path("/nowhere")), raise_server_exceptions=False) as client:
            yield client


def test_report_is_served_byte_for_byte_with_headers_that_forbid_everything_else(
    client: TestClient, report: WrittenReport
) -> None:
    answer = client.get(f"/reports/{report.location}")
    assert answer.status_code == 200
    assert answer.content == report.path.read_bytes()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "private, no-store"


def test_a_report_of_a_month_is_served_as_it_was_written_and_nothing_else_by_its_name(
    client: TestClient, ledger: Ledger, reports: Path
) -> None:
    begin = datetime(2026, 10, 1, tzinfo=UTC)
    october = Period(name="2026-10", starts_at=begin, ends_at=begin + timedelta(days=31))
    made = write_period(
        ledger, "flights", "maintenance", october, page="<p>October</p>", document={"decisions": []}, decisions=0,
        folder=reports, destination=None,
    )  # fmt: skip
    assert client.get(f"/reports/{made.location}").text == "<p>October</p>"
    assert client.get("/reports/flights/maintenance-2026-10.json").json() == {"decisions": []}
    assert client.get("/reports/flights/maintenance-2026-11.html").status_code == 404
    assert f'<a href="/reports/{made.location}">Maintenance, 2026-10</a>' in client.get("/reports/flights/").text
    assert "of <bdi>flights</bdi>: " in client.get("/reports/").text
    Path(made.kept_at(reports)).write_text("<p>changed</p>")
    assert client.get(f"/reports/{made.location}").status_code == 500


@pytest.mark.parametrize(
    "path",
    [
        "/reports/../secret.html",
        "/reports/flights/../../secret.html",
        "/reports/flights/..%2f..%2fsecret.html",
        "/reports/%2e%2e/secret.html",
        "/reports/flights/%2e%2e%2f%2e%2e%2fsecret.html",
        "/reports/flights/....//secret.html",
        "/reports/flights/..%5c..%5csecret.html",
        "/reports/flights/not-recorded.html",
        "/reports/flights/%00.html",
        "/reports/%00/",
        "/reports/run/%00",
        "/reports//etc/passwd",
    ],
)
def test_paths_that_the_ledger_does_not_name_are_not_found(
    service: str, reports: Path, report: WrittenReport, path: str
) -> None:
    (reports.parent / "secret.html").write_text("top secret")
    (reports / "flights" / "not-recorded.html").write_text("top secret")
    connection = HTTPConnection(service.removeprefix("http://"))  # other clients resolve the dots themselves
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 404
    body = answer.read()
    assert b'"error"' in body
    assert b"top secret" not in body
    connection.close()


def test_a_record_that_points_out_of_the_folder_is_not_followed(
    client: TestClient, ledger: Ledger, reports: Path, report: WrittenReport
) -> None:
    outside = reports.parent / "secret.html"
    outside.write_bytes(report.path.read_bytes())
    report.path.unlink()
    report.path.symlink_to(outside)
    answer = client.get(f"/reports/{report.location}")
    assert answer.status_code == 500
    assert answer.json()["error"]["kind"] == "report_changed"


def test_a_report_that_was_changed_after_it_was_written_is_not_shown(client: TestClient, report: WrittenReport) -> None:
    report.path.write_bytes(report.path.read_bytes().replace(b"errored", b"passed"))
    answer = client.get(f"/reports/{report.location}", headers=_BROWSER)
    assert answer.status_code == 500
    assert "SHA-256 differs" in answer.text


def test_a_dagster_run_leads_to_its_report(client: TestClient, report: WrittenReport) -> None:
    answer = client.get("/reports/run/0123456789")
    assert answer.status_code == 307
    assert answer.headers["location"] == f"/reports/{report.location}"
    assert client.get("/reports/run/unknown").status_code == 404


def test_a_database_called_run_keeps_its_reports(client: TestClient, ledger: Ledger, reports: Path) -> None:
    put_run(ledger, "r1", [Made(name="a")], database="run")
    report = write_report(ledger, "run", "r1", folder=reports)
    assert client.get(f"/reports/{report.location}").content == report.path.read_bytes()


def test_lists_link_to_reports_with_their_verdict_in_words(client: TestClient, report: WrittenReport) -> None:
    for path in ("/", "/reports/", "/reports/flights/"):
        text = client.get(path).text
        assert f'href="/reports/{report.location}"' in text, path
        assert "Errored" in text, path
    assert client.get("/reports/unknown/").status_code == 404
    assert 'href="http://127.0.0.1:3000"' in client.get("/").text


def test_names_with_markup_are_escaped_and_their_links_lead_somewhere(
    client: TestClient, ledger: Ledger, reports: Path
) -> None:
    name = '<script>alert(1)</script> ü & "?#'
    put_run(ledger, "0000", [Made(name="a")], database=name)
    report = write_report(ledger, name, "0000", folder=reports)
    text = client.get("/").text
    assert "<script" not in text
    assert f'href="/reports/{quote(report.location)}"' in text
    assert client.get(f"/reports/{quote(report.location)}").content == report.path.read_bytes()


def test_index_of_an_empty_ledger_says_what_to_do(client: TestClient) -> None:
    assert "dbplatform run DATABASE" in client.get("/").text
    assert "dbplatform check DATABASE" in client.get("/reports/").text


def test_databases_are_those_with_any_record_and_a_run_without_end_gives_no_verdict(
    client: TestClient, ledger: Ledger, report: WrittenReport
) -> None:
    with ledger.session() as session:
        session.add(Operation(database="only_migrated", kind="migrate", actor="me", status="succeeded", summary={}))
    put_run(ledger, "going on", [], started_at=START + timedelta(days=1), seconds=None)
    found = {database["name"]: database for database in client.get("/api/v1/databases").json()["databases"]}
    assert list(found) == ["flights", "only_migrated"]
    assert found["only_migrated"]["verdict"] is None
    assert found["flights"]["verdict"] == "errored"
    assert found["flights"]["run_id"] == "0123456789"
    assert found["flights"]["unfinished_since"] == "2026-11-22T02:00:00+00:00"
    assert found["flights"]["report"] == f"/reports/{report.location}"
    page = client.get("/").text
    assert "has no verdict yet" in page
    assert "Never checked" in page


def test_api_lists_reports_of_one_database(client: TestClient, ledger: Ledger, report: WrittenReport) -> None:
    listed = client.get("/api/v1/reports", params={"database": "flights"}).json()["reports"]
    assert [entry["sha256"] for entry in listed] == [report.sha256]
    assert (listed[0]["verdict"], listed[0]["failed"], listed[0]["errored"]) == ("errored", 1, 1)
    assert client.get(listed[0]["url"]).status_code == 200
    assert client.get("/api/v1/reports", params={"database": "other"}).json() == {"next": None, "reports": []}
    refused = client.get("/api/v1/reports", params={"limit": "0"})
    assert refused.status_code == 422
    assert refused.json()["error"]["kind"] == "bad_request"


def test_what_is_not_built_yet_says_so(client: TestClient) -> None:
    answer = client.get("/ws", headers=_BROWSER)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "not_built_yet")


def test_health_metrics_and_alerts_are_answered_from_what_was_measured_last(client: TestClient, ledger: Ledger) -> None:
    with ledger.session() as session:
        session.add(Operation(database="flights", kind="migrate", actor="me", status="succeeded", summary={}))
    for what in ("health", "metrics"):
        missing = client.get(f"/api/v1/databases/flights/{what}")
        assert (missing.status_code, missing.json()["error"]["hint"]) == (
            404,
            "Nothing was measured yet: dbplatform metrics flights",
        )
    slow = Metric(name="longest_transaction_s", value=7200, unit="seconds")
    record(ledger, Metrics(database="flights", at=START, values={slow.name: slow}))
    health = client.get("/api/v1/databases/flights/health").json()
    assert (health["score"], [one["metric"] for one in health["deductions"]]) == (75, ["longest_transaction_s"])
    assert health["at"] == START.isoformat()
    measured = client.get("/api/v1/databases/flights/metrics").json()
    assert measured["metrics"]["longest_transaction_s"]["value"] == 7200
    assert client.get("/api/v1/databases/flights/alerts").json() == {
        "next": None, "database": "flights", "alerts": [],
    }  # fmt: skip


def test_unknown_paths_are_json_for_programs_and_a_page_for_browsers(client: TestClient) -> None:
    assert client.get("/api/v1/databases/flights/nonsense").status_code == 404
    assert client.get("/nowhere").json()["error"]["kind"] == "page_not_found"
    page = client.get("/nowhere/<b>", headers=_BROWSER)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "<b>" not in page.text
    assert client.post("/reports/").status_code == 405


def test_few_things_can_be_changed_over_http(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    writing = {path for path, methods in document["paths"].items() if set(methods) != {"get"}}
    assert writing == {
        "/api/v1/alerts/{alert_id}/acknowledgement",
        "/api/v1/databases/{name}/explain",
        "/api/v1/reports/{run_id}/reviews",
        "/api/v1/silences",
        "/api/v1/silences/{silence_id}/end",
    }


def test_healthz_answers_without_a_ledger_and_readyz_does_not(client: TestClient, silent: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "up"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert silent.get("/healthz").status_code == 200
    answer = silent.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["kind"] == "ledger_silent"


def test_a_silent_ledger_gives_503_everywhere_and_names_neither_user_nor_password(silent: TestClient) -> None:
    for path in ("/", "/reports/", "/api/v1/databases", "/api/v1/reports", "/reports/run/1"):
        answer = silent.get(path, headers=_BROWSER)
        assert answer.status_code == 503, path
        assert "keeper" not in answer.text
        assert "secret-word" not in answer.text


@pytest.mark.drill
def test_a_bucket_that_does_not_answer_costs_its_reports_and_nothing_else_and_they_come_back(
    client: TestClient, ledger: Ledger, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "TRIES", 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    fates: list[Fate] = ["answered"]
    over = threading.Event()
    with s3_server() as endpoint, unreliable(endpoint, lambda method, path: fates[-1], over=over) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        s3.client().create_bucket(Bucket="reports")
        put_run(ledger, "in the bucket", [Made(name="a", status="passed")])
        made = write_report(ledger, "flights", "in the bucket", folder=reports, destination="s3://reports/some")
        whole = client.get(f"/reports/{made.location}")
        assert (whole.status_code, "in the bucket" in whole.text) == (200, True)
        for fate in ("refused", "cut", "truncated", "altered", "stalled"):
            fates.append(fate)
            monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3 if fate == "stalled" else 60)
            answer = client.get(f"/reports/{made.location}", headers=_BROWSER)
            assert answer.status_code == (500 if fate == "altered" else 503), fate
            assert answer.content != whole.content
            assert client.get("/readyz").status_code == client.get("/reports/").status_code == 200
        over.set()
        fates.append("answered")
        monkeypatch.setattr(s3, "READ_TIMEOUT_S", 60)
        assert client.get(f"/reports/{made.location}").content == whole.content


def test_a_ledger_without_its_schema_is_not_ready(database: Target) -> None:
    ledger = Ledger(database)
    with TestClient(create_app(ledger, Path("/nowhere"))) as client:
        answer = client.get("/readyz")
    ledger.engine.dispose()
    assert answer.status_code == 503
    assert "schema is not applied" in answer.json()["error"]["message"]


def test_serve_refuses_a_taken_port_before_it_starts(ledger: Ledger, reports: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}: another program listens there"):
            listen("127.0.0.1", port)


def test_on_loopback_only_this_machines_names_are_answered(ledger: Ledger, reports: Path) -> None:
    app = create_app(ledger, reports)
    statuses = {}
    for host in ("127.0.0.1:8765", "localhost", "[::1]:8765", "evil.example", "127.0.0.1.evil.example"):
        with TestClient(guarded(app, "127.0.0.1")) as client:
            statuses[host] = client.get("/healthz", headers={"host": host}).status_code
    assert statuses == {
        "127.0.0.1:8765": 200,
        "localhost": 200,
        "[::1]:8765": 200,
        "evil.example": 400,
        "127.0.0.1.evil.example": 400,
    }
    with TestClient(guarded(app, "0.0.0.0")) as client:
        assert client.get("/healthz", headers={"host": "db.example"}).status_code == 200
    with TestClient(guarded(app, "127.0.0.1", ["db.example"])) as client:
        assert client.get("/healthz", headers={"host": "db.example"}).status_code == 200
        assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 400


def test_dagster_link_must_be_a_web_address(ledger: Ledger, reports: Path) -> None:
    with pytest.raises(NotAWebAddress):
        create_app(ledger, reports, dagster_url="javascript:alert(1)")


def test_service_answers_on_a_real_port_and_a_vanished_file_is_told(
    service: str, ledger: Ledger, tmp_path: Path
) -> None:
    put_run(ledger, "0123456789", [Made(name="a")])
    report = write_report(ledger, "flights", "0123456789", folder=tmp_path / "reports")
    address = f"{service}/reports/run/0123456789"
    assert httpx.get(address, follow_redirects=True).content == report.path.read_bytes()
    report.path.unlink()
    assert httpx.get(address, follow_redirects=True).json()["error"]["kind"] == "report_changed"
    with ledger.session() as session:
        assert session.get(Report, "0123456789") is not None
