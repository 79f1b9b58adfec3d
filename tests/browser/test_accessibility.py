"""What axe finds on the page, in every state that a reader may meet."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .conftest import Visit
from .parts import DIGITS, detail, open_page
from .test_strip import DRIFTING, told_drift

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

IN_WORDS = {f"meaning-{name}" for name in ("flags", "flag-precision", "latency", "waiting_rows", "doctor")}
"""Meanings that have no formula."""
AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"


def violations(page: Page) -> list[str]:
    """Each serious or critical violation with the elements that show it."""
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 20
    return [
        f"{one['id']}: {node['html']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.fixture
def looked_at(visit: Visit) -> Visit:
    visit.page.add_init_script(path=AXE)
    return visit


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_with_all_panels_filled_has_no_serious_violation(
    looked_at: Visit, scheme: Any, width: int
) -> None:
    told_drift(looked_at, DRIFTING)
    looked_at.page.emulate_media(color_scheme=scheme)
    looked_at.page.set_viewport_size({"width": width, "height": 800})
    page = open_page(looked_at, "/#/worn/1/bn1/7")
    page.get_by_label("Choose an image").set_input_files(DIGITS[:2])
    expect(page.locator("#sample .shift").first).to_be_visible()
    expect(page.locator("#diagnosis table")).to_be_visible()
    expect(page.locator("#live dl")).to_be_visible()
    expect(detail(page, "bn1").get_by_role("region", name="Live rows at this norm")).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    for choice in ("flags", "drift", "sample"):
        page.get_by_label("Coloured by").select_option(choice)
        assert violations(page) == [], choice
    page.locator("#detail [popovertarget=meaning-eps]").click()
    assert violations(page) == []


def test_page_that_asks_for_a_key_has_no_serious_violation(looked_at: Visit) -> None:
    looked_at.expected = ("status of 401",)
    refusal = {"title": "Unauthorized", "detail": "a key is needed"}
    looked_at.page.route("**/v1/**", lambda route: route.fulfill(status=401, json=refusal))
    looked_at.page.goto("/")
    expect(looked_at.page.get_by_role("dialog")).to_be_visible()
    assert violations(looked_at.page) == []
    looked_at.page.get_by_role("button", name="Not now").click()
    expect(looked_at.page.get_by_role("alert")).to_be_visible()
    assert violations(looked_at.page) == []


def test_axe_would_find_one(looked_at: Visit) -> None:
    page = open_page(looked_at)
    page.evaluate("document.querySelector('#colouring').labels[0].remove()")
    assert any(found.startswith("select-name") for found in violations(page))


def test_every_term_on_the_page_has_a_meaning_in_a_sentence(visit: Visit) -> None:
    told_drift(visit, DRIFTING)
    page = open_page(visit, "/#/worn/1/bn4")
    expect(page.locator("#live dl")).to_be_visible()
    page.locator("#choice select").select_option("flags")
    names = set(
        page.locator("[popovertarget]").evaluate_all(
            "terms => terms.map(term => term.getAttribute('popovertarget'))"
        )
    )
    assert len(names) >= 18
    for name in names:
        meaning = page.locator(f"#{name}")
        assert (meaning.locator("p").text_content() or "").rstrip().endswith("."), name
        assert meaning.locator("math").count() == (name not in IN_WORDS), name
