"""Forward: a norm goes into what reads its output, through everything that it commutes with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from service.graph import movement, pointwise, price
from service.graph.chains import value_users
from service.graph.linear import LinearCall
from service.graph.pointwise import Clamp
from service.graph.surgery import Changes, NotFoldable, Surgery, described

if TYPE_CHECKING:
    from torch import Tensor, fx

    from service.graph.affine import Affine
    from service.graph.chains import AffineChain

aten = torch.ops.aten


def into_consumers(surgery: Surgery, chain: AffineChain, limit: int) -> tuple[str, ...]:
    """Let all layers behind the chain compute it, at a price up to `limit`; the answer is their names."""
    attempt = _Emission(surgery, Changes(limit))
    attempt.emit(chain.output, chain.affine)
    if not attempt.changes.partners:
        raise NotFoldable("nothing behind it has weights to scale")
    attempt.changes.make()
    surgery.replace(chain.output, surgery.current(chain.input))
    return tuple(attempt.changes.partners)


class _Emission:
    """One attempt to have all readers of a value read it before a map, and apply the map themselves."""

    def __init__(self, surgery: Surgery, changes: Changes) -> None:
        self._surgery = surgery
        self.changes = changes

    def emit(self, value: fx.Node, affine: Affine) -> None:
        """Plan that every reader of `value` computes `affine` itself; raises `NotFoldable`."""
        self.changes.enter(value)
        for reader in value_users(value):
            self._emit_to(reader, value, affine)

    def _emit_to(self, reader: fx.Node, value: fx.Node, affine: Affine) -> None:
        clamp = Clamp.at(reader, self._surgery.constants)
        if LinearCall.is_one(reader):
            self._emit_into_linear(reader, value, affine)
        elif clamp is not None:
            self._emit_through_clamp(reader, clamp, affine)
        elif pointwise.is_pool(reader):
            self._emit_through_pool(reader, affine)
        elif movement.is_split(reader):
            self._emit_through_split(reader, value, affine)
        elif movement.is_movement(reader):
            self.emit(reader, self._moved(reader, value, affine))
        else:
            raise NotFoldable(f"its output goes into {described(reader)}, which it cannot pass")

    def _emit_into_linear(self, reader: fx.Node, value: fx.Node, affine: Affine) -> None:
        self.changes.enter(reader)
        linear = LinearCall.at(reader, self._surgery.constants)
        if linear is None or reader.args[0] is not value or value in reader.all_input_nodes[1:]:
            raise NotFoldable(f"the weights of {described(reader)} are computed from the input")
        vectors = affine.vectors(linear.axis, linear.in_channels)
        if vectors is None:
            raise NotFoldable(f"it does not act on the input channels of {linear.name}")
        scale, shift = vectors
        if affine.has_shift and linear.pads:
            self._plan_map(linear, shift)
            shift = torch.zeros_like(shift)
        weights = self._surgery.fitting(linear, *linear.preceded_by(scale, shift))
        self.changes.plan(partial(self._surgery.give_weights, linear, *weights), linear.name)

    def _plan_map(self, linear: LinearCall, shift: Tensor) -> None:
        """Plan to add to the output what the shift makes of an input that is padded with zeros behind it."""
        need = f"{linear.name} pads its input with zeros, and would need a map of its border"
        self.changes.pay(price.of_map(linear.node), need)
        border = linear.response(shift)
        if border is None:
            raise NotFoldable(f"{need}, whose size would change with the number of rows")
        self._surgery.require_fit(f"the border of {linear.name}", border)
        self.changes.plan(partial(self._surgery.add_map, linear, border))

    def _emit_through_clamp(self, reader: fx.Node, clamp: Clamp, affine: Affine) -> None:
        if 0 in affine.axes:
            raise NotFoldable(f"{described(reader)} has its channels among the rows")
        earlier, later = clamp.before(affine)
        self.emit(reader, later)
        if not earlier.equals(clamp):
            self._surgery.require_fit(f"the bounds of {described(reader)}", *earlier.finite())
            self.changes.pay(price.of_clamp(reader), f"{described(reader)} would become a pass of its own")
            self.changes.plan(partial(_reclamp, self._surgery, reader, earlier))

    def _emit_through_pool(self, reader: fx.Node, affine: Affine) -> None:
        refusal = pointwise.refuses(reader, affine)
        if refusal is not None:
            raise NotFoldable(f"it cannot pass {described(reader)}: {refusal}")
        self.emit(reader, pointwise.through_mean(reader, affine, backward=False))

    def _emit_through_split(self, reader: fx.Node, value: fx.Node, affine: Affine) -> None:
        for part in value_users(reader):
            if not movement.is_movement(part):
                raise NotFoldable(f"its output goes into {described(part)}, which it cannot pass")
            self.emit(part, self._moved(part, value, affine))

    def _moved(self, reader: fx.Node, value: fx.Node, affine: Affine) -> Affine:
        if movement.inputs(reader).count(value) != 1:
            raise NotFoldable(f"{described(reader)} reads it more than once")
        return movement.forward(reader, value, affine)


def _reclamp(surgery: Surgery, reader: fx.Node, clamp: Clamp) -> None:
    source = reader.all_input_nodes[0]
    surgery.replace(reader, surgery.write_clamp(source, clamp, reader))
