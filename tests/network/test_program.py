"""The network of an exported program answers as the one that was exported, and its norms are ours."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from service.errors import InvalidProgram, ModelRefused
from service.graph import fold
from service.network import catalog
from service.network.adopt import norms
from service.network.program import ProgramNetwork
from service.network.program_call import Call, _target
from service.network.random_stats import randomise
from service.store import program as programs
from service.store.program_tables import Node
from tests.store.programs import MODEL, entries_of, node, nodes, packed, saved, small, with_document

if TYPE_CHECKING:
    from collections.abc import Callable


def rebuilt(content: bytes) -> ProgramNetwork:
    return ProgramNetwork(programs.vet(content))


def rows(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


@torch.inference_mode()
def assert_same(network: nn.Module, program: nn.Module, *shape: int) -> None:
    """Up to the order in which a norm multiplies and adds, which differs outside of a capture."""
    for count in (1, 2, 5):
        x = rows(count, *shape)
        torch.testing.assert_close(program(x), network(x), rtol=1e-4, atol=1e-5)


def test_it_answers_as_the_network_does_for_any_number_of_rows() -> None:
    assert_same(small(), rebuilt(saved(small())), 3, 8, 8)


def test_a_norm_is_found_by_its_name_with_all_that_the_program_says_of_it() -> None:
    network = small()
    (name, norm), *rest = norms(rebuilt(saved(network))).items()
    assert (name, rest) == ("norm", [])
    assert (norm.eps, norm.momentum, norm.affine, norm.num_features) == (1e-3, 0.03, True, 4)
    assert norm.num_batches_tracked == 7
    for vector in ("running_mean", "running_var", "weight", "bias"):
        assert torch.equal(getattr(norm, vector), getattr(network.norm, vector))


def test_a_norm_without_a_momentum_has_none() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=None)).eval()
    assert norms(rebuilt(saved(network)))["1"].momentum is None


def test_a_norm_without_weight_and_bias_is_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)).eval()
    program = rebuilt(saved(network))
    assert (norms(program)["1"].affine, norms(program)["1"].weight) == (False, None)
    assert_same(network, program, 3, 8, 8)


@pytest.mark.parametrize(
    "architecture", ["digits", "resnet18", "mobilenet_v2", "efficientnet_b0", "densenet121"]
)
def test_a_family_folds_as_a_program_as_it_does_from_the_catalog(architecture: str) -> None:
    torch.manual_seed(0)
    network = catalog.build(architecture, {})
    randomise(network, 0)
    shape = (1, 8, 8) if architecture == "digits" else (3, 64, 64)
    program = rebuilt(programs.rewritten(programs.vet(saved(network, shape))))
    x = rows(3, *shape)
    folded = fold(program, x)
    assert list(norms(program)) == list(norms(network))
    assert [norm.name for norm in folded.report.layers if norm.outcome == "kept"] == []
    assert folded.report.norms == len(norms(network))
    partners = {norm.partner for norm in folded.report.layers}
    assert partners <= {None, *dict(network.named_modules())}
    with torch.inference_mode():
        expected = network.double()(x.double())
        error = (folded.module(x) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


class Reshaping(nn.Module):
    """Sizes of the input in arithmetic, a list of results, a shared layer, a hand-written norm, a region."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.tensor([0.1, -0.2, 0.3, 0.4]))
        self.register_buffer("scale", torch.full((4,), 1.5), persistent=False)
        self.tied = self.conv

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        with torch.no_grad():
            y = self.norm(self.conv(x)).relu_()
        y = self.norm(self.tied(y))
        left, right = y.reshape(batch * 2, 2, height * width).chunk(2, dim=1)
        y = torch.cat([right, left], 1).view(batch, 4, height, width)
        y = (y - self.mean.view(1, -1, 1, 1)) * self.scale.view(1, -1, 1, 1)
        y = y + torch.zeros(4, 1, 1, dtype=y.dtype) + y.size(0) * 0
        return y.clamp(max=float("inf")).flatten(2).max(dim=2)[0]


