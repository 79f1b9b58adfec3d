"""What no input can change is known beforehand, in float64, with the names it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from service.graph.capture import capture
from service.graph.constants import Constants
from service.graph.names import owner

from .networks import Net, normal, positive

if TYPE_CHECKING:
    from torch import fx

aten = torch.ops.aten


def constants_of(net: nn.Module, *row: int) -> tuple[Constants, dict[Any, fx.Node]]:
    """The constants of a captured network, and its last node of every target."""
    module = capture(net, normal(2, *row)).module
    return Constants(module), {node.target: node for node in module.graph.nodes}


def normalised() -> Net:
    return Net(
        lambda net, x: x * (net.weight * torch.rsqrt(net.var + 1e-5)),
        weight=normal(3),
        var=positive(3, seed=1),
    )


def test_a_stored_tensor_is_constant_and_the_input_is_not() -> None:
    constants, nodes = constants_of(normalised(), 3)
    assert nodes["var"] in constants
    assert nodes["x"] not in constants
    assert nodes[aten.rsqrt.default] in constants
    assert "var" not in constants
    assert None not in constants


def test_values_are_float64_from_the_stored_tensors_on() -> None:
    constants, nodes = constants_of(normalised(), 3)
    expected = torch.rsqrt(positive(3, seed=1).double() + 1e-5)
    assert torch.equal(constants.value(nodes[aten.rsqrt.default]), expected)


def test_a_cast_of_the_network_does_not_round_a_constant() -> None:
    net = Net(lambda net, x: x * net.weight.to(torch.bfloat16).sqrt(), weight=positive(3))
    constants, nodes = constants_of(net, 3)
    assert torch.equal(constants.value(nodes[aten.sqrt.default]), positive(3).double().sqrt())


def test_integer_tensors_stay_integers() -> None:
    net = Net(lambda net, x: x[:, net.order.flip(0)], order=torch.tensor([2, 0, 1]))
    constants, nodes = constants_of(net, 3)
    value = constants.value(nodes[aten.flip.default])
    assert value.dtype == torch.int64
    assert value.tolist() == [1, 0, 2]


def test_random_numbers_are_not_constant() -> None:
    constants, nodes = constants_of(Net(lambda net, x: x + torch.rand(3)), 3)
    assert nodes[aten.rand.default] not in constants


def test_parts_of_a_split_parameter_are_constant() -> None:
    constants, nodes = constants_of(Net(lambda net, x: x * net.both.chunk(2)[1], both=normal(6)), 3)
    (mul,) = [node for node in nodes.values() if node.target is aten.mul.Tensor]
    assert torch.equal(constants.value(mul.args[1]), normal(6)[3:].double())  # type: ignore[arg-type]


def test_constants_know_their_sources_and_which_were_under_a_root() -> None:
    constants, nodes = constants_of(normalised(), 3)
    (mul,) = [node for node in nodes.values() if node.target is aten.mul.Tensor]
    scale = mul.all_input_nodes[1]
    assert constants.sources(scale) == ["weight", "var"]
    assert constants.under_root(scale) == ["var"]


@pytest.mark.parametrize(
    ("root", "found"),
    [
        (lambda var: var.sqrt(), True),
        (lambda var: var.rsqrt(), True),
        (lambda var: var**0.5, True),
        (lambda var: var**-0.5, True),
        (lambda var: var**2, False),
        (lambda var: var.exp(), False),
    ],
    ids=["sqrt", "rsqrt", "pow 0.5", "pow -0.5", "pow 2", "exp"],
)
def test_a_root_is_the_mark_of_a_variance(root: Any, found: bool) -> None:
    constants, nodes = constants_of(Net(lambda net, x: x / root(net.var), var=positive(3)), 3)
    (div,) = [node for node in nodes.values() if node.target is aten.div.Tensor]
    assert constants.under_root(div.all_input_nodes[1]) == (["var"] if found else [])


def test_factories_of_the_forward_mix_with_stored_tensors() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        return x @ (net.weight @ torch.eye(3))

    constants, nodes = constants_of(Net(answer, weight=normal(3, 3)), 3)
    product = nodes[aten.matmul.default].all_input_nodes[1]
    assert torch.equal(constants.value(product), normal(3, 3).double())


@pytest.mark.parametrize(
    ("tensor", "module"), [("layer1.bn.running_var", "layer1.bn"), ("bn.weight", "bn"), ("scale", "scale")]
)
def test_a_tensor_belongs_to_its_module(tensor: str, module: str) -> None:
    assert owner(tensor) == module


def doubled(net: Any, x: Tensor) -> Tensor:
    """A constant that 2^60 ways lead to, behind a chain of 600 calls."""
    constant = net.weight
    for _ in range(60):
        constant = torch.maximum(constant, constant.neg())
    for _ in range(600):
        constant = constant.abs()
    return x * torch.rsqrt(constant)


def test_however_deep_a_constant_lies_every_call_behind_it_is_looked_at_once() -> None:
    net = Net(doubled, weight=normal(3))
    constants, nodes = constants_of(net, 3)
    root = nodes[aten.rsqrt.default]
    assert root in constants
    assert constants.sources(root) == constants.under_root(root) == ["weight"]
    assert torch.equal(constants.value(root), torch.rsqrt(normal(3).double().abs()))
