"""The roofline: how long a network would take if every layer of it reached what the device is capable of.

    python benchmarks/roofline.py [--models resnet50] [--batches 1,128] [--device H100]

A layer takes as long as its arithmetic or its traffic, whichever is longer; the traffic is what it reads and
writes once, weights included. Activations and sums are taken to ride inside the layer before them.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.graph import fold
from service.graph.linear import LinearCall
from service.graph.shapes import shape_of
from service.network import catalog
from service.network.random_stats import randomise
from service.plan.activations import Activation
from service.plan.small import multiply_adds

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Device:
    """What a device is capable of, from its maker's data sheet, without sparsity."""

    operations: dict[str, float]
    """Operations per second by precision; a multiply-add is two."""
    bandwidth: float
    """Bytes per second."""


_SXM = {"bfloat16": 989e12, "float16": 989e12, "tf32": 494e12, "float32": 67e12}
DEVICES = {"H100": Device(_SXM, 3.35e12), "H200": Device(_SXM, 4.8e12)}


@dataclass(frozen=True)
class Work:
    """One call's work for one row."""

    operations: float
    elements: float
    """Read and written."""
    weights: float
    """Elements of stored tensors, read once for any number of rows."""


def work(graph: fx.Graph) -> list[Work]:
    """What each call of a folded graph has to do; views and activations have nothing to do."""
    return [_of(node) for node in graph.nodes if node.op == "call_function" and _computes(node)]


def seconds(calls: list[Work], rows: int, precision: str, device: Device) -> float:
    """How long so many rows take at least, layer by layer."""
    size = 4 if precision in ("float32", "tf32") else 2
    return sum(
        max(
            rows * call.operations / device.operations[precision],
            (rows * call.elements + call.weights) * size / device.bandwidth,
        )
        for call in calls
    )


def folded(model: str) -> fx.Graph:
    """The folded graph of an architecture with random statistics."""
    network = catalog.build(model, {})
    randomise(network, 0)
    graph: fx.Graph = fold(network, torch.zeros(2, *catalog.input_shape(network))).module.graph
    return graph


def named(name: str) -> Device | None:
    """The device of which the name, such as `NVIDIA H100 80GB HBM3`, is known."""
    return next((device for known, device in DEVICES.items() if known in name), None)


def _computes(node: fx.Node) -> bool:
    is_view = "flatten" in str(node.target) or "view" in str(node.target) or "reshape" in str(node.target)
    return isinstance(node.meta.get("val"), torch.Tensor) and not is_view and Activation.at(node) is None


def _of(node: fx.Node) -> Work:
    if node.target is torch.ops.aten.add.Tensor:
        return Work(0.0, _elements([node]), 0.0)  # the other summand is read once more
    read = [value for value in node.all_input_nodes if isinstance(value.meta.get("val"), torch.Tensor)]
    stored = [value for value in read if value.op == "get_attr"]
    return Work(
        2.0 * multiply_adds(node) if LinearCall.is_one(node) else 0.0,
        _elements([node, *(value for value in read if value not in stored)]),
        sum(math.prod(value.meta["val"].shape) for value in stored),
    )


def _elements(values: list[fx.Node]) -> int:
    return sum(math.prod(shape_of(value)[1:]) for value in values)


def main() -> None:
    """Print one line per network, precision and batch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="resnet50")
    parser.add_argument("--batches", default="1,128")
    parser.add_argument("--device", choices=list(DEVICES), default="H100")
    arguments = parser.parse_args()
    for model in arguments.models.split(","):
        calls = work(folded(model))
        for precision in DEVICES[arguments.device].operations:
            for batch in map(int, arguments.batches.split(",")):
                least = seconds(calls, batch, precision, DEVICES[arguments.device])
                print(f"{model}, {arguments.device}, {precision}, batch {batch}: ", end="")
                print(f"at least {1000 * least:.3f} ms, at most {batch / least:.0f} rows/s")


if __name__ == "__main__":
    main()
