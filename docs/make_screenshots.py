"""Take the screenshots of the docs: a run of ``flights`` in a home of its own, then its pages in Debian's Chromium.

    python docs/make_screenshots.py

Writes ``docs/images/*.png``; look at them before they are committed. Takes two minutes. Dagster lays out its graph, and
its chart of a run, some time after the page is there: they are taken when nothing of them moves any more.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from dbplatform.home import Home
from dbplatform_tests.installation import Installation
from dbplatform_tests.web.conftest import ARGUMENTS
from dbplatform_tests.web.developing import developing

IMAGES = Path(__file__).parent / "images"
_SECONDS = 120
_WINDOW: ViewportSize = {"width": 1280, "height": 800}
#: High enough for the whole graph of a database.
_HIGH: ViewportSize = {"width": 1100, "height": 1570}
#: Whether so many of these are there, as they were a moment ago, with no sign that more is to come.
_STILL = """
    ([selector, least]) => {
      const found = [...document.querySelectorAll(selector)];
      const before = window.seen;
      window.seen = found.map((one) => JSON.stringify(one.getBoundingClientRect()) + one.outerHTML).join();
      return found.length >= least && window.seen === before && !document.querySelector("[class*='pinner']");
    }
"""
_MOMENT_MS = 1_500
_MANY = 15
#: Whether the state of the assets has come: until then all of them have the same border.
_COLOURED = """
    () => new Set([...document.querySelectorAll("[style*='--minimal-border']")]
      .map((one) => one.style.getPropertyValue("--minimal-border"))).size > 1
"""


def main() -> None:
    """Run, start the services, look at each page."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Home(root=Path(folder) / "home"))
        try:
            done = installation.command("run", "flights")
            assert done.returncode == 0, done.stderr
            with developing(installation) as dev, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
                page = browser.new_page(viewport=_WINDOW)
                page.set_default_timeout(_SECONDS * 1000)
                service = f"http://127.0.0.1:{installation.service_port}"
                _take(page, "checks", f"{dev.ui}/assets/flights/tables/flights?view=checks", "relationship_tailnum")
                _take_graph(page, dev.ui)
                _take_run(page, f"{dev.ui}/runs/{dev.run_id}")
                _take(page, "report", f"{service}/reports/run/{dev.run_id}", "checks failed")
                _take(page, "dashboard", f"{service}/dashboard/flights", "Backups")
                browser.close()
        finally:
            installation.server.remove()


def _take(page: Page, name: str, url: str, text: str) -> None:
    """One picture, once the page shows the text."""
    page.goto(url)
    page.get_by_text(text).first.wait_for()
    page.screenshot(path=IMAGES / f"{name}.png")


def _take_graph(page: Page, ui: str) -> None:
    """Every asset of the database, each in the colour of its state."""
    page.set_viewport_size(_HIGH)
    page.goto(f"{ui}/locations/dbplatform/asset-groups/flights/lineage")
    page.get_by_text("Hide navigation").click()
    page.wait_for_function(_COLOURED)
    _take_still(page, "graph", "svg foreignObject")
    page.set_viewport_size(_WINDOW)


def _take_run(page: Page, url: str) -> None:
    """Every step of the run on the axis of time, in place of its log."""
    page.goto(url)
    page.get_by_role("img", name="expand_arrows").first.click()
    page.evaluate("document.activeElement.blur()")
    _take_still(page, "run", ".chart-element.box")


def _take_still(page: Page, name: str, selector: str) -> None:
    """One picture, once the page has all of these and changes them no more."""
    page.wait_for_function(_STILL, arg=[selector, _MANY], polling=_MOMENT_MS)
    page.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
