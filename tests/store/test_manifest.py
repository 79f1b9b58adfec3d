"""A manifest is taken whole or refused with every wrong key named."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidManifest
from service.store.manifest import Input, Manifest, Output, Serving, Weights, parse, read, write
from service.store.names import NAME_PATTERN

if TYPE_CHECKING:
    from pydantic import BaseModel

DIGEST = "0123456789abcdef" * 4
DOCUMENT: dict[str, Any] = {
    "architecture": "digits",
    "options": {"num_classes": 10},
    "input": {"shape": [3, 4, 5], "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]},
    "outputs": [{"name": "logits"}],
    "weights": {"sha256": DIGEST},
    "serving": {"max_batch": 8},
    "provenance": {"data": {"rows": 3}, "note": "by hand"},
}
MISSING = object()


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The document with other values at dotted keys."""
    document = copy.deepcopy(DOCUMENT)
    for key, value in changes:
        table: Any = document
        *tables, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        for part in tables:
            table = table[part]
        if value is MISSING:
            del table[last]
        else:
            table[last] = value
    return document


def complaint(document: dict[str, Any]) -> str:
    with pytest.raises(InvalidManifest) as caught:
        parse(document)
    return str(caught.value)


def test_what_is_left_out_has_the_documented_default() -> None:
    manifest = parse({key: DOCUMENT[key] for key in ("architecture", "input", "outputs", "weights")})
    assert manifest.options == {}
    assert manifest.provenance == {}
    assert repr(manifest.serving) == "Serving(max_batch=64, precision='float32')"
    assert repr(manifest.output) == "Output(name='logits', task='classification', labels=None)"
    assert manifest.network.file == "weights.safetensors"
    assert (manifest.input.name, manifest.input.colour, manifest.input.interpolation) == (
        "image",
        "rgb",
        "bilinear",
    )
    assert (manifest.input.resize, manifest.input.example) == (None, None)


@pytest.mark.parametrize(
    "key",
    ["extra", "input.extra", "outputs.0.extra", "weights.extra", "serving.extra", "input.Shape"],
)
def test_an_unknown_key_is_named_with_its_table(key: str) -> None:
    assert complaint(changed((key, 1))) == f"model.toml: unknown key {key}"


def test_every_wrong_key_is_named_at_once() -> None:
    said = complaint(changed(("extra", 1), ("serving.turbo", 2), ("weights.sha256", MISSING)))
    assert said.removeprefix("model.toml: ").split("; ") == [
        "key weights.sha256 is missing",
        "unknown key serving.turbo",
        "unknown key extra",
    ]


