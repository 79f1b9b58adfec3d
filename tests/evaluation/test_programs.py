"""What was imported as an exported program is evaluated as any other model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from service import cli
from service.engine.loading import load
from service.store.model_store import ModelStore

from .folders import held_out_digits

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_exported_program_is_evaluated_and_keeps_golden_inputs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = ["--model-store", str(tmp_path / "store"), "--device", "cpu", "--threads", "1"]
    described = ["--input", "1,8,8", "--mean", "0.3", "--std", "0.4"]
    made = ["import", "--callable", "service.network.digits:Digits", "--name", "mine"]
    before = torch.get_num_threads()
    assert cli.main([*made, *described, *store]) == 0
    capsys.readouterr()
    images = held_out_digits(tmp_path / "images", range(20))
    assert cli.main(["evaluate", "mine", "--images", str(images), "--json", *store]) == 0
    torch.set_num_threads(before)
    assert json.loads(capsys.readouterr().out)["golden"] == 20
    stored = ModelStore(tmp_path / "store").open("mine")
    assert stored.manifest.architecture is None
    assert load(stored, torch.device("cpu")).card.facts.fold["golden"]["rows"] == 20
