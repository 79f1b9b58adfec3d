"""Weights are read only when they are the bytes that the manifest promises and fit the network."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import InvalidWeights
from service.network.batch_norm import BatchNorm2d
from service.store import manifest as manifests
from service.store import weights
from service.store.manifest import Input, Manifest, Output, Weights
from service.store.model_store import ModelStore, StoredModel

if TYPE_CHECKING:
    from pathlib import Path


def stored(tmp_path: Path, content: bytes | None, digest: str | None = None) -> StoredModel:
    """A version whose weights file holds `content`, under its true digest unless another is given."""

    def fill(folder: Path) -> None:
        if content is not None:
            (folder / "weights.safetensors").write_bytes(content)
        promised = digest or hashlib.sha256(content or b"").hexdigest()
        text = Manifest(
            architecture="digits",
            input=Input(shape=[1, 8, 8], colour="grayscale", mean=[0.0], std=[1.0]),
            outputs=[Output()],
            weights=Weights(sha256=promised),
        )
        manifests.write(folder / "model.toml", text)

    store = ModelStore(tmp_path)
    store.publish("a", 1, fill)
    return store.open("a")


def written(tmp_path: Path, tensors: dict[str, Tensor]) -> bytes:
    path = tmp_path / "some.safetensors"
    assert weights.write(path, tensors) == hashlib.sha256(path.read_bytes()).hexdigest()
    return path.read_bytes()


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), BatchNorm2d(2))


# Files


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]
)
def test_tensors_are_read_as_they_were_written(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    scalar, strided = tensor[0, 0, 1].clone(), tensor.clone().transpose(0, 2)
    content = written(tmp_path, {"plain": tensor, "strided": strided, "scalar": scalar})
    tensors = weights.read(stored(tmp_path / "store", content))
    assert {name: (t.dtype, list(t.shape)) for name, t in sorted(tensors.items())} == {
        "plain": (dtype, [2, 3, 4]),
        "scalar": (dtype, []),
        "strided": (dtype, [4, 3, 2]),
    }
    assert torch.equal(tensors["plain"], tensor)
    assert torch.equal(tensors["strided"], strided)
    assert torch.equal(tensors["scalar"], scalar)


def test_what_is_not_finite_is_kept_bit_for_bit(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800000, -0x800000, 1, -0x80000000], dtype=torch.int64)
    tensor = bits.to(torch.int32).view(torch.float32)
    tensors = weights.read(stored(tmp_path / "store", written(tmp_path, {"v": tensor})))
    assert torch.equal(tensors["v"].view(torch.int32), tensor.view(torch.int32))


def test_a_written_file_may_be_read_by_everybody(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        weights.write(tmp_path / "w", {"v": torch.zeros(1)})
    finally:
        os.umask(before)
    assert oct((tmp_path / "w").stat().st_mode & 0o777) == "0o644"


def test_a_file_with_another_digest_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights) as caught:
        weights.read(stored(tmp_path, b"anything", "0" * 64))
    actual = hashlib.sha256(b"anything").hexdigest()
    said = f"a/1: weights.safetensors has sha256 {actual}, but the manifest says {'0' * 64}"
    assert str(caught.value) == said


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    content = written(tmp_path, {"v": torch.ones(4)})
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(InvalidWeights, match="has sha256"):
        weights.read(stored(tmp_path / "store", flipped, hashlib.sha256(content).hexdigest()))


def header(entries: object, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\x80\x04\x95pickle, not safetensors",
        struct.pack("<Q", 1 << 60),
        struct.pack("<Q", 4) + b"[[[[",
        header({"v": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 12),
        header({"v": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 16]}}, b"\0" * 16),
        header({"v": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 17),
        header({"v": {"dtype": "F33", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 16),
        header({"v": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, b"\0" * 2),
    ],
    ids=["empty", "short", "pickle", "long", "json", "truncated", "overflow", "trailing", "unknown", "F4"],
)
def test_a_file_of_the_right_digest_that_is_not_safetensors_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(InvalidWeights, match=r"^a/1: weights\.safetensors is not a safetensors file"):
        weights.read(stored(tmp_path, content))


def test_a_missing_file_is_named_below_the_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match=r"^a/1: weights\.safetensors cannot be read: No such file"):
        weights.read(stored(tmp_path, None))


# Assigning


def test_a_network_gets_its_weights_by_name() -> None:
    source, target = network(), network()
    for tensor in source.state_dict().values():
        tensor.copy_(torch.full_like(tensor, 3))
    weights.assign(target, source.state_dict())
    assert all(torch.equal(t, source.state_dict()[name]) for name, t in target.state_dict().items())


def test_a_checkpoint_without_batch_counts_is_taken() -> None:
    target = network()
    tensors = {name: t for name, t in network().state_dict().items() if "num_batches" not in name}
    assert len(tensors) == len(target.state_dict()) - 1
    weights.assign(target, tensors)
    assert torch.equal(target.state_dict()["0.weight"], tensors["0.weight"])


def test_weights_of_another_dtype_are_cast_to_the_network_s() -> None:
    target = network()
    weights.assign(target, {name: t.double() for name, t in network().state_dict().items()})
    assert target.state_dict()["1.running_var"].dtype == torch.float32


def test_everything_that_does_not_fit_is_named_at_once() -> None:
    tensors = network().state_dict()
    del tensors["1.running_var"]
    tensors["2.weight"] = torch.zeros(1)
    tensors["0.weight"] = torch.zeros(2, 1, 5, 5)
    target = network()
    before = {name: t.clone() for name, t in target.state_dict().items()}
    with pytest.raises(InvalidWeights) as caught:
        weights.assign(target, tensors)
    assert str(caught.value) == (
        "the weights do not fit the architecture; missing: 1.running_var; unexpected: 2.weight; "
        "wrong shape: 0.weight is [2, 1, 5, 5] instead of [2, 1, 3, 3]"
    )
    assert all(torch.equal(t, before[name]) for name, t in target.state_dict().items())


def test_a_long_list_of_names_is_cut_and_counted() -> None:
    with pytest.raises(InvalidWeights, match=r"unexpected: x0, x1, x2, x3, x4, x5, x6, x7 and 12 more$"):
        weights.assign(network(), {**network().state_dict(), **{f"x{i}": torch.zeros(1) for i in range(20)}})


def test_a_vector_that_would_broadcast_is_still_of_a_wrong_shape() -> None:
    with pytest.raises(InvalidWeights, match=r"1\.weight is \[1\] instead of \[2\]"):
        weights.assign(network(), {**network().state_dict(), "1.weight": torch.ones(1)})


def test_a_network_that_asks_for_the_version_of_its_weights_is_told() -> None:
    """torchvision's MNASNet does, and refuses to load where nobody says."""

    class Asking(nn.Linear):
        _version = 3

        def _load_from_state_dict(
            self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, int], *rest: Any
        ) -> None:
            assert local_metadata.get("version") == 3
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    asking = nn.Sequential(Asking(1, 1))
    weights.assign(asking, {"0.weight": torch.full((1, 1), 7.0), "0.bias": torch.zeros(1)})
    assert asking.state_dict()["0.weight"].item() == 7
