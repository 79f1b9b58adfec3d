"""Branches: norms and convolutions of one input that are summed become one convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.graph.linear import LinearCall
from service.graph.sums import Summand, is_sum, summands, whole
from service.graph.surgery import NotFoldable, Surgery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from service.graph.chains import AffineChain


def into_sibling(surgery: Surgery, chain: AffineChain, _: int) -> tuple[str, ...]:
    """Add the chain to the kernel of a convolution that is summed with it; the answer is its name."""
    value, total = surgery.current(chain.input), whole(chain.output)
    if total is chain.output:
        raise NotFoldable("it is not summed with anything")
    own = next(summand for summand in summands(total) if summand.value is chain.output)
    for sibling, linear in _convolutions(surgery, total):
        vectors = chain.affine.vectors(linear.axis, linear.out_channels)
        if linear.input is not value or vectors is None or own.other is None:
            continue
        scale, shift = (own.sign * sibling.sign * vector for vector in vectors)
        weights = linear.plus_affine(scale, shift)
        if weights is not None:
            surgery.give_weights(linear, *surgery.fitting(linear, *weights))
            surgery.replace(own.reader, own.other)
            return (linear.name,)
    raise NotFoldable("no convolution of the same input is summed with it")


def merge_siblings(surgery: Surgery) -> None:
    """Make one convolution of those that read one input and are summed."""
    for node in list(surgery.graph.nodes):
        if is_sum(node) and whole(node) is node:
            while _merge_two(surgery, surgery.current(node)):
                pass


def _merge_two(surgery: Surgery, total: fx.Node) -> bool:
    found = list(_convolutions(surgery, total)) if is_sum(total) else []
    for kept, linear in found:
        for gone, other in found:
            if kept is gone or linear.input is not other.input or gone.other is None:
                continue
            weights = linear.plus(other, kept.sign * gone.sign)
            if weights is not None:
                surgery.give_weights(linear, *surgery.fitting(linear, *weights))
                surgery.replace(gone.reader, gone.other)
                return True
    return False


def _convolutions(surgery: Surgery, total: fx.Node) -> Iterator[tuple[Summand, LinearCall]]:
    for summand in summands(total):
        linear = LinearCall.at(summand.value, surgery.constants) if LinearCall.is_one(summand.value) else None
        if linear is not None:
            yield summand, linear