@pytest.mark.parametrize(
    "key", ["architecture", "input", "outputs", "weights", "input.shape", "input.mean", "input.std"]
)
def test_a_missing_key_is_named(key: str) -> None:
    assert complaint(changed((key, MISSING))) == f"model.toml: key {key} is missing"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", 3),
        ("architecture", ""),
        ("architecture", "x" * 257),
        ("options", [1]),
        ("input", "image"),
        ("input.shape", "3,4,5"),
        ("input.shape", [3, 4]),
        ("input.shape", [3, 4, 5, 6]),
        ("input.shape", []),
        ("input.shape.1", 0),
        ("input.shape.1", -4),
        ("input.shape.1", 65537),
        ("input.shape.1", 4.0),
        ("input.shape.1", True),
        ("input.shape.1", "4"),
        ("input.colour", "RGB"),
        ("input.colour", "cmyk"),
        ("input.interpolation", "lanczos"),
        ("input.resize", 0),
        ("input.resize", 8.0),
        ("input.mean.0", "0.5"),
        ("input.mean.0", True),
        ("input.mean.0", math.nan),
        ("input.std.0", math.inf),
        ("input.std.0", -math.inf),
        ("input.std.0", math.nan),
        ("input.std.0", 0.0),
        ("input.std.0", 0),
        ("outputs", []),
        ("outputs", {"name": "logits"}),
        ("outputs.0.task", "detection"),
        ("outputs.0.name", ""),
        ("outputs.0.name", "a b"),
        ("weights.sha256", DIGEST.upper()),
        ("weights.sha256", DIGEST[:-1]),
        ("weights.sha256", DIGEST + "\n"),
        ("weights.sha256", DIGEST[:-1] + "g"),
        ("serving.max_batch", 0),
        ("serving.max_batch", 4097),
        ("serving.max_batch", 8.0),
        ("serving.max_batch", True),
        ("serving.max_batch", "8"),
        ("serving.precision", "int8"),
        ("serving.precision", "Float32"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(key: str, value: Any) -> None:
    assert f"model.toml: {key}" in complaint(changed((key, value)))


@pytest.mark.parametrize("value", [[1], {"deeper": 1}, None])
def test_an_option_is_a_plain_value(value: Any) -> None:
    assert "options.num_classes" in complaint(changed(("options.num_classes", value)))


def test_provenance_has_tables_of_plain_values_and_no_deeper() -> None:
    manifest = parse(changed(("provenance", {"a": 1, "b": {"c": 0.5, "d": True, "e": "text"}})))
    assert manifest.provenance == {"a": 1, "b": {"c": 0.5, "d": True, "e": "text"}}
    assert "provenance.b" in complaint(changed(("provenance", {"b": {"c": {"d": 1}}})))


def test_two_outputs_are_refused() -> None:
    assert "outputs" in complaint(changed(("outputs", [{"name": "a"}, {"name": "b"}])))


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "../weights.safetensors",
        "a/b",
        "/etc/passwd",
        "a\x00b",
        ".hidden",
        "-flag",
        "",
        "a b",
        "a\\b",
        "a\n",
        "é",
        "a" * 129,
    ],
)
@pytest.mark.parametrize("key", ["weights.file", "outputs.0.labels", "input.example"])
def test_a_file_is_a_plain_name_beside_the_manifest(key: str, name: str) -> None:
    assert f"model.toml: {key}" in complaint(changed((key, name)))


@pytest.mark.parametrize("name", ["a", "a..b", "weights.safetensors", "0", "A_b-c.D", "a" * 128])
def test_a_plain_name_may_hold_dots_inside(name: str) -> None:
    assert parse(changed(("weights.file", name))).network.file == name


def test_numbers_without_a_point_are_numbers() -> None:
    manifest = parse(changed(("input.mean", [0, 0, 0]), ("input.std", [1, 1, -1])))
    assert (manifest.input.mean, manifest.input.std) == ([0.0, 0.0, 0.0], [1.0, 1.0, -1.0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("input.shape", [1, 4, 5])], "input: shape has 1 channels, but colour 'rgb' has 3"),
        ([("input.colour", "grayscale")], "input: shape has 3 channels, but colour 'grayscale' has 1"),
        ([("input.mean", [0.5])], "input: mean has 1 values for 3 channels"),
        ([("input.mean", [])], "input: mean has 0 values for 3 channels"),
        ([("input.std", [0.5] * 4)], "input: std has 4 values for 3 channels"),
        ([("input.resize", 4)], "input: resize 4 is smaller than the crop 4x5"),
    ],
)
def test_the_input_agrees_with_itself(changes: list[tuple[str, Any]], said: str) -> None:
    assert complaint(changed(*changes)) == f"model.toml: {said}"


def test_resize_may_equal_the_longer_side_of_the_crop() -> None:
    assert parse(changed(("input.resize", 5))).input.resize == 5


def test_a_manifest_cannot_be_changed() -> None:
    manifest = parse(DOCUMENT)
    tables: list[BaseModel] = [manifest, manifest.input, manifest.output, manifest.network, manifest.serving]
    for table in tables:
        for name in type(table).model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(table, name, None)


# Files


