"""A change that is to stay: an admin accepts what comes in as the baseline, and the alarm ends for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from service import cli
from tests.evaluation.folders import held_out_digits

from .digits import OCTETS, Digits, encoded
from .server import STORE, Server, until
from .stores import copied
from .tree import Tree, kill
from .watching import is_well, restarts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

OPS = "ops-key-0123456789"
KEYS = f"admin:ops:{OPS}"
ADDRESS = "/v1/models/digits/baseline"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Baselines, with one of the shipped model."""
    images = held_out_digits(tmp_path_factory.mktemp("images"), range(360))
    apart = tmp_path_factory.mktemp("baselines")
    where = ["--model-store", str(STORE), "--baselines", str(apart), "--device", "cpu", "--threads", "1"]
    assert cli.main(["calibrate", "digits", "--images", str(images), *where]) == 0
    return apart


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server.start(baselines=folder, drift_share=0.5, workers=2, keys=KEYS) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def accept(server: Server, address: str = ADDRESS, key: str = OPS) -> httpx.Response:
    return server.http.post(address, headers={"Authorization": f"Bearer {key}"})


def report(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/v1/models/digits/drift").json()
    return found


def send(server: Server, pixels: np.ndarray, random: np.random.Generator) -> None:
    for _ in range(20):
        rows = pixels[random.integers(0, len(pixels), 16)]
        assert server.predict(rows.tobytes(), OCTETS, dtype="uint8").status_code == 200


def send_until(server: Server, pixels: np.ndarray, state: str) -> dict[str, Any]:
    random = np.random.default_rng(0)

    def look() -> dict[str, Any]:
        send(server, pixels, random)
        found = report(server)
        return found if found["state"] == state else {}

    return until(look)


def send_until_accepted(server: Server, pixels: np.ndarray, address: str = ADDRESS) -> dict[str, Any]:
    """Send rows, and ask again as long as there are too few."""
    random = np.random.default_rng(1)

    def look() -> dict[str, Any]:
        send(server, pixels, random)
        answer = accept(server, address)
        found: dict[str, Any] = answer.json()
        assert answer.status_code == 200 or found["type"] == "too-few-rows", found
        return found if answer.status_code == 200 else {}

    return until(look)


def typical(server: Server, pixels: np.ndarray) -> set[float]:
    """What the baseline says of the first norm, by many connections: those of both workers."""
    headers = {"Content-Type": "image/png"}
    answers = [
        httpx.post(
            f"{server.address}/v1/models/digits/drift",
            content=encoded(pixels),
            headers=headers,
            trust_env=False,
        )
        for _ in range(8)
    ]
    return {answer.json()["layers"][0]["typical"] for answer in answers}


def test_rows_that_are_accepted_are_as_they_should_be_from_then_on_and_behind_a_killed_engine(
    server: Server, digits: Digits, folder: Path
) -> None:
    dark = (digits.pixels * 0.4).astype(np.uint8)
    too_few = accept(server)
    assert (too_few.status_code, too_few.json()["type"]) == (409, "too-few-rows")
    assert too_few.json()["detail"].startswith("0 different rows")
    assert too_few.json()["detail"].endswith("takes 256")
    (before,) = typical(server, dark[0])
    assert send_until(server, dark, "drifting")["baseline_rows"] == 360

    accepted = send_until_accepted(server, dark)
    assert (accepted["state"], accepted["reference"], accepted["windows"]) == ("warming", "baseline", 0)
    assert 256 <= accepted["baseline_rows"] <= 540
    assert (folder / "digits" / "1" / "baseline.safetensors").exists()
    (after,) = typical(server, dark[0])
    assert after != before, "both workers compare samples with it, too"
    found = send_until(server, dark, "ok")
    assert found["baseline_rows"] == accepted["baseline_rows"]
    assert found["scores"]["input"] < found["thresholds"]["input"]
    assert server.metric("foldserve_model_changes_total", "accept", "digits", "ok") == 1

    kill(Tree(server.process.pid).engine)
    until(lambda: restarts(server, "engine") == 1 and is_well(server))
    assert report(server)["baseline_rows"] == accepted["baseline_rows"]
    assert typical(server, dark[0]) == {after}
    send_until(server, dark, "ok")
    send_until(server, digits.pixels, "drifting")


def test_who_may_not_or_names_what_is_not_there_is_told_so(server: Server) -> None:
    assert httpx.post(server.address + ADDRESS, trust_env=False).status_code == 401
    assert httpx.post(f"{server.address}{ADDRESS}%0a", trust_env=False).status_code == 401
    assert accept(server, key="another-key-0123456789").status_code == 401
    for address, status, slug in (
        ("/v1/models/nobody/baseline", 404, "unknown-model"),
        ("/v1/models/digits/versions/9/baseline", 404, "unknown-version"),
        ("/v1/models/digits/versions/1/baseline", 409, "too-few-rows"),
        (f"{ADDRESS}?rows=3", 400, "invalid-query"),
    ):
        answer = accept(server, address)
        assert (answer.status_code, answer.json()["type"]) == (status, slug)


def test_a_baseline_that_cannot_be_kept_is_not_used(tmp_path: Path, digits: Digits) -> None:
    copied(tmp_path)
    (tmp_path / "file").touch()
    settings = {"model_store": tmp_path, "baselines": tmp_path / "file", "keys": KEYS, "drift_share": 0.5}
    with Server.start(**settings) as started:
        random = np.random.default_rng(2)

        def look() -> dict[str, Any]:
            send(started, digits.pixels, random)
            found: dict[str, Any] = accept(started).json()
            return found if found["type"] != "too-few-rows" else {}

        refused = until(look)
        assert (refused["type"], refused["status"]) == ("not-stored", 409)
        assert "--baselines DIR" in refused["detail"]
        assert report(started)["reference"] == "frozen"
        assert started.stop() == 0
