"""Drift as a client sees it: a baseline, live rows as before, then others, and what the service says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service import cli
from tests.evaluation.folders import held_out_digits

from .digits import OCTETS, Digits
from .server import STORE, Server, Service, until

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    assert found["windows"] >= 4
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
        assert "drift" not in server.get("/v1/models/digits").json()["memory"]
        assert server.metric("foldserve_drift_state", "digits", "off", "1") == 1
        assert not any(name == "foldserve_drift_score" for name, *_ in server.metrics())
        assert server.stop() == 0
