"""What `make test` leaves out of the end-to-end tests where it runs them against the image is still there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import NOT_OF_THE_IMAGE

END_TO_END = Path(__file__).parents[1] / "e2e"


@pytest.mark.parametrize("left_out", NOT_OF_THE_IMAGE)
def test_what_is_left_out_exists(left_out: str) -> None:
    file, _, test = left_out.partition("::")
    assert f"def {test}" in (END_TO_END / file).read_text(encoding="utf-8")
