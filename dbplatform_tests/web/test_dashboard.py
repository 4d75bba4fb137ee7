"""The dashboard in a real Chromium, under the headers that it is served with: it fits, moves by itself, acts, and takes
nothing of the data for HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from dbplatform.alerting.record import AlertRecord, list_alerts
from dbplatform.alerting.silences import list_silences, silence
from dbplatform.errors import PlatformError
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.ledger.monitoring import Alert
from dbplatform.live.policy import LivePolicy
from dbplatform.operations.tokens import Scope, create_token
from dbplatform.postgres.connection import Target
from dbplatform.reporting.store import write_report
from dbplatform.web.access import COOKIE, Access
from dbplatform.web.answers import DatabaseGone
from dbplatform.web.app import create_app
from dbplatform.web.location import Location
from dbplatform.web.push import listening
from dbplatform.web.push.service import Push, Pushed
from dbplatform_tests.web.conftest import Open, serving
from dbplatform_tests.web.recorded_samples import measured, put_alert, recorded_database
from dbplatform_tests.web.report_samples import SCRIPT, Made, put_run
from dbplatform_tests.web.test_accessibility import faults

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = ("shop", HOSTILE)
#: What the page said of its connection, each once.
SAID = """
    window.said = [];
    new MutationObserver(() => {
      const words = document.getElementById("connection")?.textContent.trim();
      if (words && words !== "Loading" && words !== window.said.at(-1)) window.said.push(words);
    }).observe(document, { subtree: true, childList: true, characterData: true });
"""


@pytest.fixture
def dashboard(ledger: Ledger, tmp_path: Path) -> Iterator[str]:
    """The URL of a service whose database ``shop`` has something of everything; the other one's name is an attack."""
    recorded_database(ledger)
    with ledger.session() as session:
        session.add(
            Operation(database=HOSTILE, kind=SCRIPT, actor=SCRIPT, status="running", started_at=datetime.now(UTC))
        )
    put_alert(ledger, HOSTILE, SCRIPT)
    change_alert(ledger, HOSTILE, cause=SCRIPT, runbook="javascript:alert(1)", advice=SCRIPT)
    app = create_app(
        ledger,
        tmp_path / "reports",
        dagster_url="http://127.0.0.1:3000",
        location=Location(names=NAMES),
        push=Push(Pushed(names=NAMES, ledger=ledger.target)),
    )
    with serving(app) as url:
        yield url


def change_alert(ledger: Ledger, database: str, **fields: object) -> None:
    with ledger.session() as session:
        for alert in session.query(Alert).filter_by(database=database):
            for name, value in fields.items():
                setattr(alert, name, value)


def silence_everything(ledger: Ledger) -> None:
    """As somebody else does it."""
    hour = timedelta(hours=1)
    reason, now = "everything is moved", datetime.now(UTC)
    silence(ledger, database=None, metric=None, length=hour, reason=reason, by="bob", now=now)


def address(url: str, database: str) -> str:
    return f"{url}/dashboard/{database.replace('<', '%3C').replace('>', '%3E').replace(' ', '%20')}"


def is_live(page: Page) -> None:
    expect(page.locator("#connection")).to_have_text("Live")


def alert_of(ledger: Ledger, metric: str) -> AlertRecord:
    (found,) = [alert for alert in list_alerts(ledger, "shop") if alert.metric == metric]
    return found


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_pages_fit_stay_silent_and_take_nothing_of_the_data_for_html(
    dashboard: str, open_page: Open, width: int, scheme: str
) -> None:
    for path in (f"{dashboard}/dashboard", f"{dashboard}/dashboard/shop", address(dashboard, HOSTILE)):
        opened = open_page(path, width=width, scheme=scheme)
        is_live(opened.page)
        assert opened.overflow <= 0, path
        assert opened.console == [], path
        assert [url for url in opened.requests if not url.startswith((dashboard, "data:"))] == []
        assert opened.page.title().endswith("dbplatform")
        assert opened.page.locator("main img, main script, a[href^='javascript']").count() == 0
    expect(opened.page.locator("h1")).to_have_text(HOSTILE)
    expect(opened.page.locator("#panel-alerts")).to_contain_text(SCRIPT)
    expect(opened.page.locator("#panel-running")).to_contain_text(SCRIPT)


