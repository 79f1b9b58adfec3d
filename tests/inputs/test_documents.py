"""JSON becomes rows when its structure and its values are right, and is refused with a position otherwise."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import FoldserveError, InputTooLarge, InvalidImage, InvalidTensor
from service.inputs.documents import QUICK_BYTES, rows_from_json
from service.store.manifest import Input

from .memory import decoded, written

RGB = Input(shape=[3, 4, 5], mean=[0.5] * 3, std=[0.5] * 3)
GRAY = Input(shape=[1, 4, 5], colour="grayscale", mean=[0.5], std=[0.5])
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
FLOATS = RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32)


def body(inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def from_json(content: bytes, spec: Input = RGB, dtype: Any = "float32", max_rows: int = 8) -> np.ndarray:
    return written(rows_from_json(content, dtype, spec, max_rows, 10_000))


@pytest.mark.parametrize("rows", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_nested_numbers_are_rows(rows: np.ndarray) -> None:
    got = from_json(body(rows.tolist()), dtype=rows.dtype.name)
    np.testing.assert_array_equal(got, rows)
    assert got.dtype == rows.dtype


def test_integers_and_exponents_are_numbers_of_float32() -> None:
    got = from_json(body([[[1, -2, 3e2, 123456789, 1e-300]] * 4]), GRAY)
    assert got[0, 0, 0].tolist() == [1.0, -2.0, 300.0, 123456792.0, 0.0]


@pytest.mark.parametrize("value", [18446744073709551615, -1.1e9, 3e38])
def test_numbers_out_of_all_range_are_refused_as_in_every_other_form(value: float) -> None:
    with pytest.raises(InvalidTensor, match=r"^row 1 holds numbers beyond ±1e\+09"):
        from_json(body(changed(value, 1, 0, 2, 3)))


def test_one_channel_may_be_left_out() -> None:
    rows = PIXELS[:, :1]
    for inputs in (rows, rows[:, 0]):
        np.testing.assert_array_equal(from_json(body(inputs.tolist()), GRAY, "uint8"), rows)


def test_images_become_uint8_rows_whatever_the_dtype() -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(stream, "PNG")
    item = {"b64": base64.b64encode(stream.getvalue()).decode()}
    for dtype in ("uint8", "float32"):
        got = from_json(body([item, item]), dtype=dtype)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, [PIXELS[0]] * 2)


ROW = FLOATS[0].tolist()
GIF = base64.b64encode(b"GIF89a").decode()


def changed(value: Any, *path: int) -> Any:
    """Two rows, of which one element is `value`."""
    rows = FLOATS.tolist()
    place = rows
    for index in path[:-1]:
        place = place[index]
    place[path[-1]] = value
    return rows


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"inputs": [NaN]}', "not JSON: .* line 1 column 13"),
        (b'{"inputs": [Infinity]}', "not JSON"),
        (b'{"inputs": [1e400]}', "not JSON"),
        (b'{"inputs": [1' + b"0" * 400 + b"]}", "not JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "not JSON"),
        (b'{"inputs": ' * 10_000, "not JSON"),
        (b"[]", "the JSON is a list, expected an object"),
        (b"{}", "the JSON object is empty, expected the key 'inputs'"),
        (body([ROW], instances=1), "unknown key 'instances', expected 'inputs'"),
        (json.dumps({"k" * 9999: 1}).encode(), "unknown key 'k{40}',"),
        (body([]), "inputs is empty, expected a list"),
        (body("rows"), "inputs is a string, expected a list"),
        (body({"b64": ""}), "inputs is an object, expected a list"),
        (body(["row"]), r"inputs\[0\] is a string, expected a list of shape \[3, 4, 5\]"),
        (body([ROW, {"b64": GIF}]), r"inputs\[1\] is an object, expected a list .* \(all of one kind\)"),
        (body([{"b64": GIF}, ROW]), r"inputs\[1\] is a list, expected an image .* \(all of one kind\)"),
        (body(ROW), r"inputs is a single row of shape \[3, 4, 5\], expected a list of such rows"),
        (body([ROW, ROW[:2]]), r"inputs\[1\] has length 2, expected a list of shape \[3, 4, 5\]"),
        (
            body(changed([1.0] * 4, 1, 2, 3)),
            r"inputs\[1\]\[2\]\[3\] has length 4, expected a list of shape \[5\]",
        ),
        (body(changed([], 1, 2)), r"inputs\[1\]\[2\] has length 0, expected a list of shape \[4, 5\]"),
        (body(changed(1.0, 1, 2)), r"inputs\[1\]\[2\] is a number .*, expected a list of shape \[4, 5\]"),
        (body(changed(True, 0, 1, 2, 3)), r"inputs\[0\]\[1\]\[2\]\[3\] is a boolean, expected a number"),
        (body(changed("1", 0, 1, 2, 3)), r"inputs\[0\]\[1\]\[2\]\[3\] is a string, expected a number"),
        (body(changed(None, 0, 1, 2, 3)), r"inputs\[0\]\[1\]\[2\]\[3\] is null, expected a number"),
        (body(changed([1.0], 0, 1, 2, 3)), r"inputs\[0\]\[1\]\[2\]\[3\] is a list, expected a number"),
        (body(changed(1e39, 1, 0, 2, 3)), r"inputs\[1\]\[0\]\[2\]\[3\] is outside the range of float32"),
        (body(changed(-(10**99), 1, 0, 2, 3)), r"inputs\[1\]\[0\]\[2\]\[3\] is outside the range of float32"),
    ],
    ids=lambda value: value[-30:].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_each_kind_of_wrong_json_has_its_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidTensor, match=sentence):
        from_json(content)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (-1, r"is outside 0..255 \(uint8\)"),
        (256, r"is outside 0..255 \(uint8\)"),
        (2**64 - 1, r"is outside 0..255 \(uint8\)"),
        (2**64, r"is a number with a fraction or exponent, expected an integer in 0..255"),
        (1.0, r"is a number with a fraction or exponent, expected an integer in 0..255"),
        (True, r"is a boolean, expected an integer in 0..255"),
        ("1", r"is a string, expected an integer in 0..255"),
    ],
)
def test_pixels_are_integers_from_0_to_255(value: Any, sentence: str) -> None:
    rows = PIXELS.tolist()
    rows[1][2][0][4] = value
    with pytest.raises(InvalidTensor, match=rf"^inputs\[1\]\[2\]\[0\]\[4\] {sentence}"):
        from_json(body(rows), dtype="uint8")


def test_a_single_row_of_one_channel_is_a_row_or_explained() -> None:
    row = PIXELS[0, :1]
    np.testing.assert_array_equal(from_json(body(row.tolist()), GRAY, "uint8"), row[np.newaxis])
    with pytest.raises(InvalidTensor, match=r"inputs is a single row of shape \[4, 5\]"):
        from_json(body(row[0].tolist()), GRAY, "uint8", max_rows=1)


def test_rows_of_one_call_have_their_channel_axis_all_or_none() -> None:
    with pytest.raises(
        InvalidTensor, match=r"inputs\[1\] has length 4, expected a list of shape \[1, 4, 5\]"
    ):
        from_json(body([PIXELS[0, :1].tolist(), PIXELS[1, 0].tolist()]), GRAY, "uint8")


@pytest.mark.parametrize("item", [[[[0]]], {"b64": ""}])
def test_too_many_rows_are_refused_before_they_are_read(item: Any) -> None:
    with pytest.raises(InputTooLarge, match=r"^9 rows were sent, over the limit of 8 rows$"):
        rows_from_json(body([item] * 9), "float32", RGB, 8, 10_000)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"[[", b'{"a":{},"b":['])
def test_more_lists_and_objects_than_rows_could_have_are_not_parsed(piece: bytes) -> None:
    """The interpreter stands still while they are: for most of a second in 4 MB of empty lists."""
    content = b'{"inputs": [' + piece * (4_000_000 // len(piece)) + b"[]]}"
    with pytest.raises(InputTooLarge, match=r"more lists or objects than 8 rows of shape \[3, 4, 5\]"):
        from_json(content)


def test_as_many_lists_as_the_largest_request_has_are_parsed() -> None:
    rows = np.zeros((700, 3, 4, 5), np.uint8)  # 11,201 lists
    assert from_json(body(rows.tolist()), dtype="uint8", max_rows=700).shape == rows.shape


@pytest.mark.parametrize(
    "text", ["a", "QUJD\n", "QU JD", "QUJD=", "QUJD====", "QUI", "data:image/png;base64,QUJD", "Ü", "__-_"]
)
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(InvalidImage, match=r"^inputs\[0\].b64 is not plain base64"):
        from_json(body([{"b64": text}]))


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({}, r"inputs\[0\] is empty, expected the key 'b64'"),
        ({"b64": GIF, "url": ""}, r"inputs\[0\] has an unknown key 'url', expected 'b64'"),
        ({"b64": 1}, r"inputs\[0\].b64 is an integer, expected a string"),
        ({"b64": ""}, r"inputs\[0\].b64: the image is empty"),
        ({"b64": GIF}, r"inputs\[0\].b64: the image is neither JPEG nor PNG"),
    ],
)
def test_a_wrong_image_is_named(item: Any, sentence: str) -> None:
    with pytest.raises((InvalidImage, InvalidTensor), match=sentence):
        from_json(body([item]))


def test_an_image_over_the_limit_of_pixels_is_named() -> None:
    stream = io.BytesIO()
    Image.new("L", (101, 100)).save(stream, "PNG")
    item = {"b64": base64.b64encode(stream.getvalue()).decode()}
    with pytest.raises(InputTooLarge, match=r"^inputs\[0\].b64: the image is 101x100 pixels"):
        from_json(body([item]))


# Anything at all


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b"", b'{"inputs":', b'{"inputs":[[', b'{"inputs":[{"b64":"']),
    tail=st.binary(max_size=99),
)
def test_any_bytes_give_rows_or_one_of_our_errors(head: bytes, tail: bytes) -> None:
    with pytest.raises(FoldserveError):
        from_json(head + tail)


@settings(max_examples=150, deadline=None)
@given(head=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]), tail=st.binary(max_size=99))
def test_any_bytes_as_an_image_give_a_row_or_one_of_our_errors(head: bytes, tail: bytes) -> None:
    with pytest.raises((InvalidImage, InputTooLarge), match=r"^inputs\[0\].b64: "):
        from_json(body([{"b64": base64.b64encode(head + tail).decode()}]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["b64", "x"]), inner, max_size=2)
    ),
)


@settings(max_examples=150, deadline=None)
@given(inputs=JSON, dtype=st.sampled_from(["uint8", "float32"]), spec=st.sampled_from([RGB, GRAY]))
@example(inputs=[[[]]], dtype="uint8", spec=GRAY)
@example(inputs=[[[[]]]], dtype="uint8", spec=GRAY)
@example(inputs=[[[[[[]]]]]], dtype="float32", spec=RGB)
def test_any_json_gives_rows_or_one_of_our_errors(inputs: Any, dtype: str, spec: Input) -> None:
    try:
        rows = from_json(body(inputs), spec, dtype)
    except FoldserveError as error:
        message = str(error)
        assert len(message) < 200, message
        return
    assert list(rows.shape[1:]) == spec.shape


def test_an_encoded_image_in_json_is_the_row_that_the_image_alone_gives() -> None:
    stream = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(stream, "JPEG")
    item = {"b64": base64.b64encode(stream.getvalue()).decode()}
    np.testing.assert_array_equal(from_json(body([item]))[0], decoded(stream.getvalue(), RGB, 10_000))


def test_only_short_numbers_are_quick() -> None:
    def is_quick(content: bytes) -> bool:
        return rows_from_json(content, "uint8", GRAY, 8, 10_000).is_quick

    content = body([PIXELS[0, 0].tolist()])
    assert is_quick(content.ljust(QUICK_BYTES))
    assert not is_quick(content.ljust(QUICK_BYTES + 1))
    assert not is_quick(body([{"b64": ""}]))
