"""The Open Inference Protocol but for infer: what clients ask of a server before and after they use it."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from service import __version__

from .digits import encoded, npy
from .infer import body, post, tensor
from .server import NPY, PATIENCE, Process, Server, Service, free_port, until
from .stores import copied, with_tensors
from .tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .digits import Digits

pytestmark = pytest.mark.e2e

DIGITS = "/v2/models/digits"


def json_of(service: Service, path: str) -> Any:
    answer = service.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_which_extensions_it_has(service: Service, path: str) -> None:
    assert json_of(service, path) == {
        "name": "foldserve",
        "version": __version__,
        "extensions": [
            *("binary_tensor_data", "classification", "statistics"),
            *("model_configuration", "model_repository", "logging"),
        ],
    }


def test_extensions_that_are_not_listed_are_not_there(service: Service) -> None:
    for path in ("/v2/trace/setting", "/v2/systemsharedmemory/status", f"{DIGITS}/generate"):
        answer = service.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])


SLASHES = [
    *("/v2//", "/v2/health/live/", "/v2/models/", "/v2/models/stats/", "/v2/repository/index/"),
    *(f"{DIGITS}{path}/" for path in ("", "/ready", "/infer", "/versions/1", "/versions/1/infer")),
    *("/v1/models/", "/v1/models/digits/", "/v1/models/digits/predict/", "/livez/", "/metrics/", "/docs/"),
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", SLASHES)
def test_an_address_has_one_form_and_nobody_is_sent_to_another(
    service: Service, method: str, path: str
) -> None:
    answer = service.http.request(method, path, headers={"Host": "elsewhere.localhost"})
    assert (answer.status_code, answer.headers.get("location")) == (404, None)
    problem = ["type", "title", "status", "detail"]
    assert list(answer.json()) == (["error"] if path.startswith("/v2") else problem)


def test_health(service: Service) -> None:
    assert json_of(service, "/v2/health/live") == {"live": True}
    assert json_of(service, "/v2/health/ready") == {"ready": True}
    for path in (f"{DIGITS}/ready", f"{DIGITS}/versions/1/ready"):
        assert json_of(service, path) == {"name": "digits", "ready": True}


def test_while_models_load_the_server_lives_and_is_not_ready() -> None:
    port = free_port()
    with Process("serve", port=port, threads=1) as process:
        Tree(process.pid).stall_engine()

        def ask(method: str, path: str) -> httpx.Response:
            return httpx.request(method, f"http://127.0.0.1:{port}{path}", timeout=PATIENCE, trust_env=False)

        def live() -> Any:
            with contextlib.suppress(httpx.TransportError):
                return ask("GET", "/v2/health/live").json()

        assert until(live) == {"live": True}
        for path in ("/v2/health/ready", f"{DIGITS}/ready", DIGITS, f"{DIGITS}/config"):
            answer = ask("GET", path)
            assert (answer.status_code, list(answer.json())) == (503, ["error"])
            assert int(answer.headers["retry-after"]) > 0
        index = ask("POST", "/v2/repository/index")
        assert (index.status_code, index.json()) == (200, [])


@pytest.mark.parametrize("path", [DIGITS, f"{DIGITS}/versions/1"])
def test_metadata_has_the_batch_axis(service: Service, path: str) -> None:
    assert json_of(service, path) == {
        "name": "digits",
        "versions": ["1"],
        "platform": "pytorch_foldserve",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    }


@pytest.mark.parametrize("path", [f"{DIGITS}/config", f"{DIGITS}/versions/1/config"])
def test_the_configuration_has_what_perf_analyzer_reads(service: Service, path: str) -> None:
    found = json_of(service, path)
    assert found["max_batch_size"] == 512
    (row,), (answer,) = found["input"], found["output"]
    assert row == {"name": "image", "data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": [1, 8, 8]}
    assert (answer["name"], answer["data_type"], answer["dims"]) == ("logits", "TYPE_FP32", [10])
    assert found["dynamic_batching"] == {
        "preferred_batch_size": [64],
        "max_queue_delay_microseconds": 0,
    }
    assert found["instance_group"][0]["kind"] == "KIND_CPU"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ready": true}', b'{"ready": false}', b" \n"])
def test_the_index_lists_what_is_served(service: Service, content: bytes) -> None:
    answer = service.http.post("/v2/repository/index", content=content)
    assert answer.status_code == 200
    assert answer.json() == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]


@pytest.mark.parametrize(
    "content", [b"[]", b'{"ready": 1}', b'{"ready": "true"}', b"{", b"x" * 5000, b"\xff"]
)
def test_an_index_query_that_makes_no_sense_is_refused(service: Service, content: bytes) -> None:
    answer = service.http.post("/v2/repository/index", content=content)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_without_an_admin_s_key_nothing_is_loaded(service: Service, verb: str) -> None:
    answer = service.http.post(f"/v2/repository/models/digits/{verb}", json={"parameters": {"config": "{}"}})
    assert answer.status_code == 403
    assert answer.json() == {"error": "this needs an admin key, and the service has none"}
    assert json_of(service, f"{DIGITS}/ready")["ready"] is True


@pytest.mark.parametrize("what", ["", "/ready", "/config", "/stats"])
@pytest.mark.parametrize(
    "model",
    ["nobody", "digits/versions/2", "digits/versions/0", "digits/versions/x", "%2e%2e", "a%00b", "%2f"],
)
def test_what_is_not_served_is_not_found(service: Service, model: str, what: str) -> None:
    answer = service.get(f"/v2/models/{model}{what}")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


# Statistics


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers that serve digits/1 and digits/2, whose logits are 3 larger."""
    folder = tmp_path_factory.mktemp("store")
    copied(folder)
    with_tensors(copied(folder, "digits", 2), lambda tensors: tensors["fc2.bias"].add_(3.0))
    with Server.start(model_store=folder, versions="all", workers=2) as started:
        yield started
        assert started.stop() == 0, started.log


