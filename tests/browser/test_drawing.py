"""The drawing pad, for models that take one small channel."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, expect

from .conftest import Visit
from .parts import open_page, told

pytestmark = [pytest.mark.browser, pytest.mark.e2e]


def draw(page: Page, *points: tuple[float, float]) -> None:
    """A stroke through points, in shares of the pad."""
    pad = page.get_by_role("img", name="Drawing pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def is_prediction(request: Request) -> bool:
    return request.url.endswith("predict?top_k=5")


def test_stroke_is_sent_as_an_image_of_the_inputs_size_and_named(visit: Visit) -> None:
    page = open_page(visit)
    page.route(re.compile("predict"), lambda route: route.continue_())  # else its body is not told
    with page.expect_request(is_prediction) as sent:
        draw(page, (0.55, 0.1), (0.55, 0.9))
    body = sent.value.post_data_buffer
    assert body
    image = Image.open(io.BytesIO(body))
    assert image.size == (8, 8)
    pixels = np.asarray(image.convert("L"))
    assert pixels[2:6].argmax(axis=1).tolist() == [4] * 4
    assert pixels[:, :2].max() == pixels[:, 6:].max() == 0
    expect(page.locator("#answer .label")).to_have_count(5)
    expect(page.locator("#answer .label").first).to_have_text("1")


def test_pad_is_black_again_when_it_is_cleared(visit: Visit) -> None:
    page = open_page(visit)
    brightest = """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
      .data.reduce((most, value, i) => (i % 4 < 3 ? Math.max(most, value) : most), 0)"""
    pad = page.get_by_role("img", name="Drawing pad")
    draw(page, (0.2, 0.2), (0.8, 0.8))
    assert pad.evaluate(brightest) == 255
    page.get_by_role("button", name="Clear").click()
    assert pad.evaluate(brightest) == 0


def test_model_of_large_or_coloured_images_has_no_pad(visit: Visit) -> None:
    models = told(visit.server, "/v1/models")
    for model, shape in zip(models["models"], ([3, 8, 8], [1, 224, 224]), strict=True):
        model["input_shape"] = shape
    visit.page.route("**/v1/models", lambda route: route.fulfill(json=models))
    page = open_page(visit)
    expect(page.locator("#models")).to_contain_text("3 × 8 × 8")
    expect(page.locator("#drawing")).to_be_hidden()
    page.get_by_role("link", name="worn").click()
    expect(page).to_have_url(f"{visit.server}/#/worn/1")
    expect(page.locator("#drawing")).to_be_hidden()