def test_sizes_lists_regions_and_constants_survive() -> None:
    network = Reshaping().eval()
    program = rebuilt(saved(network, (4, 6, 6)))
    assert_same(network, program, 4, 6, 6)
    report = fold(program, torch.zeros(2, 4, 6, 6)).report
    assert {layer.name for layer in report.layers} == {"norm", "norm@1"}


def test_tied_weights_stay_tied_and_layouts_stay_as_they_were() -> None:
    network = Reshaping().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    program = rebuilt(saved(network, (4, 6, 6)))
    weight = program.get_parameter("conv.weight")
    assert weight.stride() == network.conv.weight.stride()
    assert weight is program.get_parameter("tied.weight")


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_program_that_was_decomposed_has_its_norms_too() -> None:
    network = small()
    with torch.no_grad():
        exported = export(network, (rows(2, 3, 8, 8),), dynamic_shapes=({0: Dim("batch")},), strict=False)
        decomposed = exported.run_decompositions({})
    file = io.BytesIO()
    torch.export.save(decomposed, file)
    assert b"_native_batch_norm_legit_no_training" in file.getvalue()
    program = rebuilt(file.getvalue())
    assert list(norms(program)) == ["norm"]
    assert_same(network, program, 3, 8, 8)


def test_a_program_exported_on_another_device_is_built_on_the_cpu() -> None:
    entries = entries_of(saved(Reshaping().eval(), (4, 6, 6)))
    elsewhere = {
        name: content.replace(b'"type": "cpu"', b'"type": "cuda"') for name, content in entries.items()
    }
    assert elsewhere != entries
    program = rebuilt(packed(elsewhere))
    assert {tensor.device.type for tensor in program.state_dict().values()} == {"cpu"}
    assert program(rows(2, 4, 6, 6)).device.type == "cpu"


def with_relu(change: Callable[[Any], object]) -> bytes:
    return with_document(saved(small()), lambda document: change(node(document, "aten.relu.default")))


def test_a_call_that_makes_something_else_than_it_says_raises_and_does_not_answer() -> None:
    two = [{"as_tensor": {"name": "relu"}}, {"as_tensor": {"name": "more"}}]
    program = rebuilt(with_relu(lambda relu: relu.update(outputs=two)))
    with pytest.raises(ValueError, match="instead of several"):
        program(rows(2, 3, 8, 8))


def test_batch_statistics_are_not_hidden_by_a_norm_of_ours() -> None:
    def training(document: Any) -> None:
        norm = node(document, "aten.batch_norm.default")
        next(given for given in norm["inputs"] if given["name"] == "training")["arg"] = {"as_bool": True}

    program = rebuilt(with_document(saved(small()), training))
    assert norms(program) == {}
    with pytest.raises(ModelRefused):
        fold(program, rows(2, 3, 8, 8))


def test_what_is_written_again_says_nothing_of_the_machine_that_made_it() -> None:
    content = saved(small())
    assert b"stack_trace" in content
    again = programs.rewritten(programs.vet(content))
    assert b"stack_trace" not in again
    assert __file__.encode() not in again
    assert_same(small(), rebuilt(again), 3, 8, 8)


def test_what_is_written_again_is_the_same_when_it_is_written_once_more() -> None:
    again = programs.rewritten(programs.vet(saved(small())))
    assert programs.rewritten(programs.vet(again)) == again
    assert json.loads(entries_of(again)[MODEL])["torch_version"] == torch.__version__


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11's own reader
def test_torch_itself_reads_what_is_written_again() -> None:
    again = programs.rewritten(programs.vet(saved(small())))
    x = rows(2, 3, 8, 8)
    assert torch.equal(torch.export.load(io.BytesIO(again)).module()(x), small()(x))


def test_an_operator_that_this_torch_does_not_have_is_named() -> None:
    call = Node.model_validate({"target": "torch.ops.aten.not_there.default", "inputs": [], "outputs": []})
    with pytest.raises(InvalidProgram, match="this version of torch has no"):
        Call.of(call)


