"""The JavaScript module in a real browser: rows appear without a reload, a service that comes back is found again with
nothing missed, and after ten failed tries the page knows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, WebSocketRoute

from dbplatform.ledger.ledger import Ledger
from dbplatform.live.install import apply_live
from dbplatform.live.policy import LivePolicy
from dbplatform.postgres.connection import Target, connect
from dbplatform.web.app import create_app
from dbplatform.web.push.service import Push, Pushed
from dbplatform.web.server import configuration, guarded, listen

ITEMS = LivePolicy.model_validate({"table": "public.items"})
#: The page counts what it hears, as its users would: rows by their key.
PAGE = """
    async () => {
      const { watch } = await import("/static/live.js");
      window.rows = {}; window.states = []; window.feed = null;
      window.watching = watch(["shop"], {
        hello: (m) => { window.feed = m.databases.shop.trouble ?? "follows"; },
        feed: (m) => { window.feed = m.trouble ?? "follows"; },
        changes: (m) => { for (const t of m.tables) for (const r of t.rows) window.rows[r.id] = r.name; },
        connection: (s) => window.states.push(s.is === "waiting" ? `waiting ${s.attempt}` : s.is),
      }, { scale: 0.02 });
    }
"""


class Started:
    """A service on a port of its own, which it keeps."""

    def __init__(self, make: Callable[[], object], port: int) -> None:
        self._listening = listen("127.0.0.1", port)
        self.port = self._listening.getsockname()[1]
        self._server = uvicorn.Server(configuration(guarded(make(), "127.0.0.1")))  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listening]})
        self._thread.start()

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=60)
        self._listening.close()


@pytest.fixture
def start(database: Target, ledger: Ledger, tmp_path: Path) -> Iterator[Callable[[int], Started]]:
    write(database, "create table items (id int primary key, name text)")
    with connect(database, work="test") as connection:
        apply_live(connection, [ITEMS], database="shop")
    begun: list[Started] = []

    def one(port: int) -> Started:
        def make() -> object:
            pushed = Pushed(names=("shop",), live={"shop": [ITEMS]}, target_of=lambda name: database)
            return create_app(ledger, tmp_path, push=Push(pushed))

        begun.append(Started(make, port))
        return begun[-1]

    yield one
    for started in begun:
        started.end()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may run what the pages of the service itself may not."""
    context = browser.new_context(bypass_csp=True)
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def write(database: Target, text: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(text.encode())


def test_a_page_sees_commits_finds_the_service_again_and_tells_when_it_is_lost(
    database: Target, start: Callable[[int], Started], page: Page
) -> None:
    first = start(0)
    page.goto(f"http://127.0.0.1:{first.port}/")
    page.evaluate(PAGE)
    page.wait_for_function("window.feed === 'follows'")
    write(database, "insert into items values (1, 'seen')")
    page.wait_for_function("window.rows[1] === 'seen'")
    first.end()
    page.wait_for_function("window.states.includes('waiting 1')")
    write(database, "insert into items values (2, 'while nobody served')")
    second = start(first.port)
    page.wait_for_function("window.rows[2] === 'while nobody served'")
    assert page.evaluate("window.states.at(-1)") == "open"
    page.evaluate("window.states.length = 0")
    second.end()
    page.wait_for_function("window.states.includes('lost')")
    assert page.evaluate("window.states") == [*(f"waiting {number}" for number in range(1, 11)), "lost"]
    start(first.port)
    page.evaluate("window.watching.again()")
    page.wait_for_function("window.states.at(-1) === 'open'")
    write(database, "update items set name = 'after all'")
    page.wait_for_function("window.rows[1] === 'after all' && window.rows[2] === 'after all'")


def test_a_name_may_be_any_word_and_its_token_is_kept(start: Callable[[int], Started], page: Page) -> None:
    names = ["__proto__", "constructor", "shop"]
    said: list[dict[str, str]] = []

    def meet(socket: WebSocketRoute) -> None:
        def hear(words: str | bytes) -> None:
            said.append(json.loads(words)["since"])
            known: dict[str, Any] = {name: {"live": [], "token": f"first of {name}", "trouble": None} for name in names}
            socket.send(json.dumps({"type": "hello", "heartbeat_s": 15, "databases": known}))
            later = {"type": "reset", "database": "__proto__", "token": "second", "why": "a test"}
            socket.send(json.dumps(later))
            socket.close()

        socket.on_message(hear)

    page.route_web_socket("**/ws", meet)
    page.goto(f"http://127.0.0.1:{start(0).port}/")
    page.evaluate(
        """async (names) => {
          const { watch } = await import("/static/live.js");
          let hellos = 0;
          await new Promise((done) => {
            const watching = watch(names, { hello: () => { if (++hellos === 2) { watching.close(); done(); } } },
              { scale: 0.02, since: { shop: "of before" } });
          });
        }""",
        names,
    )
    assert said == [
        {"shop": "of before"},
        {"__proto__": "second", "constructor": "first of constructor", "shop": "of before"},
    ]
