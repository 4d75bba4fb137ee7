"""What the API reads: every document, from a real ledger and from nothing else; parts, caching, what is not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy import update

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import MetricCollection
from dbplatform.postgres.connection import Target
from dbplatform.reporting.store import write_report
from dbplatform.web import documents
from dbplatform.web.app import create_app
from dbplatform.web.cache import Cache
from dbplatform.web.location import Location
from dbplatform.web.reading import CHARTED
from dbplatform_tests.web.recorded_samples import recorded_database
from dbplatform_tests.web.report_samples import Made, put_run

OF_A_DATABASE = (
    "health", "metrics", "connections", "slow-queries", "recommendations", "dashboard", "alerts", "backups",
    "quality", "runs",
)  # fmt: skip


@pytest.fixture
def at(ledger: Ledger) -> datetime:
    return recorded_database(ledger)


@pytest.fixture
def client(ledger: Ledger, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(ledger, tmp_path / "reports") as client:
        yield client


def client_of(ledger: Ledger, reports: Path, *, dagster_url: str | None = "http://127.0.0.1:3000") -> TestClient:
    app = create_app(ledger, reports, dagster_url=dagster_url, location=Location(names=("shop",)))
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


def of(client: TestClient, what: str, **parameters: Any) -> Any:
    answer = client.get(f"/api/v1/databases/shop/{what}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_document_of_a_database_says_what_the_ledger_has(client: TestClient, at: datetime) -> None:
    health = of(client, "health")
    assert {one["metric"] for one in health["deductions"]} == {"longest_transaction_s", "cache_hit_ratio"}
    assert of(client, "metrics")["metrics"]["database_bytes"]["value"] == 2e9
    connections = of(client, "connections")
    assert (connections["active"], connections["locks"], connections["unmeasured"]) == (3, None, {"locks": "not now"})
    slow = of(client, "slow-queries")["statements"]
    assert [(one["queryid"], one["calls"], one["mean_seconds"]) for one in slow] == [("7", 10, 4)]
    assert [one["subject"] for one in of(client, "recommendations")["advice"]] == ["orders(id)"]
    assert [one["metric"] for one in of(client, "alerts")["alerts"]] == ["cache_hit_ratio"]
    assert [one["metric"] for one in of(client, "alerts", resolved=True)["alerts"]] == ["deadlocks", "cache_hit_ratio"]
    backups = of(client, "backups")
    assert (backups["backups"][0]["proven_at"], backups["drills"][0]["rto_seconds"]) == (at.isoformat(), 12.5)
    quality = of(client, "quality")
    assert (quality["verdict"], quality["tables"][0]["checks"][0]["failed_rows"]) == ("failed", 3)
    kinds = {run["kind"]: run for run in of(client, "runs")["runs"]}
    assert set(kinds) == {"migrate", "partition", "archive", "check"}
    assert (kinds["archive"]["status"], kinds["check"]["status"], kinds["migrate"]["seconds"]) == (
        "running",
        "failed",
        2,
    )


def test_what_dagster_did_leads_to_its_run_and_nothing_else_does(
    client: TestClient, ledger: Ledger, at: datetime, tmp_path: Path
) -> None:
    ui = "http://127.0.0.1:3000/runs/"
    kinds = {run["kind"]: run["url"] for run in of(client, "runs")["runs"]}
    assert kinds == {"migrate": f"{ui}0a1b", "partition": None, "archive": None, "check": f"{ui}check-of-shop"}
    backups = of(client, "backups")
    assert (backups["backups"][0]["run_url"], backups["drills"][0]["run_url"]) == (f"{ui}0a1b", f"{ui}2c%2Fd")
    put_run(ledger, "by-hand", [Made(name="a")], database="shop", started_at=at + timedelta(seconds=1))
    write_report(ledger, "shop", "by-hand", folder=tmp_path)
    write_report(ledger, "shop", "check-of-shop", folder=tmp_path)
    fresh = client_of(ledger, tmp_path)
    quality = of(fresh, "quality")
    assert (quality["run_id"], quality["run_url"]) == ("by-hand", None)
    assert [run["run_url"] for run in quality["runs"]] == [None, f"{ui}check-of-shop"]
    reports = fresh.get("/api/v1/reports").json()["reports"]
    assert [one["run_url"] for one in reports] == [None, f"{ui}check-of-shop"]
    for page in ("/reports/", "/reports/shop/", "/reviews/check-of-shop"):
        assert f'href="{ui}check-of-shop"' in fresh.get(page).text, page
        assert f"{ui}by-hand" not in fresh.get(page).text, page
    nowhere = client_of(ledger, tmp_path, dagster_url=None)
    for answer in ("/api/v1/databases/shop/dashboard", "/api/v1/reports", "/reports/", "/reviews/check-of-shop"):
        assert "/runs/" not in nowhere.get(answer).text, answer


def test_the_dashboard_is_one_document_with_everything_in_it(client: TestClient, at: datetime) -> None:
    found = of(client, "dashboard")
    assert found["health"]["score"] == of(client, "health")["score"]
    assert set(found["series"]) == set(CHARTED)
    assert [point["value"] for point in found["series"]["database_bytes"]] == [2e9 - 2, 2e9 - 1, 2e9]
    (partition,) = found["partitions"]
    assert (partition["table"], partition["days"]) == ("public.o", 90)
    assert [run["kind"] for run in found["running"]] == ["archive"]
    assert (found["backups"]["backups"][0]["id"], found["quality"]["verdict"]) == ("b-shop", "failed")
    assert [found["alerts"][0]["metric"], found["recommendations"][0]["kind"]] == ["cache_hit_ratio", "missing_index"]
    assert found["unknown"] == []


def test_the_tree_of_locks_has_at_its_top_who_waits_for_nobody(client: TestClient, at: datetime) -> None:
    assert of(client, "connections")["locks_tree"] == [
        lock(11, lock(12, seconds=3.5, mode="ShareLock", relation="public.t"), lock(13, seconds=1.5))
    ]


def lock(pid: int, *waiting: dict[str, Any], **of_it: Any) -> dict[str, Any]:
    return {"pid": pid, "seconds": None, "mode": None, "relation": None, **of_it, "waiting": list(waiting)}


def test_in_the_tree_of_locks_each_session_stands_once_below_who_is_nearest_to_the_top(
    ledger: Ledger, client: TestClient, at: datetime
) -> None:
    queue = {pid: list(range(1, pid)) for pid in range(2, 12)}
    waits = {**queue, 24: [23], 23: [22, 29], 22: [21], 31: [32], 32: [31], 33: [32]}
    blocked = [
        {"pid": pid, "blocked_by": ahead, "seconds": 1.0, "mode": None, "relation": None}
        for pid, ahead in waits.items()
    ]
    with ledger.session() as session:
        session.execute(update(MetricCollection).values(worst={"blocked": blocked}))

    def waiting(pid: int, *below: dict[str, Any]) -> dict[str, Any]:
        return lock(pid, *below, seconds=1.0)

    assert of(client, "connections")["locks_tree"] == [
        lock(1, *(waiting(pid) for pid in queue)),  # who is ahead in the queue holds back, too
        lock(29, waiting(23, waiting(24))),
        lock(21, waiting(22)),
        waiting(31, waiting(32, waiting(33))),  # the first two wait for each other
    ]


def test_a_database_without_a_look_has_a_dashboard_that_says_so(ledger: Ledger, client: TestClient) -> None:
    found = of(client, "dashboard")
    assert (found["health"], found["connections"], found["partitions"]) == (None, None, [])
    assert found["unknown"] == [{"part": "health", "reason": "The database shop was not measured yet."}]
    assert client.get("/api/v1/databases/shop/health").status_code == 404


def test_a_database_that_nobody_knows_is_not_found(ledger: Ledger, client: TestClient) -> None:
    for what in OF_A_DATABASE:
        answer = client.get(f"/api/v1/databases/nobody/{what}")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "no_such_database"), what


def test_the_address_for_a_single_database_answers_the_same(client: TestClient, at: datetime) -> None:
    for what in OF_A_DATABASE:
        by_name = of(client, what)
        only = client.get(f"/api/v1/database/{what}").json()
        named = client.get(f"/api/v1/database/{what}", params={"database": "shop"}).json()
        for answer in (only, named, by_name):
            answer.pop("next", None)
        assert (only, named) == (by_name, by_name), what


def test_among_several_databases_the_single_address_asks_for_the_name(ledger: Ledger, tmp_path: Path) -> None:
    client = TestClient(create_app(ledger, tmp_path, location=Location(names=("a", "b"))))
    answer = client.get("/api/v1/database/health")
    assert (answer.status_code, "?database=NAME" in answer.text) == (422, True)
    assert client.get("/api/v1/database/runs", params={"database": "b"}).json()["runs"] == []


def test_no_field_of_a_document_is_missing_in_its_description(client: TestClient, at: datetime) -> None:
    models = {
        "health": documents.HealthDocument, "metrics": documents.MetricsDocument, "alerts": documents.Alerts,
        "connections": documents.Connections, "slow-queries": documents.SlowQueries, "backups": documents.Backups,
        "recommendations": documents.Recommendations, "dashboard": documents.Dashboard, "runs": documents.Runs,
    }  # fmt: skip
    for what, model in models.items():
        assert undescribed(model.model_validate(of(client, what))) == set(), what


def undescribed(model: BaseModel) -> set[str]:
    """Fields that a document has and its model does not name."""
    found = {f"{type(model).__name__}.{name}" for name in model.model_extra or {}}
    for name in type(model).model_fields:
        value = getattr(model, name)
        inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
        for one in inner:
            if isinstance(one, BaseModel):
                found |= undescribed(one)
    return found


def test_the_past_of_a_metric_ends_with_its_newest_value(client: TestClient, at: datetime) -> None:
    found = of(client, "metrics/history", metric="database_bytes", hours=1)
    assert (found["unit"], len(found["history"]), found["history"][-1]["value"]) == ("bytes", 3, 2e9)
    assert client.get("/api/v1/databases/shop/metrics/history?metric=nonsense").status_code == 404
    assert client.get("/api/v1/databases/shop/metrics/history?metric=locks&hours=0").status_code == 422


def test_a_long_list_comes_in_parts_that_lead_to_each_other(client: TestClient, at: datetime) -> None:
    whole = of(client, "runs")["runs"]
    found, address = [], "/api/v1/databases/shop/runs?limit=2"
    while address:
        part = client.get(address).json()
        assert len(part["runs"]) <= 2
        found += part["runs"]
        address = part["next"]
    assert found == whole
    assert len(found) == 6
    for beyond in ({"limit": 0}, {"limit": 201}, {"offset": -1}, {"offset": 100_001}, {"limit": "many"}):
        assert client.get("/api/v1/databases/shop/runs", params=beyond).status_code == 422, beyond


def test_what_a_client_has_already_is_not_sent_again(client: TestClient, at: datetime) -> None:
    first = client.get("/api/v1/databases/shop/dashboard")
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get("/api/v1/databases/shop/dashboard", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), known
    other = client.get("/api/v1/databases/shop/dashboard", headers={"if-none-match": '"other"'})
    assert other.content == first.content


def test_a_hundred_viewers_cost_the_ledger_as_much_as_one(ledger: Ledger, at: datetime, tmp_path: Path) -> None:
    from sqlalchemy import event

    statements: list[str] = []
    event.listen(ledger.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    now = [0.0]
    client = TestClient(create_app(ledger, tmp_path, cache=Cache(clock=lambda: now[0])))
    path = "/api/v1/databases/shop/dashboard"
    first = client.get(path)
    of_one = len(statements)
    assert of_one > 0
    assert all(client.get(path).content == first.content for _ in range(100))
    assert len(statements) == of_one
    now[0] = 2.0
    assert client.get(path).status_code == 200
    assert len(statements) == 2 * of_one


def test_words_that_no_route_knows_do_not_have_a_document_made_anew(
    ledger: Ledger, at: datetime, tmp_path: Path
) -> None:
    made: list[Hashable] = []

    class Counting(Cache):
        def content(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
            return super().content(key, lambda: made.append(key) or make())  # type: ignore[func-returns-value]

    cache = Counting(clock=lambda: 0.0)
    client = TestClient(create_app(ledger, tmp_path, location=Location(names=("shop",)), cache=cache))
    addresses = {
        "/api/v1/databases/shop/health": ("?x=1", "?database=other", "?limit=2"),
        "/api/v1/databases/shop/runs?limit=2": ("&x=1", "&x=2&x=3", "&database=other"),
        "/api/v1/databases/shop/alerts?resolved=true&limit=1": ("&x=1",),
        "/api/v1/database/runs?database=shop&limit=2": ("&x=1",),
        "/api/v1/reports?limit=1&verdict=failed": ("&x=1", "&y="),
    }
    for number, (address, more) in enumerate(addresses.items(), start=1):
        first = client.get(address)
        for words in more:
            assert client.get(address + words).content == first.content, words
        assert (first.status_code, len(made)) == (200, number), address
    assert "resolved=true" in of(client, "alerts", resolved=True, limit=1)["next"]
    assert client.get("/api/v1/databases/shop/runs?limit=3&x=1").json()["next"].endswith("/runs?limit=3&offset=3")
    assert client.get("/api/v1/database/runs?database=shop&limit=2").json()["next"].count("database=shop") == 1


def test_what_takes_longer_than_it_is_kept_is_still_made_by_one() -> None:
    now, made, begun, go = [0.0], [], threading.Event(), threading.Event()
    cache = Cache(clock=lambda: now[0])

    def make() -> bytes:
        made.append(1)
        begun.set()
        assert go.wait(30)
        return b"x"

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.content, "key", make)]
        assert begun.wait(30)
        now[0] = 60.0
        asked += [pool.submit(cache.content, "key", make) for _ in range(3)]
        go.set()
        assert {one.result(30) for one in asked} == {b"x"}
    now[0] = 61.9
    assert (cache.content("key", make), len(made)) == (b"x", 1)
    now[0] = 62.0
    assert (cache.content("key", make), len(made)) == (b"x", 2)


def test_many_who_ask_at_once_wait_for_the_one_that_is_made() -> None:
    cache, made, begun, go = Cache(), [], threading.Event(), threading.Event()

    def make() -> bytes:
        made.append(1)
        begun.set()
        assert go.wait(30)
        return b"x"

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.content, "key", make) for _ in range(8)]
        assert begun.wait(30)
        go.set()
        assert {one.result(30) for one in asked} == {b"x"}
    assert len(made) == 1


def test_an_error_is_told_to_who_asked_and_not_kept() -> None:
    cache = Cache()
    with pytest.raises(ZeroDivisionError):
        cache.content("key", lambda: bytes(1 // 0))
    assert cache.content("key", lambda: b"good") == b"good"


def test_the_cache_holds_so_many_documents_and_no_more() -> None:
    cache, made = Cache(most=2), []
    for key in ("a", "b", "c", "b", "a"):
        cache.content(key, lambda key=key: made.append(key) or b"")  # type: ignore[misc, func-returns-value]
    assert made == ["a", "b", "c", "a"]


def test_databases_are_those_that_are_declared_and_those_on_record(client: TestClient, ledger: Ledger) -> None:
    recorded_database(ledger, "gone")
    found = {one["name"]: one for one in client.get("/api/v1/databases").json()["databases"]}
    assert {name: one["declared"] for name, one in found.items()} == {"gone": False, "shop": True}
    assert (found["shop"]["verdict"], found["gone"]["verdict"]) == (None, "failed")


def test_the_service_is_ready_when_the_ledgers_schema_is_that_of_this_version(
    client: TestClient, ledger: Ledger, database: Target
) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}
    with ledger.session() as session:
        from sqlalchemy import text

        session.execute(text("delete from ledger.schema_history where version = '31'"))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "ledger_behind")
    assert "V31" in answer.text
    assert client.get("/healthz").json() == {"status": "up"}


def test_the_description_names_every_route_with_its_document_and_its_failures(client: TestClient) -> None:
    described = client.get("/api/v1/openapi.json").json()
    for what in OF_A_DATABASE:
        for path in (f"/api/v1/databases/{{name}}/{what}", f"/api/v1/database/{what}"):
            answers = described["paths"][path]["get"]["responses"]
            schema = answers["200"]["content"]["application/json"]["schema"]
            assert schema["$ref"].startswith("#/components/schemas/"), path
            assert set(answers) >= {"401", "403", "404", "422", "429", "503"}
            assert answers["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/Failure")
    assert "HTTPValidationError" not in json.dumps(described["paths"])
