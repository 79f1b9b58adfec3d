"""How OpenMP's threads wait."""

from __future__ import annotations

import pytest

from service.plan import openmp


def test_threads_that_wait_are_told_to_sleep_soon() -> None:
    environment: dict[str, str] = {}
    openmp.calm(environment)
    assert environment == {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_policy_that_somebody_chose_is_left_alone(name: str) -> None:
    environment = {name: "chosen"}
    openmp.calm(environment)
    assert environment == {name: "chosen"}
