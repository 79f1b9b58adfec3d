"""An import that is killed leaves nothing that can be seen, at whatever moment it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from service.store import reference, weights
from service.store.model_store import ModelStore

from .checkpoints import behind, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds; only a hang takes this long
WHOLE = ["model.toml", "reference.safetensors", "weights.safetensors"]
COMMAND = ["digits", "--mean", "0.3", "--std", "0.4", "--name", "mine", "--threads", "1", "--device", "cpu"]
# Import after import, so that the moment of the kill falls into one and not into the start of Python.
AGAIN_AND_AGAIN = """
import sys
from service import cli
from service.importing import architecture, publishing
print("begun", flush=True)
while cli.main(["import", *sys.argv[1:]]) == 0:
    pass
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"state_dict": behind("module.", weights_of())}, tmp_path / "run.pth")
    return tmp_path / "run.pth"


@pytest.fixture
def begin(tmp_path: Path, checkpoint: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python ARGUMENTS` with an import into the store behind them."""
    running: list[subprocess.Popen[str]] = []

    def started(*python: str) -> subprocess.Popen[str]:
        where = ["--weights", str(checkpoint), "--model-store", str(tmp_path / "store")]
        running.append(
            subprocess.Popen(
                [sys.executable, *python, *COMMAND, *where],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return running[-1]

    yield started
    for process in running:
        process.kill()
        process.communicate(timeout=PATIENCE)


def require_whole(store: ModelStore) -> int:
    """Every version that can be seen is complete and what its manifest says; how many there are."""
    if not store.folder.exists():
        return 0
    names = store.names()
    for version in (versions := [version for name in names for version in store.versions(name)]):
        stored = store.open("mine", version)
        assert sorted(path.name for path in stored.folder.iterdir()) == WHOLE
        assert weights.read(stored).keys() == weights_of().keys()
        assert (stored.folder / reference.FILE_NAME).stat().st_size > 0
    assert bool(names) == bool(versions), "a model without a version"
    return len(versions)


def until_there_is(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob(pattern)):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("file", "number"),
    [
        ("weights.safetensors", signal.SIGKILL),
        ("model.toml", signal.SIGTERM),
        ("reference.safetensors", signal.SIGKILL),
    ],
)
def test_killed_while_it_writes_it_leaves_nothing_to_be_seen(
    tmp_path: Path, begin: Callable[..., subprocess.Popen[str]], file: str, number: int
) -> None:
    process = begin("-m", "service", "import")
    until_there_is(tmp_path / "store", f".publishing-*/mine/1/{file}", process)
    process.send_signal(number)
    assert process.wait(PATIENCE) != 0
    assert ModelStore(tmp_path / "store").names() == []


def test_killed_at_random_moments_it_leaves_whole_versions_only(
    tmp_path: Path, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    store, moments = ModelStore(tmp_path / "store"), random.Random(time.time_ns())
    for _ in range(3):
        process = begin("-c", AGAIN_AND_AGAIN)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        moment = moments.uniform(0, 4)
        end = time.monotonic() + moment
        while time.monotonic() < end:
            require_whole(store)
        process.kill()
        process.wait(PATIENCE)
        require_whole(store)
    last = begin("-m", "service", "import")
    assert last.wait(PATIENCE) == 0
    assert require_whole(store) > 0
    assert not list(store.folder.glob(".*")), "what the killed ones left is still there"
