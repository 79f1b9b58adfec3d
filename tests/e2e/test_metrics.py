"""A scrape of a service under load holds what the page on metrics says, and nothing that it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .digits import Digits, npy
from .load import Load, rows
from .server import NPY, Server, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
SHOP, OPS = "shop-key-0123456789", "ops-key-0123456789"
KEYS = f"admin:ops:{OPS}"
HARD_TO_COME_BY = {"foldserve_drift_failures_total"}
"""What only a mistake of the service's own counts; a unit test sees them."""


@pytest.fixture(scope="module")
def busy(digits: Digits) -> Iterator[Server]:
    """Two workers under which everything that is counted has happened at least once."""
    settings = {"model_control": "explicit", "keys": KEYS, "drift_share": 0.5, "access_log": True}
    with Server.start(workers=2, **settings) as started:
        with Load(started.address, [rows(digits, first, 8) for first in range(0, 512, 8)], 8) as load:
            load.more(300)
            for action in ("load", "unload"):  # the second of a model that nobody knows
                name = "digits" if action == "load" else "nobody"
                started.http.post(
                    f"/v2/repository/models/{name}/{action}", headers={"Authorization": f"Bearer {OPS}"}
                )
            with started.connect() as connection:
                connection.sendall(b"garbage\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 400"
            started.predict(b"no image")
            one, npy_type = npy(digits.pixels[:1]), {"Content-Type": NPY}
            started.http.post("/v1/models/digits/drift", content=one, headers=npy_type).raise_for_status()
            until(lambda: started.metric("foldserve_drift_work_seconds_total", "digits", "1"))
        yield started
        assert started.stop() == 0, started.log


def scraped(server: Server) -> dict[str, Metric]:
    """The families by the names that a query has."""
    read = text_string_to_metric_families(server.get("/metrics").text)
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in read}


def documented() -> dict[str, list[str]]:
    """The rows of the page by their first cell: type, labels, meaning."""
    lines = [line.strip("|").split("|") for line in PAGE.read_text("utf-8").splitlines() if "| `" in line]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_every_metric_of_a_scrape_is_on_the_page_line_by_line(busy: Server) -> None:
    page, found = documented(), scraped(busy)
    assert found.keys() - page.keys() == set()
    for name, family in found.items():
        kind, labels, meaning = page[name]
        seen = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert (name, family.type) == (name, kind)
        assert (name, seen) == (name, set(re.findall(r"`(\w+)`", labels)) if family.samples else seen)
        assert meaning.startswith(family.documentation)


def test_everything_on_the_page_is_in_a_scrape_under_load(busy: Server) -> None:
    missing = {name for name, family in scraped(busy).items() if not family.samples}
    assert documented().keys() - scraped(busy).keys() - HARD_TO_COME_BY == set()
    # Scores wait for a window of live rows that is full.
    assert missing <= {name for name in documented() if name.startswith("foldserve_drift_")}


def test_what_happened_was_counted(busy: Server) -> None:
    assert busy.metric("foldserve_model_changes_total", "load", "digits", "ok") == 1
    assert busy.metric("foldserve_model_changes_total", "unload", "", "unknown-model") == 1
    assert busy.metric("foldserve_refused_connections_total", "invalid-http") == 1
    assert busy.metric("foldserve_requests_total", "digits", "invalid-image") == 1
