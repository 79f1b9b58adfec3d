"""A short soak: long enough for every kind of request, too short to say much about memory."""

from __future__ import annotations

import pytest

from tests.soak.soak import soak

pytestmark = pytest.mark.e2e


def test_every_request_of_every_kind_is_answered_as_it_deserves_and_nothing_stays_behind() -> None:
    verdict = soak(20, clients=2)
    assert verdict.complaints == []
    assert {"png 200", "wrong type 415", "oversize 413", "truncated image 400"} <= set(verdict.tally.answers)
    assert sum(verdict.tally.leavings.values()) > 0