def test_a_decomposed_norm_cannot_read_beyond_its_vectors() -> None:
    """The operator that stands in a decomposed program does not compare their lengths; ours does."""
    given = {
        "input": {"as_tensor": {"name": "linear"}},  # five channels
        "weight": {"as_none": True},
        "bias": {"as_none": True},
        "running_mean": {"as_tensor": {"name": "b_norm_running_mean"}},  # four
        "running_var": {"as_tensor": {"name": "b_norm_running_var"}},
        "momentum": {"as_float": 0.1},
        "eps": {"as_float": 1e-5},
    }
    norm = {
        "target": "torch.ops.aten._native_batch_norm_legit_no_training.default",
        "inputs": [{"name": name, "arg": argument, "kind": 1} for name, argument in given.items()],
        "outputs": [{"as_tensor": {"name": name}} for name in ("normalised", "mean_of_it", "root_of_it")],
    }

    def change(document: Any) -> None:
        product = node(document, "aten.mul.Tensor")
        product["inputs"][0]["arg"] = {"as_tensor": {"name": "normalised"}}
        nodes(document).insert(nodes(document).index(product), norm)

    program = rebuilt(with_document(saved(small()), change))
    with pytest.raises(RuntimeError, match="running_mean should contain 5 elements not 4"):
        program(rows(2, 3, 8, 8))


class Shrinks(nn.Module):
    """Asks for an enlargement by a scale that has nothing to do with the sizes."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        resized = torch.ops.aten._upsample_bilinear2d_aa(x, [12, 12], False, self.scale, self.scale)
        out: Tensor = resized.mean((2, 3))
        return out


def test_a_scale_that_reads_beyond_the_image_is_refused() -> None:
    """The operator believes it, and the process would end."""
    for scale in (1e-6, 0.0, -1.0, 1e6):
        with pytest.raises(InvalidProgram, match="has the scale"):
            rebuilt(saved(Shrinks(scale)))
    for usual in (None, 1.5):
        assert_same(Shrinks(usual), rebuilt(saved(Shrinks(usual))), 3, 8, 8)


class Remembers(nn.Module):
    """An instance norm that writes what it sees into its buffers; its schema says that it changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.ops.aten.instance_norm(x, None, None, self.mean, self.var, True, 0.1, 1e-5, False)
        out: Tensor = seen.mean((2, 3))
        return out


def test_a_norm_that_remembers_what_it_saw_is_refused() -> None:
    with pytest.raises(ModelRefused, match="changes a stored tensor"):
        fold(Remembers(), rows(2, 3, 8, 8))
    with pytest.raises(ModelRefused, match="changes a stored tensor"):
        fold(rebuilt(saved(Remembers())), rows(2, 3, 8, 8))


class Divides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        whole = x.flatten(1).to(torch.int64)
        return torch.div(whole, -1, rounding_mode="trunc").float()


def test_a_division_that_may_end_the_process_is_refused() -> None:
    """The smallest whole number by -1, which a single request could bring about."""
    with pytest.raises(ModelRefused, match="divides whole numbers"):
        fold(rebuilt(saved(Divides())), rows(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mul", ("ab", 1 << 20)),
        ("mul", ([1, 2], 9)),
        ("mod", ("%999d", 1)),
        ("mul", (1 << 40, 1 << 40)),
        ("neg", (1.5,)),
    ],
)
def test_functions_of_sizes_make_sizes_of_sizes(name: str, sizes: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidProgram, match=f"_operator.{name}"):
        _target(f"_operator.{name}")(*sizes)
    assert _target("_operator.mul")(6, 7) == 42


@pytest.mark.parametrize(
    "argument",
    [{"as_string": "ab"}, {"as_ints": [1, 2]}, {"as_tensor": {"name": "x"}}, {"as_float": 2.0}],
    ids=str,
)
def test_what_is_no_size_is_no_argument_of_a_function_of_sizes(argument: dict[str, Any]) -> None:
    given = [{"name": "", "arg": argument}, {"name": "", "arg": {"as_int": 2}}]
    call = Node.model_validate({"target": "_operator.mul", "inputs": given, "outputs": []})
    with pytest.raises(InvalidProgram, match="is for 2 whole numbers"):
        Call.of(call)


def test_a_program_of_more_modules_than_any_network_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.network.program._MOST_MODULES", 2)
    with pytest.raises(InvalidProgram, match="more than 2 modules"):
        rebuilt(saved(small()))
