"""What the service says of its models, of itself, and of how it is used."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .digits import Digits, encoded, npy
from .server import NPY

if TYPE_CHECKING:
    from .server import Service

pytestmark = pytest.mark.e2e

NORMS = {"bn1": 32, "bn2": 32, "bn3": 64, "bn4": 64, "bn5": 64}
STORED = ("running_mean", "running_var", "weight", "bias")
SHOWN = (*STORED, "scale", "shift")
ROUTES = {
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("get", "/v1/models/{model}/drift"),
    ("get", "/v1/models/{model}/drift/{layer}"),
    ("get", "/v1/models/{model}/fold"),
    ("get", "/v1/models/{model}/layers"),
    ("get", "/v1/models/{model}/layers/{layer}"),
    ("get", "/v1/log-level"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("post", "/v1/models/{model}/doctor"),
    ("post", "/v1/models/{model}/drift"),
    ("post", "/v1/models/{model}/predict"),
    ("post", "/v1/models/{model}/versions/{version}/predict"),
    ("put", "/v1/log-level"),
}


@pytest.fixture(scope="module")
def openapi(service: Service) -> dict[str, Any]:
    document: dict[str, Any] = service.get("/openapi.json").json()
    return document


def asked(service: Service, path: str) -> Any:
    answer = service.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def operations(openapi: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": operation
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    }


# --- models


def test_models_lists_what_is_served(service: Service) -> None:
    listed = asked(service, "/v1/models")
    assert listed["state"] == "ready"
    (model,) = listed["models"]
    assert (model["model"], model["version"], model["state"]) == ("digits", 1, "ready")
    assert (model["architecture"], model["precision"]) == ("digits", "float32")
    assert (model["input_shape"], model["output_shape"], model["max_batch"]) == ([1, 8, 8], [10], 64)
    assert (model["fold"]["norms"], model["fold"]["folded"], model["fold"]["kept"]) == (5, 5, 0)
    assert model["fold"]["max_relative_error"] < 1e-5


def test_model_tells_manifest_labels_and_batching(service: Service) -> None:
    (summary,) = asked(service, "/v1/models")["models"]
    model = asked(service, "/v1/models/digits")
    assert summary.items() <= model.items()
    assert asked(service, "/v1/models/digits?version=1") == model
    assert (model["versions"], model["labels"]) == ([1], list("0123456789"))
    assert model["manifest"]["input"]["mean"] == [0.3048]
    assert model["manifest"]["provenance"]["held_out"]["rows"] == 719
    assert model["batching"]["max_batch"] == 64
    assert isinstance(model["batching"]["max_batch"], int)
    assert model["reference"] == "stored"
    assert sum(model["memory"].values()) > 100_000  # as many numbers as a digits network has, in bytes
    assert {"capture", "fold", "parity", "warm-up"} <= set(model["seconds"])


def test_fold_has_one_outcome_for_every_norm(service: Service) -> None:
    fold = asked(service, "/v1/models/digits/fold")
    assert (fold["model"], fold["version"]) == ("digits", 1)
    assert [layer["name"] for layer in fold["layers"]] == list(NORMS)
    assert {layer["outcome"] for layer in fold["layers"]} == {"into_producer"}
    assert [layer["partner"] for layer in fold["layers"]] == ["conv1", "conv2", "conv3", "conv4", "fc1"]
    assert all(layer["reason"] for layer in fold["layers"])
    assert fold["parity"]["max_relative_error"] < 1e-5
    assert fold["parity"]["top1_agreement"] == 1


# --- layers


def test_layers_are_listed_in_network_order(service: Service, digits: Digits) -> None:
    layers = asked(service, "/v1/models/digits/layers")["layers"]
    assert {layer["name"]: layer["num_features"] for layer in layers} == NORMS
    assert [layer["name"] for layer in layers] == list(NORMS)
    for layer in layers:
        assert (layer["eps"], layer["momentum"]) == (1e-5, 0.1)
        assert layer["affine"] is layer["track_running_stats"] is True
        assert layer["num_batches_tracked"] == int(digits.tensors[f"{layer['name']}.num_batches_tracked"]) > 0
        for name in STORED:
            values = digits.tensors[f"{layer['name']}.{name}"].double().numpy()
            expected = (values.min(), values.max(), values.mean(), values.std())
            assert tuple(layer[name].values()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NORMS)
def test_vectors_are_those_of_the_weights_file_bit_for_bit(
    service: Service, digits: Digits, name: str
) -> None:
    layer = asked(service, f"/v1/models/digits/layers/{name}")
    table = service.get(f"/v1/models/digits/layers/{name}", Accept="text/csv")
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [int(row["channel"]) for row in rows] == list(range(NORMS[name]))
    assert set(layer["vectors"]) == set(SHOWN) == set(rows[0]) - {"channel"}
    for kind in STORED:
        stored = digits.tensors[f"{name}.{kind}"].numpy().tobytes()
        assert np.array(layer["vectors"][kind], np.float32).tobytes() == stored
        assert np.array([float(row[kind]) for row in rows], np.float32).tobytes() == stored


@pytest.mark.parametrize("name", NORMS)
def test_vectors_are_in_the_documented_order(service: Service, name: str) -> None:
    table = service.get(f"/v1/models/digits/layers/{name}", Accept="text/csv").text
    assert table.splitlines()[0].split(",") == ["channel", *SHOWN]
    assert tuple(asked(service, f"/v1/models/digits/layers/{name}")["vectors"]) == SHOWN


@pytest.mark.parametrize("name", NORMS)
def test_scale_and_shift_say_what_the_norm_amounts_to(service: Service, digits: Digits, name: str) -> None:
    layer = asked(service, f"/v1/models/digits/layers/{name}")
    mean, var, weight, bias = (digits.tensors[f"{name}.{kind}"].double().numpy() for kind in STORED)
    scale = weight / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(layer["vectors"]["scale"], scale, rtol=1e-12)
    np.testing.assert_allclose(layer["vectors"]["shift"], bias - mean * scale, rtol=1e-9, atol=1e-12)


def test_histograms_count_every_channel(service: Service) -> None:
    layer = asked(service, "/v1/models/digits/layers/bn3")
    assert set(layer["histograms"]) == set(SHOWN)
    for name, histogram in layer["histograms"].items():
        assert sum(histogram["counts"]) == NORMS["bn3"]
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
        assert histogram["edges"][0] == pytest.approx(layer[name]["min"])
        assert histogram["edges"][-1] == pytest.approx(layer[name]["max"])


# --- the API's own description


def test_openapi_lists_every_route(openapi: dict[str, Any]) -> None:
    assert openapi["openapi"].startswith("3.1")
    assert openapi["info"]["title"] == "foldserve"
    listed = {(method, path) for path, methods in openapi["paths"].items() for method in methods}
    assert listed >= ROUTES


def test_openapi_refers_only_to_what_it_holds(openapi: dict[str, Any]) -> None:
    for pointer in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(openapi)):
        found: Any = openapi
        for key in pointer.split("/"):
            found = found[key]
        assert found
    identifiers = [operation["operationId"] for operation in operations(openapi).values()]
    assert len(identifiers) == len(set(identifiers))


def test_openapi_declares_every_parameter_of_an_address(openapi: dict[str, Any]) -> None:
    for name, operation in operations(openapi).items():
        parameters = operation.get("parameters", [])
        declared = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", name)), name
        keys = [(parameter["in"], parameter["name"]) for parameter in parameters]
        assert len(keys) == len(set(keys)), name


def test_openapi_documents_the_errors_that_there_are(openapi: dict[str, Any]) -> None:
    for name, operation in operations(openapi).items():
        assert "422" not in operation["responses"], f"{name} is never answered with 422"
        for status, response in operation["responses"].items():
            if status >= "4":
                kind = "application/json" if " /v2" in name else "application/problem+json"
                assert list(response["content"]) == [kind], f"{status} of {name}"


def test_openapi_documents_what_predict_reads(openapi: dict[str, Any]) -> None:
    operation = openapi["paths"]["/v1/models/{model}/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        *("image/png", "image/jpeg", "multipart/form-data", "application/json"),
        *(NPY, "application/octet-stream"),
    }
    names = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"}
    assert names == {"top_k", "output", "dtype", "timeout_ms"}
    assert set(operation["responses"]["200"]["content"]) == {"application/json", NPY}


def test_documentation_needs_no_other_host(service: Service) -> None:
    for path in ("/docs", "/"):
        answer = service.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert "'none'" in answer.headers["content-security-policy"]
        links = re.findall(r"""(?:src|href)=["']([^"'#]+)""", answer.text)
        assert not [link for link in links if "//" in link]
        for link in links:
            assert service.http.get(link).status_code == 200, link


# --- health and metrics


def test_livez_and_readyz_answer(service: Service) -> None:
    assert (service.get("/livez").status_code, service.get("/readyz").status_code) == (200, 200)


def test_metrics_count_requests_rows_batches_and_stages(service: Service, digits: Digits) -> None:
    before = service.metrics()
    for rows in (1, 2, 70):  # 70 are two batches
        service.predict(npy(digits.pixels[:rows]), NPY)
    service.predict(encoded(digits.pixels[0])[:20])
    service.http.post("/v1/models/other/predict", content=b"x")
    after = service.metrics()

    def grown(*name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown("foldserve_requests_total", "digits", "ok") == 3
    assert grown("foldserve_requests_total", "digits", "invalid-image") == 1
    assert grown("foldserve_requests_total", "", "unknown-model") == 1
    assert grown("foldserve_rows_total", "digits", "1") == 73
    assert grown("foldserve_batch_rows_sum", "digits", "1") == 73
    assert grown("foldserve_batch_rows_count", "digits", "1") == 4
    for stage in ("decode", "queue", "compute", "total"):
        assert grown("foldserve_stage_seconds_count", "digits", stage) == 3
        assert grown("foldserve_stage_seconds_sum", "digits", stage) >= 0
    assert after["foldserve_ready",] == 1
    assert after["foldserve_waiting_rows",] == 0
    assert after["foldserve_process_resident_memory_bytes", "engine"] > 0


def test_models_that_are_not_served_make_no_new_series(service: Service) -> None:
    service.http.post("/v1/models/first/predict", content=b"x")
    series = len(service.metrics())
    for number in range(20):
        service.http.post(f"/v1/models/{number}/predict", content=b"x")
    assert len(service.metrics()) == series


@pytest.mark.parametrize(
    ("path", "allowed"), [("drift", "GET, HEAD, POST"), ("predict", "POST"), ("fold", "GET, HEAD")]
)
def test_a_method_that_is_not_taken_is_told_all_that_are(service: Service, path: str, allowed: str) -> None:
    answer = service.http.request("DELETE", f"/v1/models/digits/{path}")
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_the_page_s_files_are_told_to_be_read(service: Service) -> None:
    answer = service.http.request("DELETE", "/page/page.css")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/v1/models", "/v1/models/digits/layers", "/v2/health/ready", "/"]
)
def test_head_is_answered_as_get_is_without_the_body(service: Service, path: str) -> None:
    asked, got = service.http.head(path), service.http.get(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"") == (200, b"")
    for name in ("content-type", "content-length", "etag"):
        assert asked.headers.get(name) == got.headers.get(name), name


def test_head_of_what_only_takes_rows_is_refused(service: Service) -> None:
    asked = service.http.head("/v1/models/digits/predict")
    assert (asked.status_code, asked.headers["allow"]) == (405, "POST")
