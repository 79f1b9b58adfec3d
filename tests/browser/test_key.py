"""A server that asks for a key: the page asks its reader, and keeps the answer to itself."""

import pytest
from playwright.sync_api import Page, Route, expect

from .conftest import Visit
from .parts import DIGITS, strip

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

KEY = "a-key-of-some-length"
REFUSAL = {"type": "unauthorized", "title": "Unauthorized", "status": 401, "detail": "a key is needed"}


def guarded(visit: Visit) -> Page:
    """The page of a server behind a gate that asks for the key on every route but those of the page."""

    def gate(route: Route) -> None:
        if route.request.headers.get("authorization") == f"Bearer {KEY}":
            route.fallback()
        else:
            route.fulfill(status=401, json=REFUSAL, headers={"WWW-Authenticate": "Bearer"})

    visit.expected = ("status of 401",)
    visit.page.route("**/v1/**", gate)
    visit.page.route("**/metrics", gate)
    visit.page.goto("/")
    return visit.page


def give(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_label("Key").press("Enter")


def test_key_opens_everything_and_is_kept_in_memory_alone(visit: Visit) -> None:
    page = guarded(visit)
    expect(page.get_by_role("dialog")).to_contain_text("A key is needed.")
    give(page, KEY)
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(strip(page).get_by_role("link")).to_have_count(5)
    page.get_by_label("Choose an image").set_input_files(DIGITS[0])
    expect(page.locator("#answer .label").first).to_have_text(DIGITS[0].stem.partition("_")[0])
    expect(page.locator("#live dl")).to_be_visible()
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    )
    assert KEY not in kept
    assert KEY not in page.content()
    page.reload()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_wrong_key_is_asked_for_again(visit: Visit) -> None:
    page = guarded(visit)
    give(page, "a-wrong-key")
    expect(page.get_by_role("dialog")).to_contain_text("That key was refused.")
    give(page, KEY)
    expect(strip(page).get_by_role("link")).to_have_count(5)


def test_reader_without_a_key_is_left_alone_and_may_give_one_later(visit: Visit) -> None:
    page = guarded(visit)
    page.get_by_role("button", name="Not now").click()
    expect(page.get_by_role("alert")).to_contain_text("A key is needed")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Key", exact=True).click()
    give(page, KEY)
    expect(strip(page).get_by_role("link")).to_have_count(5)
    expect(page.get_by_role("alert")).to_be_hidden()
