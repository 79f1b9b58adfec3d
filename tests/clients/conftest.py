from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.e2e.digits import Digits, encoded
from tests.e2e.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 20


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    """The shipped model behind two workers."""
    with Server.start(workers=2) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log, started.log


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a client sends, and what the unfolded network says of it."""
    digits, file = Digits(), tmp_path_factory.mktemp("rows") / "rows.npz"
    images = np.array([encoded(row) for row in digits.pixels[:ROWS]], dtype=object)
    np.savez(
        file,
        inputs=digits.inputs[:ROWS],
        pixels=digits.pixels[:ROWS],
        logits=digits.logits[:ROWS].astype(np.float32),
        images=np.frombuffer(b"".join(images), np.uint8),
        lengths=np.array([len(image) for image in images]),
    )
    return file
