"""The CUDA plan on a CUDA device: its calls in every precision, its buckets, its recordings."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from service.errors import ModelRefused
from service.graph.capture import capture
from service.graph.fold import fold_graph
from service.graph.reference import Reference
from service.network import catalog
from service.network.random_stats import randomise
from service.plan.cuda_graphs import CudaGraphs
from service.plan.device import choose
from service.plan.plan import PRECISIONS, Plan, lower
from service.plan.preprocessing import Preprocessing

from .lowered import assert_exact, calls, inputs
from .test_cudnn import FUSABLE, OTHERS, Sum

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
# TF32 and float16 keep 10 bits of what they multiply, bfloat16 7; float32 may take Winograd's algorithm.
TOLERANCES = {"float32": 1e-5, "tf32": 2e-3, "float16": 4e-3, "bfloat16": 3e-2}


def on_cuda(net: nn.Module, row: Tensor, precision: str = "float32", max_batch: int = 8) -> Plan:
    computed, channels = PRECISIONS[precision], row.shape[0]
    mean, std = (MEAN, STD) if channels == 3 else ([0.0] * channels, [1.0] * channels)
    return lower(
        fold_graph(Reference.of(capture(net, torch.stack([row, row]))), computed.dtype).module,
        Preprocessing(mean, std),
        precision=computed.dtype,
        allow_tf32=computed.allow_tf32,
        device=choose("cuda"),
        max_batch=max_batch,
    )


def assert_answers(plan: Plan, net: nn.Module, rows: Tensor, precision: str = "float32") -> None:
    assert_exact(plan, net, rows, TOLERANCES[precision])


def architecture(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = catalog.build(name, {})
    randomise(net, 0)
    return net


def residual() -> nn.Module:
    torch.manual_seed(0)
    block = Sum(nn.Conv2d(6, 6, 3, padding=1), nn.Identity(), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), block, nn.Flatten(), nn.Linear(6 * 36, 5))


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("case", FUSABLE)
def test_a_convolution_and_its_relu(case: str, rows: int, precision: str) -> None:
    layer, shape = FUSABLE[case]
    net, x = nn.Sequential(layer, nn.ReLU()), inputs(rows, *shape)
    plan = on_cuda(net, x[0], precision)
    assert_answers(plan, net, x, precision)
    assert calls(plan) == ["cudnn_convolution_relu.default"]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("case", FUSABLE)
def test_a_sum_and_its_relu_inside_the_later_of_two_convolutions(
    case: str, rows: int, precision: str
) -> None:
    layer, shape = FUSABLE[case]
    net, x = Sum(nn.Sequential(nn.Tanh(), layer), layer, nn.ReLU()), inputs(rows, *shape)
    plan = on_cuda(net, x[0], precision)
    assert_answers(plan, net, x, precision)
    assert calls(plan)[2] == "cudnn_convolution_add_relu.default"


@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [2, 8, 32])
def test_the_operators_know_groups_although_no_plan_uses_it(groups: int, precision: torch.dtype) -> None:
    x, weight = inputs(2, 64, 9, 9), inputs(64, 64 // groups, 3, 3)
    moves = ([1, 1], [1, 1], [1, 1], groups)
    expected = torch.ops.aten.conv2d(x.double(), weight.double(), None, *moves).relu()
    device = choose("cuda")
    x, weight = (value.to(device, precision, memory_format=torch.channels_last) for value in (x, weight))
    answer = torch.ops.aten.cudnn_convolution_relu(x, weight, None, *moves).cpu()
    assert float((answer - expected).abs().max() / expected.max()) <= 3e-2


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("case", OTHERS)
def test_what_stays_aten(case: str, precision: str) -> None:
    layer, shape = OTHERS[case]
    net, x = nn.Sequential(layer, nn.ReLU()), inputs(3, *shape)
    assert_answers(on_cuda(net, x[0], precision), net, x, precision)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_no_number_that_was_left_in_the_results_memory_reaches_the_result(precision: torch.dtype) -> None:
    """The operator without a sum hands its own empty result to cuDNN as a summand, scaled by 0."""
    device = choose("cuda")
    x, weight = (inputs(*shape).to(device, precision) for shape in ((4, 16, 32, 32), (16, 16, 3, 3)))
    x, weight = (value.contiguous(memory_format=torch.channels_last) for value in (x, weight))
    torch.full_like(x, torch.nan)  # freed at once: the result will lie there
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    answer = torch.ops.aten.cudnn_convolution_relu(x, weight, None, *geometry)
    assert bool(answer.isfinite().all())


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7, 20])
def test_every_number_of_rows(rows: int) -> None:
    net, x = residual(), inputs(rows, 3, 8, 8)
    assert_answers(on_cuda(net, x[0], max_batch=6), net, x)


def test_recordings_are_replayed_from_changing_rows_in_any_order_of_buckets() -> None:
    net = residual()
    plan = on_cuda(net, torch.zeros(3, 8, 8), max_batch=6)
    plan(torch.full((6, 3, 8, 8), torch.nan))
    for seed, count in enumerate((3, 1, 6, 2, 5, 1, 4, 6, 3)):
        assert_answers(plan, net, inputs(count, 3, 8, 8) + seed)


def test_an_answer_stays_as_it_is_when_more_rows_come() -> None:
    plan = on_cuda(residual(), torch.zeros(3, 8, 8))
    first = plan(inputs(3, 3, 8, 8))
    before = first.clone()
    plan(inputs(3, 3, 8, 8) + 1)
    assert torch.equal(first, before)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("rows", [1, 3, 8, 11])
def test_pixels_are_answered_as_the_rows_that_they_are_normalised_to(rows: int, precision: str) -> None:
    generator = torch.Generator().manual_seed(rows)
    pixels = torch.randint(0, 256, (rows, 3, 8, 8), dtype=torch.uint8, generator=generator)
    mean, std = (torch.tensor(values).double().reshape(3, 1, 1) for values in (MEAN, STD))
    plan = on_cuda(residual(), torch.zeros(3, 8, 8), precision)
    expected = plan(((pixels.double() / 255 - mean) / std).float())
    error = (plan(pixels) - expected).abs().max() / expected.abs().max()
    assert float(error) <= TOLERANCES[precision]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_parity_holds_in_every_bucket(name: str, precision: str) -> None:
    net = architecture(name)
    reference = Reference.of(capture(net, torch.zeros(2, 3, 64, 64)))
    plan = on_cuda(net, torch.zeros(3, 64, 64), precision, max_batch=4)
    assert reference.expected(PRECISIONS[precision].proven_as).prove(plan, plan.buckets()).holds


def test_two_networks_side_by_side() -> None:
    nets = [residual(), nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU())]
    plans = [on_cuda(net, torch.zeros(3, 8, 8), max_batch=4) for net in nets]
    for count in (4, 1, 3):
        for plan, net in zip(plans, nets, strict=True):
            assert_answers(plan, net, inputs(count, 3, 8, 8))


def test_float32_stays_float32_beside_the_same_network_in_tf32() -> None:
    net, x = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU()), inputs(4, 64, 20, 20)
    rounded, full = on_cuda(net, x[0], "tf32"), on_cuda(net, x[0], "float32")
    for _ in range(2):
        assert_answers(rounded, net, x, "tf32")
        assert_answers(full, net, x, "float32")
    assert float((rounded(x) - full(x)).abs().max()) > 1e-5  # which says that TF32 was in force
    assert not torch.backends.cudnn.allow_tf32


def test_a_plan_is_recorded_and_replayed_on_the_thread_that_serves() -> None:
    net, x, failures = residual(), inputs(5, 3, 8, 8), list[BaseException]()

    def serve() -> None:
        try:
            assert_answers(on_cuda(net, x[0]), net, x)
        except BaseException as failure:  # noqa: BLE001 - told to the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert failures == []


def test_what_cannot_be_recorded_is_refused() -> None:
    device = choose("cuda")
    value = torch.ones(3, device=device)
    waits: Callable[[], Tensor] = lambda: value * float(value.sum())  # noqa: E731 - the CPU waits for a number
    with pytest.raises(ModelRefused, match="cannot be recorded as a CUDA graph"):
        CudaGraphs(device, allow_tf32=False).record(waits)
    assert float(value.sum()) == 3  # and the device goes on


def test_the_pool_of_the_graphs_is_shown() -> None:
    net, x = residual(), inputs(5, 3, 8, 8)
    plan = on_cuda(net, x[0])
    plan(x)
    numbers = sum(parameter.numel() for parameter in net.parameters())
    assert plan.memory["weights"] >= 4 * numbers
    recorded = plan.memory["graphs"]
    assert recorded > 0
    plan(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))  # the other dtype's graphs come into the same pool
    assert plan.memory["graphs"] >= recorded
