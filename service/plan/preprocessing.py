"""Preprocessing: pixels become network inputs in one pass, or in the weights of the layers that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from service.graph.affine import Affine
from service.graph.constants import Constants
from service.graph.linear import LinearCall, set_weights
from service.graph.stored_tensors import attribute, stored_names, stored_tensors
from service.plan import aten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WEIGHT, _BIAS = "_entry_{}_weight", "_entry_{}_bias"


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become network inputs: `(pixel / 255 - mean) / std`, per channel."""

    mean: Sequence[float]
    std: Sequence[float]

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, float64 `[C]`: the input is `pixel * scale + shift`."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        return 1 / (255 * std), -mean / std

    def normalised(self, pixels: Tensor) -> Tensor:
        """`uint8` pixels `[N, C, ...]` as float32 network inputs, computed in float64."""
        scale, shift = (part.reshape(-1, *[1] * (pixels.dim() - 2)) for part in self.coefficients())
        return (pixels.double() * scale + shift).float()


class PixelPass:
    """The preprocessing as one pass over the pixels, on one device."""

    def __init__(self, preprocessing: Preprocessing, row: Sequence[int], device: torch.device) -> None:
        self._scale, self._shift = (
            _spread(part, row).to(device, torch.float32) for part in preprocessing.coefficients()
        )

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """What it reads beside the pixels."""
        return self._scale, self._shift

    def __call__(self, pixels: Tensor) -> Tensor:
        """Channels-last `uint8` `[N, C, ...]` as float32 of the same layout."""
        x = pixels.float()  # with operands of two dtypes, addcmul would make this copy and yet another
        return torch.addcmul(self._shift, x, self._scale, out=x)


def _spread(vector: Tensor, row: Sequence[int]) -> Tensor:
    """One number per channel, repeated along a line of the image: `[1, C, 1, W]` makes longer inner loops."""
    shape = [size if axis in (0, len(row) - 1) else 1 for axis, size in enumerate(row)]
    spread = vector.reshape(-1, *[1] * len(row[1:])).expand(shape).unsqueeze(0)
    return spread.contiguous(memory_format=aten.layout(spread))


@dataclass(frozen=True)
class PixelEntry:
    """A folded graph that pixels can enter as they are: where the layers that read its input take the map."""

    graph: fx.GraphModule
    """The folded graph; those layers read tensors of their own."""
    layers: fx.GraphModule
    """Those layers alone, with the map in their weights."""

    @staticmethod
    def of(folded: fx.GraphModule, preprocessing: Preprocessing) -> PixelEntry | None:
        """The entry; None where a reader of the input cannot take the map exactly, border included."""
        constants, readers = Constants(folded), _readers(folded.graph)
        linear = (LinearCall.at(node, constants) for node in readers if LinearCall.is_one(node))
        calls = list(filter(None, linear))
        mapped = list(filter(None, (_mapped(call, preprocessing) for call in calls)))
        if not mapped or len(mapped) < len(readers):
            return None
        return PixelEntry(
            _with_weights(folded, folded.graph, [(call.weight, _bias(call)) for call in calls]),
            _with_weights(folded, _readers_alone(folded.graph), mapped),
        )


def for_pixels(lowered: fx.GraphModule, layers: fx.GraphModule) -> fx.GraphModule | None:
    """The lowered graph as pixels enter it, from both lowered parts of a `PixelEntry`.

    The tensors are the lowered graph's own, but for those of the layers that take the map. None where the
    lowering moved one of their biases into another call.
    """
    tensors = stored_tensors(lowered)
    own, mapped = (_weights_by_bias(module.graph) for module in (lowered, layers))
    if own.keys() != mapped.keys():
        return None
    for bias, weight in own.items():
        tensors[bias], tensors[weight] = attribute(layers, bias), attribute(layers, mapped[bias])
    return fx.GraphModule(tensors, lowered.graph)


def _readers(graph: fx.Graph) -> list[fx.Node]:
    """The calls that read the graph's input, in order."""
    (given,) = (node for node in graph.nodes if node.op == "placeholder")
    return [node for node in graph.nodes if given in node.all_input_nodes]


def _mapped(call: LinearCall, preprocessing: Preprocessing) -> tuple[Tensor, Tensor] | None:
    """The weight and bias of a call that reads pixels; None where none is exact."""
    affine = Affine.along(1, call.input.meta["val"].dim(), *preprocessing.coefficients())
    vectors = affine.vectors(call.axis, call.in_channels)
    return None if vectors is None or (affine.has_shift and call.pads) else call.preceded_by(*vectors)


def _bias(call: LinearCall) -> Tensor:
    return torch.zeros(call.out_channels, dtype=torch.float64) if call.bias is None else call.bias


def _readers_alone(graph: fx.Graph) -> fx.Graph:
    """Only the readers of the input, as the graph's outputs."""
    alone, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr") or node in _readers(graph):
            copies[node] = alone.node_copy(node, copies.__getitem__)
    alone.output(tuple(copies[node] for node in _readers(graph)))
    return alone


def _with_weights(
    folded: fx.GraphModule, graph: fx.Graph, weights: Sequence[tuple[Tensor, Tensor]]
) -> fx.GraphModule:
    """A copy of the graph in which each reader of the input has these as tensors of its own."""
    own = fx.Graph()
    own.output(own.graph_copy(graph, {}))
    tensors: dict[str, Tensor] = {}
    for number, (call, pair) in enumerate(zip(_readers(own), weights, strict=True)):
        names = _WEIGHT.format(number), _BIAS.format(number)
        tensors |= dict(zip(names, pair, strict=True))
        with own.inserting_before(call):
            nodes = [own.get_attr(name) for name in names]
        for node, tensor in zip(nodes, pair, strict=True):
            node.meta["val"] = tensor.to("meta")  # metadata is copied on and on, up to the plan's
        set_weights(call, nodes[0], nodes[1])
    own.eliminate_dead_code()
    others = {name: attribute(folded, name) for name in stored_names(own) if name not in tensors}
    return fx.GraphModule({**others, **tensors}, own)


def _weights_by_bias(graph: fx.Graph) -> Mapping[str, str]:
    """For every layer that reads the input the names of its bias and of its weight, packed or not."""
    found: dict[str, str] = {}
    for bias in graph.find_nodes(op="get_attr"):
        if str(bias.target).startswith("_entry_") and str(bias.target).endswith("_bias"):
            (call,) = bias.users
            (weight,) = (n for n in call.all_input_nodes if n.op == "get_attr" and n is not bias)
            found[str(bias.target)] = str(weight.target)
    return found