def folder(tmp_path: Path) -> Path:
    version = tmp_path / "store" / "digits" / "1"
    version.mkdir(parents=True)
    return version


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"architecture = ", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b'a = "1"\na = "2"', "is not TOML"),
        (b"\x00", "is not TOML"),
        (b"", "key architecture is missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_below_the_store(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = folder(tmp_path) / "model.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidManifest, match=said) as caught:
        read(path)
    assert str(caught.value).startswith("digits/1/model.toml")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["a = " + "[" * 5000, "a = " + "1" * 5000], ids=["nested too deep", "too many digits"]
)
def test_toml_that_python_cannot_hold_is_refused_like_any_other(tmp_path: Path, content: str) -> None:
    path = folder(tmp_path) / "model.toml"
    path.write_text(content)
    with pytest.raises(InvalidManifest, match=r"digits/1/model\.toml"):
        read(path)


def test_a_missing_manifest_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match=r"^digits/1/model\.toml is missing$"):
        read(folder(tmp_path) / "model.toml")


def test_a_folder_in_the_place_of_a_manifest_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path) / "model.toml"
    path.mkdir()
    with pytest.raises(InvalidManifest, match=r"^digits/1/model\.toml cannot be read: it is no regul"):
        read(path)


PLAIN = st.integers() | st.booleans() | st.text() | st.floats(allow_nan=False)
NAMES = st.from_regex(NAME_PATTERN.replace("$", r"\Z"), fullmatch=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    colour = draw(st.sampled_from(["rgb", "grayscale"]))
    channels = {"rgb": 3, "grayscale": 1}[colour]
    height, width = draw(st.tuples(*[st.integers(1, 65536)] * 2))
    return Input(
        name=draw(NAMES),
        shape=[channels, height, width],
        colour=draw(st.just(colour)),  # type: ignore[arg-type]  # one of the two
        resize=draw(st.none() | st.integers(max(height, width), 65536)),
        interpolation=draw(st.sampled_from(["nearest", "bilinear", "bicubic"])),
        mean=draw(st.lists(FINITE, min_size=channels, max_size=channels)),
        std=draw(st.lists(FINITE.filter(bool), min_size=channels, max_size=channels)),
        example=draw(st.none() | NAMES),
    )


MANIFESTS = st.builds(
    Manifest,
    architecture=st.text(min_size=1, max_size=256),
    options=st.dictionaries(st.text(), PLAIN),
    input=inputs(),
    outputs=st.lists(
        st.builds(
            Output, name=NAMES, task=st.sampled_from(["classification", "tensor"]), labels=st.none() | NAMES
        ),
        min_size=1,
        max_size=1,
    ),
    weights=st.builds(Weights, file=NAMES, sha256=st.text("0123456789abcdef", min_size=64, max_size=64)),
    serving=st.builds(
        Serving,
        max_batch=st.integers(1, 4096),
        precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    ),
    provenance=st.dictionaries(st.text(), PLAIN | st.dictionaries(st.text(), PLAIN)),
)


def as_json(manifest: Manifest) -> str:
    return json.dumps(manifest.model_dump(), sort_keys=True)


@given(MANIFESTS)
def test_a_manifest_that_is_written_is_read_as_it_was(manifest: Manifest) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.toml"
        write(path, manifest)
        # As JSON, 1 is not 1.0 and not true.
        assert as_json(read(path)) == as_json(manifest)


def as_program(**more: object) -> dict[str, Any]:
    document = {key: value for key, value in changed().items() if key not in {"architecture", "options"}}
    return {**document, "weights": None, "program": {"sha256": "a" * 64}, **more}


def test_a_program_stands_in_place_of_architecture_and_weights() -> None:
    manifest = parse(as_program())
    assert (manifest.architecture, manifest.weights) == (None, None)
    assert (manifest.network.file, manifest.network.sha256) == ("model.pt2", "a" * 64)


@pytest.mark.parametrize(
    ("key", "value"),
    [("architecture", "digits"), ("options", {"width": 2}), ("weights", {"sha256": "a" * 64})],
)
def test_beside_a_program_stands_nothing_that_says_how_the_network_is_built(key: str, value: object) -> None:
    assert "program stands alone" in complaint(as_program(**{key: value}))


def test_a_program_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    path = folder(tmp_path) / "model.toml"
    write(path, parse(as_program()))
    assert read(path) == parse(as_program())
