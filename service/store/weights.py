"""Weights files: safetensors, checked against the digest of the manifest; never unpickled."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load, save

from service.errors import InvalidWeights
from service.store import content as files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from service.store.model_store import StoredModel

_NAMED_AT_MOST = 8


def read(stored: StoredModel) -> dict[str, Tensor]:
    """The tensors by name, as they lie in the file (CPU, their own dtypes).

    Raises `InvalidWeights` where the file is missing, differs from the manifest's digest, or is
    not a safetensors file.
    """
    table = stored.manifest.network
    file = f"{stored}: {table.file}"
    try:
        content = files.read(stored.weights_path)
    except OSError as error:
        raise InvalidWeights(f"{file} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != table.sha256:
        raise InvalidWeights(f"{file} has sha256 {digest}, but the manifest says {table.sha256}")
    try:
        return load(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that torch does not have
        raise InvalidWeights(f"{file} is not a safetensors file: {error}") from error


def write(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write `tensors` as safetensors; the answer is the file's sha256 in hexadecimal."""
    # safetensors' own file writer makes a file that only its owner may read.
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give `module` its weights by name.

    Raises `InvalidWeights` that names what is missing, unexpected or of another shape. A norm's
    `num_batches_tracked` may be missing: checkpoints from before torch 0.4.1 have none.
    """
    expected = module.state_dict()
    missing = [k for k in expected if k not in tensors and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in tensors if k not in expected]
    misshapen = [
        f"{k} is {list(tensors[k].shape)} instead of {list(expected[k].shape)}"
        for k in expected
        if k in tensors and tensors[k].shape != expected[k].shape
    ]
    complaints = [
        f"{word}: {listed(names)}"
        for word, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen))
        if names
    ]
    if complaints:
        raise InvalidWeights("the weights do not fit the architecture; " + "; ".join(complaints))
    given = OrderedDict(tensors)
    # Some networks ask which version of them wrote the names: these are this version's, or they were refused.
    vars(given)["_metadata"] = getattr(expected, "_metadata", None)
    module.load_state_dict(given, strict=False)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
