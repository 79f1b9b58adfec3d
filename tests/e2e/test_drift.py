"""Drift as a client sees it: a baseline, live rows as before, then others, and what the service says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from service import cli
from service.engine import unfolded
from service.engine.stopwatch import Stopwatch
from service.store.model_store import ModelStore
from tests.evaluation.folders import held_out_digits

from .digits import MULTIPART, OCTETS, Digits, b64_json, encoded, multipart
from .server import STORE, Server, Service, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shipped model with a baseline of half of the held-out rows, looked at for half of the time."""
    folder = tmp_path_factory.mktemp("drift")
    images = held_out_digits(folder / "images", range(360))
    apart = str(folder / "baselines")
    where = ["--model-store", str(STORE), "--baselines", apart, "--device", "cpu", "--threads", "1"]
    assert cli.main(["calibrate", "digits", "--images", str(images), *where]) == 0
    with Server.start(baselines=apart, drift_share=0.5, workers=2) as server:
        yield server
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


def drift(service: Service) -> dict[str, Any]:
    answer = service.get("/v1/models/digits/drift")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def send(service: Service, pixels: np.ndarray, random: np.random.Generator) -> None:
    rows = pixels[random.integers(0, len(pixels), 16)]
    assert service.predict(rows.tobytes(), OCTETS, dtype="uint8").status_code == 200


def send_until(service: Service, pixels: np.ndarray, state: str) -> dict[str, Any]:
    """Send rows until that is the state."""
    random = np.random.default_rng(0)

    def look() -> dict[str, Any]:
        for _ in range(20):
            send(service, pixels, random)
        found = drift(service)
        return found if found["state"] == state else {}

    return until(look)


def test_a_service_says_how_far_live_rows_are_from_its_baseline(watched: Server, digits: Digits) -> None:
    assert drift(watched)["state"] == "warming"
    clean, dark = digits.pixels[360:], (digits.pixels[360:] * 0.4).astype(np.uint8)
    found = send_until(watched, clean, "ok")
    assert found["reference"] == "baseline"
    assert found["baseline_rows"] == 360
    assert found["scores"]["input"] < found["thresholds"]["input"] == 0.05
    assert [layer["name"] for layer in found["layers"]] == ["bn1", "bn2", "bn4", "bn5"]
    found = send_until(watched, dark, "drifting")
    assert found["windows"] >= 3  # of which a clean one may be the first, once in some hundreds
    assert found["scores"]["input"] > 1
    assert all(channel["lambda"] < 0 < channel["z"] for channel in found["layers"][0]["worst"])
    metrics = watched.metrics()
    assert metrics["foldserve_drift_state", "digits", "drifting", "1"] == 1
    assert metrics["foldserve_drift_state", "digits", "ok", "1"] == 0
    assert metrics["foldserve_drift_score", "digits", "input", "1"] > 1
    assert metrics["foldserve_drift_score", "digits", "texture", "1"] > 1
    assert metrics["foldserve_drift_threshold", "digits", "input", "1"] == 0.05
    assert metrics["foldserve_drift_work_seconds_total", "digits", "1"] > 0
    assert watched.log.count("digits/1: drift state drifting, was ok") == 1
    send_until(watched, clean, "ok")
    assert watched.log.count("digits/1: drift state ok, was drifting") == 1