def test_buttons_acknowledge_and_silence_in_the_ledger_and_the_page_follows_it(
    dashboard: str, ledger: Ledger, open_page: Open
) -> None:
    page = open_page(f"{dashboard}/dashboard/shop").page
    is_live(page)
    alerts = page.locator("#panel-alerts")
    page.get_by_role("button", name="Acknowledge: cache_hit_ratio").focus()
    page.keyboard.press("Enter")
    expect(alerts).to_contain_text("acknowledged by")
    assert alert_of(ledger, "cache_hit_ratio").acknowledged_at is not None
    expect(page.get_by_role("heading", name="Alerts")).to_be_focused()

    page.get_by_role("button", name="Silence: cache_hit_ratio").press("Enter")
    expect(page.locator("#silence input")).to_be_focused()
    page.keyboard.type("a new disk")
    page.locator("#silence select").select_option("1 day")
    page.locator("#silence input").focus()
    page.keyboard.press("Enter")
    expect(alerts).to_contain_text("a new disk")
    (silence,) = list_silences(ledger, now=datetime.now(UTC))
    assert (silence.database, silence.metric, silence.reason) == ("shop", "cache_hit_ratio", "a new disk")
    assert silence.ends_at - silence.starts_at == timedelta(days=1)

    page.evaluate("window.unloaded = false; addEventListener('pagehide', () => { window.unloaded = true; })")
    silence_everything(ledger)
    expect(alerts).to_contain_text("everything is moved")
    put_alert(ledger, "shop", "deadlocks")
    expect(alerts).to_contain_text("deadlocks is 0.5")
    expect(page.locator("#said")).to_have_text("New alert: deadlocks is 0.5.")
    assert page.evaluate("window.unloaded") is False


def test_who_may_only_read_is_shown_no_button_and_is_refused(ledger: Ledger, tmp_path: Path, browser: Browser) -> None:
    recorded_database(ledger)
    report = write_report(ledger, "shop", "check-of-shop", folder=tmp_path / "reports")
    alert = alert_of(ledger, "cache_hit_ratio").id
    app = create_app(ledger, tmp_path / "reports", location=Location(names=("shop",)), access=Access(tokens=True))
    acts = ["Acknowledge: cache_hit_ratio", "Silence: cache_hit_ratio"]
    asked = """path => fetch(path, {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}})
        .then(answer => answer.status)"""
    scopes: tuple[tuple[Scope, list[str], int, str], ...] = (
        ("read", [], 403, "not reviewed yet"),
        ("act", acts, 200, "review it"),
    )
    with serving(app) as url, browser.new_context() as context:
        page = context.new_page()
        for scope, buttons, status, words in scopes:
            _, token = create_token(ledger, scope, scope, length=timedelta(hours=1), now=datetime.now(UTC))
            context.add_cookies([{"name": COOKIE, "value": token or "", "url": url}])
            page.goto(f"{url}/dashboard/shop")
            expect(page.locator("#panel-alerts")).to_contain_text("cache_hit_ratio is 0.5")
            shown = page.locator("main").get_by_role("button").all()
            assert [one.get_attribute("aria-label") for one in shown] == buttons
            assert page.get_by_text("You may read here, and not act").is_visible() == (scope == "read")
            assert page.locator("dialog").count() == (scope == "act")
            assert page.evaluate(asked, f"/api/v1/alerts/{alert}/acknowledgement") == status
            page.goto(f"{url}/reports/")
            page.get_by_role("link", name=words).click()
            assert page.url.endswith(f"/reviews/{report.run_id}")
            assert page.locator("main").get_by_role("button").count() == (scope == "act")


