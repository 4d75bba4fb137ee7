"""Every page of the service for everybody: axe finds no fault, whatever the width and the colours, nothing sticks out,
and all that can be done can be done by keyboard, with the focus in sight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.web.conftest import Open
from dbplatform_tests.web.site import Site, site

_OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"
#: Everything that can be used, in the order of the page; and what was focused since: its place, and whether it shows.
_LISTEN = """
    window.reachable = [...document.querySelectorAll(
        "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']",
    )].filter((one) => one.checkVisibility());
    window.focused = [];
    addEventListener("focusin", ({ target }) => {
      const { outlineStyle, outlineWidth } = getComputedStyle(target);
      window.focused.push([reachable.indexOf(target), outlineStyle !== "none" && parseFloat(outlineWidth) >= 2]);
    });
    window.reachable.length
"""
#: What is met in each look: with narrow and wide each scheme is met once, with both matrices each pair.
_LOOKS: dict[str, tuple[tuple[int, Literal["light", "dark"]], ...]] = {
    "sampled": ((1440, "light"), (390, "dark")),
    "crossed": ((1440, "dark"), (390, "light")),
}


@pytest.fixture(scope="module")
def everything(server_url: str, ledger_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(server_url, ledger_template, tmp_path_factory.mktemp("site")) as running:
        yield running


def settled(page: Page) -> None:
    """A page that fills itself has done so."""
    if page.locator("#connection").count():
        expect(page.locator("#connection")).to_have_text("Live")


def faults(page: Page) -> list[str]:
    """What axe holds against the page, each rule with its impact and what breaks it; and by how much it sticks out."""
    page.evaluate(_OPEN_ALL)
    over = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    found = Axe().run(page).response["violations"]
    return [
        *([f"{over} px wider than its window"] if over > 0 else []),
        *(f"{one['impact']} {one['id']}: {[node['html'][:160] for node in one['nodes'][:3]]}" for one in found),
    ]


@pytest.mark.parametrize("looks", cases("sampled", "crossed", sample={"sampled"}))
def test_axe_finds_no_fault_on_any_page_and_nothing_sticks_out(everything: Site, browser: Browser, looks: str) -> None:
    found: dict[tuple[str, int, str], list[str]] = {}
    for width, scheme in _LOOKS[looks]:
        with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
            page = context.new_page()
            for name, path in everything.pages.items():
                page.goto(everything.url + path)
                settled(page)
                found[name, width, scheme] = faults(page)
                if name == "dashboard of a database":
                    page.get_by_role("button", name="Silence: cache_hit_ratio").click()
                    found["silence", width, scheme] = faults(page)
                if name == "login":
                    page.get_by_label("Token").fill("nonsense")
                    page.keyboard.press("Enter")
                    expect(page.get_by_role("alert")).to_be_visible()
                    found["login refused", width, scheme] = faults(page)
    assert len(found) == 2 * (len(everything.pages) + 2)
    assert {where: what for where, what in found.items() if what} == {}


@pytest.mark.parametrize("name", ["dashboard", "dashboard of a database", "reports", "review", "login", "not found"])
def test_all_that_can_be_done_is_reached_by_keyboard_in_order_and_in_sight(
    everything: Site, open_page: Open, name: str
) -> None:
    page = open_page(everything.url + everything.pages[name]).page
    settled(page)
    many = page.evaluate(_LISTEN)
    assert many > 0
    for _ in range(many):
        page.keyboard.press("Tab")
    focused = page.evaluate("window.focused")
    assert focused == [[place, True] for place in range(many)]


def test_a_dialog_is_left_by_escape_and_the_focus_is_where_it_was(everything: Site, open_page: Open) -> None:
    page = open_page(f"{everything.url}/dashboard/shop").page
    settled(page)
    button = page.get_by_role("button", name="Silence: cache_hit_ratio")
    button.press("Enter")
    expect(page.get_by_role("dialog", name="Silence cache_hit_ratio")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()
