"""What the page consists of, and what the server says of it."""

from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect

from .conftest import PATIENCE, Visit

DIGITS = sorted(Path(__file__).parents[1].joinpath("digits").glob("*.png"))
VECTORS = ["running_mean", "running_var", "weight", "bias", "scale", "shift"]
QUANTITIES = [
    *VECTORS,
    "num_features",
    "affine",
    "track_running_stats",
    "eps",
    "momentum",
    "num_batches_tracked",
]


def told(server: str, path: str) -> Any:
    """What the server answers at a path."""
    return httpx.get(f"{server}{path}", timeout=PATIENCE, trust_env=False).raise_for_status().json()


def shown(number: Locator) -> float:
    """A number as the page writes it."""
    return float((number.text_content() or "").replace("−", "-"))


def strip(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Norms, in network order")


def detail(page: Page, norm: str) -> Locator:
    return page.get_by_role("region", name=norm, exact=True)


def open_page(visit: Visit, path: str = "/") -> Page:
    visit.page.goto(path)
    expect(visit.page.get_by_role("heading", name="bn", level=3).first).to_be_visible()
    return visit.page
