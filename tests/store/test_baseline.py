"""A baseline is of one version, its weights and the way that images become its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.store import baseline as baselines
from service.store.model_store import ModelStore
from tests.e2e.stores import copied

if TYPE_CHECKING:
    from pathlib import Path

    from service.store.model_store import StoredModel

ARRAYS = {"mean": np.arange(3.0)}


def with_input(stored: StoredModel, **changes: Any) -> StoredModel:
    """The same weights behind another preprocessing."""
    manifest = stored.manifest
    changed = manifest.model_copy(update={"input": manifest.input.model_copy(update=changes)})
    return replace(stored, manifest=changed)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    folder: Path = tmp_path_factory.mktemp("baseline") / "store"
    copied(folder)
    version = ModelStore(folder).open("digits")
    baselines.write(version, None, ARRAYS)
    return version


def test_what_was_written_is_read(stored: StoredModel) -> None:
    np.testing.assert_array_equal(baselines.read(stored, None)["mean"], ARRAYS["mean"])


@pytest.mark.parametrize("changes", [{"name": "picture"}, {"example": None}])
def test_what_a_row_is_called_makes_no_other_baseline(stored: StoredModel, changes: dict[str, Any]) -> None:
    assert baselines.read(with_input(stored, **changes), None)


@pytest.mark.parametrize(
    "changes",
    [{"mean": [0.1]}, {"std": [0.1]}, {"colour": "bgr"}, {"resize": 9}, {"interpolation": "nearest"}],
)
def test_a_baseline_of_another_preprocessing_is_not_used(
    stored: StoredModel, changes: dict[str, Any]
) -> None:
    """What the doctor advises changes any of these: rows recorded before look otherwise."""
    with pytest.raises(baselines.NotUsable, match="of another preprocessing"):
        baselines.read(with_input(stored, **changes), None)
