"""What one client may cost: requests, bytes, time; headers of every answer; nasty words get an answer, never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from dbplatform.ledger.ledger import Ledger
from dbplatform.web.access import Access
from dbplatform.web.answers import TooLarge, TooMany, TooSlow
from dbplatform.web.app import create_app
from dbplatform.web.bounds import MOST_BYTES, Rate, whole
from dbplatform.web.location import Location
from dbplatform_tests.web.recorded_samples import recorded_database


@pytest.fixture
def client(ledger: Ledger, tmp_path: Path) -> Iterator[TestClient]:
    recorded_database(ledger)
    app = create_app(ledger, tmp_path, location=Location(names=("shop",)), rate=Rate(burst=1e6))
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


def test_a_bucket_empties_and_fills_with_time() -> None:
    now = [0.0]
    rate = Rate(per_second=2, burst=3, clock=lambda: now[0])
    for _ in range(3):
        rate.take("192.0.2.1")
    with pytest.raises(TooMany, match=r"the next one is answered in 0\.5 s"):
        rate.take("192.0.2.1")
    rate.take("192.0.2.2")
    now[0] = 0.5
    rate.take("192.0.2.1")
    with pytest.raises(TooMany):
        rate.take("192.0.2.1")


def test_a_machine_with_a_network_of_addresses_is_one_client() -> None:
    rate = Rate(per_second=1, burst=2, clock=lambda: 0.0)
    rate.take("2001:db8::1")
    rate.take("2001:db8::ffff:2")
    with pytest.raises(TooMany):
        rate.take("2001:db8::3")
    rate.take("2001:db8:0:1::1")


def test_clients_of_ipv4_on_a_socket_for_both_families_are_told_apart() -> None:
    rate = Rate(per_second=1, burst=1, clock=lambda: 0.0)
    rate.take("::ffff:192.0.2.1")
    rate.take("::ffff:192.0.2.2")
    with pytest.raises(TooMany):
        rate.take("192.0.2.1")


def test_clients_are_remembered_within_a_bound() -> None:
    rate = Rate(most=100, clock=lambda: 0.0)
    for number in range(10_000):
        rate.take(f"10.0.{number // 256}.{number % 256}")
    assert rate.clients == 100


def test_too_many_requests_are_told_when_to_come_again(ledger: Ledger) -> None:
    app = create_app(ledger, Path("/nowhere"), rate=Rate(per_second=0.1, burst=2, clock=lambda: 0.0))
    answers = [TestClient(app).get("/healthz") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert (answers[2].headers["retry-after"], answers[2].json()["error"]["kind"]) == ("10", "too_many")
    assert answers[2].headers["x-content-type-options"] == "nosniff"


def test_a_large_request_is_refused_before_anybody_reads_it(client: TestClient) -> None:
    body = b'{"by": "' + b"x" * MOST_BYTES + b'"}'
    answer = client.post("/api/v1/alerts/1/acknowledgement", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (413, "too_large")


def test_a_body_without_a_length_is_counted_and_a_slow_one_ends() -> None:
    pieces = [{"type": "http.request", "body": b"x" * 40, "more_body": True}] * 3

    async def receive() -> Message:
        return pieces.pop()

    async def never() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def asked() -> None:
        with pytest.raises(TooLarge):
            await whole({"headers": []}, receive, most=100)
        with pytest.raises(TooLarge):
            await whole({"headers": [(b"content-length", b"-1")]}, never)
        with pytest.raises(TooSlow):
            await whole({"headers": []}, never, seconds=0.01)

    anyio.run(asked)
    assert pieces == []


def test_every_answer_has_the_headers_that_forbid_what_is_not_needed(client: TestClient) -> None:
    for path in ("/", "/login", "/api/v1/databases", "/metrics", "/healthz", "/nowhere", "/api/v1/openapi.json"):
        headers = client.get(path, headers={"accept": "text/html"}).headers
        is_page = headers["content-type"].startswith("text/html")
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'"), path
        assert "script" not in policy, path
        assert ("style-src" in policy) == is_page, path
        for name in ("x-frame-options", "referrer-policy", "cross-origin-opener-policy", "permissions-policy"):
            assert name in headers, (path, name)
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


NASTY = (
    "",
    "%00",
    "..",
    "%2e%2e%2fetc",
    "'; drop table x; --",
    "\u202e",
    "%F0%9F%92%A9",
    "%ff%fe",
    "a" * 5000,
    "-1",
    "NaN",
)


def test_nasty_words_in_a_path_or_a_query_get_an_answer_that_blames_them(client: TestClient) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    asked = 0
    for path, methods in paths.items():
        for nasty in NASTY:
            for name in ("name", "run_id", "alert_id", "silence_id"):
                address = path.replace(f"{{{name}}}", nasty)
                if "{" in address:
                    continue
                parameters = [
                    one["name"] for one in methods.get("get", {}).get("parameters", ()) if one["in"] == "query"
                ]
                query = "&".join(f"{one}={nasty}" for one in parameters)
                answer = client.get(f"{address}?{query}")
                asked += 1
                assert answer.status_code < 500, (address, query, answer.text)
                if "post" in methods:
                    for body in (b"", b"{", b"[]", b"null", b'{"sql": null}', b'{"reason": "\\ud800"}', b"\xffuv"):
                        headers = {"content-type": "application/json"}
                        assert client.post(address, content=body, headers=headers).status_code < 500, (address, body)
    assert asked > 200


def test_a_mistake_of_the_service_says_nothing_of_its_inside(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbplatform.web import reading

    def broken(*_: object) -> None:
        raise RuntimeError("postgresql://me:secret-word@db/app")

    monkeypatch.setattr(reading.record, "latest", broken)
    client = TestClient(create_app(ledger, Path("/nowhere")), raise_server_exceptions=False)
    answer = client.get("/api/v1/databases/shop/health")
    assert (answer.status_code, "secret-word" in answer.text) == (500, False)
    assert answer.json()["error"]["message"] == "The service has made a mistake."
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_mistake_before_any_route_is_in_the_log(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("an inside")

    client = TestClient(create_app(ledger, Path("/nowhere")), raise_server_exceptions=False)
    assert client.get("/nowhere").status_code == 404
    assert "a mistake" not in caplog.text
    monkeypatch.setattr(Access, "caller", broken)
    answer = client.get("/api/v1/databases")
    assert (answer.status_code, "an inside" in answer.text, "an inside" in caplog.text) == (500, False, True)
