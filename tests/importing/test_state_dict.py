"""Names of weights lose what wrappers put before them, and nothing else is guessed."""

from __future__ import annotations

import pytest
import torch

from service.errors import InvalidWeights
from service.importing.state_dict import fitted

from .checkpoints import behind, weights_of

WEIGHTS = weights_of()
NAMES = WEIGHTS.keys()


def test_names_that_fit_stay_as_they_are() -> None:
    assert fitted(WEIGHTS, NAMES) == (WEIGHTS, [])


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "net.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "a.b.c.d."],
)
def test_a_prefix_goes_and_is_said(prefix: str) -> None:
    tensors, remarks = fitted(behind(prefix, WEIGHTS), NAMES)
    assert tensors == WEIGHTS
    assert remarks
    assert all(part in "".join(remarks) for part in prefix.split(".") if part)


def test_what_lies_outside_of_the_prefix_is_left_out_and_said() -> None:
    lightning = {
        **behind("model.", WEIGHTS),
        "criterion.weight": torch.ones(10),
        **{f"metric{n}.total": torch.ones(()) for n in range(9)},
    }
    tensors, remarks = fitted(lightning, NAMES)
    assert tensors == WEIGHTS
    named = "criterion.weight, metric0.total, metric1.total, metric2.total, metric3.total, "
    named += "metric4.total, metric5.total, metric6.total"
    assert remarks == [
        "The prefix 'model.' was removed from the names of the weights.",
        f"Left out, being outside of 'model.': {named} and 2 more.",
    ]


def test_without_a_prefix_nothing_is_left_out() -> None:
    tensors, remarks = fitted({**WEIGHTS, "criterion.weight": torch.ones(10)}, NAMES)
    assert "criterion.weight" in tensors
    assert remarks == []


def test_inside_the_prefix_nothing_is_left_out_either() -> None:
    tensors, _ = fitted(behind("module.", {**WEIGHTS, "extra": torch.ones(1)}), NAMES)
    assert "extra" in tensors


@pytest.mark.parametrize("part", ["features", "layer.0"])
def test_what_torch_compile_adds_goes_in_the_middle_too(part: str) -> None:
    tensors, remarks = fitted({f"{part}._orig_mod.weight": torch.ones(1)}, {f"{part}.weight"})
    assert list(tensors) == [f"{part}.weight"]
    assert remarks == ["'_orig_mod.', which torch.compile adds, was removed from the names of the weights."]


def test_averages_of_torch_are_said_to_be_averages() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(1, 1))
    tensors, remarks = fitted(averaged.state_dict(), {"weight", "bias"})
    assert tensors.keys() == {"weight", "bias"}
    assert remarks[0] == "The weights are averages over the training (n_averaged)."


def test_two_networks_in_one_state_dict_must_be_told_apart() -> None:
    averaged = weights_of(seed=1)
    both = {**behind("model.", WEIGHTS), **behind("model_ema.module.", averaged)}
    with pytest.raises(
        InvalidWeights, match=r"several prefixes: model\., model_ema\.module\.; choose one with"
    ):
        fitted(both, NAMES)
    assert fitted(both, NAMES, "model.")[0] == WEIGHTS
    assert fitted(both, NAMES, "model_ema.module")[0] == averaged


def test_an_average_without_counters_is_no_less_a_second_network() -> None:
    averaged = {k: v for k, v in weights_of(seed=1).items() if not k.endswith("num_batches_tracked")}
    with pytest.raises(InvalidWeights, match="several prefixes"):
        fitted({**behind("model.", WEIGHTS), **behind("ema.", averaged)}, NAMES)


def test_a_prefix_that_no_name_has_is_refused() -> None:
    with pytest.raises(InvalidWeights, match=r"no name begins with 'ema\.'; there are .* and \d+ more$"):
        fitted(WEIGHTS, NAMES, "ema")


def test_weights_of_something_else_keep_their_names_for_whoever_names_them() -> None:
    foreign = {"encoder.weight": torch.ones(1), "decoder.weight": torch.ones(1)}
    assert fitted(foreign, NAMES) == (foreign, [])


def test_the_names_of_older_densenets_get_their_present_spelling() -> None:
    block = "features.denseblock1.denselayer2"
    old = {f"{block}.norm.1.running_mean": torch.ones(1), f"{block}.conv.2.weight": torch.ones(1)}
    tensors, remarks = fitted(old, {f"{block}.norm1.running_mean", f"{block}.conv2.weight"})
    assert list(tensors) == [f"{block}.norm1.running_mean", f"{block}.conv2.weight"]
    assert "older DenseNet" in remarks[0]
