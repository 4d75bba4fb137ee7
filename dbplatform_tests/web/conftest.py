"""A real Chromium without a network, and the service on a real port."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from dbplatform.ledger.ledger import Ledger
from dbplatform.reporting.store import WrittenReport, write_report
from dbplatform.web.app import create_app
from dbplatform.web.server import configuration, guarded, listen
from dbplatform_tests.web.report_samples import rich_history

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Opened:
    """A page that was loaded, with every request it made and every word on its console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth"))


Open = Callable[..., Opened]


# Per module: as long as it lives an event loop runs in this thread, which other tests may not expect.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("The browser tests need Chromium: install it by 'apt-get install chromium'.")
    # A busy machine is slow, not wrong.
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Load a URL in a window of a given width; only this machine and local files can be reached."""
    contexts = []

    def load(url: str, *, width: int = 1440, scheme: str = "light", javascript: bool = True) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            java_script_enabled=javascript,
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        opened = Opened(page=context.new_page())

        def only_local(route: Route, request: Request) -> None:
            opened.requests.append(request.url)
            if request.url.startswith(("file:", "data:", "http://127.0.0.1:")):
                route.continue_()
            else:
                route.abort()

        context.route("**/*", only_local)
        opened.page.on("console", lambda message: opened.console.append(message.text))
        opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
        opened.page.goto(url)
        return opened

    yield load
    for context in contexts:
        context.close()


@pytest.fixture
def written(ledger: Ledger, tmp_path: Path) -> WrittenReport:
    """The report of a database with a history, failures, an error and hostile values."""
    run_id = rich_history(ledger)
    return write_report(
        ledger, "flights", run_id, folder=tmp_path / "reports", dagster_run_url=f"http://127.0.0.1:3000/runs/{run_id}"
    )


@pytest.fixture
def service(ledger: Ledger, tmp_path: Path) -> Iterator[str]:
    """The URL of the service over the test's ledger and ``tmp_path/reports``, without a slash at the end."""
    with serving(create_app(ledger, tmp_path / "reports", dagster_url="http://127.0.0.1:3000")) as url:
        yield url


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """A service on a port, by default a free one, until the block ends; its URL, without a slash at the end."""
    with listen("127.0.0.1", port) as listening:
        server = uvicorn.Server(configuration(guarded(app, "127.0.0.1")))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            # The socket listens already: a request waits in its queue until the server is ready.
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
