"""Numbers in JSON become the array that the standard library makes of them, or an error that says where."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidTensor
from service.protocol import numbers
from service.protocol.numbers import Numbers

FLOATS = st.one_of(
    st.integers(-(10**25), 10**25), st.floats(allow_nan=False, allow_infinity=False), st.just(-0.0)
)


def read(text: str, shape: list[int], dtype: Any = np.float32) -> np.ndarray:
    out = np.empty(int(np.prod(shape)), dtype)
    content = b"[[x" + text.encode() + b",1]]"  # what stands around it is not looked at
    for _ in Numbers(content, 3, 3 + len(text)).write(shape, out, "data"):
        pass
    return out


def as_float32(values: list[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.array([float(value) for value in values]).astype(np.float32)


@given(st.lists(FLOATS, min_size=1, max_size=50), st.sampled_from([None, 1, " \n"]))
def test_floats_are_those_of_the_standard_library(values: list[Any], indent: Any) -> None:
    np.testing.assert_array_equal(read(json.dumps(values, indent=indent), [len(values)]), as_float32(values))


@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_bytes_are_those_of_the_standard_library(values: list[int]) -> None:
    assert read(json.dumps(values), [len(values)], np.uint8).tolist() == values


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_nested_lists_are_read_row_by_row(shape: list[int], drawn: st.DataObject) -> None:
    count = int(np.prod(shape))
    values = np.array(drawn.draw(st.lists(st.integers(0, 255), min_size=count, max_size=count)))
    text = json.dumps(values.reshape(shape).tolist())
    assert read(text, shape).tolist() == values.tolist()
    assert read(text, shape, np.uint8).tolist() == values.tolist()


@pytest.mark.parametrize("size", [1, 5, 40])
def test_where_the_text_is_cut_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_SEGMENT_BYTES", size)
    values = [0.5, -1e-3, 12345678, 10**20, 3.25] * 20
    np.testing.assert_array_equal(read(json.dumps(values), [100]), as_float32(values))
    assert read(json.dumps([[1, 2], [3, 4]]), [2, 2]).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("size", [1, 1 << 15])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize(
    "text",
    [
        *("[1,2,3]", "[1,2,3,4,5]", "[]", "[1,2,3,]", "[,1,2,3]", "[1,,2,3]", "[1 2,3,4]", "[1,2,3,4"),
        *(
            "[[1,2],[3]]",
            "[[1,2],3,4]",
            "[[1,2][3,4]]",
            "[[1],[2],[3],[4]]",
            "[[[1,2],[3,4]]]",
            "[[1,2,3,4]]",
        ),
        *(
            "[[1,2],[3,4]]]",
            "[1,2],[3,4]",
            "[1,2,3,[4]]",
            "[[],[],[],[]]",
            "[[1,2],[3,4],[]]",
            "[[1,2],[3,]]",
        ),
        *("[true,1,1,1]", "[1,null,1,1]", "[1,1,NaN,1]", "[1,1,1,Infinity]", "[1,1,1,-Infinity]"),
        *(
            "[1,1,1,01]",
            "[1,1,1,.5]",
            "[1,1,1,+1]",
            "[1,1,1,0x1]",
            "[1,1,1,1e]",
            "[1,1,1,{}]",
            "[1,2,3,4,]",
            "[1,1,1,1e999]",
        ),
        *(
            "[1[,2],[3,4]]",
            "[[1,2]3,[,4]]",
            "[[1,2],3[,4]]",
            "[[1,2],[3,]4]",
            "[[1,]2,[3,4]]",
            "[[1,2],[3,4]5]",
        ),
        *("[[1,2],[[3],4]]", "[[1,2],[3,4 ] 5]", "[ 1 [ ,2],[3,4]]", "[[1,2],[,3,4]]", "1[[,2],[3,4]]"),
        *(
            "[[1,2],[3,4][]]",
            "[[1,2,],[3]]",
            "[[1],[2,3,4]]",
            "[[1,2],[3,4[]]]",
            "[[1,2],[3,100000000000000000000]4]",
        ),
        "[100000000000000000000[,2],[3,4]]",
        "[" * 5000 + "1" + "]" * 5000,
    ],
)
def test_what_is_no_array_of_that_shape_is_refused(
    text: str, dtype: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "_SEGMENT_BYTES", size)
    with pytest.raises(InvalidTensor):
        read(text, [2, 2], dtype)


EDITS = st.tuples(st.integers(0, 13), st.integers(0, 1), st.sampled_from(["", "[", "]", ",", "7", " "]))


@given(st.lists(EDITS, max_size=4), st.sampled_from(["[[1,2],[3,4]]", "[1, 2, 3, 4]", "[[1 ,2 ] ,[ 3, 4]]"]))
def test_what_is_read_and_what_is_refused_is_as_the_standard_library_has_it(edits: Any, text: str) -> None:
    for at, removed, put in edits:
        text = text[:at] + put + text[at + removed :]
    text = f"[{text.strip().removeprefix('[')}"
    try:
        expected = np.array(json.loads(text), np.float32)
        is_right = expected.shape in {(2, 2), (4,)}
    except ValueError:
        is_right = False
    if is_right:
        assert read(text, [2, 2]).tolist() == expected.ravel().tolist()
    else:
        with pytest.raises(InvalidTensor):
            read(text, [2, 2])


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("value", ["1.0", "-1", "256", "1e1", "300000000000000000000", "0.5", "true"])
def test_what_is_no_byte_is_named(value: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_SEGMENT_BYTES", size)
    with pytest.raises(InvalidTensor, match=r"data\[2\].*0\.\.255"):
        read(f"[0,255,{value},7]", [4], np.uint8)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("value", ["true", "null", "false"])
def test_what_is_no_number_is_named(value: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_SEGMENT_BYTES", size)
    with pytest.raises(InvalidTensor, match=r"data\[2\] is not a number"):
        read(f"[0,255,{value},7]", [4])


def test_a_float_that_overflows_is_infinite_for_whoever_refuses_that() -> None:
    assert read("[1e300,-1e39]", [2]).tolist() == [np.inf, -np.inf]


def test_a_short_text_is_not_compared_with_the_skeleton_of_a_huge_shape() -> None:
    with pytest.raises(InvalidTensor, match="neither flat nor nested"):
        next(Numbers(b"[[1],[2]]", 0, 9).write([2**16, 2**15], np.empty(2, np.float32), "data"))


def test_writing_stops_now_and_then_so_that_nobody_waits_for_all_of_it() -> None:
    values = np.arange(30_000)
    for array in (values, values.reshape(300, 100)):
        text, out = json.dumps(array.tolist()).encode(), np.full(30_000, -1, np.float32)
        writing = Numbers(text, 0, len(text)).write(array.shape, out, "data")
        next(writing)
        assert (out >= 0).sum() < 10_000
        assert len(list(writing)) >= len(text) // (33 * 1024)
        np.testing.assert_array_equal(out, values)
