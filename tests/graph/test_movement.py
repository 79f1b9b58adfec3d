"""Data movement as maps: where every scale and shift goes, and where two would clash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, fx, nn

from service.graph import movement
from service.graph.affine import Affine
from service.graph.capture import capture

from .networks import Net, normal

if TYPE_CHECKING:
    from collections.abc import Callable


def moved(answer: Callable[[Any, Tensor], Any], *row: int) -> list[fx.Node]:
    """The movements of a captured network, in order."""
    graph = capture(Net(answer), normal(2, *row)).module.graph
    return [node for node in graph.nodes if movement.is_movement(node)]


def source_of(node: fx.Node) -> fx.Node:
    return movement.inputs(node)[0]


def random_map(*shape: int) -> Affine:
    return Affine(normal(*shape, seed=3).double(), normal(*shape, seed=4).double())


def dense(affine: Affine, *shape: int) -> tuple[Tensor, Tensor]:
    return affine.scale.expand(shape), affine.shift.expand(shape)


MOVES: list[tuple[Callable[[Tensor], Tensor], list[int]]] = [
    (lambda x: x.permute(0, 2, 3, 1), [4, 6, 2]),
    (lambda x: x.transpose(1, 2), [4, 6, 2]),
    (lambda x: x.flatten(2), [4, 6, 2]),
    (lambda x: x.flatten(1), [4, 6, 2]),
    (lambda x: x.view(x.shape[0], 2, 2, 6, 2), [4, 6, 2]),
    (lambda x: x.unsqueeze(2), [4, 6, 2]),
    (lambda x: x.squeeze(2), [4, 1, 2]),
    (lambda x: x.flip(1), [4, 6, 2]),
    (lambda x: x.roll(1, 1), [4, 6, 2]),
    (lambda x: torch.pixel_shuffle(x, 2), [4, 6, 2]),
    (lambda x: torch.pixel_unshuffle(x, 2), [4, 6, 2]),
    (lambda x: torch.channel_shuffle(x, 2), [4, 6, 2]),
]


@pytest.mark.parametrize(("move", "row"), MOVES)
def test_a_permutation_of_elements_commutes_with_its_map_both_ways(
    move: Callable[[Tensor], Tensor], row: list[int]
) -> None:
    node = moved(lambda _, x: move(x) * 1.5, *row)[-1]
    x = normal(1, *row, seed=9).double()
    after = random_map(*move(x).shape)
    (before,) = movement.backward(node, after) or []
    assert torch.equal(move(x * before.scale + before.shift), move(x) * after.scale + after.shift)
    again = movement.forward(node, source_of(node), before)
    assert all(
        torch.equal(got, expected)
        for got, expected in zip(dense(again, *move(x).shape), dense(after, *move(x).shape), strict=True)
    )


def test_a_map_per_channel_stays_one_vector_through_a_permutation() -> None:
    (node,) = moved(lambda _, x: x.permute(0, 2, 3, 1) * 1.5, 4, 5, 6)
    scale, shift = normal(4).double(), normal(4, seed=1).double()
    (before,) = movement.backward(node, Affine.along(3, 4, scale, shift)) or []
    assert list(before.scale.shape) == list(before.shift.shape) == [1, 4, 1, 1]
    vectors = before.vectors(1, 4)
    assert vectors is not None
    assert torch.equal(vectors[0], scale)
    assert torch.equal(vectors[1], shift)
    after = movement.forward(node, source_of(node), before)
    assert list(after.scale.shape) == [1, 1, 1, 4]


def test_elements_that_a_slice_leaves_out_keep_the_identity() -> None:
    (node,) = [node for node in moved(lambda _, x: x[:, 1:3] * 1.5, 5, 4) if "slice" in node.name][-1:]
    (before,) = movement.backward(node, Affine.along(1, 3, torch.tensor([2.0, 3.0]), torch.ones(2))) or []
    assert before.scale.flatten().tolist() == [1, 2, 3, 1, 1]
    assert before.shift.flatten().tolist() == [0, 1, 1, 0, 0]


def test_a_map_goes_forward_through_a_slice_as_the_part_that_is_read() -> None:
    node = [node for node in moved(lambda _, x: x[:, 1:3] * 1.5, 5, 4) if "slice" in node.name][-1]
    scale = torch.arange(5.0)
    after = movement.forward(node, source_of(node), Affine.along(1, 3, scale, -scale))
    assert after.scale.flatten().tolist() == [1, 2]
    assert after.shift.flatten().tolist() == [-1, -2]


def test_maps_that_an_expansion_would_read_from_one_element_clash() -> None:
    (node,) = moved(lambda _, x: x.expand(-1, 4, -1) * 1.5, 1, 3)
    one, scale = torch.ones(1), torch.tensor([1.0, 2.0, 1.0, 1.0])
    assert movement.backward(node, Affine.along(1, 3, scale, torch.zeros(1))) is None
    assert movement.backward(node, Affine.along(1, 3, one, scale)) is None


def test_equal_maps_go_back_through_an_expansion() -> None:
    (node,) = moved(lambda _, x: x.expand(-1, 4, -1) * 1.5, 1, 3)
    (before,) = (
        movement.backward(node, Affine.along(2, 3, torch.tensor([1.0, 2.0, 3.0]), torch.ones(1))) or []
    )
    assert list(before.scale.shape) == [1, 1, 3]
    assert before.scale.flatten().tolist() == [1, 2, 3]
    assert set(before.shift.flatten().tolist()) == {1}


def test_a_concatenation_gives_every_input_its_part() -> None:
    node = moved(lambda _, x: torch.cat([x.relu(), x.sin()], 1) * 1.5, 2, 3)[-1]
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    first, second = movement.backward(node, Affine.along(1, 3, scale, -scale)) or []
    assert first.scale.flatten().tolist() == [1, 2]
    assert second.scale.flatten().tolist() == [3, 4]
    assert second.shift.flatten().tolist() == [-3, -4]


def test_a_map_of_one_input_leaves_the_rest_of_a_concatenation_alone() -> None:
    node = moved(lambda _, x: torch.cat([x.relu(), x.sin()], 1) * 1.5, 2, 3)[-1]
    second = movement.inputs(node)[1]
    after = movement.forward(node, second, Affine.along(1, 3, torch.tensor([3.0, 4.0]), torch.ones(1)))
    assert after.scale.flatten().tolist() == [1, 1, 3, 4]
    assert after.shift.flatten().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("part", [0, 1])
def test_a_part_of_a_split_reads_its_own_channels(part: int) -> None:
    nodes = moved(lambda _, x: torch.split(x, [1, 3], 1)[part] * 1.5, 4, 3)
    (node,) = [node for node in nodes if node.users]
    size, start = [1, 3][part], [0, 1][part]
    (before,) = movement.backward(node, Affine.along(1, 3, torch.full((size,), 2.0), torch.zeros(1))) or []
    expected = [1.0] * 4
    expected[start : start + size] = [2.0] * size
    assert before.scale.flatten().tolist() == expected
    read = movement.touched(node, source_of(node)).all(2).flatten().tolist()
    assert read == [scale == 2 for scale in expected]
    forward = movement.forward(node, source_of(node), Affine.along(1, 3, torch.arange(4.0), torch.zeros(1)))
    assert forward.scale.expand(1, size, 1).flatten().tolist() == list(range(start, start + size))


def test_the_elements_that_a_movement_reads_are_known() -> None:
    node = [node for node in moved(lambda _, x: x[:, ::2] * 1.5, 5, 2) if "slice" in node.name][-1]
    assert movement.touched(node, source_of(node)).all(2).flatten().tolist() == [True, False] * 2 + [True]


def test_what_computes_is_no_movement() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Softmax(1))
    graph = capture(net, normal(2, 4, 6, 6)).module.graph
    assert not any(movement.is_movement(node) or movement.is_split(node) for node in graph.nodes)
