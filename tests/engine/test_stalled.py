"""Loads beside each other, as where one was given up and has not ended: none disturbs another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from service.engine.loading import load
from service.store.model_store import ModelStore
from tests.engine.house import SHIPPED

AT_ONCE = 3


def test_loads_that_run_at_once_are_as_good_as_one_alone() -> None:
    """torch's export keeps what it does in one place for all threads."""
    stored = ModelStore(SHIPPED).open("digits")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(lambda _: load(stored, torch.device("cpu"), threads=1), range(2 * AT_ONCE)))
    rows = torch.zeros(2, *stored.manifest.input.shape, dtype=torch.uint8)
    for loaded in made:
        torch.testing.assert_close(loaded.plan(rows), made[0].plan(rows))
