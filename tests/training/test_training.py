from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from service.errors import InvalidConfiguration, ModelRefused, StoreError
from service.inputs.images import rows_from_images
from service.network import catalog
from service.network.adopt import norms
from service.network.batch_norm import BatchNorm
from service.store import weights
from service.store.model_store import ModelStore, StoredModel
from service.training import training
from service.training.descent import Progress, fit
from service.training.split import DigitsSplit, digits_split
from service.training.training import count_correct, train_digits

if TYPE_CHECKING:
    from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "tests" / "digits").glob("*.png"))
NORMS = ["bn1", "bn2", "bn3", "bn4", "bn5"]
STEPS_PER_EPOCH = 17  # 1,078 rows in batches of 63 or 64


@pytest.fixture(scope="module")
def split() -> DigitsSplit:
    return digits_split()


@pytest.fixture(scope="module")
def shipped() -> StoredModel:
    return ModelStore(ROOT / "model_store").open("digits", 1)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """Three epochs in a store of its own."""
    return trained(ModelStore(tmp_path_factory.mktemp("store")), epochs=3)


def decoded(paths: list[Path], model: StoredModel) -> Tensor:
    """Pixels uint8 `[N, 1, 8, 8]`, as the service decodes them."""
    rows = rows_from_images([path.read_bytes() for path in paths], model.manifest.input, len(paths), 64)
    pixels = np.empty(rows.shape, rows.dtype)
    rows.write(pixels)
    return torch.from_numpy(pixels)


def trained(store: ModelStore, *, epochs: int = 1, seed: int = 0, name: str = "digits") -> StoredModel:
    train_digits(store, name=name, epochs=epochs, seed=seed, goal=0)
    return store.open(name, 1)


def network_of(stored: StoredModel) -> nn.Module:
    network = catalog.build(stored.manifest.architecture or "", stored.manifest.options)
    weights.assign(network, weights.read(stored))
    return network


def contents(stored: StoredModel) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in stored.folder.iterdir()}


def test_split_is_the_whole_data_set_in_two_stratified_parts(split: DigitsSplit) -> None:
    assert split.train_pixels.shape == (1078, 1, 8, 8)
    assert split.held_out_pixels.shape == (719, 1, 8, 8)
    assert len(set(split.held_out_indices.tolist())) == 719
    shares = [labels.bincount() / len(labels) for labels in (split.train_labels, split.held_out_labels)]
    torch.testing.assert_close(*shares, rtol=0, atol=0.002)


def test_pixels_are_the_data_sets_sixteenths_in_eight_bits(split: DigitsSplit) -> None:
    data = load_digits()
    held_out = split.held_out_indices.numpy()
    rest = np.setdiff1d(np.arange(1797), held_out)
    for indices, pixels, labels in (
        (held_out, split.held_out_pixels, split.held_out_labels),
        (rest, split.train_pixels, split.train_labels),
    ):
        assert pixels.dtype == torch.uint8
        assert (labels.numpy() == data.target[indices]).all()
        assert (pixels[:, 0].numpy() == np.round(data.images[indices] * 255 / 16)).all()


def test_one_step_moves_the_running_statistics_of_our_layers_as_the_definition_says(
    split: DigitsSplit, shipped: StoredModel
) -> None:
    network = catalog.build("digits", {})
    seen: dict[str, np.ndarray] = {}
    for name, norm in norms(network).items():

        def remember(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            seen[name] = inputs[0].detach().double().movedim(1, 0).flatten(1).numpy()  # [C, values]

        norm.register_forward_pre_hook(remember)
    fit(
        network,
        split.train_pixels[:64],
        split.train_labels[:64],
        shipped.manifest.input,
        epochs=1,
        generator=torch.Generator().manual_seed(0),
    )
    state = network.state_dict()
    assert list(seen) == NORMS
    for name, values in seen.items():
        mean, var = 0.1 * values.mean(1), 0.9 + 0.1 * values.var(1, ddof=1)
        np.testing.assert_allclose(state[f"{name}.running_mean"].numpy(), mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state[f"{name}.running_var"].numpy(), var, rtol=1e-4)
        assert state[f"{name}.num_batches_tracked"] == 1


def test_every_norm_that_is_trained_and_published_is_ours_and_has_seen_every_step(short: StoredModel) -> None:
    network = network_of(short)
    assert [type(norm).__module__ for norm in norms(network).values()] == [BatchNorm.__module__] * 5
    initial = catalog.build("digits", {}).state_dict()
    state = weights.read(short)
    for name in NORMS:
        assert state[f"{name}.num_batches_tracked"] == 3 * STEPS_PER_EPOCH
        for vector in ("running_mean", "running_var", "weight", "bias"):
            assert (state[f"{name}.{vector}"] != initial[f"{name}.{vector}"]).float().mean() > 0.9


def test_short_training_learns_and_tells_what_it_measured(short: StoredModel, split: DigitsSplit) -> None:
    correct = count_correct(
        network_of(short), split.held_out_pixels, split.held_out_labels, short.manifest.input
    )
    assert correct > 0.9 * 719
    assert short.manifest.provenance["held_out"] == {
        "rows": 719,
        "correct": correct,
        "accuracy": round(correct / 719, 4),
    }


def test_one_seed_gives_the_same_bytes_whatever_the_process_did_before(tmp_path: Path) -> None:
    store, threads = ModelStore(tmp_path), torch.get_num_threads()
    first = trained(store, name="first")
    torch.manual_seed(5)
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        second = trained(store, name="second")
    finally:
        torch.set_num_threads(threads)
    assert contents(first) == contents(second)
    other = trained(store, name="other", seed=1)
    assert other.weights_path.read_bytes() != first.weights_path.read_bytes()


def test_training_leaves_torch_as_it_was(tmp_path: Path) -> None:
    def state() -> tuple[int, bool, bytes]:
        drawn = torch.get_rng_state().numpy().tobytes()
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), drawn

    before = state()
    trained(ModelStore(tmp_path))
    assert state() == before


