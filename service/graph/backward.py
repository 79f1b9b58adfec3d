"""Backward: a norm goes into what computes its input, through everything that it commutes with."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import fx

from service.graph import movement, pointwise, price
from service.graph.branches import merge_identities
from service.graph.chains import step_at, value_users
from service.graph.linear import LinearCall
from service.graph.pointwise import Clamp
from service.graph.shapes import shape_of
from service.graph.sums import is_sum, legs
from service.graph.surgery import Changes, NotFoldable, Surgery, described, sole_reader

if TYPE_CHECKING:
    from service.graph.affine import Affine
    from service.graph.chains import AffineChain

aten = torch.ops.aten


def into_producers(surgery: Surgery, chain: AffineChain, limit: int) -> tuple[str, ...]:
    """Let the layers before the chain compute it too, at a price up to `limit`; the answer is their names."""
    merge_identities(surgery, surgery.current(chain.input))
    attempt, value = _Absorption(surgery, Changes(limit)), surgery.current(chain.input)
    attempt.absorb(value, chain.affine, chain.reader)
    attempt.changes.make()
    surgery.replace(chain.output, surgery.current(value))
    return tuple(attempt.changes.partners)


class _Absorption:
    """One attempt to have a value computed as `affine(value)`; nothing changes before it has succeeded."""

    def __init__(self, surgery: Surgery, changes: Changes) -> None:
        self._surgery = surgery
        self.changes = changes

    def absorb(self, value: fx.Node, affine: Affine, reader: fx.Node) -> None:
        """Plan that `reader` finds `affine(value)` in `value`; raises `NotFoldable`."""
        self.changes.enter(value)
        if value in self._surgery.constants:
            self._absorb_in_constant(value, affine, reader)
        elif LinearCall.is_one(value):
            sole_reader(value, reader)
            self._absorb_in_linear(value, affine)
        elif movement.is_movement(value):
            sole_reader(value, reader)
            self._absorb_through_movement(value, affine)
        elif movement.is_split(value):
            raise NotFoldable(f"{described(value)} gives parts that are read in other ways")
        else:
            sole_reader(value, reader)
            self._absorb_in_arithmetic(value, affine)

    def _absorb_in_constant(self, value: fx.Node, affine: Affine, reader: fx.Node) -> None:
        """The reader gets a constant of its own."""
        mapped = affine.scale * self._surgery.constants.value(value) + affine.shift
        if list(mapped.shape) != shape_of(value):
            raise NotFoldable(f"{described(value)} is a constant that would have to grow")
        self._surgery.require_fit(f"the constant {described(value)}", mapped)
        self.changes.plan(partial(self._surgery.give_constant, value, mapped, reader))

    def _absorb_in_linear(self, value: fx.Node, affine: Affine) -> None:
        linear = LinearCall.at(value, self._surgery.constants)
        if linear is None:
            raise NotFoldable(f"the weights of {described(value)} are computed from the input")
        vectors = affine.vectors(linear.axis, linear.out_channels)
        if vectors is None:
            raise NotFoldable(f"it does not act on the output channels of {linear.name}")
        weights = self._surgery.fitting(linear, *linear.followed_by(*vectors))
        self.changes.plan(partial(self._surgery.give_weights, linear, *weights), linear.name)

    def _absorb_through_movement(self, value: fx.Node, affine: Affine) -> None:
        parts = movement.backward(value, affine)
        sources = movement.inputs(value)
        for source in sources:
            if sources.count(source) > 1:
                raise NotFoldable(f"{described(source)} would have to take it twice")
        if parts is None:
            raise NotFoldable(f"{described(value)} gives one element to several channels")
        call = value.args[0] if value.target is operator.getitem else value
        for source, part in zip(sources, parts, strict=True):
            if not bool((part.scale != 1).any()) and not part.has_shift:
                continue
            self._refuse_other_readers(source, part, value, call)  # type: ignore[arg-type]
            self._absorb_unread_by_others(source, part)

    def _absorb_unread_by_others(self, value: fx.Node, affine: Affine) -> None:
        """Absorb into a value whose other readers do not read what changes."""
        readers = value_users(value)
        if len(readers) == 1:
            self.absorb(value, affine, readers[0])
        elif LinearCall.is_one(value):
            self.changes.enter(value)
            self._absorb_in_linear(value, affine)
        else:
            raise NotFoldable(f"the output of {described(value)} has more than one reader")

    def _refuse_other_readers(self, source: fx.Node, affine: Affine, value: fx.Node, call: fx.Node) -> None:
        """Nobody else may read an element that changes."""
        others = [reader for reader in value_users(source) if reader is not call]
        if call is not value:  # a split: its other parts are readers of the source too
            others += [part for part in value_users(call) if part is not value]
        if not others:
            return
        changed = ((affine.scale != 1) | (affine.shift != 0)).expand(torch.Size(shape_of(source)))
        for other in others:
            if not movement.is_movement(other) or bool((movement.touched(other, source) & changed).any()):
                raise NotFoldable(f"the output of {described(source)} is also read by {described(other)}")

    def _absorb_in_arithmetic(self, value: fx.Node, affine: Affine) -> None:
        step = step_at(value, self._surgery.constants)
        clamp = Clamp.at(value, self._surgery.constants)
        if step is not None:
            self._absorb_in_step(step, affine)
        elif clamp is not None:
            self._absorb_through_clamp(value, clamp, affine)
        elif pointwise.is_pool(value):
            self._absorb_through_pool(value, affine)
        elif is_sum(value):
            self._absorb_in_sum(value, affine)
        elif value.target is aten.mul.Tensor and not affine.has_shift:
            self._absorb_in_product(value, affine)
        else:
            raise NotFoldable(f"its input comes from {described(value)}, which it cannot pass")

    def _absorb_in_step(self, step: AffineChain, affine: Affine) -> None:
        if step.norms:
            raise NotFoldable(f"{step.norms[0].name} stands before it and stays")
        self.absorb(step.input, step.affine.then(affine), step.reader)
        self.changes.plan(partial(_bypass, self._surgery, step))

    def _absorb_through_clamp(self, value: fx.Node, clamp: Clamp, affine: Affine) -> None:
        if 0 in affine.axes:
            raise NotFoldable(f"{described(value)} has its channels among the rows")
        source = _source(value)
        self.absorb(source, affine, value)
        after = clamp.after(affine)
        if not after.equals(clamp):
            self._surgery.require_fit(f"the bounds of {described(value)}", *after.finite())
            self.changes.pay(price.of_clamp(value), f"{described(value)} would become a pass of its own")
            self.changes.plan(partial(_reclamp, self._surgery, value, after))

    def _absorb_through_pool(self, value: fx.Node, affine: Affine) -> None:
        before = pointwise.through_mean(value, affine, backward=True)
        refusal = pointwise.refuses(value, before)
        if refusal is not None:
            raise NotFoldable(f"it cannot pass {described(value)}: {refusal}")
        self.absorb(_source(value), before, value)

    def _absorb_in_sum(self, value: fx.Node, affine: Affine) -> None:
        """Every leg takes the scale, one takes the shift."""
        first, second = legs(value)
        self.absorb(first, affine, value)
        self.absorb(second, affine.without_shift(), value)

    def _absorb_in_product(self, value: fx.Node, affine: Affine) -> None:
        if value.args[0] is value.args[1]:
            raise NotFoldable(f"{described(value)} is a square, which would square the scale")
        for leg in value.args[:2]:
            if isinstance(leg, fx.Node) and shape_of(leg) == shape_of(value):
                self.absorb(leg, affine, value)
                return
        raise NotFoldable(f"no factor of {described(value)} can take it")


def _bypass(surgery: Surgery, step: AffineChain) -> None:
    surgery.replace(step.output, surgery.current(step.input))


def _reclamp(surgery: Surgery, value: fx.Node, clamp: Clamp) -> None:
    surgery.replace(value, surgery.write_clamp(_source(value), clamp, value))


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101 - for the type checker; these calls read a tensor first
    return source
