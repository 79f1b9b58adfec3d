"""The norms of a model: summaries and details, as JSON or CSV, and not twice to who has them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.engine.card import ModelCard
from service.inspection.flags import flags
from service.inspection.layer_stats import DERIVED, STORED, LayerStats, summary, with_derived
from service.web.representation import CSV, preferred
from service.web.schemas import LayerDetail, Layers

from .test_model_routes import a_card, ask, strict

if TYPE_CHECKING:
    import httpx

LAYERS = "/v1/models/digits/layers"
EPS = 1e-5
VECTORS: dict[str, np.ndarray] = {
    "running_mean": np.array([0.1, -2.0, 3.0], np.float32),
    "running_var": np.array([1.0, 1e-7, 4.0], np.float32),
    "weight": np.array([0.5, 0.001, 1.0], np.float16),
    "bias": np.array([0.0, 0.25, -0.5], np.float32),
}


def two_norms() -> ModelCard:
    """A card of a usual norm, and of one that the network never calls and that has no statistics."""
    shown: dict[str, Any] = {kind: summary(vector) for kind, vector in with_derived(VECTORS, EPS).items()}
    facts: dict[str, Any] = {
        "num_features": 3,
        "eps": EPS,
        "momentum": 0.1,
        "affine": True,
        "track_running_stats": True,
        "num_batches_tracked": 7,
    }
    first = LayerStats(
        name="stage.bn",
        **facts,
        **shown,
        outcome="into_producer",
        partner="stage.conv",
        reason="scaled the weights of stage.conv, its input",
        activation="relu",
        folding_error=1.5e-7,
        folding_error_at="stage.bn",
        flags=flags(VECTORS, EPS),
    )
    absent: dict[str, Any] = dict.fromkeys((*STORED, *DERIVED))
    second = LayerStats(name='odd, "quoted"', **{**facts, "momentum": None}, **absent, reason="never called")
    card = a_card()
    return ModelCard(
        card.facts.model_copy(update={"layers": [first, second]}),
        {"stage.bn": VECTORS, 'odd, "quoted"': {"weight": VECTORS["weight"]}},
    )


def asked(path: str = LAYERS, accept: str = "*/*", **headers: str) -> httpx.Response:
    return ask(path, two_norms(), accept=accept, **headers)


def table(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


# The summary of all norms


def test_the_summary_is_what_its_schema_says() -> None:
    content = strict(asked())
    assert Layers.model_validate(content).model_dump() == content
    first, second = content["layers"]
    assert (first["name"], first["partner"], first["activation"]) == ("stage.bn", "stage.conv", "relu")
    assert (first["folding_error"], first["folding_error_at"]) == (1.5e-7, "stage.bn")
    assert (second["outcome"], second["flags"], second["folding_error"]) == (None, [], None)


def test_a_flag_has_its_number_its_limit_and_its_channels() -> None:
    (flag,) = strict(asked())["layers"][0]["flags"]
    assert list(flag) == ["flag", "level", "channels", "count", "value", "limit", "message"]
    assert (flag["flag"], flag["level"], flag["channels"]) == ("eps_dominates", "note", [1])
    assert flag["value"] == pytest.approx(1e-7)
    assert flag["limit"] == EPS


def test_the_summary_as_csv_has_the_same_numbers() -> None:
    rows, layers = table(asked(accept="text/csv")), strict(asked())["layers"]
    assert [row["name"] for row in rows] == [layer["name"] for layer in layers]
    for kind in (*STORED, *DERIVED):
        for number in ("min", "max", "mean", "std"):
            assert float(rows[0][f"{kind}_{number}"]) == layers[0][kind][number]
            assert rows[1][f"{kind}_{number}"] == ""
    assert (rows[0]["flags"], rows[1]["flags"]) == ("eps_dominates:note", "")
    assert (rows[0]["folding_error"], rows[1]["momentum"]) == ("1.5e-07", "")


# One norm


def test_a_norm_is_what_its_schema_says() -> None:
    content = strict(asked(f"{LAYERS}/stage.bn"))
    assert LayerDetail.model_validate(content)
    assert set(content) == set(LayerDetail.model_fields)
    assert np.array(content["vectors"]["weight"], np.float16).tobytes() == VECTORS["weight"].tobytes()


@pytest.mark.parametrize("channel", [0, 2])
def test_the_equation_is_that_of_the_channel_that_is_asked_for(channel: int) -> None:
    shown = strict(asked(f"{LAYERS}/stage.bn?channel={channel}"))["equation"]
    assert shown["channel"] == channel
    for name, vector in VECTORS.items():
        assert shown["values"][name] == float(vector[channel])
    assert shown["normalised"].startswith(f"y = {float(VECTORS['weight'][channel]):.6g} · (x ")


def test_without_a_channel_it_is_the_first() -> None:
    assert strict(asked(f"{LAYERS}/stage.bn"))["equation"]["channel"] == 0


def test_a_norm_without_statistics_has_no_equation() -> None:
    assert strict(asked(f"{LAYERS}/odd, %22quoted%22"))["equation"] is None


def test_a_channel_as_csv_is_its_line_of_the_whole() -> None:
    whole = table(asked(f"{LAYERS}/stage.bn", "text/csv"))
    assert table(asked(f"{LAYERS}/stage.bn?channel=1", "text/csv")) == [whole[1]]
    assert [row["channel"] for row in whole] == ["0", "1", "2"]


@pytest.mark.parametrize("channel", ["3", "-1", "x", "1.5", "", "9" * 5000, "1&channel=1"])
def test_a_channel_that_is_not_there_is_a_problem(channel: str) -> None:
    answer = asked(f"{LAYERS}/stage.bn?channel={channel}")
    assert (answer.status_code, answer.json()["type"]) == (400, "invalid-query")
    assert len(answer.json()["detail"]) < 200


def test_the_problem_says_which_channels_there_are() -> None:
    detail = asked(f"{LAYERS}/stage.bn?channel=3").json()["detail"]
    assert detail == "norm 'stage.bn' has the channels 0 to 2, and no 3"


def test_all_norms_have_no_channel() -> None:
    answer = asked(f"{LAYERS}?channel=1")
    assert (answer.status_code, answer.json()["detail"]) == (400, "unknown parameter 'channel'")


# Which representation, and whether at all


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; header=present", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, */*", "text/csv"),
        ("text/csv;q=0.5, application/json;q=0.4", "text/csv"),
        ("text/csv;q=0.4, application/json;q=0.5", "application/json"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=many", "application/json"),
        ("application/json, text/csv", "application/json"),
    ],
)
def test_csv_is_for_who_wants_it_more_than_json(accept: str, expected: str) -> None:
    assert preferred(accept, CSV) == expected


@pytest.mark.parametrize(
    ("accept", "is_array"),
    [
        ("application/x-npy", True),
        ("Application/X-NPY, */*;q=0.1", True),
        ("application/x-npy, application/*", True),
        ("application/x-npy;q=0", False),
        ("application/x-npy;q=0.1, application/json", False),
        ("application/*", False),
        ("", False),
    ],
)
def test_an_array_is_for_who_wants_it_more_than_json(accept: str, is_array: bool) -> None:
    assert (preferred(accept, "application/x-npy") == "application/x-npy") == is_array


@pytest.mark.parametrize("path", [LAYERS, f"{LAYERS}/stage.bn"])
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_who_has_it_already_is_not_sent_it_again(path: str, accept: str) -> None:
    first = asked(path, accept)
    tag = first.headers["etag"]
    assert (first.headers["vary"], first.headers["cache-control"]) == ("Accept", "no-cache")
    for condition in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = ask(path, two_norms(), accept=accept, **{"if-none-match": condition})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    for condition in ('"other"', tag.strip('"'), ""):
        again = ask(path, two_norms(), accept=accept, **{"if-none-match": condition})
        assert (again.status_code, again.content) == (200, first.content)


def test_every_representation_has_a_tag_of_its_own() -> None:
    paths = (LAYERS, f"{LAYERS}/stage.bn", f"{LAYERS}/stage.bn?channel=1")
    tags = {asked(path, accept).headers["etag"] for path in paths for accept in ("*/*", "text/csv")}
    assert len(tags) == 6
    assert ask(LAYERS, a_card()).headers["etag"] not in tags


# How the API describes it


def test_openapi_describes_it_all() -> None:
    document = json.loads(asked("/openapi.json").text)
    for path in ("/v1/models/{model}/layers", "/v1/models/{model}/layers/{layer}"):
        operation = document["paths"][path]["get"]
        assert {"200", "304", "400", "404"} <= set(operation["responses"])
        assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/csv"}
        assert "ETag" in operation["responses"]["200"]["headers"]
        assert "content" not in operation["responses"]["304"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"model", "layer", "version", "channel"}
    flag = document["components"]["schemas"]["Flag"]
    assert all(
        said.get("description") for name, said in flag["properties"].items() if name in ("value", "limit")
    )
    assert {"error", "warning", "note"} == set(flag["properties"]["level"]["enum"])