def test_progress_is_told_after_every_epoch_and_the_loss_falls(tmp_path: Path) -> None:
    told: list[Progress] = []
    train_digits(ModelStore(tmp_path), epochs=2, goal=0, progress=told.append)
    assert [(progress.epoch, progress.epochs) for progress in told] == [(1, 2), (2, 2)]
    assert told[0].loss > told[1].loss > 0


def test_model_that_misses_the_goal_is_refused_and_not_published(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"of 719 held-out rows right .* below the goal of 100\.00%"):
        train_digits(ModelStore(tmp_path), epochs=1, goal=1)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_published_is_refused_before_the_training(
    short: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "fit", pytest.fail)
    store = ModelStore(short.folder.parents[1])
    with pytest.raises(StoreError, match="digits/1 is in the store already"):
        train_digits(store)
    with pytest.raises(StoreError, match="is no model name and version"):
        train_digits(store, name="../digits")
    with pytest.raises(StoreError, match="is no model name and version"):
        train_digits(store, version=0)
    with pytest.raises(InvalidConfiguration, match="epochs must be at least 1, not 0"):
        train_digits(store, version=2, epochs=0)


def test_version_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    before = contents(trained(store))
    train_digits(store, epochs=1, seed=1, goal=0, replace=True)
    assert contents(store.open("digits", 1)) != before
    assert store.versions("digits") == [1]


def test_without_scikit_learn_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InvalidConfiguration, match=r"pip install 'foldserve\[train\]'"):
        train_digits(ModelStore(tmp_path))


def test_published_files_are_readable_by_whoever_may_read_the_manifest(short: StoredModel) -> None:
    assert len({file.stat().st_mode for file in short.folder.iterdir()}) == 1


def test_manifest_of_the_shipped_model_is_valid_and_its_digest_matches(
    shipped: StoredModel, split: DigitsSplit
) -> None:
    manifest = shipped.manifest
    assert manifest.network.sha256 == hashlib.sha256(shipped.weights_path.read_bytes()).hexdigest()
    assert shipped.labels() == tuple("0123456789")
    assert (manifest.architecture, manifest.output.task) == ("digits", "classification")
    assert (manifest.input.shape, manifest.input.colour) == ([1, 8, 8], "grayscale")
    pixels = split.train_pixels.numpy() / 255
    assert (manifest.input.mean, manifest.input.std) == ([round(pixels.mean(), 4)], [round(pixels.std(), 4)])
    assert manifest.serving.max_batch == 64
    assert sum(file.stat().st_size for file in shipped.folder.iterdir()) < 1_000_000


def test_shipped_model_recognises_the_held_out_rows_as_its_manifest_says(
    shipped: StoredModel, split: DigitsSplit
) -> None:
    correct = count_correct(
        network_of(shipped), split.held_out_pixels, split.held_out_labels, shipped.manifest.input
    )
    assert correct >= 0.985 * 719
    held_out = shipped.manifest.provenance["held_out"]
    assert isinstance(held_out, dict)
    assert (held_out["rows"], held_out["correct"]) == (719, correct)


def test_shipped_model_was_trained_as_train_digits_trains_by_default(shipped: StoredModel) -> None:
    run = shipped.manifest.provenance["training"]
    assert isinstance(run, dict)
    assert (run["rows"], run["epochs"], run["seed"]) == (1078, training.EPOCHS, 0)
    state = weights.read(shipped)
    assert {int(state[f"{name}.num_batches_tracked"]) for name in NORMS} == {
        training.EPOCHS * STEPS_PER_EPOCH
    }


def test_images_are_the_first_four_held_out_digits_of_each_class(split: DigitsSplit) -> None:
    pairs = list(zip(split.held_out_labels.tolist(), split.held_out_indices.tolist(), strict=True))
    first = {pair for label in range(10) for pair in [pair for pair in pairs if pair[0] == label][:4]}
    assert {path.stem for path in IMAGES} == {f"{label}_{index}" for label, index in first}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_image_holds_a_held_out_digit_exactly(path: Path, split: DigitsSplit, shipped: StoredModel) -> None:
    label, index = map(int, path.stem.split("_"))
    (row,) = (split.held_out_indices == index).nonzero().flatten().tolist()
    assert split.held_out_labels[row] == label
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (8, 8))
    assert torch.equal(decoded([path], shipped)[0], split.held_out_pixels[row])


def test_shipped_model_recognises_all_forty_images(shipped: StoredModel) -> None:
    labels = torch.tensor([int(path.stem.split("_")[0]) for path in IMAGES])
    assert count_correct(network_of(shipped), decoded(IMAGES, shipped), labels, shipped.manifest.input) == 40
