from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.environments import run
from tests.e2e.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def published(question: str, *files: Path) -> Any:
    """What the published schemas say of each file; `tests/deploy/published.py` names the questions."""
    module = ["-m", "tests.deploy.published", question]
    return json.loads(run("deploy", *module, *map(str, files), described_in=HERE))


def read(*files: Path) -> Any:
    """The documents in each YAML file."""
    return published("read", *files)


@pytest.fixture(scope="package")
def service() -> Iterator[Server]:
    """The shipped model, which has answered something; all may ask, under any name, as in the image."""
    with Server.start(host="0.0.0.0") as started:
        picture = ROOT / "model_store" / "digits" / "1" / "example.png"
        assert started.predict(picture.read_bytes()).status_code == 200
        yield started
