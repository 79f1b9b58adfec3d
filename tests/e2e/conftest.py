from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .digits import Digits
from .server import CONNECTED, Server, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

ELSEWHERE = os.environ.get("FOLDSERVE_TEST_ADDRESS")
"""A service that runs already, such as a container; tests that need settings of their own start theirs."""


@pytest.fixture(autouse=True)
def _connections() -> Iterator[None]:
    """A test that fails takes no other with it: what it left open is closed, and holds no server up."""
    yield
    while CONNECTED:
        CONNECTED.pop().close()


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The shipped model, served with default settings."""
    if ELSEWHERE:
        there = Service(ELSEWHERE)
        yield there
        there.close()
        return
    with Server.start() as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log
