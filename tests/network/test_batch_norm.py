from __future__ import annotations

import copy
import inspect
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from service.network.batch_norm import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

OURS: dict[type[_BatchNorm], type[BatchNorm]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
}
THEIRS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
HALVES = [torch.float16, torch.bfloat16]
BEFORE_2_12 = torch.__version__ < "2.12"  # no `bias`, and an eps of 0 refused in evaluation too
SHAPES = [(6, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


def randomised(norm: _BatchNorm, seed: int = 0) -> _BatchNorm:
    """The layer as after some training: no parameter or statistic at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return norm


def twin(theirs: _BatchNorm) -> BatchNorm:
    """Our layer with the settings and the state of one of torch's."""
    weight = theirs.weight if theirs.affine else theirs.running_mean
    ours = OURS[type(theirs)](
        theirs.num_features,
        theirs.eps,
        theirs.momentum,
        theirs.affine,
        theirs.track_running_stats,
        dtype=None if weight is None else weight.dtype,
    )
    ours.bias = ours.bias if "bias" in theirs.state_dict() else None
    ours.load_state_dict(theirs.state_dict())
    return ours.train(theirs.training)


def images(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (3 * x + 1).to(dtype)


def everything(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """The answer, every gradient and every statistic of one step."""
    x = x.detach().requires_grad_()
    norm.zero_grad()
    y = norm(x)
    (y * images(*y.shape, dtype=y.dtype, seed=1)).sum().backward()
    grads = [tensor.grad for tensor in (x, *norm.parameters()) if tensor.grad is not None]
    return [y.detach(), *grads, *(buffer.clone() for buffer in norm.buffers())]


def state(norm: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(norm.state_dict())


def assert_same_steps(theirs: _BatchNorm, x: Tensor, tolerance: float, steps: int = 3) -> None:
    ours = twin(theirs)
    for step in range(steps):
        moved = x * (1 + step) - step
        assert_close(everything(ours, moved), everything(theirs, moved), rtol=tolerance, atol=tolerance)


# --- the same as torch's layer ---------------------------------------------------------------------

# In a process of its own: on import, torch's test library freezes torch.backends for everyone and
# wants a package that its module list does not use.
PYTORCH_INPUTS = """
import sys, types, unittest
try:
    import expecttest
except ImportError:
    sys.modules["expecttest"] = types.SimpleNamespace(TestCase=unittest.TestCase)
import torch
from torch.testing._internal.common_modules import module_db
cases = []
for info in module_db:
    if info.module_cls in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d):
        for dtype in (torch.float32, torch.float64):
            for case in info.module_inputs_func(info, "cpu", dtype, False, True):
                made, given = case.constructor_input, case.forward_input
                cases.append((info.module_cls.__name__, made.args, made.kwargs, given.args[0]))
torch.save(cases, sys.argv[1])
"""


@pytest.fixture(scope="module")
def pytorch_inputs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Any, Any, Tensor]]:
    file: Path = tmp_path_factory.mktemp("pytorch") / "inputs.pt"
    subprocess.run([sys.executable, "-c", PYTORCH_INPUTS, str(file)], check=True, timeout=120)
    cases: list[tuple[str, Any, Any, Tensor]] = torch.load(file, weights_only=True)
    return cases


@pytest.mark.parametrize("training", [True, False])
def test_pytorchs_own_test_inputs_give_torchs_results(
    pytorch_inputs: list[tuple[str, Any, Any, Tensor]], training: bool
) -> None:
    assert len(pytorch_inputs) >= 38  # as many as torch 2.11 has; those without a bias came with 2.12
    for name, args, kwargs, x in pytorch_inputs:
        theirs = randomised(getattr(nn, name)(*args, **kwargs, dtype=x.dtype)).train(training)
        assert_same_steps(theirs, x, TOLERANCE[x.dtype])


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    eps=st.sampled_from([1e-5, 1e-3, 0.1]),
    momentum=st.none() | st.floats(0, 1),
    affine=st.booleans(),
    track_running_stats=st.booleans(),
    training=st.booleans(),
    transposed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_setting_gives_torchs_results(
    shape: list[int],
    dtype: torch.dtype,
    transposed: bool,
    training: bool,
    seed: int,
    **arguments: Any,
) -> None:
    x = images(*shape, dtype=dtype, seed=seed)
    x = x.transpose(0, -1) if transposed and len(shape) > 2 else x
    x = torch.cat([x, -x])  # at least two values per channel, and different ones
    theirs = THEIRS[x.dim()](x.shape[1], dtype=dtype, **arguments)
    assert_same_steps(randomised(theirs, seed).train(training), x, TOLERANCE[dtype])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_first_and_second_derivatives_are_those_of_finite_differences(
    shape: tuple[int, ...], training: bool
) -> None:
    ours = twin(randomised(THEIRS[len(shape)](3, dtype=torch.float64))).train(training)

    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        return functional_call(ours, {"weight": weight, "bias": bias}, x)

    inputs = [
        images(*shape, dtype=torch.float64),
        images(3, dtype=torch.float64),
        images(3, dtype=torch.float64),
    ]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(forward, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(forward, inputs, fast_mode=True)


@pytest.mark.parametrize("theirs", OURS)
def test_it_has_torchs_signature_and_repr(theirs: type[_BatchNorm]) -> None:
    parameters = inspect.signature(OURS[theirs]).parameters.values()
    assert [(p.name, p.default) for p in parameters][1:] == [
        ("eps", 1e-5),
        ("momentum", 0.1),
        ("affine", True),
        ("track_running_stats", True),
        ("device", None),
        ("dtype", None),
    ]
    cases: list[tuple[Any, ...]] = [(3,), (3, 0.1, None), (3, 1e-3, 0.2, False, False)]
    for arguments in cases:
        ours = repr(OURS[theirs](*arguments))
        assert (re.sub(" bias=[A-Za-z]+,", "", ours) if BEFORE_2_12 else ours) == repr(theirs(*arguments))


def test_no_batch_norm_kernel_of_torch_takes_part() -> None:
    called: set[str] = set()

    class Listener(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.add(str(func))
            return func(*args, **(kwargs or {}))

    with Listener():  # type: ignore[no-untyped-call]
        everything(BatchNorm2d(3), images(2, 3, 4, 4))
        everything(BatchNorm2d(3).eval(), images(2, 3, 4, 4))
    assert "aten.rsqrt.default" in called
    assert not [name for name in called if "norm" in name]


# --- what it computes ------------------------------------------------------------------------------


def test_training_brings_every_channel_to_mean_0_and_standard_deviation_1() -> None:
    y = BatchNorm2d(3)(images(8, 3, 16, 16) * torch.tensor([1e-1, 1.0, 1e3]).view(3, 1, 1) + 7)
    assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    assert_close(y.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_the_batch_is_normalised_by_the_biased_and_tracked_by_the_unbiased_variance() -> None:
    norm, x = BatchNorm2d(1, eps=1e-12, momentum=1.0), torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    assert norm(x).flatten().tolist() == pytest.approx([-1, 1])
    assert state(norm)["running_var"].tolist() == pytest.approx([2])


def test_a_mean_of_ten_thousand_does_not_swallow_a_variance_of_one() -> None:
    x = images(16, 3, 32, 32) / 3 + 1e4
    norm = BatchNorm2d(3, momentum=1.0)
    y, exact = norm(x).double(), nn.BatchNorm2d(3, momentum=1.0, dtype=torch.float64)
    assert_close(y, exact(x.double()), rtol=0, atol=2e-3)  # float32 numbers near 1e4 are 1e-3 apart
    assert norm.running_var is not None
    assert_close(norm.running_var.double(), exact.running_var, rtol=1e-4, atol=0)


def test_momentum_none_keeps_the_plain_average_of_all_batches() -> None:
    norm, batches = BatchNorm1d(2, momentum=None, dtype=torch.float64), images(5, 7, 2, dtype=torch.float64)
    for batch in batches:
        norm(batch)
    assert_close(norm.running_mean, batches.mean(1).mean(0))
    assert_close(norm.running_var, batches.var(1).mean(0))


def test_evaluation_changes_nothing() -> None:
    norm = twin(randomised(nn.BatchNorm2d(3))).eval()
    before = state(norm)
    for seed in range(3):
        everything(norm, images(2, 3, 4, 4, seed=seed))
    assert_close(state(norm), before, rtol=0, atol=0)


def test_a_row_in_evaluation_does_not_depend_on_the_rows_beside_it() -> None:
    norm, x = twin(randomised(nn.BatchNorm2d(3))).eval(), images(4, 3, 5, 5)
    assert torch.equal(norm(x)[1:2], norm(x[1:2]))


def test_two_layers_keep_statistics_of_their_own() -> None:
    first, second = BatchNorm2d(3), BatchNorm2d(3)
    untouched = state(second)
    x = first(images(4, 3, 5, 5))
    assert_close(state(second), untouched, rtol=0, atol=0)
    after_first = state(first)
    second(2 * x + 5)
    assert_close(state(first), after_first, rtol=0, atol=0)
    assert not torch.allclose(after_first["running_mean"], state(second)["running_mean"])


def test_a_layer_that_stopped_tracking_keeps_its_statistics_and_still_uses_them() -> None:
    theirs = randomised(nn.BatchNorm2d(3))
    theirs.track_running_stats = False
    ours = twin(nn.BatchNorm2d(3))
    ours.load_state_dict(theirs.state_dict())
    ours.track_running_stats = False
    for training in (True, False):
        x = images(2, 3, 4, 4)
        assert_close(everything(ours.train(training), x), everything(theirs.train(training), x))


def test_a_layer_without_buffers_uses_the_batchs_statistics_in_evaluation_too() -> None:
    theirs, ours = nn.BatchNorm2d(3), BatchNorm2d(3)
    for norm in (theirs, ours):
        norm.running_mean = norm.running_var = None
    for training in (True, False):
        x = images(2, 3, 4, 4)
        assert_close(everything(ours.train(training), x), everything(theirs.train(training), x))


def test_the_plain_average_of_a_layer_that_does_not_count_stays_where_it_is() -> None:
    theirs, ours = nn.BatchNorm2d(3, momentum=None), BatchNorm2d(3, momentum=None)
    for norm in (theirs, ours):
        norm.num_batches_tracked = None
    x = images(2, 3, 4, 4)
    assert_close(everything(ours, x), everything(theirs, x))


def test_training_keeps_no_graph_in_the_statistics() -> None:
    norm = BatchNorm2d(3)
    norm(images(2, 3, 4, 4).requires_grad_())
    assert not any(buffer.requires_grad for buffer in norm.buffers())


def test_resetting_forgets_everything_learned_and_tracked() -> None:
    norm = twin(randomised(nn.BatchNorm2d(3)))
    norm(images(2, 3, 4, 4))
    norm.reset_running_stats()
    assert norm.num_batches_tracked == 0
    assert norm.weight is not None
    assert not torch.equal(norm.weight, torch.ones(3))
    norm.reset_parameters()
    assert_close(norm.state_dict(), nn.BatchNorm2d(3).state_dict())


# --- dtypes and layouts ----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("half_layer", [True, False])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precisions_are_computed_in_float32_and_answered_in_their_own(
    dtype: torch.dtype, half_layer: bool, training: bool
) -> None:
    theirs = randomised(nn.BatchNorm2d(3).to(dtype if half_layer else torch.float32)).train(training)
    ours, x = twin(theirs), images(4, 3, 5, 5, dtype=dtype)
    expected = everything(theirs, x)
    assert [tensor.dtype for tensor in everything(copy.deepcopy(ours), x)] == [t.dtype for t in expected]
    assert_close(everything(ours, x), expected, rtol=2 * torch.finfo(dtype).eps, atol=0.05)
    exact = copy.deepcopy(theirs).double().eval()(x.double())
    assert_close(ours.eval()(x).double(), exact, rtol=torch.finfo(dtype).eps, atol=0.01)


@pytest.mark.parametrize("dtype", HALVES)
def test_statistics_in_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    theirs = randomised(nn.BatchNorm1d(200, dtype=dtype))
    ours, exact, x = twin(theirs), theirs.double(), images(16, 200, 5, dtype=dtype)
    ours(x), exact(x.double())
    for name in ("running_mean", "running_var"):
        rounded = state(exact)[name].to(dtype)
        assert (state(ours)[name] != rounded).sum() <= 2  # of 200, where float32 met the edge of two halves


def test_squares_beyond_float16_do_not_overflow() -> None:
    norm = BatchNorm2d(1)
    assert norm(images(4, 1, 8, 8).half() * 5000).isfinite().all()
    assert norm.running_var is not None
    assert norm.running_var.item() > torch.finfo(torch.float16).max


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(
    ("norm", "shape", "layout"),
    [
        (BatchNorm2d(4), (2, 4, 3, 5), torch.channels_last),
        (BatchNorm3d(4), (2, 4, 3, 2, 5), torch.channels_last_3d),
        (BatchNorm2d(4), (2, 4, 3, 5), torch.contiguous_format),
        (BatchNorm2d(4, affine=False), (2, 4, 3, 5), torch.channels_last),
    ],
)
def test_the_memory_format_is_kept(
    norm: BatchNorm, shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, training: bool
) -> None:
    x = images(*shape, dtype=dtype)
    y = norm.train(training)(x.to(memory_format=layout))
    assert y.is_contiguous(memory_format=layout)
    assert_close(norm.eval()(x.to(memory_format=layout)), norm(x))


@pytest.mark.parametrize("training", [True, False])
def test_strided_and_expanded_inputs_are_read_as_they_are_shaped(training: bool) -> None:
    theirs = randomised(nn.BatchNorm2d(3)).train(training)
    for x in (
        images(2, 6, 4, 5)[:, ::2],
        images(5, 4, 3, 2).permute(3, 2, 1, 0),
        images(2, 3, 1, 1).expand(2, 3, 4, 4),
    ):
        assert_same_steps(theirs, x, TOLERANCE[torch.float32])


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_is_counted_but_moves_nothing(shape: tuple[int, ...], training: bool) -> None:
    assert_same_steps(
        randomised(nn.BatchNorm2d(3)).train(training), torch.zeros(shape), TOLERANCE[torch.float32]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_converting_a_model_converts_all_but_the_count(dtype: torch.dtype) -> None:
    converted = nn.Sequential(BatchNorm2d(3)).to(dtype).state_dict()
    assert {name: tensor.dtype for name, tensor in converted.items()} == {
        **dict.fromkeys(["0.weight", "0.bias", "0.running_mean", "0.running_var"], dtype),
        "0.num_batches_tracked": torch.int64,
    }


def test_it_can_be_built_without_memory_and_given_its_tensors_later() -> None:
    norm = BatchNorm2d(3, device="meta")
    assert norm(torch.empty(2, 3, 4, 4, device="meta")).shape == (2, 3, 4, 4)
    norm.load_state_dict(randomised(nn.BatchNorm2d(3)).state_dict(), assign=True)
    assert norm.eval()(images(2, 3, 4, 4)).isfinite().all()


# --- state dicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [(), (1e-3, 0.1, False), (1e-3, 0.1, True, False), (1e-3, 0.1, False, False)]
)
def test_state_dicts_have_torchs_keys_in_torchs_order_and_load_both_ways(arguments: tuple[Any, ...]) -> None:
    theirs, ours = randomised(nn.BatchNorm2d(3, *arguments)), BatchNorm2d(3, *arguments)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)
    assert getattr(ours.state_dict(), "_metadata") == getattr(theirs.state_dict(), "_metadata")  # noqa: B009
    nn.BatchNorm2d(3, *arguments).load_state_dict(ours.state_dict())


def test_a_checkpoint_from_before_the_count_loads_and_leaves_the_count() -> None:
    old = {name: tensor for name, tensor in nn.BatchNorm2d(3).state_dict().items() if "num" not in name}
    norm = BatchNorm2d(3)
    norm(images(2, 3, 4, 4))
    norm.load_state_dict(old)
    assert norm.num_batches_tracked == 1
    norm = BatchNorm2d(3, device="meta")
    norm.load_state_dict(old, assign=True)
    assert norm.num_batches_tracked == 0


def test_a_newer_checkpoint_without_the_count_is_refused() -> None:
    new = BatchNorm2d(3).state_dict()
    del new["num_batches_tracked"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"num_batches_tracked"'):
        BatchNorm2d(3).load_state_dict(new)


def test_copies_and_saved_states_are_independent_of_the_layer(tmp_path: Path) -> None:
    norm = twin(randomised(nn.BatchNorm2d(3)))
    clone, before = copy.deepcopy(norm), state(norm)
    torch.save(norm.state_dict(), tmp_path / "norm.pt")
    norm(images(2, 3, 4, 4))
    assert_close(state(clone), before, rtol=0, atol=0)
    assert_close(torch.load(tmp_path / "norm.pt", weights_only=True), before, rtol=0, atol=0)


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "shape"),
    [
        (nn.BatchNorm1d(3), (3,)),
        (nn.BatchNorm1d(3), (2, 3, 4, 4)),
        (nn.BatchNorm2d(3), (2, 3, 4)),
        (nn.BatchNorm3d(3), (2, 3, 4, 4)),
        (nn.BatchNorm1d(3), (1, 3)),
        (nn.BatchNorm2d(3), (1, 3, 1, 1)),
        (nn.BatchNorm2d(3, track_running_stats=False).eval(), (1, 3, 1, 1)),
        (nn.BatchNorm2d(3, eps=0.0), (2, 3, 4, 4)),
        (nn.BatchNorm2d(3, eps=-1.0).eval(), (2, 3, 4, 4)),
    ],
)
def test_what_torch_refuses_is_refused_in_torchs_words_and_changes_nothing(
    theirs: _BatchNorm, shape: tuple[int, ...]
) -> None:
    ours = twin(theirs)
    before = state(ours)
    with pytest.raises(ValueError, match=r".") as expected:
        theirs(torch.zeros(shape))
    with pytest.raises(ValueError, match=r".") as refused:
        ours(torch.zeros(shape))
    words = (str(refused.value), str(expected.value))
    assert words[0] == words[1] or (BEFORE_2_12 and all("batch_norm eps must be" in text for text in words))
    assert_close(state(ours), before, rtol=0, atol=0)


def test_a_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 3 channels \(got 4 in \(2, 4, 5, 5\)\)"):
        BatchNorm2d(3)(images(2, 4, 5, 5))


def test_the_general_layer_takes_any_two_axes_and_refuses_one() -> None:
    assert BatchNorm(3)(images(2, 3, 2, 2, 2, 2)).shape == (2, 3, 2, 2, 2, 2)
    with pytest.raises(ValueError, match=r"expected at least 2D input \(got 1D input\)"):
        BatchNorm(3)(images(3))


def test_half_of_the_running_statistics_is_refused() -> None:
    norm = BatchNorm2d(3).eval()
    norm.running_var = None
    with pytest.raises(ValueError, match="either both be None or neither"):
        norm(images(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("layer", "given"),
    [
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
        (torch.float16, torch.float32),
        (torch.float16, torch.bfloat16),
        (torch.float32, torch.int64),
        (torch.float32, torch.uint8),
    ],
)
def test_dtypes_which_do_not_match_are_refused(layer: torch.dtype, given: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"got {given}"):
        BatchNorm2d(3, dtype=layer)(torch.ones(2, 3, 4, 4).to(given))


def test_whole_numbers_are_refused_by_a_layer_without_a_dtype_too() -> None:
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        BatchNorm2d(3, affine=False, track_running_stats=False)(torch.ones(2, 3, 4, 4, dtype=torch.int64))


# --- export ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_exports_to_one_call_for_any_batch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    norm = twin(randomised(THEIRS[len(shape)](3, dtype=dtype))).eval()
    x = images(*shape, dtype=dtype)
    batch = torch.export.Dim("batch")
    program = torch.export.export(norm, (x,), dynamic_shapes=({0: batch},), strict=False)
    calls = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert calls == {"aten.batch_norm.default"}
    assert list(program.state_dict) == list(norm.state_dict())
    for rows in (1, 2, 9):
        x = images(rows, *shape[1:], dtype=dtype)
        assert_close(program.module()(x), norm(x))


def test_an_eps_of_0_exports_too_as_it_does_on_no_layer_of_torchs_before_2_12() -> None:
    norm, x = twin(randomised(nn.BatchNorm2d(3, eps=0.0))).eval(), images(2, 3, 4, 4)
    program = torch.export.export(norm, (x,), strict=False)
    assert_close(program.module()(x), norm(x))
