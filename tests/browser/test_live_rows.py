"""Live rows at one norm, of a window that the server has judged: over what training left there."""

from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Route, expect

from service.training.split import digits_split
from tests.e2e.server import until

from .conftest import ACCEPTED, PATIENCE, Visit
from .parts import detail, open_page, shown, told
from .test_charts import inked, places

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ROWS = 32


@pytest.fixture(scope="module")
def judged(server: str) -> dict[str, Any]:
    """What the server says once held-out digits that the baseline has not seen filled a window."""
    pixels = digits_split().held_out_pixels[len(ACCEPTED) :].numpy()
    random = np.random.default_rng(0)

    def look() -> dict[str, Any]:
        with httpx.Client(base_url=server, timeout=PATIENCE) as client:
            for _ in range(8):
                rows = pixels[random.integers(0, len(pixels), ROWS)].tobytes()
                client.post(
                    "/v1/models/digits/predict?dtype=uint8",
                    content=rows,
                    headers={"Content-Type": "application/octet-stream"},
                ).raise_for_status()
        report: dict[str, Any] = told(server, "/v1/models/digits/drift")
        return report if report["layers"] else {}

    return until(look)


def test_every_channel_of_the_live_rows_lies_over_what_training_saw(
    visit: Visit, judged: dict[str, Any]
) -> None:
    page = open_page(visit, "/#/digits/1/bn1/5")
    live = detail(page, "bn1").get_by_role("region", name="Live rows at this norm")
    channels = told(visit.server, "/v1/models/digits/drift/bn1")
    frozen = told(visit.server, "/v1/models/digits/layers/bn1")["vectors"]
    assert channels["judged_at"] == judged["judged_at"]
    curves = live.get_by_role("img", name="Channel 5, in the units of the norm’s input")
    words = curves.get_attribute("aria-label") or ""
    for name, mean, variance in (
        ("training", frozen["running_mean"][5], frozen["running_var"][5]),
        ("baseline", channels["reference_mean"][5], channels["reference_var"][5]),
        ("live", channels["mean"][5], channels["var"][5]),
    ):
        told_mean, told_deviation = words.split(f"{name}: mean ")[1].split(";")[0].split(", deviation ")
        numbers = [float(number.replace("−", "-")) for number in (told_mean, told_deviation)]
        assert numbers == pytest.approx([mean, np.sqrt(variance)], rel=0.01), name
    expect(curves).to_be_visible()


def test_live_means_are_drawn_at_their_values_and_lead_to_their_channel(
    visit: Visit, judged: dict[str, Any]
) -> None:
    page = open_page(visit, "/#/digits/1/bn1/31")
    opened = detail(page, "bn1")
    live = opened.get_by_role("region", name="Live rows at this norm")
    live.get_by_label("Channel by channel").select_option("delta")
    chart = live.get_by_role("img", name="Live rows, mean δ, for each of 32 channels")
    points = inked(chart, "accent")
    values = np.array(told(visit.server, "/v1/models/digits/drift/bn1")["delta"])
    rows = np.arange(points.shape[0])[:, None]
    heights = [-(part * rows).sum() / part.sum() for part in places(points, len(values), 3)[:31]]
    assert np.corrcoef(heights, values[:31])[0, 1] > 0.99
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * 17.5 / 32, box["y"] + box["height"] / 2)
    expect(opened.get_by_label("Channel", exact=True)).to_have_value("17")
    expect(live.get_by_role("img", name="Channel 17, in the units")).to_be_visible()


def test_server_that_does_not_tell_all_channels_shows_those_that_moved_most(
    visit: Visit, judged: dict[str, Any]
) -> None:
    visit.expected = ("status of 404",)
    visit.page.route("**/drift/bn1?*", lambda route: route.fulfill(status=404, json={}))
    page = open_page(visit, "/#/digits/1/bn1")
    live = detail(page, "bn1").get_by_role("region", name="Live rows at this norm")
    first = told(visit.server, "/v1/models/digits/drift")["layers"][0]["worst"][0]
    live.get_by_role("button", name=str(first["channel"]), exact=True).click()
    expect(
        live.get_by_role("img", name="in deviations of the baseline’s values. baseline: mean 0")
    ).to_be_visible()
    expect(live.get_by_label("Channel by channel")).to_be_hidden()
    row = live.get_by_role("row").filter(
        has=page.get_by_role("button", name=str(first["channel"]), exact=True)
    )
    assert shown(row.get_by_role("cell").first) == pytest.approx(first["delta"], rel=0.01)


def test_of_a_channel_that_never_varies_no_distribution_is_drawn(
    visit: Visit, judged: dict[str, Any]
) -> None:
    assert judged["layers"]

    def still(route: Route) -> None:
        answer = route.fetch()
        content = answer.json()
        known = content.get("vectors", content)
        for name in {"var", "reference_var", "running_var"} & set(known):
            known[name][5] = 0.0
        route.fulfill(response=answer, json=content)

    visit.page.route("**/bn1?*", still)
    page = open_page(visit, "/#/digits/1/bn1/5")
    live = detail(page, "bn1").get_by_role("region", name="Live rows at this norm")
    expect(live).to_contain_text("Channel 5 does not vary")
    expect(live.get_by_role("img", name="Channel 5,")).to_have_count(0)
