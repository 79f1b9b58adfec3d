"""A model card is read as it was written, by whoever gets its descriptor, and changed by nobody."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import card as cards
from service.engine.card import ModelCard, ModelFacts, WatchedLayer
from service.errors import UnknownLayer
from service.inspection.layer_stats import LayerStats, Summary
from service.store.manifest import Input, Manifest, Output, Weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]


def layer(name: str, running_mean: Summary | None = None) -> LayerStats:
    return LayerStats(
        name=name,
        num_features=3,
        eps=1e-5,
        momentum=None,
        affine=True,
        track_running_stats=True,
        num_batches_tracked=2**40,
        running_mean=running_mean,
        running_var=Summary(min=0.1, max=1 / 3, mean=1e-45, std=1.7e308),
        weight=None,
        bias=None,
        scale=None,
        shift=None,
        outcome="kept",
        reason='because: "quotes", ü, \u2028 and \\',
    )


def a_card(vectors: Mapping[str, Mapping[str, np.ndarray]] | None = None, **more: Any) -> ModelCard:
    manifest = Manifest(
        architecture="digits",
        input=Input(shape=[1, 8, 8], colour="grayscale", mean=[0.1], std=[1 / 3]),
        outputs=[Output(labels="labels.txt")],
        weights=Weights(sha256="0" * 64),
        provenance=more.pop("provenance", {"note": "ü\n", "metrics": {"accuracy": 0.9958, "rows": 719}}),
    )
    settings: dict[str, Any] = {
        "model": "digits",
        "version": 3,
        "manifest": manifest,
        "labels": ["zero", "ü", ""],
        "output_shape": [3],
        "device": "cpu (4 threads)",
        "precision": "float32",
        "max_batch": 64,
        "seconds_per_row": 0.001,
        "threads": 4,
        "tuned": True,
        "preprocessing": "one pass",
        "memory": {"weights": 1, "packed": 2, "graphs": 0},
        "torch_version": "2.13.0+cpu",
        "layers": [layer(name) for name in vectors or ("bn1", "block.0.bn")],
        "fold": {"norms": 2, "layers": [{"name": "bn1", "partner": None}], "parity": {"error": 1e-7}},
        "seconds": {"read": 0.1 + 0.2},
    }
    return ModelCard(ModelFacts(**settings | more), vectors or {})


@contextlib.contextmanager
def written(card: ModelCard) -> Iterator[int]:
    descriptor = cards.write(card)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def round_trip(card: ModelCard) -> ModelCard:
    with written(card) as descriptor:
        return cards.read(descriptor)


def bits(vectors: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, tuple[str, bytes]]]:
    return {
        name: {kind: (vector.dtype.name, vector.tobytes()) for kind, vector in sorted(named.items())}
        for name, named in sorted(vectors.items())
    }


def test_facts_are_read_as_they_were_written() -> None:
    card = a_card()
    assert round_trip(card).facts == card.facts
    assert card.key == ("digits", 3)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_vectors_are_read_bit_for_bit(dtype: str) -> None:
    kind = np.finfo(dtype)
    odd = np.array(
        [np.nan, np.inf, -np.inf, -0.0, 0.0, kind.max, kind.tiny, kind.smallest_subnormal, 1 / 3], dtype
    )
    named = {"bn1": {"running_mean": odd, "weight": odd[:1]}, "a.b": {"bias": odd}, "": {"bias": odd}}
    assert bits(round_trip(a_card(named)).vectors) == bits(named)


def test_layers_and_vectors_are_read_in_the_order_in_which_they_were_written() -> None:
    """They are the columns of a table that people and programs read."""
    kinds = ["running_mean", "running_var", "weight", "bias"]
    named = {layer: {kind: np.ones(3, np.float32) for kind in kinds} for layer in ("bn2", "bn10", "bn1")}
    for _ in range(8):
        read = round_trip(a_card(named)).vectors
        assert {layer: list(vectors) for layer, vectors in read.items()} == dict.fromkeys(named, kinds)
        assert list(read) == list(named)


def test_strided_vectors_are_written_and_not_what_lies_beside_them() -> None:
    plain = np.arange(12, dtype=np.float32)
    named = {
        "bn": {"running_mean": plain[::-1], "weight": plain[::2], "bias": np.broadcast_to(plain[:1], 12)}
    }
    assert bits(round_trip(a_card(named)).vectors) == bits(named)


def test_the_payload_of_a_nan_is_kept() -> None:
    payload = np.array([0x7FC0BEEF, 0xFFC00001, 0x7F800001], np.uint32).view(np.float32)
    named = {"bn": {"running_var": payload}}
    assert bits(round_trip(a_card(named)).vectors) == bits(named)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.dictionaries(
            st.sampled_from(["running_mean", "weight"]),
            st.binary(max_size=24).map(lambda raw: np.frombuffer(raw[: len(raw) // 8 * 8], np.float64)),
            min_size=1,
        ),
        max_size=4,
    )
)
def test_any_names_and_any_bits_survive(named: dict[str, dict[str, np.ndarray]]) -> None:
    assert bits(round_trip(a_card(named)).vectors) == bits(named)


def test_a_summary_that_is_not_finite_can_be_read_again() -> None:
    """A norm that the network never calls may hold anything; its model is served, and so must its card."""
    broken = Summary(min=float("nan"), max=float("inf"), mean=float("-inf"), std=float("nan"))
    facts = round_trip(a_card(layers=[layer("bn1", broken)])).facts
    shown = facts.layers[0].running_mean
    assert shown is not None
    assert repr(shown) == repr(broken)


def test_facts_of_free_form_keep_what_is_not_finite() -> None:
    inf, nan = float("inf"), float("nan")
    facts = round_trip(a_card(fold={"a": inf, "b": [-inf]}, provenance={"loss": nan})).facts
    assert facts.fold == {"a": inf, "b": [-inf]}
    assert repr(facts.manifest.provenance) == "{'loss': nan}"


def test_a_layer_is_found_by_name_and_an_unknown_one_is_named() -> None:
    card = round_trip(a_card())
    assert card.layer("block.0.bn").name == "block.0.bn"
    with pytest.raises(UnknownLayer, match=r"^model 'digits' has no norm 'bn2'$"):
        card.layer("bn2")


def test_what_rows_are_compared_with_is_read_as_it_was_written() -> None:
    vectors = {name: np.arange(3, dtype=np.float32) for name in ("running_mean", "running_var", "weight")}
    named: dict[str, dict[str, np.ndarray]] = {"mean": vectors}
    named |= {"bn1": {"running_mean": vectors["weight"] + 1, "running_var": np.ones(3)}}
    watched = [
        WatchedLayer(name="bn1", part="input", rows=608.0),
        WatchedLayer(name="mean", part="content", rows=1.5),
    ]
    card = a_card(named, watched=watched, moments_shape=[2, 6])
    baseline = {"mean": np.linspace(0, 1, 6), "var": np.ones(6), "row_scores": np.array([0.5, 2.0])}
    read = round_trip(dataclasses.replace(card, baseline=baseline))
    assert bits({"baseline": read.baseline}) == bits({"baseline": baseline})
    assert bits(read.vectors) == bits(named)
    assert [(norm.name, norm.part, norm.eps, norm.rows) for norm in read.watched.norms] == [
        ("bn1", "input", 1e-5, 608.0),
        ("mean", "content", 1e-5, 1.5),
    ]
    np.testing.assert_array_equal(read.watched.mean, [1, 2, 3, 0, 1, 2])
    np.testing.assert_array_equal(read.watched.norms[0].weight, [1, 1, 1])  # it has no gamma
    assert [read.facts.shape_of(wanted) for wanted in ("answers", "moments")] == [[3], [2, 6]]
    assert round_trip(card).baseline == {}


# The sealed file


def test_a_card_may_be_read_again_and_again() -> None:
    with written(a_card({"bn1": {"weight": np.ones(3)}})) as descriptor:
        first, second = cards.read(descriptor), cards.read(descriptor)
    assert first.facts == second.facts
    assert bits(first.vectors) == bits(second.vectors)


def test_a_card_cannot_be_changed() -> None:
    with written(a_card()) as descriptor:
        before = os.fstat(descriptor).st_size
        for change in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.pwrite(descriptor, b"x", before),
            lambda: os.ftruncate(descriptor, 0),
            lambda: os.ftruncate(descriptor, before + 1),
        ):
            with pytest.raises(PermissionError):
                change()
        assert os.fstat(descriptor).st_size == before
        cards.read(descriptor)


def test_writing_leaves_one_descriptor_and_reading_none() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    with written(a_card()) as descriptor:
        cards.read(descriptor)
        assert descriptors() == before + 1
        assert not os.get_inheritable(descriptor)


def test_a_model_with_the_longest_name_has_a_card() -> None:
    name = "m" * 128
    assert round_trip(a_card(model=name)).facts.model == name


def test_another_process_reads_a_card_from_its_descriptor_without_torch() -> None:
    source = """
import sys
from service.engine import card
read = card.read(int(sys.argv[1]))
assert "torch" not in sys.modules
print(read.key.model, read.facts.labels, read.vectors["bn1"]["weight"].tobytes().hex())
"""
    vector = np.array([1 / 3, np.nan], np.float16)
    with written(a_card({"bn1": {"weight": vector}})) as descriptor:
        done = subprocess.run(
            [sys.executable, "-c", source, str(descriptor)],
            cwd=ROOT,
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert done.stdout == f"digits ['zero', 'ü', ''] {vector.tobytes().hex()}\n"
