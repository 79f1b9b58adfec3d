"""Losses: folded weights that the serving precision cannot hold, by the norm that was folded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from service.graph.chains import chains
from service.graph.constants import Constants
from service.graph.linear import LinearCall
from service.graph.surgery import TINY

if TYPE_CHECKING:
    from torch import Tensor

    from service.graph.capture import CapturedGraph
    from service.graph.chains import AffineChain
    from service.graph.fold import FoldedGraph
    from service.graph.report import NormOutcome


@dataclass(frozen=True)
class Losses:
    """What is lost of the weights of one norm's host; each tensor is int64 `[C]`, a count by channel."""

    host: str
    """The layers that took the norm in, or the norm itself where it was kept."""
    overflowing: Tensor
    vanishing: Tensor
    """Of weights that are not 0, those that become 0."""
    nonzero: Tensor
    is_own: bool
    """Whether the channels are the norm's own; else they are those of the host."""

    @property
    def is_none(self) -> bool:
        """Whether nothing was lost."""
        return not (bool(self.overflowing.any()) or bool(self.vanishing.any()))


def losses(captured: CapturedGraph, folded: FoldedGraph, precision: torch.dtype) -> dict[str, Losses]:
    """By a norm's name what serving in `precision` loses of its folded weights, where it loses any.

    A fold whose weights would overflow is not made; of such a norm, which was kept, the weights are counted
    that would have overflowed.
    """
    constants = Constants(captured.module)
    hosts = _hosts(folded, precision)
    found: dict[str, Losses] = {}
    by_name = {norm.name: chain for chain in chains(captured.module.graph, constants) for norm in chain.norms}
    for outcome in folded.report.layers:
        chain = by_name.get(outcome.name)
        if chain is not None and outcome.outcome == "kept":
            loss = _of_kept(outcome.name, chain, constants, precision)
        else:
            loss = _of_hosts(outcome, hosts, is_own=chain is not None and LinearCall.is_one(chain.input))
        if loss is not None and not loss.is_none:
            found[outcome.name] = loss
    return found


def _hosts(folded: FoldedGraph, precision: torch.dtype) -> dict[str, list[Losses]]:
    """By a layer's name, what each of its calls loses."""
    constants, hosts = Constants(folded.module), defaultdict[str, list[Losses]](list)
    holds_all = _smallest(precision) < TINY  # what it would make 0, the fold has made 0 already
    for node in folded.module.graph.nodes:
        if not LinearCall.is_one(node) or (holds_all and node.name not in folded.flushed):
            continue
        linear = LinearCall.at(node, constants)
        if linear is not None:
            hosts[linear.name].append(_of_linear(linear, folded.flushed.get(node.name), precision))
    return hosts


def _of_linear(linear: LinearCall, flushed: Tensor | None, precision: torch.dtype) -> Losses:
    gone = torch.zeros_like(linear.weight, dtype=torch.bool) if flushed is None else flushed
    nonzero = (linear.weight != 0) | gone
    vanishing = nonzero & (linear.weight.to(precision) == 0)
    lost, all_of_them = (linear.by_output_channel(mask.double()).long() for mask in (vanishing, nonzero))
    return Losses(linear.name, torch.zeros_like(lost), lost, all_of_them, is_own=True)


def _of_hosts(outcome: NormOutcome, hosts: dict[str, list[Losses]], *, is_own: bool) -> Losses | None:
    names = (outcome.partner or "").split(", ")
    found = [loss for name in names for loss in hosts.get(name, [])]
    if not found:
        return None
    overflowing, vanishing, nonzero = (
        torch.cat([getattr(loss, kind) for loss in found]) for kind in ("overflowing", "vanishing", "nonzero")
    )
    own = is_own and len(found) == 1 and outcome.outcome != "into_consumer"
    return Losses(outcome.partner or "", overflowing, vanishing, nonzero, own)


def _of_kept(name: str, chain: AffineChain, constants: Constants, precision: torch.dtype) -> Losses | None:
    """Of a norm that stays its own scale and shift, or those weights whose overflow kept it."""
    (axis,) = chain.affine.axes or {1}
    vectors = chain.affine.vectors(axis, int(chain.output.meta["val"].shape[axis]))
    if vectors is None:
        return None
    scale, shift = vectors
    overflowing = _overflows(scale, precision).long() + _overflows(shift, precision).long()
    linear = LinearCall.at(chain.input, constants) if LinearCall.is_one(chain.input) else None
    if linear is not None and linear.axis == axis:
        weight, bias = linear.followed_by(scale, shift)
        overflowing += linear.by_output_channel(_overflows(weight, precision).double()).long()
        overflowing += _overflows(bias, precision).long()
    vanishing = (scale != 0) & (scale.to(precision) == 0)
    return Losses(name, overflowing, vanishing.long(), (scale != 0).long(), is_own=True)


def _overflows(values: Tensor, precision: torch.dtype) -> Tensor:
    return values.to(precision).isinf() & values.isfinite()


def _smallest(precision: torch.dtype) -> float:
    """The smallest number above 0; what is below half of it becomes 0."""
    return torch.finfo(precision).smallest_normal * torch.finfo(precision).eps