def test_the_channels_of_the_last_window_can_be_read(watched: Server, digits: Digits) -> None:
    known = drift(watched) if drift(watched)["windows"] else send_until(watched, digits.pixels[360:], "ok")
    for layer in known["layers"]:
        found = watched.get(f"/v1/models/digits/drift/{layer['name']}").json()
        stats = watched.get(f"/v1/models/digits/layers/{layer['name']}").json()
        assert (found["name"], found["part"], found["reference"]) == (
            layer["name"],
            layer["part"],
            "baseline",
        )
        assert found["n"] >= 64
        assert found["eps"] == stats["eps"]
        lists = ("mean", "var", "delta", "lambda", "z", "reference_mean", "reference_var")
        assert {len(found[name]) for name in lists} == {stats["num_features"]}
        base = np.array(found["reference_var"]) + found["eps"]
        delta = np.subtract(found["mean"], found["reference_mean"]) / np.sqrt(base)
        np.testing.assert_allclose(found["delta"], delta, atol=1e-4)
        ratio = (np.array(found["var"]) + found["eps"]) / base
        np.testing.assert_allclose(found["lambda"], np.log(ratio), atol=1e-3)
    answer = watched.get("/v1/models/digits/drift/bn3")
    assert (answer.status_code, answer.json()["type"]) == (409, "not-watched")
    assert watched.get("/v1/models/digits/drift/bn1?version=9").status_code == 404


# A sample


NORMS = ("bn1", "bn2", "bn4", "bn5")


def by_torch(pixels: np.ndarray) -> list[float]:
    """What one image scores against the frozen statistics: by hooks on the network, in float64."""
    stored = ModelStore(STORE).open("digits")
    network, given = unfolded.built(stored, Stopwatch()).double().eval(), stored.manifest.input
    found: dict[str, float] = {}

    def score(norm: Any, arguments: tuple[torch.Tensor], name: str) -> None:
        x = arguments[0].reshape(1, norm.num_features, -1)[0]
        own, base = x.var(1, correction=0) + norm.eps, norm.running_var + norm.eps
        r, delta = own / base, (x.mean(1) - norm.running_mean) / base.sqrt()
        if x.shape[1] == 1:
            r = torch.ones_like(r)  # one value has no variance
        j = (0.5 * (r + 1 / r - 2 + delta**2 * (1 + 1 / r))).clamp(max=10)
        found[name] = float((j * norm.weight**2).sum() / (norm.weight**2).sum())

    for name in NORMS:
        network.get_submodule(name).register_forward_pre_hook(partial(score, name=name))
    with torch.inference_mode():
        network((torch.from_numpy(pixels[None]).double() / 255 - given.mean[0]) / given.std[0])
    return [found[name] for name in NORMS]


def sample(
    service: Service, content: bytes, media_type: str = "image/png", more: str = "", **query: object
) -> httpx.Response:
    given = {name: str(value) for name, value in query.items()}
    headers = {"Content-Type": media_type}
    return service.http.post(f"/v1/models/digits{more}/drift", content=content, headers=headers, params=given)


def test_a_sample_scores_what_the_network_says_of_it_in_float64(service: Service, digits: Digits) -> None:
    for pixels in (digits.pixels[3], 255 - digits.pixels[5]):
        answer = sample(service, encoded(pixels))
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["model"], found["version"], found["reference"]) == ("digits", 1, "frozen")
        assert [(layer["name"], layer["typical"]) for layer in found["layers"]] == [(n, None) for n in NORMS]
        scores = [layer["score"] for layer in found["layers"]]
        np.testing.assert_allclose(scores, by_torch(pixels), rtol=1e-3)
        assert all(len(layer["worst"]) == 5 for layer in found["layers"])


def test_however_a_sample_is_sent_it_scores_the_same(service: Service, digits: Digits) -> None:
    pixels = digits.pixels[3]
    found = sample(service, encoded(pixels)).json()
    assert sample(service, pixels.tobytes(), OCTETS, dtype="uint8").json() == found
    assert sample(service, encoded(pixels), more="/versions/1").json() == found
    assert sample(service, b64_json([encoded(pixels)]), "application/json").json() == found


