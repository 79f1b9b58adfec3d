"""What is served changes while it is served: on request, or with the store, and no request fails of it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from .digits import Digits, assert_serves, npy
from .load import Load, rows
from .server import NPY, Process, Server, until
from .stores import copied, with_manifest, with_tensors
from .tree import Tree, kill
from .watching import is_well, restarts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

SECRET = "a-key-of-some-length"
KEYS = f"admin:ops:{SECRET}"
ADMIN = {"Authorization": f"Bearer {SECRET}"}
RELOADS = int(os.environ.get("FOLDSERVE_TEST_RELOADS", "6"))
CONNECTIONS = 32


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of digits/1."""
    copied(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def explicit(store: Path) -> Iterator[Server]:
    """Two workers, of which an admin may ask for changes."""
    with Server.start(model_store=store, model_control="explicit", keys=KEYS, workers=2) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def published(store: Path, version: int, *, name: str = "digits", shift: float = 0.0) -> Path:
    """Put one more version into the store in one step, each of its logits moved by `shift`."""
    made = copied(store.parent / "staging", name, version)
    with_tensors(made, lambda tensors: tensors["fc2.bias"].add_(shift))
    (store / name).mkdir(exist_ok=True)
    return made.rename(store / name / str(version))


def change(server: Server, action: str, model: str = "digits", **more: Any) -> httpx.Response:
    address = f"/v2/repository/models/{model}/{action}"
    return server.http.post(address, headers=ADMIN, **more)


def index(server: Server) -> dict[tuple[str, int], tuple[str, str]]:
    listed = server.http.post("/v2/repository/index").json()
    return {(each["name"], int(each["version"])): (each["state"], each["reason"]) for each in listed}


def served(server: Server) -> list[tuple[str, int]]:
    return [(each["model"], each["version"]) for each in server.get("/v1/models").json()["models"]]


# --- on request


def test_a_load_serves_the_newest_version_on_every_worker_by_the_time_it_is_answered(
    explicit: Server, store: Path, digits: Digits
) -> None:
    for version in range(2, 5):
        published(store, version, shift=float(version))
        assert served(explicit) == [("digits", max(version - 1, 1))]
        assert (answer := change(explicit, "load")).status_code == 200, answer.text
        for _ in range(8):  # over connections of their own, which the kernel spreads
            with httpx.Client(base_url=explicit.address, trust_env=False) as client:
                got = client.post(
                    "/v1/models/digits/predict?output=logits",
                    content=npy(digits.pixels[:1]),
                    headers={"Content-Type": NPY},
                ).json()
            assert got["version"] == version
            logits = np.array(got["predictions"][0]["logits"])
            np.testing.assert_allclose(logits, digits.logits[0] + version, rtol=1e-4, atol=1e-4)
    assert index(explicit)["digits", 4] == ("READY", "")
    assert index(explicit)["digits", 1] == ("UNAVAILABLE", "it is not loaded")


def test_a_model_is_unloaded_and_loaded_again_and_others_go_on(
    explicit: Server, store: Path, digits: Digits
) -> None:
    published(store, 7, name="other")
    assert change(explicit, "load", "other").status_code == 200
    triton = {"parameters": {"unload_dependents": False}}
    assert change(explicit, "unload", json=triton).status_code == 200
    assert served(explicit) == [("other", 7)]
    assert explicit.predict(npy(digits.pixels[:1]), NPY).json()["type"] == "unknown-model"
    assert explicit.get("/v2/models/digits/ready").status_code == 404
    assert change(explicit, "unload").json() == {"error": "no model 'digits' is served"}
    assert explicit.get("/readyz").status_code == 200
    assert change(explicit, "load").status_code == 200
    assert_serves(explicit, digits)


def test_a_version_that_must_not_be_served_leaves_the_old_one_and_says_why(
    explicit: Server, store: Path, digits: Digits
) -> None:
    broken = published(store, 2)
    weights = broken / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    refused = change(explicit, "load")
    assert refused.status_code == 400
    assert "digits/2" in refused.json()["error"]
    assert str(store) not in refused.text
    assert_serves(explicit, digits)
    assert served(explicit) == [("digits", 1)]
    assert until(lambda: index(explicit)["digits", 2]) == ("UNAVAILABLE", refused.json()["error"])
    shutil.rmtree(broken)
    assert change(explicit, "load").status_code == 200
    assert ("digits", 2) not in index(explicit)


def test_the_same_version_with_other_files_takes_the_place_of_the_old(
    explicit: Server, store: Path, digits: Digits
) -> None:
    with_tensors(store / "digits" / "1", lambda tensors: tensors["fc2.bias"].add_(5.0))
    before = explicit.logits(npy(digits.pixels[:3]), NPY)
    np.testing.assert_allclose(before, digits.logits[:3], rtol=1e-4, atol=1e-4)
    assert change(explicit, "load").status_code == 200
    after = explicit.logits(npy(digits.pixels[:3]), NPY)
    np.testing.assert_allclose(after, digits.logits[:3] + 5.0, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def unchanged() -> Iterator[Server]:
    """The shipped store, which no test here changes."""
    with Server.start(model_control="explicit", keys=KEYS) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


@pytest.mark.parametrize(
    ("model", "content", "status"),
    [
        ("nobody", b"", 404),
        ("..", b"", 404),
        ("%2e%2e%2fetc", b"", 404),
        ("x" * 300, b"", 404),
        ("digits", b'{"parameters": {"config": "{}"}}', 400),
        ("digits", b'{"parameters": {"file:1/model.onnx": "AAAA"}}', 400),
        ("digits", b"[]", 400),
        ("digits", b"{", 400),
        ("digits", b" " * 5000, 400),
    ],
)
def test_what_cannot_be_loaded_is_refused_and_nothing_changes(
    unchanged: Server, model: str, content: bytes, status: int
) -> None:
    answer = change(unchanged, "load", model, content=content)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert served(unchanged) == [("digits", 1)]


def test_only_an_admin_s_key_changes_what_is_served(store: Path) -> None:
    keys = f"inference:app:another-key-of-length,{KEYS}"
    with Server.start(model_store=store, model_control="explicit", keys=keys) as server:
        address = "/v2/repository/models/digits/unload"
        for headers, status in [({}, 401), ({"Authorization": "Bearer another-key-of-length"}, 403)]:
            assert server.http.post(address, headers=headers).status_code == status
        assert server.get("/v1/models").status_code == 401
        assert server.get("/readyz").status_code == 200
        assert server.http.get("/v1/models", headers=ADMIN).json()["models"][0]["version"] == 1
        counted = server.http.get("/metrics", headers=ADMIN).text
        for name, count in [("", 2), ("app", 1), ("ops", 2)]:
            assert f'foldserve_key_requests_total{{key="{name}"}} {count}.0' in counted
        assert server.stop() == 0
        assert SECRET not in server.log


def test_without_control_nothing_is_loaded_on_request(store: Path) -> None:
    with Server.start(model_store=store, keys=KEYS) as server:
        answer = change(server, "load")
        assert answer.status_code == 403
        assert answer.json() == {"error": "nothing is loaded on request: model_control is none"}


def test_an_empty_store_may_be_filled_while_it_is_served(tmp_path: Path, digits: Digits) -> None:
    (tmp_path / "store").mkdir()
    settings: dict[str, Any] = {"model_control": "explicit", "keys": KEYS}
    with Server.start(model_store=tmp_path / "store", **settings) as server:
        assert served(server) == []
        server.process.wait_for("No model is served yet")
        copied(tmp_path / "store")
        assert (answer := change(server, "load")).status_code == 200, answer.text + server.log
        assert_serves(server, digits)
        assert server.stop() == 0
        assert "Traceback" not in server.log


# --- under load


def test_no_request_fails_while_versions_are_loaded_and_memory_stays(
    explicit: Server, store: Path, digits: Digits
) -> None:
    tree, sizes = Tree(explicit.process.pid), list[int]()
    asks = [rows(digits, at, 1 + at % 5) for at in range(20)]
    with Load(explicit.address, asks, CONNECTIONS) as load:
        load.more(CONNECTIONS)
        for version in range(2, 2 + RELOADS):
            published(store, version, shift=float(version))
            assert change(explicit, "load").status_code == 200
            load.more(CONNECTIONS)
            sizes.append(tree.resident_bytes()[tree.engine])
    wrong = [outcome for outcome in load.outcomes if not outcome.is_right]
    assert not wrong, wrong[:5]
    assert served(explicit) == [("digits", 1 + RELOADS)]
    grown = max(sizes[RELOADS // 2 :]) - max(sizes[: RELOADS // 2])
    assert grown < 8 << 20, sizes  # a version takes more than that while it is loaded


def test_what_was_loaded_comes_back_with_a_new_engine(explicit: Server, store: Path, digits: Digits) -> None:
    published(store, 2)
    assert change(explicit, "load").status_code == 200
    published(store, 3)  # which nobody has asked for
    published(store, 1, name="other")
    assert change(explicit, "load", "other").status_code == 200
    shutil.rmtree(store / "other")
    kill(Tree(explicit.process.pid).engine)
    until(lambda: restarts(explicit, "engine") == 1 and is_well(explicit))
    assert served(explicit) == [("digits", 2)]
    assert "other/1 is served no more" in explicit.log
    assert_serves(explicit, digits)


def test_a_worker_that_dies_takes_no_change_with_it(explicit: Server, store: Path, digits: Digits) -> None:
    tree = Tree(explicit.process.pid)
    with Load(explicit.address, [rows(digits, at, 3) for at in range(20)], 8) as load:
        for version in (2, 3):
            published(store, version)
            kill(tree.workers(2)[version % 2])
            until(lambda: is_well(explicit))
            assert change(explicit, "load").status_code == 200
            load.more(50)
    assert all(outcome.is_right for outcome in load.outcomes if outcome.status)
    assert served(explicit) == [("digits", 3)]


# --- with the store


def test_the_store_is_followed(store: Path, digits: Digits) -> None:
    settings: dict[str, Any] = {"model_control": "poll", "poll_s": 0.2, "workers": 2}
    with Server.start(model_store=store, **settings) as server:
        with Load(server.address, [rows(digits, at, 2) for at in range(20)], 8) as load:
            published(store, 2, shift=2.0)
            until(lambda: served(server) == [("digits", 2)])
            published(store, 5, name="other")
            until(lambda: served(server) == [("digits", 2), ("other", 5)])
            shutil.rmtree(store / "other")
            until(lambda: served(server) == [("digits", 2)])
            broken = published(store, 3)
            with_manifest(broken, lambda document: document["weights"].update(sha256="0" * 64))
            server.process.wait_for("model 'digits' could not be loaded: ")
            load.more(20)
            assert served(server) == [("digits", 2)]
            shutil.rmtree(broken)
            shutil.rmtree(store / "digits" / "2")
            until(lambda: served(server) == [("digits", 1)])
        assert all(outcome.is_right for outcome in load.outcomes), load.outcomes
        assert server.http.post("/v2/repository/models/digits/load").status_code == 403
        assert server.stop() == 0, server.log
        assert server.log.count("could not be loaded") == 1, "it is not tried again until it changes"


def test_the_policy_says_which_versions_are_served(store: Path) -> None:
    for version in (4, 9):
        published(store, version)
    with Server.start(model_store=store, versions="latest:2") as server:
        assert served(server) == [("digits", 4), ("digits", 9)]


@pytest.mark.parametrize("settings", [{"versions": "newest"}, {"versions": "2"}, {"keys": "admin:ops:short"}])
def test_settings_that_make_no_sense_are_refused_at_the_start(store: Path, settings: dict[str, Any]) -> None:
    with Process("serve", port=0, model_store=store, **settings) as process:
        assert process.wait() == 1
        assert "Traceback" not in process.log
        assert "short" not in process.log
