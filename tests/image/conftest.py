from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.server import Service, free_port

from .container import PATIENCE, built

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .container import Container, Image


class Served(Service):
    """The image's own command, ready, on a port of the test's."""

    def __init__(self, container: Container, port: int) -> None:
        super().__init__(f"http://127.0.0.1:{port}")
        self.container = container
        self.port = port

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.is_ready():
            assert self.container.poll() is None, "the service ended before it was ready; its output is above"
            assert time.monotonic() < deadline, f"/readyz did not answer 200 within {PATIENCE:.0f} seconds"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(image: Image, store: Path | None = None, **settings: str) -> Iterator[Served]:
    port = free_port()
    container = image.start(environment={"FOLDSERVE_PORT": str(port)} | settings, store=store)
    served = Served(container, port)
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.close()
        container.kill()


@pytest.fixture(scope="session")
def image() -> Image:
    try:
        return built()
    except LookupError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def configuration(image: Image) -> Mapping[str, Any]:
    return image.configuration


@pytest.fixture(scope="session")
def served(image: Image) -> Iterator[Served]:
    """With nothing set and nothing mounted."""
    with serving(image) as running:
        yield running
