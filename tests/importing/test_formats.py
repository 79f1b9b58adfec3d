"""A file that is no checkpoint is refused with what it is, and with what to do."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from service.errors import InvalidWeights
from service.importing.formats import recognised

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, content: bytes, name: str = "weights.pth") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InvalidWeights) as caught:
        recognised(path)
    return str(caught.value)


def numpy_file() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


def archive(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name in names:
            opened.writestr(name, b"")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights"])
def test_safetensors_are_told_by_their_content(tmp_path: Path, name: str) -> None:
    assert recognised(written(tmp_path, save({"weight": torch.ones(2)}), name)) == "safetensors"


@pytest.mark.parametrize("new", [True, False])
def test_checkpoints_are_told_by_their_content(tmp_path: Path, new: bool) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "x.onnx", _use_new_zipfile_serialization=new)
    assert recognised(tmp_path / "x.onnx") == "torch"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused_with_the_conversion_and_that_works(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    scripted = tmp_path / "scripted.pt"
    jit: Any = torch.jit  # it leaves what follows untyped
    jit.script(network).save(scripted)
    said = refused(scripted)
    assert said.startswith("scripted.pt is a TorchScript program")
    assert "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')" in said
    torch.save(jit.load(scripted).state_dict(), tmp_path / "weights.pth")
    assert recognised(tmp_path / "weights.pth") == "torch"
    assert torch.load(tmp_path / "weights.pth", weights_only=True).keys() == network.state_dict().keys()


def test_an_exported_program_is_sent_to_its_own_flag(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "model.pt2")
    assert refused(tmp_path / "model.pt2") == "model.pt2 is an exported program; import it with --exported"


@pytest.mark.parametrize(
    "content", [b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", b"\x08\x08\x12\x00:\x00onnx.x", b"\x08\x0a"]
)
def test_onnx_is_refused_with_the_conversion(tmp_path: Path, content: bytes) -> None:
    said = refused(written(tmp_path, content, "model.onnx"))
    assert said.startswith("model.onnx is an ONNX graph. Import the checkpoint that it was exported from")
    assert "--callable" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"<!doctype html><title>404</title>", "a page of HTML"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file, as of Keras"),
        (numpy_file(), "a numpy array"),
        (b"GGUF" + bytes(64), "a GGUF file"),
        (gzip.compress(b"x"), "compressed with gzip; unpack it first"),
        (archive("__MACOSX/x", "weights.pth"), "an archive, but none of torch.save"),
        (archive("a/data.pkl")[:-9], "damaged, perhaps cut off"),
        (b"epoch,loss\n1,2\n", "neither safetensors nor a file of torch.save"),
    ],
    ids=["empty", "LFS", "HTML", "HDF5", "numpy", "GGUF", "gzip", "zip", "cut off", "text"],
)
def test_other_files_are_refused_with_what_they_are(tmp_path: Path, content: bytes, said: str) -> None:
    assert f"weights.pth is {said}" in refused(written(tmp_path, content)) or said in refused(
        tmp_path / "weights.pth"
    )


def test_a_folder_and_a_file_that_is_not_there_are_said(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(f"{tmp_path.name} is a folder; name the file in it")
    assert refused(tmp_path / "none.pth") == "none.pth cannot be read: No such file or directory"
