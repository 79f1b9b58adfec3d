"""Numbers become rows when their dtype, shape, length and values are right, and are refused otherwise."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.errors import FoldserveError, InputTooLarge, InvalidTensor
from service.inputs.tensors import rows_from_npy, rows_from_octets
from service.store.manifest import Input

from .memory import pieces, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.inputs.rows import Rows

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


def from_npy(*chunks: bytes) -> np.ndarray:
    return written(rows_from_npy(chunks, RGB, 8))


def from_octets(*chunks: bytes, dtype: Any = "float32") -> np.ndarray:
    return written(rows_from_octets(chunks, dtype, RGB, 8))


# Octets


@pytest.mark.parametrize("rows", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_octets_are_little_endian_rows(rows: np.ndarray) -> None:
    content = rows.astype(rows.dtype.newbyteorder("<")).tobytes()
    got = from_octets(content, dtype=rows.dtype.name)
    np.testing.assert_array_equal(got, rows)
    assert got.dtype == rows.dtype


def test_octets_may_be_cut_anywhere_also_inside_a_number() -> None:
    content = FLOATS.astype("<f4").tobytes()
    for cut in range(len(content) + 1):
        np.testing.assert_array_equal(from_octets(*pieces(content, cut)), FLOATS)
    np.testing.assert_array_equal(from_octets(*pieces(content, *range(1, len(content)))), FLOATS)


def test_pieces_are_not_joined_before_they_are_written() -> None:
    rows = np.zeros((8, 3, 400, 500), np.uint8)
    spec = Input(shape=[3, 400, 500], mean=[0.5] * 3, std=[0.5] * 3)
    stream = io.BytesIO()
    np.save(stream, rows)
    octets, file = pieces(rows.tobytes(), 999_999), pieces(stream.getvalue(), 100, 999_999)
    for made in (rows_from_octets(octets, "uint8", spec, 8), rows_from_npy(file, spec, 8)):
        tracemalloc.start()
        made.write(rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000


@pytest.mark.parametrize("length", [0, 1, 239, 241])
def test_octets_that_are_no_whole_rows_are_refused(length: int) -> None:
    with pytest.raises(
        InvalidTensor, match=rf"^{length} bytes are not whole rows: .*\[3, 4, 5\] has 240 bytes$"
    ):
        rows_from_octets([bytes(length)], "float32", RGB, 8)


def test_more_octets_than_the_rows_allowed_are_refused() -> None:
    with pytest.raises(InputTooLarge, match=r"^2 rows were sent, over the limit of 1 rows$"):
        rows_from_octets([PIXELS.tobytes()], "uint8", RGB, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(value: float) -> None:
    rows = FLOATS.copy()
    rows[1, 2, 3, 4] = value
    for made in (rows_from_octets([rows.tobytes()], "float32", RGB, 2), rows_from_npy([npy(rows)], RGB, 2)):
        with pytest.raises(InvalidTensor, match=r"^row 1 holds NaN or infinity, expected finite numbers$"):
            written(made)


@pytest.mark.parametrize("value", [1.001e9, -1.001e9, 3e38])
def test_rows_with_numbers_out_of_all_range_are_named(value: float) -> None:
    rows = FLOATS.copy()
    rows[1, 0, 0, 0] = value
    with pytest.raises(InvalidTensor, match=r"^row 1 holds numbers beyond ±1e\+09, expected normalised"):
        from_octets(rows.tobytes())


def test_the_first_of_several_wrong_rows_is_named_with_its_own_reason() -> None:
    rows = np.repeat(FLOATS, 2, axis=0)
    rows[1, 0, 0, 0], rows[2, 0, 0, 0] = 2e9, np.nan
    with pytest.raises(InvalidTensor, match=r"^row 1 holds numbers beyond"):
        from_octets(rows.tobytes())


def test_a_billion_either_way_is_still_a_number() -> None:
    rows = FLOATS.copy()
    rows[0, 0, 0, :2] = 1e9, -1e9
    np.testing.assert_array_equal(from_octets(rows.tobytes()), rows)


# npy


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_file_of_any_version_and_order_is_read(version: Any, dtype: str, order: Any) -> None:
    rows = (PIXELS if dtype == "u1" else FLOATS).astype(dtype, order=order)
    got = from_npy(npy(rows, version))
    np.testing.assert_array_equal(got, rows)
    assert got.dtype == rows.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    "rows", [PIXELS, FLOATS, FLOATS.astype(">f4", order="F")], ids=["uint8", "float32", "Fortran"]
)
def test_an_npy_file_may_be_cut_anywhere_also_inside_its_header_or_a_number(rows: np.ndarray) -> None:
    content = npy(rows)
    for cut in range(len(content) + 1):
        np.testing.assert_array_equal(from_npy(*pieces(content, cut)), rows)
    np.testing.assert_array_equal(from_npy(*pieces(content, *range(1, len(content)))), rows)


def test_the_longest_header_is_read_and_no_byte_more() -> None:
    header = b"{'descr':'|u1','fortran_order':False,'shape':(2,3,4,5)}".ljust(4096)
    for version in (1, 2):
        content = npy_of(header, PIXELS.tobytes(), version)
        np.testing.assert_array_equal(from_npy(*pieces(content, 3000, 4107)), PIXELS)
        with pytest.raises(InvalidTensor, match="4097 bytes, at most 4096"):
            from_npy(npy_of(header + b" ", PIXELS.tobytes(), version))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_single_row_needs_no_batch_axis(order: Any) -> None:
    got = from_npy(npy(PIXELS[0].copy(order)))
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
    np.testing.assert_array_equal(from_npy(npy_of(header, PIXELS[0].tobytes())), PIXELS[:1])


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
        rows_from_npy([npy(array)], RGB, 8)


def test_a_pickled_array_is_refused_and_not_loaded() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    with pytest.raises(InvalidTensor, match=r"dtype \|O, expected"):
        rows_from_npy([npy(np.array([Trap()], dtype=object))], RGB, 8)


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (3, 5, 4), (2, 4, 5, 3), (1, 2, 3, 4, 5), (3, 0, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidTensor, match=r"expected \[N, 3, 4, 5\] or \[3, 4, 5\]$"):
        rows_from_npy([npy(np.zeros(shape, np.uint8))], RGB, 8)


def test_no_rows_and_too_many_rows_are_refused() -> None:
    with pytest.raises(InvalidTensor, match="no rows, expected at least 1"):
        rows_from_npy([npy(PIXELS[:0])], RGB, 8)
    with pytest.raises(InputTooLarge, match=r"^2 rows were sent, over the limit of 1 rows"):
        rows_from_npy([npy(PIXELS)], RGB, 1)


@pytest.mark.parametrize("content", [npy(PIXELS)[:-1], npy(PIXELS) + b"x"])
def test_the_data_have_exactly_the_length_that_the_shape_says(content: bytes) -> None:
    with pytest.raises(InvalidTensor, match=r"promises 120 bytes of data, but (119|121) follow it"):
        rows_from_npy([content], RGB, 8)


@pytest.mark.parametrize("axis", [b"-1", b"9223372036854775808", b"9" * 4000])
def test_impossible_axes_are_refused(axis: bytes) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + axis + b", 3, 4, 5)}"
    with pytest.raises(InvalidTensor, match="impossible shape"):
        rows_from_npy([npy_of(header)], RGB, 8)


def test_a_shape_that_would_overflow_64_bits_is_refused_before_anything_is_allocated() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 3, 4, 5)}"
    with pytest.raises(InvalidTensor, match=r"promises \d{22} bytes of data, but 0 follow"):
        rows_from_npy([npy_of(header)], RGB, 2**63)


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
        rows_from_npy([npy_of(header)], RGB, 8)


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
        rows_from_npy([content], RGB, 8)


# Anything at all


NUMPY_HEADS = st.sampled_from([b"", npy(PIXELS)[:10], npy(PIXELS)[:60], npy(PIXELS)[:128], npy(FLOATS)])


@settings(max_examples=300, deadline=None)
@given(head=NUMPY_HEADS, tail=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_in_any_pieces_give_rows_or_one_of_our_errors(
    head: bytes, tail: bytes, cuts: list[int]
) -> None:
    makers: list[Callable[[], Rows]] = [
        lambda: rows_from_npy(pieces(head + tail, *cuts), RGB, 8),
        lambda: rows_from_octets(pieces(tail, *cuts), "uint8", RGB, 8),
        lambda: rows_from_octets(pieces(tail, *cuts), "float32", RGB, 8),
    ]
    for make in makers:
        try:
            rows = written(make())
        except FoldserveError:
            continue
        assert rows.shape[1:] == (3, 4, 5)
        if rows.dtype == np.float32:
            assert np.abs(rows).max() <= 1e9


@settings(max_examples=200, deadline=None)
@given(
    rows=arrays(
        st.sampled_from(["u1", "<f4", ">f4"]),
        st.sampled_from([(3, 4, 5), (1, 3, 4, 5), (2, 3, 4, 5)]),
    ),
    fortran=st.booleans(),
    cuts=st.lists(st.integers(0, 700), max_size=4),
)
def test_any_array_in_any_pieces_is_what_numpy_loads_or_refused_for_its_values(
    rows: np.ndarray, fortran: bool, cuts: list[int]
) -> None:
    content = npy(np.asarray(rows, order="F" if fortran else "C"))
    expected = np.load(io.BytesIO(content)).reshape(-1, 3, 4, 5)
    if np.isfinite(expected).all() and np.abs(expected.astype(float)).max() <= 1e9:
        np.testing.assert_array_equal(from_npy(*pieces(content, *cuts)), expected)
    else:
        with pytest.raises(InvalidTensor, match=r"^row [01] holds"):
            from_npy(*pieces(content, *cuts))


@settings(max_examples=100, deadline=None)
@given(
    header=st.text(alphabet="{}()[]'\",: \n-0123456789descrshapefortran_orderTrueFalse<f4|u1", max_size=200)
)
def test_any_npy_header_gives_rows_or_one_of_our_errors(header: str) -> None:
    with pytest.raises(FoldserveError):
        from_npy(npy_of(header.encode()))


def test_no_torch_is_imported() -> None:
    script = (
        "import sys, service.inputs.documents, service.inputs.images, service.inputs.tensors\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'torch'])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
