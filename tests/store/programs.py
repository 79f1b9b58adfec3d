"""Exported programs for tests: honest ones, and what a liar makes of them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import Dim, export

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"

Entries = dict[str, bytes]


class Small(nn.Module):
    """A convolution, a norm, an activation, a pool, a constant and a linear layer; rows `[3, 8, 8]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4, eps=1e-3, momentum=0.03)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        out: torch.Tensor = self.head(y) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
        return out


def small(seed: int = 0) -> Small:
    """The network, with statistics that are not those of a fresh one."""
    torch.manual_seed(seed)
    network = Small().eval()
    for tensor in (network.norm.running_mean, network.norm.running_var, network.norm.weight.data):
        assert tensor is not None
        tensor.uniform_(0.5, 1.5)
    network.norm.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    return network


def saved(network: nn.Module, row: tuple[int, ...] = (3, 8, 8)) -> bytes:
    """What `torch.export.save` writes of it."""
    with torch.no_grad():
        program = export(network, (torch.zeros(2, *row),), dynamic_shapes=({0: Dim("batch")},), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def entries_of(content: bytes) -> Entries:
    """The entries of an archive by their names below its folder."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(entries: Entries, root: str = "archive") -> bytes:
    """An archive that torch reads too."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}"), content)
    return file.getvalue()


def with_entries(content: bytes, **changed: bytes | None) -> bytes:
    """The archive with these entries instead, added, or (None) gone; `/` is spelled `__`."""
    entries: dict[str, bytes | None] = {
        **entries_of(content),
        **{name.replace("__", "/"): value for name, value in changed.items()},
    }
    return packed({name: value for name, value in entries.items() if value is not None})


def with_document(content: bytes, change: Callable[[Any], object], name: str = MODEL) -> bytes:
    """The archive with one of its JSON documents changed in place."""
    entries = entries_of(content)
    document = json.loads(entries[name])
    change(document)
    return packed({**entries, name: json.dumps(document).encode()})


def nodes(document: Any) -> list[dict[str, Any]]:
    """The calls of a program's document."""
    found: list[dict[str, Any]] = document["graph_module"]["graph"]["nodes"]
    return found


def node(document: Any, operator: str) -> dict[str, Any]:
    """The first call of an operator, such as `aten.relu.default`."""
    return next(each for each in nodes(document) if each["target"] == f"torch.ops.{operator}")


def signature(document: Any) -> dict[str, Any]:
    """What goes into a program's graph, and what comes out."""
    found: dict[str, Any] = document["graph_module"]["signature"]
    return found
