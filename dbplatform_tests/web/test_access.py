"""Who is let in, and to do what: tokens, a proxy that vouches, a browser that logs in; and what nobody may do."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import select, text, update
from sqlalchemy.exc import ProgrammingError
from starlette.websockets import WebSocketDisconnect

from dbplatform.ledger.access import AuditEntry, ServiceToken
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.audit import changes
from dbplatform.operations.tokens import Scope, create_token, list_tokens, revoke_token
from dbplatform.web.access import COOKIE, Access, require_somebody
from dbplatform.web.answers import NobodyMayCome
from dbplatform.web.app import create_app
from dbplatform.web.bounds import Rate
from dbplatform_tests.web.recorded_samples import put_alert

NOW = datetime.now(UTC)
LIST = "/api/v1/databases"
BROWSER = {"accept": "text/html"}


def made(ledger: Ledger, name: str = "reader", scope: Scope = "read", *, days: int = 1, ago: int = 0) -> str:
    """A token, made ``ago`` days ago for ``days``."""
    now = NOW - timedelta(days=ago)
    _, token = create_token(ledger, name, scope, length=timedelta(days=days), now=now)
    assert token is not None
    return token


def client_of(ledger: Ledger, access: Access | None = None, *, peer: str = "192.0.2.7") -> TestClient:
    app = create_app(ledger, Path("/nowhere"), access=access or Access(tokens=True), rate=Rate(burst=1e6))
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False, client=(peer, 4711))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def acknowledge(client: TestClient, alert: int, headers: dict[str, str]) -> Response:
    return client.post(f"/api/v1/alerts/{alert}/acknowledgement", json={}, headers=headers)


def test_every_kind_of_token_gets_its_own_answer(ledger: Ledger) -> None:
    client, alert = client_of(ledger), put_alert(ledger, "shop")
    good, acting = made(ledger), made(ledger, "actor", "act")
    expired, revoked = made(ledger, "old", days=1, ago=2), made(ledger, "lost")
    assert client.get(LIST, headers=bearer(revoked)).status_code == 200
    revoke_token(ledger, "lost", now=NOW)
    for headers, status, words in (
        ({}, 401, "Nobody is let in without a token"),
        (bearer("nonsense"), 401, "none of this service"),
        (bearer("dbp_" + "x" * 43), 401, "not known"),
        (bearer(good[:-1]), 401, "none of this service"),
        (bearer(expired), 401, "the token old expired"),
        (bearer(revoked), 401, "the token lost was revoked"),
        (bearer(good), 200, "databases"),
        (bearer(acting), 200, "databases"),
    ):
        answer = client.get(LIST, headers=headers)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
        assert (answer.headers.get("www-authenticate") is not None) == (status == 401)
    refused = acknowledge(client, alert, bearer(good))
    assert (refused.status_code, refused.json()["error"]["kind"]) == (403, "not_allowed")
    assert acknowledge(client, alert, bearer(acting)).json()["alert"]["acknowledged_by"] == "actor"
    assert acknowledge(client, alert, bearer(expired)).status_code == 401


def test_without_a_token_there_is_nothing_but_signs_of_life_and_the_login(ledger: Ledger) -> None:
    client = client_of(ledger)
    paths = client_of(ledger, Access()).get("/api/v1/openapi.json").json()["paths"]
    open_paths = {"/healthz", "/readyz"}
    for path in [
        *paths,
        "/api/v1/openapi.json",
        "/",
        "/reports/",
        "/reviews/x",
        "/nowhere",
        "/ws",
        "/Healthz",
        "//readyz",
    ]:
        for method in ("GET", "POST"):
            status = client.request(method, path.replace("{", "").replace("}", "")).status_code
            assert status == (401 if path not in open_paths else 200 if method == "GET" else 405), (method, path)
    assert client.get("/login").status_code == 200


def test_a_token_that_is_sent_must_hold_even_where_none_is_asked_for(ledger: Ledger) -> None:
    client = client_of(ledger, Access(), peer="127.0.0.1")
    assert client.get(LIST).status_code == 200
    assert client.get(LIST, headers=bearer("dbp_" + "x" * 43)).status_code == 401
    assert client.get(LIST, headers={"authorization": "Basic YTpi"}).status_code == 200


def test_a_token_is_revoked_by_its_name_before_another_by_its_number(ledger: Ledger) -> None:
    made(ledger, "first")
    (first,) = list_tokens(ledger, now=NOW)
    made(ledger, str(first.id))
    assert revoke_token(ledger, str(first.id), now=NOW).name == str(first.id)
    assert revoke_token(ledger, str(first.id), now=NOW).name == "first"


def test_the_ledger_keeps_a_hash_and_nothing_of_the_token(ledger: Ledger) -> None:
    token = made(ledger)
    with ledger.session() as session:
        (row,) = session.execute(text("select row_to_json(t)::text from ledger.service_token t")).scalars()
        entries = str(session.execute(text("select row_to_json(t)::text from ledger.audit_entry t")).all())
    assert token not in row + entries
    assert token.removeprefix("dbp_")[:8] not in row + entries


def test_the_use_of_a_token_is_noted_with_where_it_came_from(ledger: Ledger) -> None:
    token = made(ledger)
    assert client_of(ledger, peer="192.0.2.9").get(LIST, headers=bearer(token)).status_code == 200
    (used,) = list_tokens(ledger, now=NOW)
    assert (used.last_used_from, used.last_used_at is not None) == ("192.0.2.9", True)
    client_of(ledger, peer="192.0.2.10").get(LIST, headers=bearer(token))
    assert list_tokens(ledger, now=NOW) == (used,)  # to the minute


def test_a_proxys_word_counts_from_its_own_addresses_alone(ledger: Ledger) -> None:
    access = Access(tokens=True, proxies=[ipaddress.ip_network("10.1.0.0/16")], proxy_scope="read")
    user = {"x-forwarded-user": "ada", "x-forwarded-for": "198.51.100.4, 203.0.113.9, 10.1.2.3"}
    behind, elsewhere = client_of(ledger, access, peer="10.1.0.1"), client_of(ledger, access, peer="10.2.0.1")
    assert behind.get(LIST, headers=user).status_code == 200
    assert elsewhere.get(LIST, headers=user).status_code == 401
    assert behind.get(LIST).status_code == 401
    assert behind.get(LIST, headers=[("x-forwarded-user", "ada"), ("x-forwarded-user", "root")]).status_code == 401
    assert behind.get(LIST, headers={"x-forwarded-user": "a" * 300}).status_code == 401
    mapped = client_of(ledger, access, peer="::ffff:10.1.0.1")
    assert mapped.get(LIST, headers=user).status_code == 200
    alert = put_alert(ledger, "shop")
    assert acknowledge(behind, alert, user).status_code == 403
    acting = client_of(ledger, Access(proxies=access.proxies, proxy_scope="act"), peer="10.1.0.1")
    assert acknowledge(acting, alert, user).json()["alert"]["acknowledged_by"] == "ada"
    (entry,) = changes(ledger, "shop", since=NOW - timedelta(days=1))
    assert (entry.actor, entry.way, entry.origin, entry.act) == ("ada", "service", "203.0.113.9", "acknowledge alert")


def test_a_service_that_listens_elsewhere_needs_somebody_who_may_come(ledger: Ledger) -> None:
    with pytest.raises(NobodyMayCome, match=r"on 192\.0\.2\.1: there is no valid token"):
        require_somebody(ledger, "192.0.2.1")
    made(ledger, "old", days=1, ago=2)
    with pytest.raises(NobodyMayCome):
        require_somebody(ledger, "192.0.2.1")
    made(ledger)
    require_somebody(ledger, "192.0.2.1")


def test_a_browser_logs_in_once_and_is_out_when_its_token_is_revoked(ledger: Ledger) -> None:
    client, token = client_of(ledger), made(ledger, "ada", "act")
    sent_on = client.get("/reports/?verdict=failed", headers=BROWSER)
    assert (sent_on.status_code, sent_on.headers["location"]) == (303, "/login?next=%2Freports%2F%3Fverdict%3Dfailed")
    page = client.get(sent_on.headers["location"], headers=BROWSER)
    word = re.search(r'name="word" value="([0-9a-f]{64})"', page.text)
    assert word is not None
    form = {"word": word[1], "next": "/reports/?verdict=failed", "token": token}
    wrong = client.post("/login", data={**form, "token": token[:-1] + "-"}, headers=BROWSER)
    assert (wrong.status_code, "not known" in wrong.text, token[:-1] in wrong.text) == (401, True, False)
    for site in ("cross-site", "same-site"):
        assert client.post("/login", data=form, headers={"sec-fetch-site": site}).status_code == 403
    assert client.post("/login", data={**form, "word": "0" * 64}).status_code == 403
    answer = client.post("/login", data=form, headers={"x-forwarded-proto": "https"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/reports/?verdict=failed")
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "secure", "path=/"))
    session = {"cookie": f"{COOKIE}={token}"}
    assert client.get("/reports/", headers={**session, **BROWSER}).status_code == 200
    revoke_token(ledger, "ada", now=NOW)
    assert client.get("/reports/", headers={**session, **BROWSER}).status_code == 303
    assert client.get(LIST, headers=session).status_code == 401


def test_whoever_holds_a_cookie_logs_out_by_a_page_of_the_service_alone(ledger: Ledger) -> None:
    client = client_of(ledger)
    for token in (made(ledger), made(ledger, "old", days=1, ago=2)):
        session = {"cookie": f"{COOKIE}={token}"}
        for foreign in ({"sec-fetch-site": "cross-site"}, {"origin": "null"}):
            assert client.post("/logout", headers={**session, **foreign}).status_code == 403
        answer = client.post("/logout", headers={**session, "origin": "http://testserver"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert answer.headers["set-cookie"].startswith(f'{COOKIE}="";')
    assert "Log out" not in client_of(ledger, Access()).get("/", headers=BROWSER).text


def test_a_login_leads_nowhere_else(ledger: Ledger) -> None:
    client, token = client_of(ledger), made(ledger)
    word = re.search(r'name="word" value="([0-9a-f]{64})"', client.get("/login").text)
    assert word is not None
    for wanted in ("//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:x", "/\n/x"):
        assert "evil" not in client.get("/login", params={"next": wanted}).text
        answer = client.post("/login", data={"word": word[1], "next": wanted, "token": token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), wanted


def test_a_cookie_acts_from_a_page_of_the_service_alone(ledger: Ledger) -> None:
    client, alert = client_of(ledger), put_alert(ledger, "shop")
    session = {"cookie": f"{COOKIE}={made(ledger, 'ada', 'act')}"}
    path = f"/api/v1/alerts/{alert}/acknowledgement"
    for foreign in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ):
        assert client.post(path, json={}, headers={**session, **foreign}).status_code == 403, foreign
    simple = {**session, "content-type": "text/plain"}
    assert client.post(path, content="{}", headers=simple).status_code in (403, 422)
    own = {**session, "origin": "http://testserver"}
    assert client.post(path, json={}, headers=own).json()["alert"]["acknowledged_by"] == "ada"


def test_what_is_sent_again_does_nothing_anew(ledger: Ledger) -> None:
    client, alert, token = client_of(ledger), put_alert(ledger, "shop"), made(ledger, "ada", "act")
    given = {"database": "shop", "length": "1h", "reason": "why"}
    number = client.post("/api/v1/silences", json=given, headers=bearer(token)).json()["silence"]["id"]
    for status in (200, 409):
        assert client.post(f"/api/v1/silences/{number}/end", json={}, headers=bearer(token)).status_code == status
    for _ in range(2):
        assert acknowledge(client, alert, bearer(token)).status_code == 200
    acts = [one.act for one in changes(ledger, "shop", since=NOW - timedelta(days=1))]
    assert acts == ["acknowledge alert", "end silence", "silence"]
    word = re.search(r'name="word" value="([0-9a-f]{64})"', client.get("/login").text)
    assert word is not None
    form = {"word": word[1], "next": "/", "token": token}
    assert client.post("/login", data=form).status_code == 303
    assert client_of(ledger).post("/login", data=form).status_code == 403  # after a restart
    revoke_token(ledger, "ada", now=NOW)
    assert client.post("/login", data=form).status_code == 401
    for session in (bearer(token), {"cookie": f"{COOKIE}={token}"}):
        assert acknowledge(client, alert, session).status_code == 401
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws", headers=session):
            pass
        assert refused.value.code == 1008


def test_nobody_alters_what_the_audit_log_holds(ledger: Ledger) -> None:
    made(ledger)
    for change in ("update ledger.audit_entry set actor = 'nobody'", "delete from ledger.audit_entry",
                   "truncate ledger.audit_entry"):  # fmt: skip
        with pytest.raises(ProgrammingError, match="only added to"), ledger.session() as session:
            session.execute(text(change))
    with ledger.session() as session:
        assert session.scalars(select(AuditEntry.act)).all() == ["create token"]


def test_who_watches_is_let_in_like_everybody_else(ledger: Ledger) -> None:
    client, token = client_of(ledger), made(ledger)
    for headers in ({}, bearer("wrong"), {"cookie": f"{COOKIE}=wrong"}):
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws", headers=headers):
            pass
        assert refused.value.code == 1008, headers
    for headers in (bearer(token), {"cookie": f"{COOKIE}={token}"}):
        with client.websocket_connect("/ws", headers=headers) as watching:
            assert watching.accepted_subprotocol is None


def test_a_refused_client_is_held_off_and_others_are_not(ledger: Ledger) -> None:
    rate = Rate(per_second=1, burst=40, clock=lambda: 0.0)
    app = create_app(ledger, Path("/nowhere"), access=Access(tokens=True), rate=rate)
    bad, good = TestClient(app, client=("192.0.2.1", 1)), TestClient(app, client=("192.0.2.2", 1))
    statuses = [bad.get(LIST, headers=bearer("wrong")).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
    held = bad.get(LIST, headers=bearer(made(ledger)))
    assert (held.status_code, held.headers["retry-after"]) == (429, "3")
    assert good.get("/healthz").status_code == 200


def test_an_expiry_is_judged_by_the_ledgers_clock(ledger: Ledger) -> None:
    client, token = client_of(ledger), made(ledger)
    assert client.get(LIST, headers=bearer(token)).status_code == 200
    with ledger.session() as session:
        session.execute(update(ServiceToken).values(expires_at=text("now()")))
    assert client.get(LIST, headers=bearer(token)).status_code == 401
