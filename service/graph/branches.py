"""Branches: norms and convolutions of one input that are summed become one convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from service.graph.linear import LinearCall
from service.graph.sums import Summand, is_sum, summands, whole
from service.graph.surgery import NotFoldable, Surgery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, fx

    from service.graph.chains import AffineChain


def into_sibling(surgery: Surgery, chain: AffineChain, _: int) -> tuple[str, ...]:
    """Add the chain to the kernel of a convolution that is summed with it; the answer is its name."""
    value, total = surgery.current(chain.input), whole(chain.output)
    if total is chain.output:
        raise NotFoldable("it is not summed with anything")
    parts = summands(total, intact=chain.output)
    own = next(summand for summand in parts if summand.value is chain.output)
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


def merge_identities(surgery: Surgery, total: fx.Node) -> None:
    """Make what a sum adds as it is, the input of a convolution in the sum, a tap of that convolution.

    A scale can go through the sum then; the input itself has other readers, which must not see it.
    """
    while _merge_identity(surgery, surgery.current(total)):
        pass


def _merge_identity(surgery: Surgery, total: fx.Node) -> bool:
    for identity in summands(total):
        for sibling, linear in _convolutions(surgery, total):
            one = identity.sign * sibling.sign * torch.ones(linear.out_channels, dtype=torch.float64)
            weights = linear.plus_affine(one, 0 * one) if linear.input is identity.value else None
            if weights is not None and _merged(surgery, linear, weights, identity):
                return True
    return False


def _merge_two(surgery: Surgery, total: fx.Node) -> bool:
    found = list(_convolutions(surgery, total))
    for kept, linear in found:
        for gone, other in found:
            if kept is gone or linear.input is not other.input:
                continue
            weights = linear.plus(other, kept.sign * gone.sign)
            if weights is not None and _merged(surgery, linear, weights, gone):
                return True
    return False


def _merged(surgery: Surgery, linear: LinearCall, weights: tuple[Tensor, Tensor], gone: Summand) -> bool:
    """Let `linear` compute `gone` too, if it can."""
    try:
        fitting = surgery.fitting(linear, *weights)
    except NotFoldable:
        return False
    if gone.other is None:
        return False
    surgery.give_weights(linear, *fitting)
    surgery.replace(gone.reader, gone.other)
    return True


def _convolutions(surgery: Surgery, total: fx.Node) -> Iterator[tuple[Summand, LinearCall]]:
    for summand in summands(total):
        if summand.is_read_here_only and LinearCall.is_one(summand.value):
            linear = LinearCall.at(summand.value, surgery.constants)
            if linear is not None:
                yield summand, linear
