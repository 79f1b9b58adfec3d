"""A checkpoint gives the one set of weights in it; what is ambiguous, averaged or no checkpoint is said."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from service.errors import InvalidWeights
from service.importing import checkpoint

WEIGHTS = {"conv.weight": torch.arange(8.0).reshape(2, 1, 2, 2), "bn.running_var": torch.tensor([1.0, 2.0])}


class Net(nn.Module):
    """What a user pickles whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2)


class Settings(dict[str, Any]):
    """A dictionary of a class of its own, as frameworks keep their settings in."""


def saved(folder: Path, document: object, **how: Any) -> Path:
    path = folder / "run.pth"
    torch.save(document, path, **how)
    return path


def refused(path: Path, entry: str | None = None) -> str:
    with pytest.raises(InvalidWeights) as caught:
        checkpoint.read(path, entry)
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


def same(found: dict[str, Tensor], expected: dict[str, Tensor] = WEIGHTS) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


# What can be read


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_a_state_dict_is_read_whatever_the_file_is_called(tmp_path: Path, new: bool) -> None:
    path = saved(tmp_path, OrderedDict(WEIGHTS), _use_new_zipfile_serialization=new)
    read = checkpoint.read(path.rename(tmp_path / "weights.bin"))
    assert same(read.tensors)
    assert (read.remarks, read.file) == ((), "weights.bin")


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert same(checkpoint.read(tmp_path / "weights.safetensors").tensors)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(bytes.fromhex("0200000000000000") + b"{}")
    said = subprocess.run(
        ["sha256sum", tmp_path / "weights.safetensors"], capture_output=True, text=True, check=True
    )
    assert checkpoint.read(tmp_path / "weights.safetensors").sha256 == said.stdout.split()[0]


@pytest.mark.parametrize("entry", ["state_dict", "model", "model_state_dict", "net", "whatever"])
def test_the_one_set_of_weights_is_found_and_said(tmp_path: Path, entry: str) -> None:
    document = {
        entry: WEIGHTS,
        "epoch": 90,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    }
    read = checkpoint.read(saved(tmp_path, document))
    assert same(read.tensors)
    assert read.remarks == (f"The weights are those in {entry!r} of the checkpoint.",)


def test_what_training_kept_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    """None of these classes may be loaded with weights_only, and none is looked up."""
    document = {
        "model": WEIGHTS,
        "args": argparse.Namespace(lr=0.1, milestones=[30, 60]),
        "best": np.float64(0.76),
        "history": np.arange(3.0),
        "folder": PurePosixPath("runs/1"),
        "settings": Settings(depth=18),
        "counts": defaultdict(int, seen=3),
        "seen": Counter("abc"),
        "criterion": nn.CrossEntropyLoss(),
        "dtype": np.dtype("float32"),
    }
    assert same(checkpoint.read(saved(tmp_path, document)).tensors)


def test_parameters_come_without_their_gradients(tmp_path: Path) -> None:
    path = saved(tmp_path, {"weight": nn.Parameter(torch.ones(2)), "step": 3})
    read = checkpoint.read(path)
    assert [tensor.requires_grad for tensor in read.tensors.values()] == [False]
    assert read.remarks == ("Left out, being no tensors: step.",)


# Several sets of weights


