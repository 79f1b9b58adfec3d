"""A network of 264 norms, as many as the largest usual ones have."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import Visit
from .parts import DIGITS, detail, open_page, strip, told

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

COUNT = 264
SICK = 131
FLAG = {
    "flag": "non_finite",
    "level": "error",
    "channels": [3],
    "count": 1,
    "value": 1.0,
    "limit": 0.0,
    "message": "NaN, infinity or a negative variance in 1 channel",
}


@pytest.fixture
def crowded(visit: Visit) -> Visit:
    """The page of a network of 264 norms, of which one is sick and has numbers that JSON does not know."""
    layers = told(visit.server, "/v1/models/digits/layers")
    known = layers["layers"]
    many = [{**known[i % 5], "name": known[i % 5]["name"] + i // 5 * "'"} for i in range(COUNT)]
    broken = {name: dict.fromkeys(("min", "max", "mean", "std")) for name in ("running_mean", "shift")}
    many[SICK] = {**many[SICK], **broken, "flags": [FLAG], "folding_error": None}
    visit.page.route("**/layers?*", lambda route: route.fulfill(json={**layers, "layers": many}))
    visit.expected = ("404",)  # live rows of norms that the server has never heard of
    return visit


def test_the_one_sick_norm_is_seen_and_reached_at_once(crowded: Visit) -> None:
    page = open_page(crowded)
    pieces = strip(page).get_by_role("link")
    expect(pieces).to_have_count(COUNT)
    sick = strip(page).locator("[data-tint=flag-error]")
    expect(sick).to_have_count(1)
    expect(page.locator("#alarms")).to_contain_text("1 norm with an error")
    page.get_by_role("list", name="What the colours mean").get_by_role("button", name="1 error").press(
        "Enter"
    )
    expect(sick).to_be_focused()
    for choice in ("running_mean", "folding_error", "outcome"):
        page.get_by_label("Coloured by").select_option(choice)
    expect(page.locator("#table").get_by_role("row")).to_have_count(COUNT + 1)


def test_strip_and_table_of_many_norms_stay_small_enough_to_be_quick(crowded: Visit) -> None:
    page = open_page(crowded)
    expect(strip(page).get_by_role("link")).to_have_count(COUNT)
    assert page.evaluate("document.querySelectorAll('*').length") < 25_000
    assert page.evaluate("document.documentElement.scrollHeight") < 6_000
    expect(detail(page, "bn1")).to_be_visible()


def test_tried_image_is_a_column_for_each_norm_with_the_farthest_named(crowded: Visit) -> None:
    names = [f"bn{i % 5 + 1}" + i // 5 * "'" for i in range(COUNT)]
    moved = [{"channel": 3, "delta": -1.5, "lambda": 0.0}]
    layers = [
        {"name": name, "part": "input", "score": 0.1 + 0.01 * (i % 7), "typical": 0.1, "worst": moved}
        for i, name in enumerate(names)
    ]
    layers[SICK]["score"] = 0.8
    report = {"model": "digits", "version": 1, "reference": "baseline", "layers": layers}
    crowded.page.route("**/versions/1/drift", lambda route: route.fulfill(json=report))
    page = open_page(crowded)
    page.get_by_label("Choose an image").set_input_files(DIGITS[0])
    panel = page.locator("#sample")
    expect(panel).to_contain_text(f"Farthest at {names[SICK]}, 8 times as far off")
    expect(panel).to_contain_text("channel 3: its mean lies 1.5 deviations lower, its variance is 1 times")
    farthest = panel.get_by_role("list", name="Shift of this image at each norm").get_by_role("link")
    expect(farthest).to_have_count(5)
    expect(farthest.first).to_have_attribute("data-norm", names[SICK])
    chart = panel.get_by_role("img", name=f"Shift of this image at each of {COUNT} norms")
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * (SICK + 0.5) / COUNT, box["y"] + box["height"] / 2)
    expect(page).to_have_url(re.compile(f"/{names[SICK][:3]}('|%27)+$"))
