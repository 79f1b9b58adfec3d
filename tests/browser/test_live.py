"""The live panel: what a running server answers while somebody looks at it."""

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Visit
from .parts import DIGITS, open_page

pytestmark = [pytest.mark.browser, pytest.mark.e2e]


def number(page: Page, name: str) -> Locator:
    """The value of one of the panel's numbers."""
    return page.locator("#live dl > div").filter(has_text=name).locator("dd").first


def send(server: str, rows: int, model: str = "digits") -> None:
    """Send that many images, in one request."""
    image = ("digit.png", DIGITS[0].read_bytes(), "image/png")
    files = [("images", image) for _ in range(rows)]
    httpx.post(f"{server}/v1/models/{model}/predict", files=files, timeout=60).raise_for_status()


def test_rows_requests_latency_and_batches_are_shown_as_they_happen(visit: Visit) -> None:
    page = open_page(visit)
    expect(number(page, "rows per second")).to_have_text("0")
    expect(number(page, "median")).to_have_text("–")
    send(visit.server, 16)
    expect(number(page, "rows in a batch")).to_have_text("16")
    charts = page.locator("#live").get_by_role("img")
    expect(charts.nth(2)).to_have_attribute("aria-label", "Batches by their rows: 1 up to 16")
    expect(charts.nth(0)).to_have_attribute("aria-label", "Throughput: now 0 rows and 0 requests per second")


def test_rates_are_of_the_last_seconds(visit: Visit) -> None:
    page = open_page(visit)
    expect(number(page, "rows per second")).to_have_text("0")
    for _ in range(4):
        send(visit.server, 2)
    rows = number(page, "rows per second")
    expect(rows).not_to_have_text("0")
    quick = page.evaluate(
        "() => [...document.querySelectorAll('#live dd')].slice(0, 5).map(value => value.textContent)"
    )
    assert float(quick[0]) == pytest.approx(2 * float(quick[1]), rel=0.02)
    assert quick[3].endswith(" ms")
    expect(rows).to_have_text("0")
    expect(number(page, "median")).to_have_text("–")


def test_another_models_rows_are_not_counted(visit: Visit) -> None:
    page = open_page(visit, "/#/worn/1")
    expect(number(page, "rows per second")).to_have_text("0")
    send(visit.server, 8, "digits")
    send(visit.server, 4, "worn")
    expect(number(page, "rows in a batch")).to_have_text("4")
    expect(page.locator("#live").get_by_role("img").nth(2)).to_have_attribute(
        "aria-label", "Batches by their rows: 1 up to 4"
    )


def test_metrics_that_do_not_come_are_told_in_the_panel(visit: Visit) -> None:
    visit.expected = ("net::ERR_FAILED",)
    page = open_page(visit)
    page.route("**/metrics", lambda route: route.abort())
    expect(page.locator("#live")).to_contain_text("Nothing new is known: the server does not answer.")
    page.unroute("**/metrics")
    expect(page.locator("#live .refusal")).to_be_hidden()
