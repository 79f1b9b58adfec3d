"""Numbers become rows when their dtype, shape, length and values are right, and are refused otherwise."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import FoldserveError, InputTooLarge, InvalidImage, InvalidTensor
from service.inputs.decoding import decode_image
from service.inputs.tensors import rows_from_json, rows_from_npy, rows_from_octets
from service.store.manifest import Input

RGB = Input(shape=[3, 4, 5], mean=[0.5] * 3, std=[0.5] * 3)
GRAY = Input(shape=[1, 4, 5], colour="grayscale", mean=[0.5], std=[0.5])
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
FLOATS = RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32)


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def npy_of(header: bytes, data: bytes = b"", version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def body(inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def from_json(content: bytes, spec: Input = RGB, dtype: Any = "float32", max_rows: int = 8) -> np.ndarray:
    return rows_from_json(content, dtype, spec, max_rows, 10_000)


# Octets


@pytest.mark.parametrize("rows", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_octets_are_little_endian_rows_without_a_copy(rows: np.ndarray) -> None:
    content = rows.astype(rows.dtype.newbyteorder("<")).tobytes()
    got = rows_from_octets(content, rows.dtype.name, RGB, 2)  # type: ignore[arg-type]  # one of the two
    np.testing.assert_array_equal(got, rows)
    assert got.dtype == rows.dtype
    assert np.shares_memory(got, np.frombuffer(content, np.uint8))


def test_octets_may_start_at_any_byte_of_a_view() -> None:
    view = memoryview(b"x" + FLOATS.tobytes())[1:]
    np.testing.assert_array_equal(rows_from_octets(view, "float32", RGB, 2), FLOATS)


@pytest.mark.parametrize("length", [0, 1, 239, 241])
def test_octets_that_are_no_whole_rows_are_refused(length: int) -> None:
    with pytest.raises(
        InvalidTensor, match=rf"^{length} bytes are not whole rows: .*\[3, 4, 5\] has 240 bytes$"
    ):
        rows_from_octets(bytes(length), "float32", RGB, 8)


def test_more_octets_than_the_rows_allowed_are_refused() -> None:
    with pytest.raises(InputTooLarge, match=r"^2 rows were sent, over the limit of 1 rows$"):
        rows_from_octets(PIXELS.tobytes(), "uint8", RGB, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(value: float) -> None:
    rows = FLOATS.copy()
    rows[1, 2, 3, 4] = value
    with pytest.raises(InvalidTensor, match=r"^row 1 holds NaN or infinity"):
        rows_from_octets(rows.tobytes(), "float32", RGB, 8)
    with pytest.raises(InvalidTensor, match=r"^row 1 holds NaN or infinity"):
        rows_from_npy(npy(rows), RGB, 8)


# npy


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_file_of_any_version_and_order_is_read(version: Any, dtype: str, order: Any) -> None:
    rows = (PIXELS if dtype == "u1" else FLOATS).astype(dtype, order=order)
    got = rows_from_npy(npy(rows, version), RGB, 2)
    np.testing.assert_array_equal(got, rows)
    assert got.dtype == rows.dtype.newbyteorder("=")
    assert got.flags.c_contiguous


def test_what_numpy_save_writes_is_read_without_a_copy() -> None:
    stream = io.BytesIO()
    np.save(stream, FLOATS)
    content = stream.getvalue()
    got = rows_from_npy(content, RGB, 2)
    np.testing.assert_array_equal(got, FLOATS)
    assert np.shares_memory(got, np.frombuffer(content, np.uint8))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_single_row_needs_no_batch_axis(order: Any) -> None:
    got = rows_from_npy(memoryview(npy(PIXELS[0].copy(order))), RGB, 1)
    np.testing.assert_array_equal(got, PIXELS[:1])


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr':'|u1','fortran_order':False,'shape':(1,3,4,5)}",
        b'{"shape": (1, 3, 4, 5), "fortran_order": False, "descr": "<u1"}\n',
        b"  { 'fortran_order' : False ,\n 'shape' : ( 1 , 3, 4, 5, ) , 'descr' : 'u1' , }   ",
    ],
)
def test_headers_of_other_writers_are_read(header: bytes) -> None:
    np.testing.assert_array_equal(rows_from_npy(npy_of(header, PIXELS[0].tobytes()), RGB, 1), PIXELS[:1])


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.zeros((2, 3, 4, 5), np.float64), "<f8"),
        (np.zeros((2, 3, 4, 5), np.float16), "<f2"),
        (np.zeros((2, 3, 4, 5), np.int64), "<i8"),
        (np.zeros((2, 3, 4, 5), bool), r"\|b1"),
        (np.zeros((2, 3, 4, 5), "U3"), "<U3"),
        (np.zeros((2, 3, 4, 5), [("a", "<f4")]), "a structured or unknown type"),
    ],
    ids=str,
)
def test_other_dtypes_are_refused_by_name(array: np.ndarray, name: str) -> None:
    with pytest.raises(InvalidTensor, match=rf"dtype {name}, expected uint8 .* or float32"):
        rows_from_npy(npy(array), RGB, 8)


def test_a_pickled_array_is_refused_and_not_loaded() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    with pytest.raises(InvalidTensor, match=r"dtype \|O, expected"):
        rows_from_npy(npy(np.array([Trap()], dtype=object)), RGB, 8)


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (3, 5, 4), (2, 4, 5, 3), (1, 2, 3, 4, 5), (3, 0, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidTensor, match=r"expected \[N, 3, 4, 5\] or \[3, 4, 5\]$"):
        rows_from_npy(npy(np.zeros(shape, np.uint8)), RGB, 8)


def test_no_rows_and_too_many_rows_are_refused() -> None:
    with pytest.raises(InvalidTensor, match="no rows, expected at least 1"):
        rows_from_npy(npy(PIXELS[:0]), RGB, 8)
    with pytest.raises(InputTooLarge, match=r"^2 rows were sent, over the limit of 1 rows"):
        rows_from_npy(npy(PIXELS), RGB, 1)


@pytest.mark.parametrize("content", [npy(PIXELS)[:-1], npy(PIXELS) + b"x"])
def test_the_data_have_exactly_the_length_that_the_shape_says(content: bytes) -> None:
    with pytest.raises(InvalidTensor, match=r"promises 120 bytes of data, but (119|121) follow it"):
        rows_from_npy(content, RGB, 8)


@pytest.mark.parametrize("axis", [b"-1", b"9223372036854775808", b"9" * 4000])
def test_impossible_axes_are_refused(axis: bytes) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + axis + b", 3, 4, 5)}"
    with pytest.raises(InvalidTensor, match="impossible shape"):
        rows_from_npy(npy_of(header), RGB, 8)


def test_a_shape_that_would_overflow_64_bits_is_refused_before_anything_is_allocated() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 3, 4, 5)}"
    with pytest.raises(InvalidTensor, match=r"promises \d{22} bytes of data, but 0 follow"):
        rows_from_npy(npy_of(header), RGB, 2**63)


@pytest.mark.parametrize(
    "header",
    [
        b"  ",
        b"{}",
        b"(" * 4000,
        b"-" * 4000 + b"1",
        b"{" * 4000,
        b"[" * 2000 + b"]" * 2000,
        b"{'descr': '|u1', 'fortran_order': False}",
        b"{'descr': '|u1', 'fortran_order': 'False', 'shape': (1, 3, 4, 5)}",
        b"{'descr': '|u1', 'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 4, 5)}",
        b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (1, 3, 4, 5)}",
        b"'shape':" + b" " * 4000,
    ],
)
def test_a_hostile_header_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidTensor, match="does not hold descr, fortran_order and shape once each"):
        rows_from_npy(npy_of(header), RGB, 8)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "magic"),
        (b"PK\x03\x04" + bytes(99), "magic"),
        (npy(PIXELS)[:9], "truncated or of an unknown version"),
        (b"\x93NUMPY\x09\0" + bytes(99), "unknown version"),
        (npy(PIXELS)[:40], "stops inside its header"),
        (npy_of(bytes(5000)), "5000 bytes, at most 4096"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(99), "4294967295 bytes, at most 4096"),
        (npy_of(b"{'descr': '|u1', 'fortran_order': False, 'shape': [1, 3, 4, 5]}"), "impossible shape"),
    ],
)
def test_each_kind_of_wrong_npy_has_its_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidTensor, match=sentence):
        rows_from_npy(content, RGB, 8)


# JSON


@pytest.mark.parametrize("rows", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_nested_numbers_are_rows(rows: np.ndarray) -> None:
    got = from_json(body(rows.tolist()), dtype=rows.dtype.name)
    np.testing.assert_array_equal(got, rows)
    assert got.dtype == rows.dtype


def test_integers_and_exponents_are_numbers_of_float32() -> None:
    got = from_json(body([[[1, -2, 3e2, 18446744073709551615, 1e-300]] * 4]), GRAY)
    assert got[0, 0, 0].tolist() == [1.0, -2.0, 300.0, 2.0**64, 0.0]


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
        from_json(body([item] * 9))


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


NUMPY_HEADS = st.sampled_from([b"", npy(PIXELS)[:10], npy(PIXELS)[:60], npy(PIXELS)[:128], npy(FLOATS)])


@settings(max_examples=300, deadline=None)
@given(head=NUMPY_HEADS, tail=st.binary(max_size=300))
def test_any_bytes_give_rows_or_one_of_our_errors(head: bytes, tail: bytes) -> None:
    for read in (
        lambda: rows_from_npy(head + tail, RGB, 8),
        lambda: rows_from_octets(tail, "uint8", RGB, 8),
        lambda: rows_from_octets(tail, "float32", RGB, 8),
        lambda: from_json(tail),
    ):
        try:
            rows = read()
        except FoldserveError:
            continue
        assert rows.shape[1:] == (3, 4, 5)


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


@settings(max_examples=100, deadline=None)
@given(
    header=st.text(alphabet="{}()[]'\",: \n-0123456789descrshapefortran_orderTrueFalse<f4|u1", max_size=200)
)
def test_any_npy_header_gives_rows_or_one_of_our_errors(header: str) -> None:
    with pytest.raises(FoldserveError):
        rows_from_npy(npy_of(header.encode()), RGB, 8)


def test_no_torch_is_imported() -> None:
    script = (
        "import sys, service.inputs.decoding, service.inputs.tensors\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'torch'])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_encoded_image_in_json_is_the_row_that_the_image_alone_gives() -> None:
    stream = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(stream, "JPEG")
    item = {"b64": base64.b64encode(stream.getvalue()).decode()}
    np.testing.assert_array_equal(from_json(body([item]))[0], decode_image(stream.getvalue(), RGB, 10_000))
