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
from typing import TYPE_CHECKING

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from service.network.training import digits_split

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DIGIT = ROOT / "tests" / "digits" / "3_45.png"
CLIENTS = 5  # addresses of this machine: one client's rows fill a quarter of a window at most
SECONDS = 24  # of traffic, so that the live panel has something to show
PATIENCE_S = 300
COLOURS = 128  # of a picture, so that it is small
PANELS = {
    "models": "#models",
    "try": "#try",
    "norms": "section:has(> #strip)",
    "live": "#live",
    "table": "#table",
}


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


def fill(page: Page, address: str, scheme: str) -> None:
    """Open a norm, try an image, check the preprocessing and wait for what live rows come to."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto("about:blank")
    page.goto(f"{address}/#/digits/1/bn2/21")
    page.get_by_label("Choose an image").set_input_files(DIGIT)
    page.get_by_role("button", name="Check preprocessing").click()
    expect(page.locator("#diagnosis table")).to_be_visible()
    expect(page.get_by_role("region", name="Live rows at this norm")).to_be_visible()


def write(name: str, picture: bytes) -> None:
    """Write a picture to docs/, with few colours."""
    few = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(ROOT / "docs" / f"page-{name}.png", optimize=True)


def take(page: Page, address: str) -> None:
    page.set_default_timeout(1000 * PATIENCE_S)
    expect.set_options(timeout=1000 * PATIENCE_S)
    fill(page, address, "light")
    page.wait_for_timeout(1000 * SECONDS)
    for name, selector in PANELS.items():
        write(name, page.locator(selector).screenshot())
    write("light", page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": 1560}))
    fill(page, address, "dark")
    page.wait_for_timeout(1000 * SECONDS)
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
            take(browser.new_page(viewport={"width": 1280, "height": 900}), address)
            browser.close()
    finally:
        ended.set()
        sender.join()


if __name__ == "__main__":
    main(sys.argv[1])
