"""The check of the preprocessing, of one image or several."""

import io
from typing import Any

import httpx
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Locator, Page, expect

from .conftest import PATIENCE, Visit
from .parts import DIGITS, open_page, shown

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

SIXTEEN = [path.read_bytes() for path in DIGITS[::2][:16]]


def negative(image: bytes) -> bytes:
    file = io.BytesIO()
    ImageOps.invert(Image.open(io.BytesIO(image))).save(file, "PNG")
    return file.getvalue()


def choose(page: Page, images: list[bytes]) -> None:
    files: Any = [
        {"name": f"{i}.png", "mimeType": "image/png", "buffer": image} for i, image in enumerate(images)
    ]
    page.get_by_label("Choose an image").set_input_files(files)


def diagnosed(server: str, images: list[bytes]) -> dict[str, Any]:
    """What the server says."""
    files = [("images", ("digit.png", image, "image/png")) for image in images]
    answer = httpx.post(f"{server}/v1/models/digits/doctor", files=files, timeout=PATIENCE)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def verdict(page: Page) -> Locator:
    return page.locator("#diagnosis:not([aria-busy])")


def test_fault_of_several_images_is_named_with_what_to_change(visit: Visit) -> None:
    images = [negative(image) for image in SIXTEEN]
    page = open_page(visit)
    choose(page, [*images, images[0]])
    expect(verdict(page).get_by_role("heading")).to_have_text("A likely fault: inversion")
    said = diagnosed(visit.server, images)
    expect(verdict(page)).to_contain_text(said["meaning"])
    expect(verdict(page).locator("pre")).to_have_text("\n".join(["[input]", *said["fix"]]))
    expect(verdict(page)).to_contain_text("From 16 images.")
    expect(page.locator("[aria-live]").filter(has_text="A likely fault: inversion")).to_have_count(1)
    expect(page.locator("#several")).to_have_text("The first of 17 images, of which 16 are looked at")
    rows = verdict(page).get_by_role("row").all()[1:]
    assert len(rows) == len(said["variants"])
    for row, variant in zip(rows, said["variants"], strict=True):
        expect(row.get_by_role("rowheader")).to_have_text(variant["name"])
        assert shown(row.locator(".number")) == pytest.approx(variant["score"], rel=0.01)
        expect(row).to_contain_text(variant["meaning"])
    widths = (
        verdict(page)
        .locator(".bar")
        .evaluate_all("bars => bars.map(bar => bar.firstChild.offsetWidth / bar.offsetWidth)")
    )
    most = said["variants"][-1]["score"]
    assert widths == pytest.approx([one["score"] / most for one in said["variants"]], abs=0.02)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_preprocessing_that_fits_is_said_to(visit: Visit) -> None:
    page = open_page(visit)
    choose(page, SIXTEEN)
    expect(verdict(page).get_by_role("heading")).to_have_text("The preprocessing fits")
    expect(verdict(page).locator("tr[data-kind=configured]")).to_contain_text("as configured")
    expect(verdict(page).locator("pre")).to_have_count(0)


def test_one_image_is_looked_at_when_the_reader_asks_until_there_is_another(visit: Visit) -> None:
    page = open_page(visit)
    check = page.get_by_role("button", name="Check preprocessing")
    expect(check).to_be_hidden()
    choose(page, SIXTEEN[:1])
    expect(check).to_be_visible()
    expect(verdict(page)).to_be_hidden()
    check.click()
    expect(verdict(page)).to_contain_text("From 1 image. 16 or more at once make it surer.")
    choose(page, SIXTEEN[1:2])
    expect(verdict(page)).to_be_hidden()


def test_check_that_is_refused_is_told_and_the_prediction_stands(visit: Visit) -> None:
    visit.expected = ("status of 429",)
    refusal = {"title": "Too Many Requests", "status": 429, "detail": "the queue is full"}
    visit.page.route("**/doctor", lambda route: route.fulfill(status=429, json=refusal))
    page = open_page(visit)
    choose(page, SIXTEEN[:2])
    expect(verdict(page)).to_contain_text("The preprocessing could not be checked. The queue is full.")
    expect(page.locator("#answer .label").first).to_be_visible()
