"""What is changed over HTTP: noted in the ledger with who, from where; and plans of statements, which run nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql
from starlette.requests import HTTPConnection

from dbplatform.alerting.record import list_alerts
from dbplatform.alerting.silences import list_silences
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.audit import changes
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.postgres.transport import TlsNotVerified, demand_verified
from dbplatform.web.app import create_app
from dbplatform.web.failing import failed
from dbplatform.web.location import Location, location_of
from dbplatform_tests.drills.breaking import no_room
from dbplatform_tests.web.recorded_samples import put_alert

NOW = datetime.now(UTC)


@pytest.fixture
def client(ledger: Ledger, tmp_path: Path) -> TestClient:
    app = create_app(ledger, tmp_path, location=Location(names=("shop",)))
    return TestClient(app, raise_server_exceptions=False, client=("127.0.0.1", 4711))


def audited(ledger: Ledger) -> list[tuple[str, str | None, str, str]]:
    found = changes(ledger, since=NOW - timedelta(days=1))
    return [(one.act, one.database, one.actor, one.origin) for one in found]


def test_an_alert_is_acknowledged_once_and_a_resolved_one_not_at_all(client: TestClient, ledger: Ledger) -> None:
    alert, over = put_alert(ledger, "shop"), put_alert(ledger, "shop", "locks", state="resolved")
    first = client.post(f"/api/v1/alerts/{alert}/acknowledgement", json={"by": "ada"})
    assert (first.status_code, first.json()["alert"]["state"]) == (200, "acknowledged")
    again = client.post(f"/api/v1/alerts/{alert}/acknowledgement", json={"by": "bob"})
    assert again.json()["alert"]["acknowledged_by"] == "ada"
    assert client.post(f"/api/v1/alerts/{over}/acknowledgement", json={}).status_code == 409
    assert client.post("/api/v1/alerts/4711/acknowledgement", json={}).status_code == 404
    assert client.post(f"/api/v1/alerts/{2**70}/acknowledgement", json={}).status_code == 422
    assert audited(ledger) == [("acknowledge alert", "shop", "anybody on this machine", "127.0.0.1")]


def test_a_silence_is_made_shown_and_ended(client: TestClient, ledger: Ledger) -> None:
    given = {"database": "shop", "metric": "locks", "length": "30 min", "reason": "a new disk", "by": "ada"}
    made = client.post("/api/v1/silences", json=given)
    assert (made.status_code, made.json()["silence"]["created_by"]) == (201, "ada")
    number = made.json()["silence"]["id"]
    assert [one["id"] for one in client.get("/api/v1/silences").json()["silences"]] == [number]
    assert client.post(f"/api/v1/silences/{number}/end", json={}).status_code == 200
    assert client.post(f"/api/v1/silences/{number}/end", json={}).status_code == 409
    assert client.get("/api/v1/silences").json() == {"silences": []}
    assert [one[:2] for one in audited(ledger)] == [("end silence", "shop"), ("silence", "shop")]


def test_a_ledger_whose_disk_is_full_refuses_an_act_in_words_and_goes_on_to_answer(
    client: TestClient, ledger: Ledger
) -> None:
    alert, given = put_alert(ledger, "shop"), {"database": "shop", "metric": "locks", "reason": "a new disk"}
    with no_room(ledger.target, "ledger.audit_entry", "ledger.silence"):
        for path, document in ((f"alerts/{alert}/acknowledgement", {}), ("silences", given)):
            refused = client.post(f"/api/v1/{path}", json=document)
            assert refused.status_code == 503
            assert "the disk of its server is full" in refused.json()["error"]["message"]
        assert [one.state for one in list_alerts(ledger)] == ["firing"]
        assert client.get("/api/v1/silences").json() == {"silences": []}
    assert client.post("/api/v1/silences", json=given).status_code == 201
    assert [one[:2] for one in audited(ledger)] == [("silence", "shop")]


NO_SILENCES: tuple[tuple[dict[str, Any], int], ...] = (
    ({"length": "40 days"}, 422),
    ({"length": "soon"}, 422),
    ({"length": "0 s"}, 422),
    ({"length": "99999999999999999999 years"}, 422),
    ({"reason": ""}, 422),
    ({"reason": "nul \0"}, 422),
    ({"reason": "half a character \ud800"}, 422),
    ({"metric": "x" * 501}, 422),
    ({"more": 1}, 422),
    ({"database": "nobody"}, 404),
)


def test_a_silence_that_cannot_be_is_refused_and_not_noted(client: TestClient, ledger: Ledger) -> None:
    for change, status in NO_SILENCES:
        given = json.dumps({"database": "shop", "reason": "why", "length": "1h", **change})
        answer = client.post("/api/v1/silences", content=given, headers={"content-type": "application/json"})
        assert (answer.status_code, "error" in answer.json()) == (status, True), (change, answer.text)
    assert list_silences(ledger, now=datetime.now(UTC)) == ()
    assert audited(ledger) == []


DECLARATION = """
type: dbplatform.ManagedDatabase
attributes: {name: shop, connection: {url_env: SHOP_URL}, migrations: {directory: migrations}}
"""


@pytest.fixture
def explaining(
    ledger: Ledger, database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """The service over a declared database with the table ``orders``, whose one row is a secret."""
    folder = tmp_path / "defs" / "shop"
    (folder / "migrations").mkdir(parents=True)
    (folder / "defs.yaml").write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create table orders (id int primary key, note text)")
        connection.execute("insert into orders values (7, 'sesame')")
        connection.execute("create table seen (id int)")
        connection.execute(
            "create function peek() returns text stable language sql as 'select note from orders limit 1'"
        )
        connection.execute(
            "create function poke() returns int stable language plpgsql as "
            "$$ begin insert into seen values (1); return 1; end $$"
        )
    app = create_app(ledger, tmp_path, location=location_of(Platform(Project.at(tmp_path))))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def plan_of(client: TestClient, sql: str) -> Any:
    return client.post("/api/v1/databases/shop/explain", json={"sql": sql})


def test_a_plan_is_given_and_nothing_has_run(explaining: TestClient, database: Target, ledger: Ledger) -> None:
    answer = plan_of(explaining, "select * from orders where id = 7")
    assert (answer.status_code, answer.json()["plan"]["Plan"]["Node Type"]) == (200, "Index Scan")
    assert answer.json()["analyzed"] is False
    assert plan_of(explaining, "select * from orders where note = $1").json()["generic"] is True
    (entry, *_) = changes(ledger, "shop", since=NOW - timedelta(days=1))
    assert (entry.act, entry.subject) == ("explain", "select * from orders where note = $1")
    assert [one.subject for one in changes(ledger, "shop", since=NOW - timedelta(days=1))][1].endswith("id = ?")


NO_QUESTIONS = (
    "select 1; drop table orders", "select 1; select 2", "analyze select 1", "(analyze) select * from orders",
    ") delete from orders --", "drop table orders", "delete from orders", "update orders set note = ''",
    "select * from orders where id = poke()", "copy orders to program 'id'", "vacuum", "", "nonsense", "--5", "\u00b2",
)  # fmt: skip


def test_what_is_no_question_is_refused_and_changes_nothing(explaining: TestClient, database: Target) -> None:
    statuses = {sql: plan_of(explaining, sql).status_code for sql in NO_QUESTIONS}
    assert statuses == dict.fromkeys(NO_QUESTIONS, 422)
    assert plan_of(explaining, "-99999999999999999999").status_code in (404, 422)
    assert plan_of(explaining, "4711").json()["error"]["kind"] == "unknown_statement"
    with psycopg.connect(database.url) as connection:
        assert connection.execute("select * from orders").fetchall() == [(7, "sesame")]
        assert connection.execute("select * from seen").fetchall() == []


def test_an_error_of_the_planner_quotes_no_row(explaining: TestClient, database: Target) -> None:
    for asked, state in (
        ("select * from orders where id = peek()::int", "22P02"),
        ("select * from pg_class where oid = peek()::regclass", "42P01"),
        ("select * from pg_class where relname = current_setting(peek())", "42704"),
    ):
        with psycopg.connect(database.url) as connection, pytest.raises(psycopg.Error, match="sesame"):
            connection.execute(f"explain {asked}")
        answer = plan_of(explaining, asked)
        assert (answer.status_code, "sesame" in answer.text, state in answer.text) == (422, False, True), asked


def test_a_mistake_in_the_statement_is_told_in_words(explaining: TestClient) -> None:
    for asked, words in (("select * from nowhere", "nowhere"), ("select nothing from orders", "nothing")):
        answer = plan_of(explaining, asked)
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (422, True), answer.text


def test_what_cannot_be_asked_says_who_has_to_mend_it(
    explaining: TestClient, database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create sequence counted")
        connection.execute("grant usage on sequence counted to public")
        made = sql.SQL("create function {}() returns int stable language plpgsql as {}")
        for name, body in (
            ("count_on", "begin return nextval('counted'); end"),
            ("rest", "begin perform pg_sleep(60); return 1; end"),
        ):
            connection.execute(made.format(sql.Identifier(name), sql.Literal(body)))
    answer = plan_of(explaining, "select * from orders where id = count_on()")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "writes")
    monkeypatch.setattr("dbplatform.web.location._EXPLAIN_TIMEOUT_MS", 250)
    answer = plan_of(explaining, "select * from orders where id = rest()")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "took_too_long")
    assert "after 0.25 s" in answer.json()["error"]["message"]
    monkeypatch.delenv("SHOP_URL")
    answer = plan_of(explaining, "select 1")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "variable_not_set")


def test_a_url_that_may_not_be_used_is_no_mistake_of_who_asks() -> None:
    with pytest.raises(TlsNotVerified) as raised:
        demand_verified("postgresql://me@db.example/app?sslmode=prefer", variable="SHOP_URL")
    request = HTTPConnection({"type": "http", "method": "POST", "path": "/api/v1", "headers": []})
    assert failed(request, raised.value).status_code == 503


def test_a_plan_that_would_fill_the_service_stays_with_the_server(explaining: TestClient) -> None:
    large, most = "select * from orders where note = repeat('x', 3000000)", "at most 1,000,000 are shown"
    for asked in (large, large + " and id = $1"):
        answer = plan_of(explaining, asked)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "plan_too_large")
        assert most in answer.json()["error"]["message"]
        assert len(answer.content) < 1_000
    assert plan_of(explaining, "select * from orders where note = repeat('x', 300000)").status_code == 200


def test_what_is_not_declared_or_not_there_is_not_asked(client: TestClient, ledger: Ledger) -> None:
    assert plan_of(client, "select 1").status_code == 409
    answer = client.post("/api/v1/databases/nobody/explain", json={"sql": "select 1"})
    assert answer.status_code == 404


def test_more_than_two_do_not_explain_at_once(explaining: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbplatform.operations import slow_statements

    statuses: list[int] = []
    real = slow_statements.explained

    def nested(*given: Any, **more: Any) -> Any:
        statuses.append(plan_of(explaining, "select 1").status_code)
        return real(*given, **more)

    monkeypatch.setattr(slow_statements, "explained", nested)
    assert plan_of(explaining, "select 1").status_code == 200
    assert statuses == [429, 200], "the third within the second, the second within the first"
