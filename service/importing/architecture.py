"""An architecture of the catalog with the weights of a checkpoint, as the source of an import."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from service.errors import InvalidConfiguration, InvalidManifest, InvalidWeights
from service.importing import checkpoint as checkpoints
from service.importing import preset as presets
from service.importing.source import Source
from service.importing.state_dict import fitted
from service.network import catalog
from service.store import manifest as manifests
from service.store import weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from service.importing.checkpoint import Checkpoint
    from service.importing.preset import Preset
    from service.store.manifest import Input

_WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Wishes:
    """What the user says; the checkpoint and the library are asked for the rest."""

    options: dict[str, int | float | str | bool] = field(default_factory=dict)
    """Keyword arguments of the architecture."""
    input: dict[str, Any] = field(default_factory=dict)
    """Keys of the manifest's input; `resize` may be None, which squeezes images to the input."""
    labels: tuple[str, ...] | None = None
    entry: str | None = None
    """Which of several sets of weights in the file."""
    prefix: str | None = None
    """Behind which prefix the names of the weights are."""


@dataclass(frozen=True)
class _Built:
    network: nn.Module
    options: dict[str, Any]
    names: frozenset[str]
    """Of the tensors that the checkpoint has; it may lack a norm's counter."""
    remarks: list[str]


def from_architecture(architecture: str, path: Path, wishes: Wishes) -> Source:
    """The architecture with the weights in the file `path`.

    Raises `InvalidManifest` for a name that is not in the catalog or options that it does not take,
    `InvalidWeights` for a file that does not hold its weights, and `InvalidConfiguration` where it cannot be
    told how images become its rows.
    """
    network = catalog.build(architecture, wishes.options)  # before a large file is read
    checkpoint = checkpoints.read(path, wishes.entry)
    preset = presets.of(architecture, network, checkpoint)
    built = _built(architecture, checkpoint, wishes, preset)
    labels, said = _labels(preset, wishes, built)
    row = input_from(preset, wishes.input)
    remarks = (*checkpoint.remarks, *built.remarks, *_taken(preset, wishes), *preset.remarks, *said)
    return Source(
        network=built.network,
        input=row,
        labels=labels,
        table={"architecture": architecture, "options": built.options},
        write=lambda folder: _write(folder, built),
        remarks=remarks,
        provenance=_provenance(architecture, checkpoint),
    )


def input_from(preset: Preset, said: dict[str, Any]) -> Input:
    """The manifest's input: what the user says, then what the preset says.

    Another size than the preset's is cropped from as much of an image. Raises `InvalidConfiguration` for what
    does not go together, or what nobody says.
    """
    table = {**preset.input, **said}
    channels, *size = table["shape"]
    table.setdefault("colour", "rgb" if channels == 3 else "grayscale")
    as_preset = size == preset.input.get("shape", [0])[1:] and "resize" in preset.input
    if "resize" not in said and not as_preset:
        table["resize"] = presets.resized(preset.crop, *size)
    if unsaid := [f"--{key}" for key in ("mean", "std") if key not in table]:
        raise InvalidConfiguration(f"nobody says how pixels are normalised: give {' and '.join(unsaid)}")
    try:
        return manifests.parse_input(table)
    except InvalidManifest as error:
        raise InvalidConfiguration(str(error)) from error


def _built(architecture: str, checkpoint: Checkpoint, wishes: Wishes, preset: Preset) -> _Built:
    """The network with the weights; where only the head has another size, with as many classes as that."""
    options = {**preset.options, **wishes.options}
    network = catalog.build(architecture, options)
    expected = network.state_dict()
    tensors, remarks = fitted(checkpoint.tensors, expected.keys(), wishes.prefix)
    classes = None if "num_classes" in options else _classes(expected, tensors)
    if classes is not None:
        resized = _with_classes(architecture, {**options, "num_classes": classes}, tensors)
        if resized is not None:
            remarks.append(f"num_classes is {classes}, the size of the checkpoint's head.")
            return _Built(resized, {**options, "num_classes": classes}, frozenset(tensors), remarks)
    weights.assign(network, tensors)
    return _Built(network, options, frozenset(tensors), remarks)


def _classes(expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> int | None:
    """The size that all differing tensors have where the network has another; None where that is not all."""
    differing = [(expected[k], tensors[k]) for k in expected if k in tensors]
    differing = [(ours, theirs) for ours, theirs in differing if ours.shape != theirs.shape]
    sizes = {(tuple(ours.shape[:1]), tuple(theirs.shape[:1])) for ours, theirs in differing}
    if len(sizes) != 1 or any(ours.shape[1:] != theirs.shape[1:] for ours, theirs in differing):
        return None
    ((_, size),) = sizes
    return size[0] if size else None


def _with_classes(architecture: str, options: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module | None:
    try:
        network = catalog.build(architecture, options)
        weights.assign(network, tensors)
    except (InvalidManifest, InvalidWeights):
        return None
    return network


def _labels(preset: Preset, wishes: Wishes, built: _Built) -> tuple[tuple[str, ...] | None, list[str]]:
    if wishes.labels is not None:
        return wishes.labels, []
    classes = built.options.get("num_classes", len(preset.labels or ()))
    if preset.labels is None or classes != len(preset.labels):
        return None, ["There are no labels; answers will say numbers. Give them with --labels."]
    return preset.labels, [f"The {len(preset.labels)} labels are those of {preset.origin.partition(',')[0]}."]


def _taken(preset: Preset, wishes: Wishes) -> list[str]:
    keys = [key for key in ("shape", "resize", "interpolation", "mean", "std") if key not in wishes.input]
    known = [key for key in keys if key in preset.input]
    if "shape" in wishes.input and "resize" in known and preset.crop is not None:
        known[known.index("resize")] = f"the crop ({preset.crop:.3g} of the shorter side)"
    return [f"From {preset.origin}: {', '.join(known)}."] if known else []


def _write(folder: Path, built: _Built) -> dict[str, Any]:
    """The weights as the network holds them: its names, its dtypes, each tensor with memory of its own."""
    own = built.network.state_dict()
    tensors = {name: tensor.detach().clone() for name, tensor in own.items() if name in built.names}
    return {"weights": {"file": _WEIGHTS_FILE, "sha256": weights.write(folder / _WEIGHTS_FILE, tensors)}}


def _provenance(architecture: str, checkpoint: Checkpoint) -> dict[str, str]:
    library, colon, _ = architecture.partition(":")
    said = {"checkpoint": checkpoint.file, "checkpoint_sha256": checkpoint.sha256}
    if not colon:
        return said
    try:
        return {**said, library: version(library)}
    except PackageNotFoundError:
        return said
