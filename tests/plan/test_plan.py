"""The plan: rows of pixels or of network inputs, any number of them, on one device and precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import InvalidConfiguration
from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.reference import Reference
from service.plan.device import choose
from service.plan.plan import PRECISIONS, Plan, lower
from service.plan.preprocessing import Preprocessing

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
cuda = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    ],
)


class Flat(nn.Module):
    """A view right behind a convolution, which channels-last memory does not allow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), Flat()
    )
    state = net.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.uniform_(0.2, 2)
        elif name.endswith(("running_mean", "1.bias", "3.weight")):
            tensor.normal_()
    return net.append(nn.Linear(16, 5)).eval()


def plan(
    device: str = "cpu", precision: torch.dtype = torch.float32, max_batch: int = 4, net: Any = None
) -> Plan:
    folded = fold_graph(Reference.of(capture(net or network(), torch.zeros(2, 3, 6, 6)))).module
    return lower(
        folded,
        Preprocessing(MEAN, STD),
        precision=precision,
        device=choose(device),
        max_batch=max_batch,
    )


def inputs(rows: int) -> Tensor:
    return torch.randn(rows, 3, 6, 6, generator=torch.Generator().manual_seed(rows))


def pixels(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randint(0, 256, (rows, 3, 6, 6), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def exact(x: Tensor) -> Tensor:
    """The unfolded network in float64, on the CPU."""
    if x.dtype == torch.uint8:
        mean, std = (torch.tensor(values).double().reshape(3, 1, 1) for values in (MEAN, STD))
        x = (x.double() / 255 - mean) / std
    answer: Tensor = copy.deepcopy(network()).double()(x.double())
    return answer


def assert_answers(computed: Plan, x: Tensor, tolerance: float = 1e-5) -> None:
    reference, answer = exact(x.contiguous()), computed(x)
    assert (answer.dtype, answer.device.type, answer.shape) == (torch.float32, "cpu", reference.shape)
    assert float((answer - reference).abs().max() / reference.abs().max()) <= tolerance


@pytest.mark.parametrize("device", ["cpu", cuda])
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 9])
def test_float32_rows_are_network_inputs_in_any_number(device: str, rows: int) -> None:
    assert_answers(plan(device), inputs(rows))


@pytest.mark.parametrize("device", ["cpu", cuda])
@pytest.mark.parametrize("rows", [1, 4, 9])
def test_uint8_rows_are_pixels_and_are_normalised(device: str, rows: int) -> None:
    assert_answers(plan(device), pixels(rows))


@pytest.mark.parametrize("make", [inputs, pixels])
def test_channels_last_rows_give_the_same_answer(make: Any) -> None:
    assert_answers(plan(), make(5).contiguous(memory_format=torch.channels_last))
    assert_answers(plan(), make(10)[::2])


@pytest.mark.parametrize("device", ["cpu", cuda])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.bfloat16, 5e-2), (torch.float16, 1e-2)], ids=["bfloat16", "float16"]
)
def test_half_precisions_answer_in_float32(device: str, precision: torch.dtype, tolerance: float) -> None:
    computed = plan(device, precision)
    assert_answers(computed, inputs(5), tolerance)
    assert_answers(computed, pixels(5), tolerance)


@pytest.mark.parametrize("make", [inputs, pixels])
def test_the_answer_of_a_row_does_not_depend_on_its_neighbours(make: Any) -> None:
    computed, rows = plan(max_batch=8), make(7)
    noisy = rows.clone()
    noisy[1:] = 0 if rows.dtype == torch.uint8 else float("nan")
    assert torch.equal(computed(rows)[0], computed(noisy)[0])
    assert float((computed(rows) - torch.cat([computed(row[None]) for row in rows])).abs().max()) < 1e-5


def test_the_rows_are_left_as_they_were() -> None:
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1))
    rows, computed = inputs(3), plan(net=net)
    computed(rows)
    assert torch.equal(rows, inputs(3))


@pytest.mark.parametrize(
    ("max_batch", "buckets"), [(1, [1]), (2, [2, 1]), (6, [6, 4, 2, 1]), (8, [8, 4, 2, 1])], ids=str
)
def test_buckets_are_the_powers_of_two_and_the_largest_batch(max_batch: int, buckets: list[int]) -> None:
    assert plan(max_batch=max_batch).buckets() == buckets


@pytest.mark.parametrize(
    ("padding", "sizes"), [(0, [5, 4, 2, 1]), (1, [1])], ids=["first layers", "one pass"]
)
def test_warming_up_runs_what_only_pixels_go_through(padding: int, sizes: list[int]) -> None:
    computed, seen = plan(max_batch=5, net=nn.Conv2d(3, 2, 3, padding=padding)), list[int]()
    run = computed._answer
    computed._answer = lambda x: seen.append(len(x)) or run(x)  # type: ignore[assignment,func-returns-value]
    answers = computed.warm_up(torch.ones(3, 6, 6, dtype=torch.uint8))
    assert seen == sizes
    assert {rows: len(answer) for rows, answer in answers.items()} == {rows: rows for rows in sizes}


def test_tf32_is_refused_on_a_cpu() -> None:
    folded = fold_graph(Reference.of(capture(network(), torch.zeros(2, 3, 6, 6)))).module
    preprocessing, cpu = Preprocessing(MEAN, STD), torch.device("cpu")
    with pytest.raises(InvalidConfiguration, match="precision tf32 is for CUDA devices; this device is cpu"):
        lower(folded, preprocessing, precision=torch.float32, allow_tf32=True, device=cpu, max_batch=4)
    assert PRECISIONS["float32"].on(cpu) is PRECISIONS["float32"]
    assert PRECISIONS["tf32"].on(torch.device("cuda", 1)) is PRECISIONS["tf32"]


def test_tf32_is_float32_that_is_proven_like_float16() -> None:
    """Both keep ten bits of what they multiply; the error of float16 is at least that of TF32."""
    proven = {name: (precision.dtype, precision.proven_as) for name, precision in PRECISIONS.items()}
    assert proven == {
        "float32": (torch.float32, torch.float32),
        "tf32": (torch.float32, torch.float16),
        "bfloat16": (torch.bfloat16, torch.bfloat16),
        "float16": (torch.float16, torch.float16),
    }


def test_answers_need_no_gradient() -> None:
    computed = plan()
    assert not computed(inputs(2)).requires_grad
    assert not any(tensor.requires_grad for tensor in computed.programs[-1].module.state_dict().values())
