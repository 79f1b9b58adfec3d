"""Several models and versions in one service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from .digits import Digits, npy
from .server import NPY, Server
from .stores import copied, with_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

SHIFT = 3.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits/1 as shipped, digits/10 with every logit moved by `SHIFT`, and other/2 as digits/10."""
    folder = tmp_path_factory.mktemp("store")
    copied(folder)
    for name, version in (("digits", 10), ("other", 2)):
        with_tensors(copied(folder, name, version), lambda tensors: tensors["fc2.bias"].add_(SHIFT))
    return folder


@pytest.fixture(scope="module")
def several(store: Path) -> Iterator[Server]:
    with Server.start(model_store=store, versions="all") as started:
        yield started
        assert started.stop() == 0, started.log


def answer(server: Server, address: str, digits: Digits) -> tuple[int, np.ndarray]:
    given = server.http.post(
        f"/v1/models/{address}/predict?output=logits",
        content=npy(digits.pixels[:1]),
        headers={"Content-Type": NPY},
    ).json()
    return given["version"], np.array(given["predictions"][0]["logits"])


@pytest.mark.parametrize(
    ("address", "version", "shift"),
    [
        ("digits", 10, SHIFT),
        ("digits/versions/10", 10, SHIFT),
        ("digits/versions/1", 1, 0),
        ("other", 2, SHIFT),
    ],
)
def test_each_version_answers_with_its_own_weights(
    several: Server, digits: Digits, address: str, version: int, shift: float
) -> None:
    answered_by, logits = answer(several, address, digits)
    assert answered_by == version
    np.testing.assert_allclose(logits, digits.logits[0] + shift, rtol=1e-5, atol=1e-5)


def test_versions_are_listed_by_name_and_number(several: Server) -> None:
    listed = several.get("/v1/models").json()["models"]
    assert [(m["model"], m["version"]) for m in listed] == [("digits", 1), ("digits", 10), ("other", 2)]
    assert several.get("/v1/models/digits").json()["version"] == 10
    assert several.get("/v1/models/digits?version=1").json()["versions"] == [1, 10]


def test_interleaved_models_keep_their_rows_apart(several: Server, digits: Digits) -> None:
    for address, shift in [("digits", SHIFT), ("digits/versions/1", 0), ("other", SHIFT)] * 5:
        np.testing.assert_allclose(
            answer(several, address, digits)[1][:3], digits.logits[0][:3] + shift, 1e-4
        )


def test_only_the_highest_version_is_served_unless_all_are_asked_for(store: Path) -> None:
    with Server.start(model_store=store, models="digits") as latest:
        assert latest.get("/v1/models/digits").json()["versions"] == [10]
        assert latest.get("/v1/models/digits?version=1").json()["type"] == "unknown-version"
        assert latest.get("/v1/models/other").json()["type"] == "unknown-model"
