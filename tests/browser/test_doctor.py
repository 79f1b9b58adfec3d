"""The check of the preprocessing, of one image or several."""

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, expect

from .conftest import Visit
from .parts import DIGITS, open_page, shown

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

FAULT: dict[str, Any] = {
    "model": "digits",
    "version": 1,
    "images": 3,
    "verdict": "fault",
    "fault": "inverted",
    "meaning": "Turned to their negative the images fit the first norms 20 times better than as configured.",
    "variants": [
        {"name": "inverted", "meaning": "The network was trained on the negative.", "score": 0.11},
        {"name": "as configured", "meaning": "The preprocessing in model.toml.", "score": 2.2},
        {"name": "divided by 255", "meaning": "Pixels are not divided by 255.", "score": 9.8},
    ],
}


def told_diagnosis(visit: Visit, report: dict[str, Any]) -> None:
    visit.page.route("**/doctor", lambda route: route.fulfill(json=report))


def verdict(page: Page) -> Locator:
    return page.locator("#diagnosis")


def is_question(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/doctor")


def test_several_images_are_looked_at_together_and_the_fault_is_named(visit: Visit) -> None:
    told_diagnosis(visit, FAULT)
    page = open_page(visit)
    files: Any = [
        {"name": image.name, "mimeType": "image/png", "buffer": image.read_bytes()} for image in DIGITS[:3]
    ]
    with page.expect_request(is_question) as sent:
        page.get_by_label("Choose an image").set_input_files(files)
    body = sent.value.post_data_buffer or b""
    assert body.count(b'name="images"') == 3
    assert all(image.read_bytes() in body for image in DIGITS[:3])
    expect(page.locator("#several")).to_have_text("The first of 3 images")
    expect(page.locator("#answer .label").first).to_have_text(DIGITS[0].stem.partition("_")[0])
    expect(verdict(page).get_by_role("heading")).to_have_text("A likely fault: inverted")
    for words in (FAULT["meaning"], "From 3 images.", "Drop 16 or more"):
        expect(verdict(page)).to_contain_text(words)


def test_variants_are_listed_with_their_distances_best_first(visit: Visit) -> None:
    told_diagnosis(visit, FAULT)
    page = open_page(visit)
    page.get_by_label("Choose an image").set_input_files(DIGITS[0])
    page.get_by_role("button", name="Check preprocessing").click()
    rows = verdict(page).get_by_role("row")
    expect(rows).to_have_count(1 + len(FAULT["variants"]))
    for row, variant in zip(rows.all()[1:], FAULT["variants"], strict=True):
        expect(row.get_by_role("rowheader")).to_have_text(variant["name"])
        assert shown(row.locator(".number")) == variant["score"]
        expect(row).to_contain_text(variant["meaning"])
    widths = (
        verdict(page)
        .locator(".bar")
        .evaluate_all("bars => bars.map(bar => bar.firstChild.offsetWidth / bar.offsetWidth)")
    )
    assert widths == pytest.approx([0.11 / 9.8, 2.2 / 9.8, 1], abs=0.02)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_another_image_takes_the_verdict_away(visit: Visit) -> None:
    told_diagnosis(visit, {**FAULT, "verdict": "fits", "fault": None})
    page = open_page(visit)
    page.get_by_label("Choose an image").set_input_files(DIGITS[0])
    page.get_by_role("button", name="Check preprocessing").click()
    expect(verdict(page).get_by_role("heading")).to_have_text("The preprocessing fits")
    page.get_by_label("Choose an image").set_input_files(DIGITS[-1])
    expect(verdict(page)).to_be_hidden()


def test_check_that_is_refused_is_told_and_the_prediction_stands(visit: Visit) -> None:
    visit.expected = ("status of 413",)
    refusal = {"title": "Too Large", "status": 413, "detail": "the body is larger than 32 MiB"}
    visit.page.route("**/doctor", lambda route: route.fulfill(status=413, json=refusal))
    page = open_page(visit)
    page.get_by_label("Choose an image").set_input_files(DIGITS[:2])
    expect(verdict(page)).to_contain_text("could not be checked. The body is larger than 32 MiB.")
    expect(page.locator("#answer .label").first).to_be_visible()
