"""The charts of a norm: their pixels against the numbers of the server."""

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.e2e.server import until

from .conftest import Visit
from .parts import VECTORS, detail, open_page, told

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

PLOTTED = """(chart, name) => {
  const [canvas, over] = [chart.querySelector("canvas"), chart.querySelector(".u-over")];
  const times = canvas.width / canvas.clientWidth;
  const sides = [over.offsetLeft, over.offsetTop, over.clientWidth, over.clientHeight];
  const box = sides.map((side) => Math.round(side * times));
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue(`--${name}`).match(/\\d+/g).map(Number);
  const {data} = canvas.getContext("2d").getImageData(...box);
  const isInked = (at) => data[at + 3] > 200 && [0, 1, 2].every((i) => Math.abs(data[at + i] - ink[i]) < 30);
  const marks = Array.from({length: box[2] * box[3]}, (_, pixel) => (isInked(4 * pixel) ? "1" : "0"));
  return {marks: marks.join(""), width: box[2], height: box[3]};
}"""


def inked(chart: Locator, colour: str) -> np.ndarray:
    """Where the plotted part of a chart has a colour of the page: bool `[H, W]`."""
    expect(chart.locator(".u-over")).to_be_visible()
    drawn: dict[str, Any] = chart.evaluate(PLOTTED, colour)
    marks = np.frombuffer(drawn["marks"].encode(), np.uint8) == ord("1")
    near: np.ndarray = marks.reshape(drawn["height"], drawn["width"])
    return near


def places(pixels: np.ndarray, count: int, reach: int) -> list[np.ndarray]:
    """The columns around the middles of `count` equal parts, so many to both sides."""
    middles = ((np.arange(count) + 0.5) / count * pixels.shape[1]).astype(int)
    return [pixels[:, middle - reach : middle + reach + 1] for middle in middles]


def test_bars_of_a_histogram_are_as_high_as_the_counts(visit: Visit) -> None:
    page = open_page(visit, "/#/digits/1/bn3")
    histograms = told(visit.server, "/v1/models/digits/layers/bn3")["histograms"]
    for vector in VECTORS:
        counts = np.array(histograms[vector]["counts"])
        bars = inked(detail(page, "bn3").locator(f"figure[data-quantity={vector}] .chart"), "accent")
        heights = np.array([part.sum(axis=0).max() for part in places(bars, len(counts), 2)])
        assert heights[counts == 0].max(initial=0) <= 2, vector
        assert heights / heights.max() == pytest.approx(counts / counts.max(), abs=0.04), vector


def test_chosen_channel_is_marked_in_every_histogram(visit: Visit) -> None:
    page = open_page(visit, "/#/digits/1/bn3/21")
    layer = told(visit.server, "/v1/models/digits/layers/bn3")
    for vector in VECTORS:
        figure = detail(page, "bn3").locator(f"figure[data-quantity={vector}]")
        marked = inked(figure.locator(".chart"), "warm").sum(axis=0)
        edges = layer["histograms"][vector]["edges"]
        place = (layer["vectors"][vector][21] - edges[0]) / (edges[-1] - edges[0])
        assert marked.argmax() / len(marked) == pytest.approx(place, abs=0.015), vector


def test_profile_has_a_point_for_every_channel_at_its_value(visit: Visit) -> None:
    page = open_page(visit, "/#/digits/1/bn5/63")
    opened = detail(page, "bn5")
    opened.get_by_label("Over all channels").select_option("shift")
    chart = opened.get_by_role("img", name="shift, for each of 64 channels")
    points = inked(chart, "accent")
    values = np.array(told(visit.server, "/v1/models/digits/layers/bn5")["vectors"]["shift"])
    rows = np.arange(points.shape[0])[:, None]
    drawn = [part for part in places(points, len(values), 3) if part.any()]
    assert len(drawn) >= len(values) - 1  # the mark crosses the last
    heights = [-(part * rows).sum() / part.sum() for part in drawn]
    assert np.corrcoef(heights[:63], values[:63])[0, 1] > 0.999


def test_channel_may_be_chosen_in_the_profile(visit: Visit) -> None:
    page = open_page(visit, "/#/digits/1/bn1")
    opened = detail(page, "bn1")
    plotted = opened.locator(".profile .u-over")
    plotted.scroll_into_view_if_needed()
    box = plotted.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * 17.5 / 32, box["y"] + box["height"] / 2)
    expect(opened.get_by_label("Channel", exact=True)).to_have_value("17")
    expect(opened.get_by_label("Channel, as a slider")).to_have_value("17")
    expect(opened).to_contain_text("bn1, channel 17")
    marked = inked(opened.locator(".profile .chart"), "warm").sum(axis=0)
    assert marked.argmax() / len(marked) == pytest.approx(17.5 / 32, abs=0.01)


def test_charts_follow_the_readers_colours_and_width(visit: Visit) -> None:
    visit.expected = ("willReadFrequently",)  # it is the test that reads
    page = open_page(visit)
    chart = detail(page, "bn1").locator("figure[data-quantity=scale] .chart")
    page.emulate_media(color_scheme="light")
    light = inked(chart, "accent").mean()
    page.emulate_media(color_scheme="dark")
    until(lambda: inked(chart, "accent").any())
    assert inked(chart, "accent").mean() == pytest.approx(light, rel=0.1)
    page.set_viewport_size({"width": 360, "height": 740})
    expect(chart.locator("canvas")).to_be_visible()
    page.wait_for_function(
        "chart => Math.abs(chart.querySelector('.uplot').clientWidth - chart.clientWidth) <= 1",
        arg=chart.element_handle(),
    )
    assert inked(chart, "accent").mean() == pytest.approx(light, rel=0.25)
