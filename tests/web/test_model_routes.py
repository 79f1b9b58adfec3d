"""What a card holds is what the routes say, whole, and never in numbers that JSON does not have."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from service.engine import board
from service.engine import card as cards
from service.engine.card import ModelCard, ModelFacts
from service.engine.client import EngineClient
from service.engine.control import Kind, Message
from service.inspection.layer_stats import LayerStats
from service.keyring import Keyring
from service.settings import Settings
from service.store.manifest import Input, Manifest, Output, Weights
from service.telemetry import Telemetry
from service.web.application import compose
from service.web.context import Parts

if TYPE_CHECKING:
    from collections.abc import Sequence

VECTORS: dict[str, np.ndarray] = {
    "running_mean": np.array([0.1, np.nan], np.float32),
    "running_var": np.array([1.0, 4.0], np.float32),
    "weight": np.array([0.5, -np.inf], np.float16),
}


def a_card(version: int = 1, **provenance: Any) -> ModelCard:
    stats = LayerStats(
        name="bn",
        num_features=2,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        track_running_stats=True,
        num_batches_tracked=None,
        running_mean=None,
        running_var=None,
        weight=None,
        bias=None,
        scale=None,
        shift=None,
    )
    parity = {"max_relative_error": 1e-7, "unfolded_relative_error": 1e-7, "top1_agreement": 1.0}
    facts = ModelFacts(
        model="digits",
        version=version,
        manifest=Manifest(
            architecture="digits",
            input=Input(shape=[1, 8, 8], colour="grayscale", mean=[0.0], std=[1.0]),
            outputs=[Output()],
            weights=Weights(sha256="0" * 64),
            provenance=provenance,
        ),
        labels=None,
        output_shape=[2],
        device="cpu",
        precision="float32",
        max_batch=4,
        seconds_per_row=0.001,
        threads=2,
        tuned=True,
        preprocessing="first layers",
        memory={"weights": 5_000_000_000, "packed": 0, "graphs": 0},
        torch_version="2",
        layers=[stats],
        fold={"norms": 1, "folded": 1, "kept": 0, "layers": [], "parity": parity, "seconds": {}},
        seconds={"read": 0.5},
    )
    return ModelCard(facts, {"bn": VECTORS})


def ask(path: str, *loaded: ModelCard, accept: str = "*/*", **headers: str) -> httpx.Response:
    return asyncio.run(answered(path, loaded or (a_card(),), {"accept": accept, **headers}))


async def answered(
    path: str, loaded: Sequence[ModelCard], headers: dict[str, str], *, is_ready: bool = True
) -> httpx.Response:
    settings = Settings()
    client = EngineClient(settings, board.Board(board.create(1)), 0, lambda _: None)
    for number, card in enumerate(loaded):
        client.hear(Message(Kind.CARD, number, descriptors=(cards.write(card),)))
    if is_ready:
        client.hear(Message(Kind.READY))
    with ThreadPoolExecutor(1) as decoders:
        app = compose(Parts(client, settings, Telemetry(), decoders), Keyring(settings))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.get(path, headers=headers)


def strict(response: httpx.Response) -> Any:
    """The JSON of an answer, in which NaN and Infinity are errors."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert response.status_code == 200, response.text
    return json.loads(response.text, parse_constant=refuse)


def test_a_layer_s_vectors_are_whole_and_what_is_not_finite_is_null() -> None:
    detail = strict(ask("/v1/models/digits/layers/bn"))
    assert detail["vectors"]["running_mean"] == [0.1, None]
    assert detail["vectors"]["weight"] == [0.5, None]
    assert detail["vectors"]["scale"][0] == pytest.approx(0.5 / np.sqrt(1 + 1e-5), rel=1e-15)
    assert sum(detail["histograms"]["running_mean"]["counts"]) == 1
    assert "bias" not in detail["vectors"]


def test_a_layer_as_csv_has_one_line_per_channel() -> None:
    answer = ask("/v1/models/digits/layers/bn", accept="text/csv")
    lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("text/csv")
    assert lines[0] == "channel,running_mean,running_var,weight,scale,shift"
    assert lines[1].startswith("0,0.1,1.0,0.5,")
    assert lines[2].startswith("1,nan,4.0,-inf,")


def test_provenance_that_is_not_finite_is_null_and_no_error() -> None:
    detail = strict(ask("/v1/models/digits", a_card(loss=float("nan"), best=float("inf"), epochs=3)))
    assert detail["manifest"]["provenance"] == {"loss": None, "best": None, "epochs": 3}


def test_the_highest_version_is_shown_and_another_on_request() -> None:
    loaded = [a_card(version) for version in (2, 10)]
    assert strict(ask("/v1/models/digits", *loaded))["version"] == 10
    detail = strict(ask("/v1/models/digits?version=2", *loaded))
    assert (detail["version"], detail["versions"]) == (2, [2, 10])
    assert [m["version"] for m in strict(ask("/v1/models", *loaded))["models"]] == [2, 10]


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("/v1/models/other", 404, "unknown-model"),
        ("/v1/models/digits?version=2", 404, "unknown-version"),
        ("/v1/models/digits/layers/bn2", 404, "unknown-layer"),
        ("/v1/models/digits?version=0", 400, "invalid-query"),
        ("/v1/models/digits?version=x", 400, "invalid-query"),
        ("/v1/models/digits?versions=1", 400, "invalid-query"),
        ("/v1/models/digits/fold?version=" + "9" * 5000, 400, "invalid-query"),
    ],
)
def test_what_is_not_there_is_a_problem(path: str, status: int, slug: str) -> None:
    answer = ask(path)
    assert (answer.status_code, answer.json()["type"]) == (status, slug)


@pytest.mark.parametrize("path", ["", "/fold", "/layers", "/layers/{layer}", "/drift", "/drift/{layer}"])
def test_a_model_that_may_still_be_loaded_is_no_unknown_one(path: str) -> None:
    asked = answered(f"/v1/models/other{path.format(layer='bn')}", [a_card()], {}, is_ready=False)
    answer = asyncio.run(asked)
    assert (answer.status_code, answer.json()["type"]) == (503, "not-ready")
    documented = ask("/openapi.json").json()["paths"][f"/v1/models/{{model}}{path}"]["get"]
    assert "503" in documented["responses"]


def test_what_is_in_force_is_shown() -> None:
    for path in ("/v1/models/digits", "/v1/models"):
        answer = strict(ask(path))
        model = answer["models"][0] if "models" in answer else answer
        assert (model["threads"], model["tuned"]) == (2, True)
        assert (model["device"], model["precision"], model["max_batch"]) == ("cpu", "float32", 4)
        assert model["preprocessing"] == "first layers"


def test_the_memory_that_a_version_holds_is_shown_in_bytes() -> None:
    assert ask("/v1/models/digits").json()["memory"] == {"weights": 5_000_000_000, "packed": 0, "graphs": 0}
