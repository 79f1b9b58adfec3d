"""What cannot be served ends the process at once, with one sentence that says why."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
import torch

from service.engine.loading import Loaded, load
from service.engine.selection import Selection
from service.errors import FoldserveError
from service.settings import Settings
from service.store.model_store import ModelStore

from .server import Process, Service, free_port, until
from .stores import copied, with_manifest, with_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

STARTS = 3
"""At once: each takes a core and some 300 MB, and of the cores that can be seen few may be ours to use."""

# Read by every Python that starts: the engine finds one more architecture, without running statistics.
WITH_BATCH_STATISTICS = """
import sys

if "service.engine" in " ".join(sys.orig_argv):
    from torch import nn
    from service.network import catalog
    from service.network.batch_norm import BatchNorm2d

    class Untracked(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = BatchNorm2d(1, track_running_stats=False)
            self.fc = nn.Linear(64, 10)

        def forward(self, x):
            return self.fc(self.norm(x).flatten(1))

    catalog._ARCHITECTURES["untracked"] = Untracked
"""


def unknown_key(version: Path) -> None:
    with (version / "model.toml").open("a", encoding="utf-8") as manifest:
        manifest.write("\n[colour]\nx = 1\n")


def change(**values: Any) -> Callable[[Path], None]:
    return lambda version: with_manifest(version, lambda document: document.update(values))


def tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    return lambda version: with_tensors(version, edit)


def other_bytes(version: Path) -> None:
    content = bytearray((version / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (version / "weights.safetensors").write_bytes(content)


def not_safetensors(version: Path) -> None:
    (version / "weights.safetensors").write_bytes(b"PK\x03\x04")
    digest = hashlib.sha256(b"PK\x03\x04").hexdigest()
    with_manifest(version, lambda document: document["weights"].update(sha256=digest))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown key": (unknown_key, r"digits/1/model\.toml: unknown key colour"),
    "missing key": (
        lambda v: with_manifest(v, lambda document: document.pop("weights")),
        r"digits/1/model\.toml: key weights is missing",
    ),
    "not TOML": (lambda v: (v / "model.toml").write_text("= 1"), r"digits/1/model\.toml is not TOML"),
    "no manifest": (lambda v: (v / "model.toml").unlink(), r"digits/1/model\.toml is missing"),
    "unknown architecture": (change(architecture="letters"), "'letters' is unknown; there are: .*digits"),
    "unknown option": (change(options={"depth": 3}), "architecture 'digits': .*depth"),
    "other digest": (other_bytes, r"weights\.safetensors has sha256 \w{64}, but the manifest says \w{64}"),
    "no weights": (
        lambda v: (v / "weights.safetensors").unlink(),
        r"digits/1: weights\.safetensors cannot be read: No such file",
    ),
    "not safetensors": (not_safetensors, r"weights\.safetensors is not a safetensors file"),
    "missing tensor": (tensors(lambda t: t.pop("bn3.running_var")), r"missing: bn3\.running_var"),
    "unexpected tensor": (tensors(lambda t: t.update(extra=torch.ones(1))), "unexpected: extra"),
    "wrong shape": (
        tensors(lambda t: t.update({"bn1.bias": torch.ones(31)})),
        r"wrong shape: bn1\.bias is \[31\] instead of \[32\]",
    ),
    "NaN in a statistic": (tensors(lambda t: t["bn2.running_mean"].fill_(torch.nan)), "bn2|finite|NaN"),
    "too few labels": (lambda v: (v / "labels.txt").write_text("0\n1\n"), "2 labels"),
    "no labels": (lambda v: (v / "labels.txt").unlink(), "labels file labels.txt cannot be read"),
    "larger than memory": (
        lambda v: os.truncate(v / "weights.safetensors", 1 << 42),  # a hole: it takes no room on disk
        r"digits/1: loading it takes about 16,777,216\.0 MiB, [\d.,]+ MiB are free",
    ),
    "a version in words": (lambda v: v.rename(v.with_name("one")), "digits/one is no version"),
}
STARTED = ("no manifest", "other digest", "NaN in a statistic")
"""Those that a start is tried with: found by the store, by the reader of weights and by the network."""


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "empty store": ({"model_store": "{store}"}, "the model store holds no model"),
    "no store": ({"model_store": "{store}/missing"}, "the model store .*(not a folder|does not exist)"),
    "unknown model": ({"models": "letters"}, "no model 'letters'"),
    "unknown setting": ({"nonsense": 1}, "unknown setting in the environment: FOLDSERVE_NONSENSE$"),
    "port in words": ({"port": "http"}, "FOLDSERVE_PORT: .*integer"),
    "two at once": ({"max_batch": -1, "threads": "x"}, "FOLDSERVE_THREADS: .*; FOLDSERVE_MAX_BATCH: "),
    "not an address": ({"host": "256.0.0.1"}, r"cannot listen on 256\.0\.0\.1:0"),
    "no such CUDA device": ({"device": "cuda:99"}, "'cuda:99'.*(sees no CUDA device|there are)"),
    "TF32 on a CPU": ({"device": "cpu", "precision": "tf32"}, "precision tf32 is for CUDA devices"),
    "no such device": ({"device": "tpu"}, "'tpu' is none of auto, cpu, cuda, cuda:N"),
}


class Ended(NamedTuple):
    """What is left of a start."""

    status: int
    log: str


def ended(*arguments: str, **settings: Any) -> Ended:
    """Start the service and wait for its end, or for the claim that it is ready."""
    with Process("serve", *arguments, **{"port": 0} | settings) as process:
        return end_of(process)


def end_of(process: Process) -> Ended:
    until(lambda: process.has_ended or "ready at" in process.log)
    assert "ready at" not in process.log, process.log
    return Ended(process.wait(), process.log)


def assert_refused(end: Ended, reason: str) -> None:
    """Status 1, and one line beside the greeting and what is only said, which gives the reason."""
    assert end.status == 1, end.log
    assert "Traceback" not in end.log, end.log
    (line,) = (line for line in end.log.splitlines() if not re.match(r"foldserve 0\.|\S+ \S+ INFO ", line))
    assert re.search(reason, line), end.log


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ended]]]:
    """How each start ended; they run side by side, as each takes seconds to import torch."""

    folder = tmp_path_factory.mktemp("refused")

    def start(name: str) -> Ended:
        store = folder / name.replace(" ", "-")
        store.mkdir()
        if name in BROKEN:
            BROKEN[name][0](copied(store))
            return ended(model_store=store)
        given: dict[str, Any] = {k: str(value).format(store=store) for k, value in SETTINGS[name][0].items()}
        return ended(**given)

    with ThreadPoolExecutor(STARTS) as starts:
        yield {name: starts.submit(start, name) for name in (*STARTED, *SETTINGS)}


def loaded(store: Path) -> list[Loaded]:
    """Every version of a store, as the engine loads it at its start."""
    picked = Selection(ModelStore(store), Settings()).at_start()
    return [load(each.stored, torch.device("cpu")) for each in picked]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_store_is_named_precisely(tmp_path: Path, name: str) -> None:
    """Without a start, which takes five seconds of a processor and says the same sentence."""
    BROKEN[name][0](copied(tmp_path))
    with pytest.raises(FoldserveError) as refused:
        loaded(tmp_path)
    assert re.search(BROKEN[name][1], str(refused.value)), refused.value


@pytest.mark.parametrize("name", STARTED)
def test_broken_store_ends_a_start_with_that_sentence(ends: dict[str, Future[Ended]], name: str) -> None:
    assert_refused(ends[name].result(), BROKEN[name][1])


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_setting_is_named(ends: dict[str, Future[Ended]], name: str) -> None:
    assert_refused(ends[name].result(), SETTINGS[name][1])


def test_flag_overrides_the_environment_and_is_checked_as_well() -> None:
    assert_refused(ended("--device", "cuda:99", device="cpu"), "'cuda:99'")


def test_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(ended(port=port), rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use")


def test_port_is_taken_as_soon_as_it_is_bound() -> None:
    """An address that is bound but not listened on can still be bound and taken by another process."""
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = free_port()
        rival.bind(("127.0.0.1", port))
        with Process("serve", port=port) as process:
            until(lambda: process.has_ended or is_live(port))
            with pytest.raises(OSError, match="Address already in use"):
                rival.listen()
            process.signal(signal.SIGTERM)
            assert process.wait() == 0, process.log


def test_model_without_a_version_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    assert_refused(ended(model_store=tmp_path), "'digits' has no version")


def is_live(port: int) -> bool:
    service = Service(f"http://127.0.0.1:{port}")
    try:
        return service.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
    finally:
        service.close()


def test_model_with_batch_statistics_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def untracked(weights: dict[str, torch.Tensor]) -> None:
        weights.clear()
        weights |= {"norm.weight": torch.ones(1), "norm.bias": torch.zeros(1)}
        weights |= {"fc.weight": torch.ones(10, 64), "fc.bias": torch.zeros(10)}

    version = copied(tmp_path / "store")
    with_tensors(version, untracked)
    with_manifest(version, lambda document: document.update(architecture="untracked"))
    (tmp_path / "sitecustomize.py").write_text(WITH_BATCH_STATISTICS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    end = ended(model_store=tmp_path / "store")
    assert_refused(end, "batch statistics at inference")