def test_with_a_baseline_a_sample_stands_beside_what_is_typical(watched: Server, digits: Digits) -> None:
    clean, dark = (
        sample(watched, encoded(digits.pixels[400])),
        sample(watched, encoded(digits.pixels[400] // 4)),
    )
    found, other = clean.json(), dark.json()
    assert found["reference"] == "baseline"
    for layer, darker in zip(found["layers"][:2], other["layers"][:2], strict=True):
        assert layer["typical"] == darker["typical"] > 0
        assert layer["score"] < 4 * layer["typical"] < darker["score"]


@pytest.mark.parametrize(
    ("content", "media_type", "more", "status", "slug"),
    [
        (b"", "image/png", "", 400, "invalid-input"),
        (b"no image", "image/png", "", 400, "invalid-image"),
        (b"x", "text/plain", "", 415, "unsupported-media-type"),
        (bytes(128), OCTETS, "?dtype=uint8", 413, "too-large"),
        (bytes(63), OCTETS, "?dtype=uint8", 400, "invalid-tensor"),
        (bytes(64), OCTETS, "?dtype=uint8&top_k=2", 400, "invalid-query"),
        (np.full(64, 1e9, "<f4").tobytes(), OCTETS, "?dtype=float32", 200, None),
    ],
)
def test_a_sample_that_cannot_be_used_is_a_problem(
    service: Service, content: bytes, media_type: str, more: str, status: int, slug: str | None
) -> None:
    answer = service.http.post(
        f"/v1/models/digits/drift{more}", content=content, headers={"Content-Type": media_type}
    )
    assert (answer.status_code, answer.json().get("type")) == (status, slug)


def test_samples_are_no_predictions_and_in_no_window(service: Service, digits: Digits) -> None:
    before, seen = service.metrics(), drift(service)["collected"]
    for pixels in digits.pixels[:5]:
        assert sample(service, encoded(pixels)).status_code == 200
    after = service.metrics()
    name = ("foldserve_examinations_total", "digits", "ok")
    assert after[name] - before.get(name, 0.0) == 5
    changed = {key[0] for key, value in after.items() if value != before.get(key) and "process" not in key[0]}
    assert not changed & {
        "foldserve_requests_total",
        "foldserve_rows_total",
        "foldserve_batch_rows_count",
        "foldserve_inferences_total",
        "foldserve_drift_work_seconds_total",
    }
    assert drift(service)["collected"] == seen


def test_predictions_are_the_same_while_samples_are_asked_for(service: Service, digits: Digits) -> None:
    batch = digits.pixels[:16]
    expected = service.logits(batch.tobytes(), OCTETS, dtype="uint8")
    score = sample(service, encoded(batch[0])).json()

    def predict(_: int) -> np.ndarray:
        return service.logits(batch.tobytes(), OCTETS, dtype="uint8")

    def examine(_: int) -> httpx.Response:
        return sample(service, encoded(batch[0]))

    with ThreadPoolExecutor(8) as clients:
        predicted, examined = clients.map(predict, range(200)), clients.map(examine, range(100))
        for logits in predicted:
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        found = list(examined)
    assert {answer.status_code for answer in found} == {200}
    assert all(answer.json() == score for answer in found)


# The doctor


def diagnosis(service: Service, images: np.ndarray, more: str = "") -> dict[str, Any]:
    """What the doctor says of these pixels, sent as a form."""
    answer = service.http.post(
        f"/v1/models/digits{more}/doctor",
        content=multipart(list(map(encoded, images))),
        headers={"Content-Type": MULTIPART},
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_doctor_finds_what_was_planted_and_nothing_else(service: Service, digits: Digits) -> None:
    pixels = digits.pixels[:16]
    clean, negative = diagnosis(service, pixels), diagnosis(service, 255 - pixels)
    assert (clean["images"], clean["verdict"], clean["fault"], clean["likely"]) == (16, "fits", None, None)
    assert (negative["verdict"], negative["fault"], negative["likely"]) == ("fault", "inversion", "inverted")
    assert negative["fix"]
    scores = [variant["score"] for variant in negative["variants"]]
    assert scores == sorted(scores)
    fitting, configured = (
        next(one["score"] for one in found["variants"] if one["name"] == name)
        for found, name in ((negative, "inverted"), (clean, "as configured"))
    )
    assert fitting == pytest.approx(configured, rel=1e-3), "a negative's negative is the image"


def test_the_doctor_takes_images_in_any_form_and_of_one_version(service: Service, digits: Digits) -> None:
    pixels = digits.pixels[:4]
    found = diagnosis(service, pixels, "/versions/1")
    answer = service.http.post(
        "/v1/models/digits/doctor",
        content=b64_json(list(map(encoded, pixels))),
        headers={"Content-Type": "application/json"},
    )
    assert answer.json() == found
    one = service.http.post(
        "/v1/models/digits/doctor", content=encoded(pixels[0]), headers={"Content-Type": "image/png"}
    )
    assert (one.status_code, one.json()["images"], one.json()["verdict"]) == (200, 1, "unclear")


@pytest.mark.parametrize(
    ("content", "media_type", "status", "slug"),
    [
        (bytes(256), OCTETS, 400, "invalid-input"),
        (b'{"inputs": [[[0]]]}', "application/json", 400, "invalid-input"),
        (multipart([b"no image"]), MULTIPART, 400, "invalid-image"),
        (multipart([encoded(np.zeros((1, 8, 8), np.uint8))] * 17), MULTIPART, 413, "too-large"),
        (b"", "image/png", 400, "invalid-input"),
    ],
    ids=["numbers", "numbers as JSON", "no image", "many", "nothing"],
)
def test_what_the_doctor_cannot_use_is_a_problem(
    service: Service, content: bytes, media_type: str, status: int, slug: str
) -> None:
    answer = service.http.post(
        "/v1/models/digits/doctor", content=content, headers={"Content-Type": media_type}
    )
    assert (answer.status_code, answer.json()["type"]) == (status, slug)


def test_a_doctor_whose_time_is_over_says_so(service: Service, digits: Digits) -> None:
    answer = service.http.post(
        "/v1/models/digits/doctor",
        content=multipart([encoded(one) for one in digits.pixels[:16]]),
        headers={"Content-Type": MULTIPART},
        params={"timeout_ms": "1"},
    )
    assert (answer.status_code, answer.json()["type"]) == (504, "deadline-passed")


def test_the_service_says_what_memory_that_takes(watched: Server) -> None:
    memory = watched.get("/v1/models/digits").json()["memory"]
    assert 0 < memory["drift"] <= memory["weights"]


def test_an_unknown_model_or_version_has_no_drift(watched: Server) -> None:
    assert watched.get("/v1/models/nobody/drift").status_code == 404
    assert watched.get("/v1/models/digits/drift?version=9").status_code == 404
    assert watched.get("/v1/models/digits/drift?version=1").status_code == 200
    assert watched.get("/v1/models/digits/drift?frob=1").status_code == 400


def test_where_it_is_off_the_service_says_so(digits: Digits) -> None:
    with Server.start(drift="off") as server:
        send(server, digits.pixels, np.random.default_rng(0))
        found = drift(server)
        assert (found["state"], found["scores"], found["layers"]) == ("off", None, [])
        refused = sample(server, encoded(digits.pixels[0]))
        assert (refused.status_code, refused.json()["type"]) == (409, "not-watched")
        assert server.get("/v1/models/digits/drift/bn1").status_code == 409
        image = server.http.post(
            "/v1/models/digits/doctor",
            content=encoded(digits.pixels[0]),
            headers={"Content-Type": "image/png"},
        )
        assert (image.status_code, image.json()["type"]) == (409, "not-watched")
        assert "drift" not in server.get("/v1/models/digits").json()["memory"]
        assert server.metric("foldserve_drift_state", "digits", "off", "1") == 1
        assert not any(name == "foldserve_drift_score" for name, *_ in server.metrics())
        assert server.stop() == 0
