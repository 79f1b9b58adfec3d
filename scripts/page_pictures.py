"""The pictures of the page in docs/, of a server that serves the shipped model: page_pictures.py ADDRESS."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
DIGIT = ROOT / "tests" / "digits" / "3_45.png"
SECONDS = 24  # of traffic, so that the live panel has something to show


def traffic(address: str, ended: threading.Event) -> None:
    """Requests of 1 to 16 rows until it has ended."""
    rows = 0
    while not ended.wait(0.05):
        rows = rows % 16 + 1
        files = [("images", (DIGIT.name, DIGIT.read_bytes(), "image/png"))] * rows
        httpx.post(f"{address}/v1/models/digits/predict", files=files, timeout=60)


def picture(page: Page, scheme: str, address: str) -> None:
    """One picture in the colours of a scheme."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{address}/#/digits/1/bn3/21")
    page.get_by_label("Choose an image").set_input_files(DIGIT)
    page.wait_for_timeout(1000 * SECONDS)
    page.screenshot(path=ROOT / "docs" / f"page-{scheme}.png", full_page=True)
    page.goto("about:blank")


def main(address: str) -> None:
    ended = threading.Event()
    sender = threading.Thread(target=traffic, args=(address, ended))
    sender.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            for scheme in ("light", "dark"):
                picture(page, scheme, address)
            browser.close()
    finally:
        ended.set()
        sender.join()


if __name__ == "__main__":
    main(sys.argv[1])
