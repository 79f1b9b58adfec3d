"""The pictures of the page in docs/: page_pictures.py ADDRESS.

The server serves the shipped model with a baseline, which `foldserve calibrate digits` records, and looks at
rows often enough that a window is judged in a minute: `foldserve serve --baselines DIR --drift-share 0.3`.
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx
import numpy as np
from PIL import Image, ImageOps
from playwright.sync_api import Page, expect, sync_playwright

from service.training.split import digits_split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import FilePayload, FloatRect

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "tests" / "digits"
WIDE = 1280
AIR = 12  # pixels around a panel
CLIENTS = 5  # addresses of this machine: one client's rows fill a quarter of a window at most
SECONDS = 24  # of traffic, so that the live panel has something to show
PATIENCE_S = 300
COLOURS = 256  # of a picture, so that it is small
PANELS = ("models", "try", "strip", "live", "table")


def traffic(address: str, ended: threading.Event) -> None:
    """Requests of 1 to 16 held-out digits, from several addresses, until it has ended."""
    random, pixels = np.random.default_rng(0), digits_split().held_out_pixels.numpy()
    for client in clients(address):
        if ended.wait(0.05):
            return
        rows = pixels[random.integers(0, len(pixels), random.integers(1, 17))]
        octets = {"Content-Type": "application/octet-stream"}
        client.post("/v1/models/digits/predict?dtype=uint8", content=rows.tobytes(), headers=octets)


def clients(address: str) -> Iterator[httpx.Client]:
    """Clients of different addresses, round and round."""
    transports = [httpx.HTTPTransport(local_address=f"127.0.0.{2 + i}") for i in range(CLIENTS)]
    opened = [httpx.Client(base_url=address, transport=one, timeout=PATIENCE_S) for one in transports]
    while True:
        yield from opened


def digits(*, is_negative: bool) -> list[FilePayload]:
    """Sixteen digits as files, as they are or as nobody trained on them."""
    found: list[FilePayload] = []
    for path in sorted(DIGITS.glob("*.png"))[::2][:16]:
        file, image = io.BytesIO(), Image.open(path)
        (ImageOps.invert(image) if is_negative else image).save(file, "PNG")
        found.append({"name": path.name, "mimeType": "image/png", "buffer": file.getvalue()})
    return found


def fill(page: Page, address: str, scheme: Literal["light", "dark"], images: list[FilePayload]) -> None:
    """Open a norm, try images, and wait for what the doctor and live rows come to, and for some traffic."""
    page.emulate_media(color_scheme=scheme)
    page.goto("about:blank")
    page.goto(f"{address}/#/digits/1/bn1/16")
    page.get_by_label("Choose an image").set_input_files(images)
    expect(page.locator("#diagnosis table")).to_be_visible()
    expect(page.get_by_role("region", name="Live rows at this norm")).to_be_visible()
    page.wait_for_timeout(1000 * SECONDS)


def write(name: str, picture: bytes) -> None:
    """Write a picture to docs/, with few colours."""
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    few = whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(ROOT / "docs" / f"page-{name}.png", optimize=True)


def around(page: Page, selector: str) -> FloatRect:
    """Where an element is on the page, and a little of the ground around it."""
    at = page.locator(selector).evaluate(
        "element => { const {x, y, width, height} = element.getBoundingClientRect();"
        " return [x + scrollX, y + scrollY, width, height]; }"
    )
    x, y, width, height = at
    return {"x": x - AIR, "y": y - AIR, "width": width + 2 * AIR, "height": height + 2 * AIR}


def take(page: Page, address: str) -> None:
    page.set_default_timeout(1000 * PATIENCE_S)
    expect.set_options(timeout=1000 * PATIENCE_S)
    fill(page, address, "light", digits(is_negative=True))
    for name in PANELS:
        write(name, page.screenshot(full_page=True, clip=around(page, f"main > section:has(> #{name})")))
    bottom = page.locator("#strip").evaluate("strip => strip.getBoundingClientRect().bottom + scrollY")
    clip: FloatRect = {"x": 0, "y": 0, "width": WIDE, "height": bottom + 24}
    write("light", page.screenshot(full_page=True, clip=clip))
    fill(page, address, "dark", digits(is_negative=False))
    write("dark", page.screenshot(full_page=True))
    page.set_viewport_size({"width": 360, "height": 740})
    write("narrow", page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 360, "height": 1900}))


def main(address: str) -> None:
    ended = threading.Event()
    sender = threading.Thread(target=traffic, args=(address, ended))
    sender.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            take(browser.new_page(viewport={"width": WIDE, "height": 900}), address)
            browser.close()
    finally:
        ended.set()
        sender.join()


if __name__ == "__main__":
    main(sys.argv[1])
