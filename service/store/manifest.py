"""The manifest: what a `model.toml` says about one version of a model.

Strict in every table: a key that is not documented here is an error that names it.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import InvalidManifest
from service.store import content
from service.store.names import NAME_PATTERN

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "model.toml"

Precision = Literal["float32", "bfloat16", "float16"]
Provenance = str | int | float | bool


def _nonzero(value: float) -> float:
    if value == 0:
        raise ValueError("must not be 0")
    return value


PlainFileName = Annotated[str, Field(pattern=NAME_PATTERN)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FiniteNonzero = Annotated[Finite, AfterValidator(_nonzero)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Input(_Table):
    """What one row is, and how an image becomes one.

    An image is decoded to `colour` (`bgr`: the channels of `rgb` in reverse, for networks trained on what
    OpenCV reads), its shorter side is resized to `resize` pixels with
    `interpolation` (antialiased), its centre is cropped to the height and width of `shape`, and
    the network receives `(pixel / 255 - mean) / std` per channel. Without `resize` an image is
    resized to exactly the height and width of `shape`, its proportions notwithstanding.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "image"
    shape: Annotated[list[Annotated[int, Field(gt=0, le=65536)]], Field(min_length=3, max_length=3)]
    """`[channels, height, width]`, the row without its batch axis."""
    colour: Literal["rgb", "bgr", "grayscale"] = "rgb"
    resize: Annotated[int, Field(gt=0, le=65536)] | None = None
    """Pixels of the shorter side before the centre crop."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: list[Finite]
    """Per channel, for pixels scaled to 0..1."""
    std: list[FiniteNonzero]
    """Per channel, for pixels scaled to 0..1."""
    example: PlainFileName | None = None
    """An image beside the manifest to try the model with."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        channels = 1 if self.colour == "grayscale" else 3
        if self.shape[0] != channels:
            raise ValueError(f"shape has {self.shape[0]} channels, but colour {self.colour!r} has {channels}")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise ValueError(f"{key} has {len(values)} values for {channels} channels")
        if self.resize is not None and self.resize < max(self.shape[1:]):
            raise ValueError(f"resize {self.resize} is smaller than the crop {self.shape[1]}x{self.shape[2]}")
        return self


class Output(_Table):
    """What the network answers: `classification` is one row of logits per input row."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "logits"
    task: Literal["classification", "tensor"] = "classification"
    labels: PlainFileName | None = None
    """A text file beside the manifest, one label a line, in the order of the logits."""


class Weights(_Table):
    """The weights file beside the manifest."""

    file: PlainFileName = "weights.safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Program(_Table):
    """An exported program beside the manifest: the network and its weights in one file."""

    file: PlainFileName = "model.pt2"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Serving(_Table):
    """Defaults of serving, which settings may override."""

    max_batch: Annotated[int, Field(gt=0, le=4096)] = 64
    """Rows that the device computes at once."""
    precision: Precision = "float32"


class Manifest(_Table):
    """One version of a model, as its `model.toml` describes it."""

    architecture: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A name of the catalog, such as `digits`; a manifest has this and `weights`, or `program`."""
    options: dict[str, int | float | str | bool] = {}
    """Keyword arguments of the architecture, such as `num_classes`."""
    input: Input
    outputs: Annotated[list[Output], Field(min_length=1, max_length=1)]
    """Exactly one for now."""
    weights: Weights | None = None
    program: Program | None = None
    """Instead of `architecture`, `options` and `weights`."""
    serving: Serving = Serving()
    provenance: dict[str, Provenance | dict[str, Provenance]] = {}
    """Free text and metrics; shown, never interpreted."""

    @model_validator(mode="before")
    @classmethod
    def _is_one_kind(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("program") is not None:
            if any(document.get(key) for key in ("architecture", "options", "weights")):
                raise ValueError("program stands alone: no architecture, options or weights beside it")
        elif isinstance(document, dict):
            for key in ("architecture", "weights"):
                if document.get(key) is None:
                    raise ValueError(f"key {key} is missing")
        return document

    @property
    def network(self) -> Weights | Program:
        """The file that the network is read from, and its digest."""
        stored = self.program or self.weights
        if stored is None:
            raise AssertionError("a valid manifest has one of them")
        return stored

    @property
    def output(self) -> Output:
        """The one output."""
        return self.outputs[0]


def read(path: Path) -> Manifest:
    """The manifest in the file `path`; raises `InvalidManifest`, naming the file and every wrong key."""
    where = "/".join(path.parts[-3:])
    try:
        document = tomllib.loads(content.read(path).decode("utf-8"))
    except FileNotFoundError:
        raise InvalidManifest(f"{where} is missing") from None
    except OSError as error:
        raise InvalidManifest(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, too deep, or a number too long
        raise InvalidManifest(f"{where} is not TOML: {error}") from error
    return parse(document, where)


def parse(document: dict[str, Any], where: str = FILE_NAME) -> Manifest:
    """The manifest that a TOML document says; raises `InvalidManifest`."""
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise InvalidManifest(f"{where}: {_sentence(error)}") from error


def parse_input(document: dict[str, Any]) -> Input:
    """The input that a table says; raises `InvalidManifest`."""
    try:
        return Input.model_validate(document)
    except ValidationError as error:
        raise InvalidManifest(f"input: {_sentence(error)}") from error


def write(path: Path, manifest: Manifest) -> None:
    """Write `manifest` to the file `path` as TOML."""
    path.write_text(tomli_w.dumps(manifest.model_dump(exclude_none=True)), encoding="utf-8")


def _sentence(error: ValidationError) -> str:
    def one(problem: Any) -> str:
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            return f"unknown key {key}"
        if problem["type"] == "missing":
            return f"key {key} is missing"
        said: str = problem["msg"].removeprefix("Value error, ")
        return f"{key}: {said}" if key else said

    return "; ".join(dict.fromkeys(one(problem) for problem in error.errors(include_url=False)))