def test_of_several_sets_of_weights_one_must_be_chosen(tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
    path = saved(tmp_path, {"state_dict": WEIGHTS, "state_dict_ema": averaged})
    assert refused(path) == (
        "run.pth holds several sets of weights: state_dict, state_dict_ema; choose one with --entry"
    )
    assert same(checkpoint.read(path, "state_dict").tensors)
    assert same(checkpoint.read(path, "state_dict_ema").tensors, averaged)


@pytest.mark.parametrize("entry", ["state_dict_ema", "model_ema", "swa_model"])
def test_averages_are_taken_only_when_they_are_asked_for(tmp_path: Path, entry: str) -> None:
    path = saved(tmp_path, {entry: WEIGHTS, "epoch": 3})
    assert refused(path).endswith(f"averages over the training ({entry}); to take them, say --entry {entry}")
    assert same(checkpoint.read(path, entry).tensors)


def test_an_entry_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": WEIGHTS, "epoch": 3})
    assert refused(path, "ema") == "run.pth has no weights in 'ema'; it has model"
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert "has no entry 'ema'" in refused(tmp_path / "weights.safetensors", "ema")


# What is no checkpoint


def test_an_optimizer_alone_is_no_checkpoint(tmp_path: Path) -> None:
    network = Net()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network.conv(torch.ones(1, 1, 2, 2)).sum().backward()
    optimizer.step()
    said = refused(saved(tmp_path, {"optimizer": optimizer.state_dict(), "epoch": 3}))
    assert said.startswith(
        "run.pth holds no weights by name; it holds optimizer, epoch. Save them: torch.save("
    )
    assert "it holds state, param_groups" in refused(saved(tmp_path, optimizer.state_dict()))


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"epoch": 3, "model": net, "ema": None}])
@pytest.mark.parametrize("entry", [None, "model"])
def test_a_whole_model_is_refused_with_its_class_and_the_conversion(
    tmp_path: Path, wrap: Any, entry: str | None
) -> None:
    said = refused(saved(tmp_path, wrap(Net())), entry)
    assert f"is a whole model ({Net.__module__}.Net)" in said
    assert "torch.load(FILE, weights_only=False); torch.save(network.state_dict(), 'weights.pth')" in said


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([1, 2], "run.pth holds a list and no weights by name"),
        (torch.ones(3), "run.pth holds a Tensor and no weights by name"),
        ({}, "run.pth holds no weights by name; it holds nothing."),
        (dict.fromkeys(map(str, range(20))), "it holds 0, 1, 2, 3, 4, 5, 6, 7 and 12 more."),
    ],
)
def test_other_documents_are_refused_with_what_they_are(tmp_path: Path, document: object, said: str) -> None:
    assert said in refused(saved(tmp_path, document))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "safetensors"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file({"weight": torch.ones(1000)}, path)
    else:
        torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert "\n" not in refused(path)


# What a file may try


class Bomb:
    """Unpickled the usual way, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("where", ["alone", "beside", "inside"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_nothing_that_is_in_a_file_is_run(tmp_path: Path, where: str, new: bool) -> None:
    sprung, bomb = tmp_path / "sprung", Bomb(tmp_path / "sprung")
    document = {"alone": bomb, "beside": {"model": WEIGHTS, "x": bomb}, "inside": {**WEIGHTS, "x": bomb}}[
        where
    ]
    path = saved(tmp_path, document, _use_new_zipfile_serialization=new)
    try:
        read = checkpoint.read(path)
    except InvalidWeights:
        pass
    else:
        assert new
        assert where != "alone"
        assert same(read.tensors)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(bomb))  # it would have worked
    assert sprung.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch sprung'\ntR.",
        b'\x80\x02cbuiltins\neval\n(S\'open("sprung", "w")\'\ntR.',
        b"\x80\x02cbuiltins\nexec\nq\x00X\x19\x00\x00\x00open('sprung', 'w').close()\x85R.",
        b"\x80\x02cposix\nsystem\nX\x0c\x00\x00\x00touch sprung\x85R.",
        b"\x80\x02cservice.cli\nmain\n)R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch sprung\x85R.",
    ],
)
def test_a_hand_written_pickle_runs_nothing(
    tmp_path: Path, program: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, WEIGHTS)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, program if name.endswith("data.pkl") else content)
    refused(path)
    assert not (tmp_path / "sprung").exists()


def test_stand_ins_are_forgotten_with_the_file(tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    checkpoint.read(saved(tmp_path, {"model": WEIGHTS, "args": argparse.Namespace(lr=1)}))
    assert torch.serialization.get_safe_globals() == before


def test_a_score_beside_the_weights_is_none_of_them(tmp_path: Path) -> None:
    """As PyTorch's ImageNet example writes its checkpoints."""
    document = {"epoch": 9, "arch": "resnet18", "state_dict": WEIGHTS, "best_acc1": torch.tensor(71.2)}
    assert same(checkpoint.read(saved(tmp_path, document)).tensors)


@pytest.mark.parametrize(
    "odd",
    [torch.zeros(2, device="meta"), torch.zeros(2).to_sparse(), torch.zeros(2, dtype=torch.complex64)],
    ids=["meta", "sparse", "complex"],
)
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, odd: Tensor) -> None:
    assert "with values: conv.bias" in refused(saved(tmp_path, {**WEIGHTS, "conv.bias": odd}))


def test_a_compressed_checkpoint_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(saved(tmp_path, WEIGHTS)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "is compressed" in refused(tmp_path / "small.pth")


@pytest.mark.parametrize("length", [18, 19, 29, 51, 52, 55])
def test_an_old_file_that_is_cut_anywhere_is_damaged(tmp_path: Path, length: int) -> None:
    path = saved(tmp_path, WEIGHTS, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:length])
    assert "run.pth is" in refused(path)
