"""Loads beside each other, as where one was given up and has not ended: none disturbs another."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.fx.experimental import proxy_tensor

from service.engine.loading import load
from service.engine.watching import Wanted
from service.graph import solitude
from service.importing.program import from_exported
from service.importing.publishing import publish
from service.store.manifest import Input
from service.store.model_store import ModelStore
from tests.engine.house import SHIPPED
from tests.store.programs import saved, small

if TYPE_CHECKING:
    from pathlib import Path

    from service.store.model_store import StoredModel

AT_ONCE = 3
ROW = Input(shape=[3, 8, 8], mean=[0.5] * 3, std=[0.25] * 3)


@pytest.fixture(params=["architecture", "program"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> StoredModel:
    if request.param == "architecture":
        return ModelStore(SHIPPED).open("digits")
    (tmp_path / "small.pt2").write_bytes(saved(small()))
    store = ModelStore(tmp_path / "store")
    publish(from_exported(tmp_path / "small.pt2", ROW, None), store, "small")
    return store.open("small")


def test_nothing_but_graphs_in_solitude_asks_for_symbolic_sizes(
    stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asks for one asks torch first who exports: who does, on any thread, is disturbed."""
    real, asked = proxy_tensor.get_proxy_mode, set[bool]()

    def get_proxy_mode() -> Any:
        asked.add(solitude._ONE._is_owned())  # type: ignore[attr-defined]  # as threading.Condition asks
        return real()

    monkeypatch.setattr(proxy_tensor, "get_proxy_mode", get_proxy_mode)
    loaded = load(stored, torch.device("cpu"), threads=1, tune=True, watch=Wanted("all", 0.05))
    assert asked == {True}
    asked.clear()
    rows = np.zeros((3, *stored.manifest.input.shape), np.uint8)
    loaded.plan(torch.from_numpy(rows))
    assert loaded.watching is not None
    loaded.watching.observation.begin(rows)
    loaded.watching.observation.run(math.inf)
    assert not asked, "what serves meanwhile asks for none"


def test_loads_that_run_at_once_are_as_good_as_one_alone() -> None:
    """torch's export keeps what it does in one place for all threads."""
    stored = ModelStore(SHIPPED).open("digits")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(lambda _: load(stored, torch.device("cpu"), threads=1), range(2 * AT_ONCE)))
    rows = torch.zeros(2, *stored.manifest.input.shape, dtype=torch.uint8)
    for loaded in made:
        torch.testing.assert_close(loaded.plan(rows), made[0].plan(rows))