def test_whoever_may_only_read_logs_out_by_a_button_on_every_page(
    ledger: Ledger, tmp_path: Path, browser: Browser
) -> None:
    recorded_database(ledger)
    _, token = create_token(ledger, "ada", "read", length=timedelta(hours=1), now=datetime.now(UTC))
    app = create_app(ledger, tmp_path, location=Location(names=("shop",)), access=Access(tokens=True))
    with serving(app) as url, browser.new_context(viewport={"width": 390, "height": 900}) as context:
        page = context.new_page()
        for path in ("/", "/reports/", "/dashboard"):
            context.add_cookies([{"name": COOKIE, "value": token or "", "url": url}])
            page.goto(url + path)
            expect(page.locator("footer")).to_contain_text("Logged in as ada.")
            if path in ("/", "/dashboard"):
                assert faults(page) == []
            page.get_by_role("button", name="Log out").press("Enter")
            page.wait_for_url(f"{url}/login")
            assert context.cookies() == []
            expect(page.get_by_role("button")).to_have_text(["Log in"])


def test_a_database_that_was_never_made_is_calm_and_one_that_is_gone_is_not(
    ledger: Ledger, tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_MOST_S", 0.2)
    places: dict[str, PlatformError | None] = {"new": None}
    live = LivePolicy.model_validate({"table": "public.item"})

    def place(name: str) -> Target | None:
        if error := places[name]:
            raise error
        return None

    push = Push(Pushed(names=("new",), live={"new": [live]}, target_of=place, ledger=ledger.target))
    app = create_app(ledger, tmp_path, location=Location(names=("new",)), push=push)
    with serving(app) as url:
        page = open_page(f"{url}/dashboard").page
        is_live(page)
        expect(page.locator(".sum")).to_have_text("1 database: 1 not run yet.")
        expect(page.locator(".fleet li.none")).to_contain_text("Begin: dbplatform run new")
        page.goto(f"{url}/dashboard/new")
        is_live(page)
        expect(page.locator(".lead.none")).to_contain_text("Not run yet.")
        expect(page.locator(".lead.none")).to_contain_text("Begin: dbplatform run new")
        with ledger.operation("new", "migrate"):
            pass
        places["new"] = DatabaseGone(database="new")
        expect(page.locator("#connection.warned")).to_have_text("Live, but new cannot be listened to")
        expect(page.locator(".lead")).to_contain_text("Not measured yet.")


def test_all_databases_show_what_is_recorded_of_them_as_it_comes(
    dashboard: str, ledger: Ledger, open_page: Open
) -> None:
    page = open_page(f"{dashboard}/dashboard", width=390).page
    is_live(page)
    shop = page.locator(".fleet li", has_text="shop")
    expect(shop).to_contain_text("1 critical")
    change_alert(ledger, "shop", state="resolved", resolved_at=datetime.now(UTC))
    measured(ledger, "shop", datetime.now(UTC), health_score=87.0)
    expect(shop).to_contain_text("87")
    expect(shop).to_contain_text("grade B")
    expect(shop).to_contain_text("Wants care")  # its checks fail still
    shop.get_by_role("link", name="shop").click()
    expect(page.locator("h1")).to_have_text("shop")


def test_no_database_is_well_that_was_never_checked_and_a_verdict_has_its_age(
    dashboard: str, ledger: Ledger, open_page: Open
) -> None:
    now = datetime.now(UTC)
    for name in ("calm", "vetted"):
        measured(ledger, name, now, health_score=100.0, cache_hit_ratio=0.999)
        with ledger.session() as session:
            session.add(Operation(database=name, kind="analyze", actor="ada", status="succeeded", started_at=now))
    made = [Made(name="a", status="passed")]
    put_run(ledger, "check-of-vetted", made, database="vetted", started_at=now - timedelta(days=40))
    page = open_page(f"{dashboard}/dashboard").page
    for name, said in (("calm", ["Not checked yet", "Never checked"]), ("vetted", ["All is well", "40 days ago"])):
        for words in said:
            expect(page.locator(".fleet li", has_text=name)).to_contain_text(words)
    for name, said in (("vetted", ["All is well", "40 days ago"]), ("calm", ["Not checked yet", "Never checked"])):
        page.goto(f"{dashboard}/dashboard/{name}")
        for words in said:
            expect(page.locator("#panel-lead")).to_contain_text(words)


def test_a_service_that_comes_back_is_found_and_what_happened_meanwhile_is_shown(
    ledger: Ledger, tmp_path: Path, open_page: Open
) -> None:
    recorded_database(ledger)

    def service() -> FastAPI:
        push = Push(Pushed(names=("shop",), ledger=ledger.target))
        return create_app(ledger, tmp_path, location=Location(names=("shop",)), push=push)

    with serving(service()) as url:
        page = open_page(f"{url}/dashboard/shop").page
        is_live(page)
        page.evaluate("window.unloaded = false; addEventListener('pagehide', () => { window.unloaded = true; })")
    expect(page.locator("#connection")).not_to_have_text("Live")
    put_alert(ledger, "shop", "deadlocks")
    with serving(service(), int(url.rpartition(":")[2])):
        expect(page.locator("#panel-alerts")).to_contain_text("deadlocks is 0.5")
        is_live(page)
        assert page.evaluate("window.unloaded") is False


def test_who_looks_is_told_after_ten_failed_tries_and_tries_again_by_a_button(dashboard: str, browser: Browser) -> None:
    served = False

    def meet(socket: WebSocketRoute) -> None:
        if served:
            socket.connect_to_server()
        else:
            socket.close()

    with browser.new_context() as context:
        context.add_init_script(SAID)
        page = context.new_page()
        page.clock.install()
        page.route_web_socket("**/ws", meet)
        page.goto(f"{dashboard}/dashboard/shop")
        again = page.get_by_role("button", name="Try again")
        for _ in range(1_000):
            if again.is_visible():
                break
            page.clock.run_for(31_000)  # the longest that it waits
        tries = [f"Connection lost, try {attempt} of 10" for attempt in range(2, 11)]
        assert page.evaluate("window.said") == ["Connecting", "Connecting again", *tries, "Not connected"]
        expect(page.locator("#said")).to_contain_text("after 10 tries")
        served = True
        again.click()
        is_live(page)
        assert not again.is_visible()


def test_a_page_is_not_live_while_the_service_does_not_hear_the_ledger(dashboard: str, browser: Browser) -> None:
    sockets: list[WebSocketRoute] = []

    def say(**message: object) -> None:
        sockets[-1].send(json.dumps(message))

    def meet(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        shop = {"live": [], "token": None, "trouble": None}
        lost = {"trouble": "a test"}
        socket.on_message(lambda _: say(type="hello", heartbeat_s=60, databases={"shop": shop}, ledger=lost))

    with browser.new_context() as context:
        page = context.new_page()
        page.route_web_socket("**/ws", meet)
        page.goto(f"{dashboard}/dashboard/shop")
        expect(page.locator("#connection")).to_have_text("Not live: the ledger cannot be listened to")
        say(type="ledger", trouble=None)
        is_live(page)


def test_the_pages_allow_no_script_but_the_services_own_and_an_unknown_database_is_not_found(ledger: Ledger) -> None:
    client = TestClient(create_app(ledger, Path("/nowhere"), location=Location(names=("shop",))))
    for path in ("/dashboard", "/dashboard/shop"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src data:;" in policy
        assert "unsafe" not in policy
    assert client.get("/dashboard/nowhere", headers={"accept": "text/html"}).status_code == 404
    assert client.get("/static/style.css").headers["content-type"].startswith("text/css")
    (shop,) = client.get("/api/v1/databases").json()["databases"]
    assert (shop["name"], shop["score"], shop["critical_alerts"], shop["running"]) == ("shop", None, 0, 0)
    assert 'href="/dashboard"' in client.get("/", headers={"accept": "text/html"}).text
