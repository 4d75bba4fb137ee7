"""Take the screenshots of the docs: a run of ``flights`` in a home of its own, then its pages in Debian's Chromium.

    python docs/make_screenshots.py

Writes ``docs/images/*.png``; look at them before they are committed. Takes about two minutes.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from dbplatform.home import Home
from dbplatform_tests.installation import Installation
from dbplatform_tests.web.conftest import ARGUMENTS
from dbplatform_tests.web.developing import developing

IMAGES = Path(__file__).parent / "images"
_SECONDS = 120


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
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(_SECONDS * 1000)
                service = f"http://127.0.0.1:{installation.service_port}"
                _take(page, "checks", f"{dev.ui}/assets/flights/tables/flights?view=checks", "relationship_tailnum")
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


if __name__ == "__main__":
    main()
