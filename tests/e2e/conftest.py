from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .digits import Digits
from .server import CONNECTED, IMAGE, Server, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

ELSEWHERE = os.environ.get("FOLDSERVE_TEST_ADDRESS")
"""A service that runs already, such as a container; tests that need settings of their own start theirs."""

NOT_OF_THE_IMAGE = {
    "test_commands.py": "calls the working tree's commands; tests/image calls the image's",
    "test_import.py": "imports with torchvision, which the image does not have",
    "test_load_timeout.py": "adds an architecture to the code",
    "test_gpu.py": "a container of only files has no driver; tests/image starts one with a GPU",
    "test_killed.py::test_nothing_is_left_of_a_service_whose_supervisor_is_killed": "the kernel sees to it",
    "test_refused_starts.py::test_model_with_batch_statistics_is_refused": "adds an architecture to the code",
}
"""What is not run where `FOLDSERVE_TEST_IMAGE` names an image, by file or test, and why."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not IMAGE:
        return
    left_out = [item for item in items if _is_of_the_tree(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_of_the_tree(item: pytest.Item) -> bool:
    test = item.nodeid.rpartition("/")[2].partition("[")[0]
    is_left_out = test in NOT_OF_THE_IMAGE or item.path.name in NOT_OF_THE_IMAGE
    return is_left_out and item.path.parent == Path(__file__).parent


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
