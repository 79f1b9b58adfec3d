"""A server that ends and starts again below an open page."""

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.server import Server, free_port

from .conftest import Visit
from .parts import DIGITS, open_page, strip

pytestmark = [pytest.mark.browser, pytest.mark.e2e]


def test_page_finds_a_server_that_was_started_again(browser: Browser) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with browser.new_context(base_url=address) as context:
        visit = Visit(context.new_page(), address, expected=("net::ERR_", "status of 503"))
        with Server.start(port=port) as first:
            page = open_page(visit)
            expect(page.get_by_role("status").first).to_have_text("ready")
            assert first.stop() == 0
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        expect(page.locator("#live")).to_contain_text("Nothing new is known")
        expect(strip(page).get_by_role("link")).to_have_count(5)
        with Server.start(port=port):
            expect(page.get_by_role("alert")).to_be_hidden()
            expect(page.get_by_role("status").first).to_have_text("ready")
            page.get_by_label("Choose an image").set_input_files(DIGITS[0])
            expect(page.locator("#answer .label").first).to_have_text(DIGITS[0].stem.partition("_")[0])
            expect(page.locator("#live .refusal")).to_be_hidden()
        assert visit.unexpected() == []
