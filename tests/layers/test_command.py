"""`foldserve layers`: what it prints of a served model, of one norm, and of a model that is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from service import cli
from service.settings import PREFIX
from service.store import weights
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

ROOT = Path(__file__).parents[2]
NORMS = ["bn1", "bn2", "bn3", "bn4", "bn5"]
QUICKLY = ["--device", "cpu", "--threads", "1"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings from around, and torch's threads as they were."""
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(capsys: pytest.CaptureFixture[str], store: Path, *argv: str) -> tuple[int, str, str]:
    status = cli.main(["layers", "digits", "--model-store", str(store), *QUICKLY, *argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status, out, err = run(capsys, ROOT / "model_store", *argv)
    assert (status, err) == (0, "")
    return out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status, out, err = run(capsys, ROOT / "model_store", *argv)
    assert (status, out) == (1, "")
    return err.removeprefix("foldserve: ").rstrip("\n")


def stored(kind: str) -> Tensor:
    return load_file(ROOT / "model_store" / "digits" / "1" / "weights.safetensors")[kind]


def changed(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """A store with the shipped model, its weights changed and their digest with them."""
    version = folder / "digits" / "1"
    shutil.copytree(ROOT / "model_store" / "digits" / "1", version)
    (version / "reference.safetensors").unlink()
    document = ModelStore(folder).open("digits").manifest.model_dump(exclude_none=True)
    tensors = load_file(version / "weights.safetensors")
    change(tensors)
    document["weights"]["sha256"] = weights.write(version / "weights.safetensors", tensors)
    (version / "model.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
    return folder


# What is shipped


def test_the_shipped_model_has_no_flag_above_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    layers = json.loads(shown(capsys, "--json"))
    assert [layer["name"] for layer in layers] == NORMS
    assert {flag["level"] for layer in layers for flag in layer["flags"]} <= {"note"}
    assert [layer["activation"] for layer in layers] == ["relu"] * 5
    assert all(layer["folding_error_at"] == layer["name"] for layer in layers)
    assert all(1e-9 < layer["folding_error"] < 1e-5 for layer in layers)


def test_the_limits_of_the_flags_are_settings(capsys: pytest.CaptureFixture[str]) -> None:
    layers = json.loads(shown(capsys, "--json", "--flag-never-fires", "0.6", "--flag-gain", "1"))
    flags = {flag["flag"]: flag["limit"] for layer in layers for flag in layer["flags"]}
    assert flags["outlier_gain"] == 1
    assert "never_fires" in flags


def test_csv_has_one_line_per_norm(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "--csv"))))
    assert [row["name"] for row in rows] == NORMS
    assert float(rows[2]["running_var_max"]) == float(stored("bn3.running_var").double().max())


def test_one_norm_is_shown_with_the_equation_of_a_channel(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--layer", "bn2", "--channel", "31")
    assert out.startswith("bn2: 32 channels, eps 1e-05, momentum 0.1, ")
    assert "into_producer conv2: scaled the weights of conv2, its input" in out
    assert f"channel 31: y = {float(stored('bn2.weight')[31]):.6g} · (x " in out


def test_one_norm_as_json_has_its_vectors_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    layer = json.loads(shown(capsys, "--layer", "bn2", "--json"))
    vector = np.array(layer["vectors"]["running_mean"], np.float32)
    assert vector.tobytes() == stored("bn2.running_mean").numpy().tobytes()
    assert (layer["equation"]["channel"], sum(layer["histograms"]["bias"]["counts"])) == (0, 32)


def test_one_channel_as_csv_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = csv.DictReader(io.StringIO(shown(capsys, "--layer", "bn1", "--channel", "4", "--csv")))
    assert row["channel"] == "4"
    assert np.float32(row["weight"]) == stored("bn1.weight")[4].numpy()


def test_in_a_pipe_there_is_no_colour_and_every_line_is_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "layers", "digits", *QUICKLY],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "40", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    lines = done.stdout.decode("ascii").splitlines()
    assert "\x1b" not in done.stdout.decode("ascii")
    assert [line.split()[0] for line in lines] == ["norm", *NORMS]
    assert all("into_producer" in line for line in lines[1:])


# What is asked wrongly


def test_an_unknown_norm_is_an_error_that_names_those_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--layer", "bn22")
    assert said.startswith("digits/1 has no norm 'bn22'; it has bn2")


def test_a_channel_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--layer", "bn1", "--channel", "32")
    assert said == "norm 'bn1' has the channels 0 to 31, and no 32"


def test_a_channel_is_one_of_a_norm(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--channel", "1") == "--channel is one of a norm, which --layer names"


@pytest.mark.parametrize("argv", [["--json", "--csv"], ["--channel", "-1"], ["--channel", "one"]])
def test_what_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["layers", "digits", "--layer", "bn1", *argv])
    assert ended.value.code == 2


# Models that are refused


def not_a_number(tensors: dict[str, Tensor]) -> None:
    tensors["bn3.running_mean"][5] = float("nan")


def test_the_norms_of_a_model_that_is_refused_are_shown_with_what_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, err = run(capsys, changed(tmp_path, not_a_number), "--json")
    layers: list[dict[str, Any]] = json.loads(out)
    assert status == 0
    assert err.startswith("digits/1 would not be served: ")
    assert "not finite" in err
    flags = {
        layer["name"]: [(f["flag"], f["level"], f["channels"]) for f in layer["flags"]] for layer in layers
    }
    assert flags == {**{key: [] for key in NORMS}, "bn3": [("non_finite", "error", [5])]}
    assert {layer["reason"] for layer in layers} == {"nothing was folded, since the model is refused"}
    assert [layer["activation"] for layer in layers] == ["relu"] * 5


def test_a_model_that_overflows_its_precision_is_shown_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def far_too_large(tensors: dict[str, Tensor]) -> None:
        tensors["bn4.weight"] *= 1e30

    status, out, err = run(capsys, changed(tmp_path, far_too_large), "--precision", "float16")
    assert (status, "would not be served" in err) == (0, True)
    assert [line.split()[0] for line in out.splitlines()] == ["norm", *NORMS]


def test_a_model_whose_weights_are_damaged_has_no_norms_to_show(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = changed(tmp_path, not_a_number)
    with (store / "digits" / "1" / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    status, out, err = run(capsys, store)
    assert (status, out) == (1, "")
    assert err.startswith("foldserve: ")


def test_a_negative_variance_that_eps_hides_is_served_and_flagged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def slightly_negative(tensors: dict[str, Tensor]) -> None:
        tensors["bn1.running_var"][3] = -1e-9

    status, out, err = run(capsys, changed(tmp_path, slightly_negative), "--json")
    assert (status, err) == (0, "")
    first = json.loads(out)[0]
    assert (first["outcome"], first["flags"][0]["flag"]) == ("into_producer", "non_finite")
