"""Formats: what a file is by its first bytes and its entries, and what to do where it is no checkpoint."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Literal

from service.errors import InvalidWeights

if TYPE_CHECKING:
    from pathlib import Path

Format = Literal["safetensors", "torch"]

_ZIP = b"PK\x03\x04"

SAVE_STATE_DICT = "torch.save(network.state_dict(), 'weights.pth')"
_SCRIPTED = (
    "a TorchScript program, which holds code. Save its weights, "
    "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth'), "
    "and import these with the architecture that they belong to"
)
_EXPORTED = "an exported program; import it with --exported"
_ONNX = (
    "an ONNX graph. Import the checkpoint that it was exported from; where there is none, write a function "
    "that makes a torch module of it, for example with the package onnx2torch, and import it with --callable"
)
_BY_FIRST_BYTES = {
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; fetch it with git lfs pull",
    b"<": "a page of HTML or XML, perhaps the answer to a download that failed",
    b"\x89HDF": f"an HDF5 file, as of Keras; only torch's checkpoints can be imported: {SAVE_STATE_DICT}",
    b"\x93NUMPY": f"a numpy array; only torch's checkpoints can be imported: {SAVE_STATE_DICT}",
    b"GGUF": "a GGUF file; only torch's checkpoints can be imported",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
}


def recognised(path: Path) -> Format:
    """Whether the file is safetensors or something that `torch.save` wrote.

    Raises `InvalidWeights` for any other file, with what it is and the conversion to use. Unpickles nothing.
    """
    start = _start(path)
    for magic, what in _BY_FIRST_BYTES.items():
        if start.startswith(magic):
            raise _refused(path, what)
    if start.startswith(_ZIP):
        return _of_archive(path)
    if start[8:9] == b"{":  # behind the length of its header
        return "safetensors"
    if start[:1] == b"\x80":  # a pickle, as torch.save wrote until 1.6
        return "torch"
    if path.suffix == ".onnx" or b"onnx" in start or b"pytorch" in start:
        raise _refused(path, _ONNX)
    raise _refused(path, f"neither safetensors nor a file of torch.save: {SAVE_STATE_DICT} writes one")


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except IsADirectoryError:
        raise _refused(path, "a folder; name the file in it that holds the weights") from None
    except OSError as error:
        raise InvalidWeights(f"{path.name} cannot be read: {error.strerror}") from error
    if not start:
        raise _refused(path, "empty")
    return start


def _of_archive(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
            is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _refused(path, f"damaged, perhaps cut off ({error})") from error
    if "constants.pkl" in names:
        raise _refused(path, _SCRIPTED)
    if any(name.startswith(("models/", "serialized_")) or name == "archive_format" for name in names):
        raise _refused(path, _EXPORTED)
    if is_compressed:
        raise _refused(path, "compressed, which torch.save never does; unpack it, or save the weights again")
    if "data.pkl" not in names:
        raise _refused(path, f"an archive, but none of torch.save; {SAVE_STATE_DICT} writes one")
    return "torch"


def _refused(path: Path, what: str) -> InvalidWeights:
    return InvalidWeights(f"{path.name} is {what}")