def test_versions_are_told_apart(several: Server, digits: Digits) -> None:
    assert json_of(several, DIGITS)["versions"] == ["1", "2"]
    answers = [
        post(several, body(tensor(digits.inputs[:1])), f"{DIGITS}{path}/infer").json()
        for path in ("", "/versions/1", "/versions/2")
    ]
    assert [answer["model_version"] for answer in answers] == ["2", "1", "2"]
    logits = [np.array(answer["outputs"][0]["data"]) for answer in answers]
    np.testing.assert_allclose(logits[2] - logits[1], 3.0, atol=1e-4)
    np.testing.assert_array_equal(logits[0], logits[2])
    names = [(entry["name"], entry["version"]) for entry in several.http.post("/v2/repository/index").json()]
    assert names == [("digits", "1"), ("digits", "2")]


def counted(service: Service) -> dict[str, Any]:
    return {stats["version"]: stats for stats in json_of(service, "/v2/models/stats")["model_stats"]}


def test_statistics_agree_with_what_clients_counted_over_all_workers(several: Server, digits: Digits) -> None:
    before, began = counted(several), time.time()

    def asked(number: int) -> int:
        # A connection of its own, so that both workers answer some.
        with_rows, version = 1 + number % 3, 1 + number % 2
        client = Service(several.address)
        given = tensor(digits.inputs[:with_rows], **({} if number % 5 else {"datatype": "INT8"}))
        answer = post(client, body(given), f"{DIGITS}/versions/{version}/infer")
        client.close()
        assert answer.status_code == (200 if number % 5 else 400)
        return with_rows if number % 5 else 0

    with ThreadPoolExecutor(4) as clients:
        rows = list(clients.map(asked, range(60)))
    seen = [counted(several) for _ in range(5)]  # whichever worker answers
    assert all(found == seen[0] for found in seen)
    for version in (1, 2):
        mine = [number for number in range(60) if 1 + number % 2 == version]
        now, then = seen[0][str(version)], before[str(version)]
        gained = {
            name: now["inference_stats"][name]["count"] - then["inference_stats"][name]["count"]
            for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        }
        good = sum(1 for number in mine if number % 5)
        assert gained.pop("fail") == len(mine) - good
        assert set(gained.values()) == {good}
        assert now["inference_count"] - then["inference_count"] == sum(rows[number] for number in mine)
        assert 1 <= now["execution_count"] - then["execution_count"] <= good
        assert began * 1000 - 1 <= now["last_inference"] <= time.time() * 1000 + 1


def test_the_phases_of_a_request_are_parts_of_the_whole(several: Server, digits: Digits) -> None:
    post(several, body(tensor(digits.inputs[:1])))
    stats = counted(several)["2"]["inference_stats"]
    parts = sum(stats[phase]["ns"] for phase in ("compute_input", "queue", "compute_infer", "compute_output"))
    assert 0 < parts <= stats["success"]["ns"]
    assert stats["cache_hit"] == stats["cache_miss"] == {"count": 0, "ns": 0}


@pytest.mark.parametrize("path", [f"{DIGITS}/stats", f"{DIGITS}/versions/1/stats"])
def test_statistics_of_one_model_or_version(several: Server, path: str) -> None:
    versions = [stats["version"] for stats in json_of(several, path)["model_stats"]]
    assert versions == (["1"] if "versions" in path else ["1", "2"])


def test_native_requests_are_counted_too(service: Service, digits: Digits) -> None:
    before = json_of(service, f"{DIGITS}/stats")["model_stats"][0]
    service.logits(npy(digits.pixels[:4]), NPY)
    service.predict(encoded(digits.pixels[0]))
    after = json_of(service, f"{DIGITS}/stats")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 2
