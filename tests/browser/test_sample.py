"""The tried image, norm by norm: what the page shows of it, and what the server says."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import PATIENCE, Visit
from .parts import DIGITS, detail, open_page, strip
from .test_strip import DRIFTING, coloured_by, told_drift

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ODD = DIGITS[3]


def measured(server: str, model: str = "digits") -> dict[str, Any]:
    """What the server says of the image `ODD`."""
    address = f"{server}/v1/models/{model}/versions/1/drift"
    answer = httpx.post(
        address, content=ODD.read_bytes(), headers={"Content-Type": "image/png"}, timeout=PATIENCE
    )
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def tried(page: Page) -> Locator:
    """The panel of the image's shift, filled."""
    page.get_by_label("Choose an image").set_input_files(ODD)
    panel = page.get_by_role("region", name="How far it lies from what the norms know")
    expect(panel.get_by_role("listitem").first).to_be_visible()
    return panel


def multiples(panel: Locator) -> dict[str, str]:
    """Of each norm, what stands behind its bar."""
    return {
        line.locator(".label").text_content() or "": (line.locator(".number").text_content() or "").split()[0]
        for line in panel.get_by_role("listitem").all()
    }


def test_each_norm_tells_how_far_the_image_is_in_times_of_what_is_typical(visit: Visit) -> None:
    panel = tried(open_page(visit))
    layers = measured(visit.server)["layers"]
    assert len(layers) == 4
    shown = multiples(panel)
    assert list(shown) == [layer["name"] for layer in layers]
    for layer in layers:
        expected = layer["score"] / layer["typical"]
        assert float(shown[layer["name"]]) == pytest.approx(expected, rel=0.01, abs=0.006)
    widths = panel.locator(".shift").evaluate_all(
        "bars => bars.map(bar => bar.children[0].offsetWidth + bar.children[1].offsetWidth)"
    )
    times = [layer["score"] / layer["typical"] for layer in layers]
    assert [width / max(widths) for width in widths] == pytest.approx(
        [one / max(times) for one in times], abs=0.02
    )


def test_norm_of_the_image_opens_with_its_channels_and_their_distribution(visit: Visit) -> None:
    page = open_page(visit)
    panel = tried(page)
    panel.get_by_role("link", name="bn2").click()
    opened = detail(page, "bn2")
    expect(opened.get_by_role("heading", name="bn2")).to_be_focused()
    expect(panel.get_by_role("link", name="bn2")).to_have_attribute("aria-current", "true")
    here = opened.get_by_role("region", name="The tried image at this norm")
    worst = next(layer for layer in measured(visit.server)["layers"] if layer["name"] == "bn2")["worst"]
    channels = here.get_by_role("rowheader").all_text_contents()
    assert channels == [str(one["channel"]) for one in worst]
    here.get_by_role("button", name=channels[1], exact=True).click()
    expect(opened.get_by_label("Channel", exact=True)).to_have_value(channels[1])
    expect(
        here.get_by_role("img", name=f"Channel {channels[1]}, in deviations of the baseline")
    ).to_be_visible()


def test_strip_may_be_coloured_by_the_image(visit: Visit) -> None:
    page = open_page(visit)
    expect(coloured_by(page).locator("option[value=sample]")).to_have_count(0)
    tried(page).get_by_role("button", name="Colour the strip by this").click()
    expect(coloured_by(page)).to_have_value("sample")
    layers = {layer["name"]: layer["score"] / layer["typical"] for layer in measured(visit.server)["layers"]}
    pieces = {
        piece.get_attribute("data-norm") or "": piece for piece in strip(page).get_by_role("link").all()
    }
    expect(pieces.pop("bn3")).to_contain_text("not known")  # the middle third is not looked at
    depths = {
        name: piece.evaluate("piece => parseFloat(piece.style.getPropertyValue('--depth'))")
        for name, piece in pieces.items()
    }
    assert sorted(depths, key=depths.__getitem__) == sorted(depths, key=layers.__getitem__)
    for name, piece in pieces.items():
        expect(piece).to_contain_text("× typical")
        assert depths[name] > 0


def test_another_model_is_asked_of_the_same_image(visit: Visit) -> None:
    page = open_page(visit)
    panel = tried(page)
    page.get_by_role("link", name="worn").click()
    expect(panel.get_by_role("link", name="bn2")).to_have_attribute("href", "#/worn/1/bn2")
    expect(panel).to_contain_text("from training")  # it has no baseline
    expect(panel.locator("strong")).to_have_text(
        max(measured(visit.server, "worn")["layers"], key=lambda layer: layer["score"])["name"]
    )


def test_prediction_stands_where_drift_is_off_and_the_page_says_so(visit: Visit) -> None:
    told_drift(visit, {**DRIFTING, "state": "off", "meaning": "Nothing is looked at.", "layers": []})
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    page = open_page(visit)
    page.get_by_label("Choose an image").set_input_files(ODD)
    expect(page.locator("#sample")).to_contain_text("Drift is off")
    expect(page.locator("#answer .label").first).to_be_visible()
    expect(page.get_by_role("button", name="Check preprocessing")).to_be_hidden()
    assert not [address for address in asked if address.startswith("POST") and address.endswith("/drift")]


def test_prediction_stands_where_the_norms_cannot_be_asked(visit: Visit) -> None:
    visit.expected = ("status of 429",)
    refusal = {"title": "Too Many Requests", "status": 429, "detail": "the queue is full"}
    visit.page.route("**/versions/1/drift", lambda route: route.fulfill(status=429, json=refusal))
    page = open_page(visit)
    page.get_by_label("Choose an image").set_input_files(ODD)
    expect(page.locator("#sample")).to_contain_text("Its shift at the norms is not known. The queue is full.")
    expect(page.locator("#answer .label").first).to_be_visible()
    expect(coloured_by(page).locator("option[value=sample]")).to_have_count(0)
