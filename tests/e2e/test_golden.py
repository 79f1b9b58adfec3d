"""From a folder of images to a service that proves itself on them, or does not start."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from service.store import golden
from service.store.model_store import ModelStore
from tests.evaluation.folders import held_out_digits

from .server import ROOT, Process, Server, environment
from .stores import copied, with_tensors

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """A store whose model has golden inputs, written by the command."""
    copied(tmp_path / "store")
    images = held_out_digits(tmp_path / "images", range(40))
    done = subprocess.run(
        [sys.executable, "-m", "service", "evaluate", "digits", "--images", str(images)],
        env=environment(model_store=tmp_path / "store", device="cpu", threads=1),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "Stored 40 golden inputs in digits/1" in done.stdout
    return tmp_path / "store"


def refused(store: Path) -> str:
    with Process("serve", model_store=store, port=0) as process:
        assert process.wait() == 1
        return process.log


def test_the_service_says_how_many_golden_inputs_it_checked(evaluated: Path) -> None:
    with Server.start(model_store=evaluated) as server:
        said = server.get("/v1/models/digits/fold").json()["golden"]
        assert (said["rows"], said["top1_agreement"]) == (40, 1)
        assert said["max_relative_error"] <= said["tolerance"]
        assert "golden" in server.get("/v1/models/digits").json()["seconds"]


def test_a_service_without_golden_inputs_says_so(tmp_path: Path) -> None:
    copied(tmp_path)
    with Server.start(model_store=tmp_path) as server:
        assert server.get("/v1/models/digits/fold").json()["golden"] is None


def test_weights_that_changed_since_do_not_start(evaluated: Path) -> None:
    with_tensors(evaluated / "digits" / "1", lambda tensors: tensors["bn2.running_mean"].add_(0.01))
    assert "digits/1: golden.safetensors is of another weights" in refused(evaluated)


def test_answers_that_are_others_than_those_stored_do_not_start(evaluated: Path) -> None:
    stored = ModelStore(evaluated).open("digits")
    kept = golden.read(stored)
    assert kept is not None
    answers = kept.answers.copy()
    answers[11] *= 1.001
    golden.write(stored, replace(kept, answers=answers))
    said = refused(evaluated)
    assert f"golden input 11 ({kept.names[11]}) is answered with a relative error of" in said
    assert "Traceback" not in said
