"""Inputs of the Open Inference Protocol become rows when they are the model's, and are refused otherwise."""

from __future__ import annotations

import base64
import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import InputTooLarge, InvalidImage, InvalidInput, InvalidTensor, JobCancelled
from service.inputs.named_tensors import rows_from_tensors
from service.protocol.numbers import Numbers
from service.protocol.request import Octets, Tensor
from service.store.manifest import Input

from .memory import pieces, written

RGB = Input(shape=[3, 4, 5], mean=[0.5] * 3, std=[0.5] * 3)
RANDOM = np.random.default_rng(0)
SHAPE = (2, 3, 4, 5)
PIXELS = RANDOM.integers(0, 256, SHAPE).astype(np.uint8)
FLOATS = RANDOM.normal(size=SHAPE).astype(np.float32)


def rows(datatype: str, content: Any, shape: tuple[int, ...] = SHAPE, name: str = "image") -> np.ndarray:
    """What is written of a tensor, binary where `content` is bytes."""
    if isinstance(content, bytes):
        content = Octets(pieces(content, 1, len(content) // 3))
    return written(rows_from_tensors([Tensor(name, datatype, shape, content)], RGB, 8, 10_000))


def numbers(array: np.ndarray) -> Numbers:
    text = json.dumps(array.tolist()).encode()
    return Numbers(text, 0, len(text))


def bfloat16(array: np.ndarray) -> bytes:
    """The upper halves, which is how BF16 cuts a float32 off."""
    return b"".join(struct.pack("<f", value)[2:] for value in array.ravel())


def png(row: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(row.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def elements(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


IMAGES = [png(row) for row in PIXELS]


def test_binary_tensors_are_rows_as_they_are() -> None:
    np.testing.assert_array_equal(rows("FP32", FLOATS.astype("<f4").tobytes()), FLOATS)
    np.testing.assert_array_equal(rows("UINT8", PIXELS.tobytes()), PIXELS)


def test_half_floats_become_float32_exactly() -> None:
    halves = FLOATS.astype(np.float16)
    np.testing.assert_array_equal(rows("FP16", halves.astype("<f2").tobytes()), halves.astype(np.float32))
    cut_off = np.frombuffer(
        b"".join(b"\0\0" + half for half in np.frombuffer(bfloat16(FLOATS), "V2").tolist()), "<f4"
    )
    np.testing.assert_array_equal(rows("BF16", bfloat16(FLOATS)), cut_off.reshape(SHAPE))


@pytest.mark.parametrize("is_flat", [True, False])
def test_numbers_in_json_are_rows_flat_or_nested(is_flat: bool) -> None:
    for datatype, array in (("FP32", FLOATS), ("UINT8", PIXELS)):
        np.testing.assert_array_equal(rows(datatype, numbers(array.ravel() if is_flat else array)), array)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_encoded_images_are_pixels(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(rows("BYTES", elements(*IMAGES), shape), PIXELS)
    texts = [base64.b64encode(image).decode() for image in IMAGES]
    np.testing.assert_array_equal(rows("BYTES", texts, shape), PIXELS)
    np.testing.assert_array_equal(rows("BYTES", [[text] for text in texts], shape), PIXELS)


@pytest.mark.parametrize("datatype", ["FP64", "INT8", "INT64", "BOOL", "UINT16"])
def test_other_datatypes_are_refused(datatype: str) -> None:
    with pytest.raises(InvalidTensor, match="FP32, FP16, BF16, UINT8, BYTES"):
        rows(datatype, numbers(PIXELS))


@pytest.mark.parametrize("shape", [(120,), (3, 4, 5), (1, 2, 3, 4, 5), (2, 3, 5, 4), (2, 60), (2, 1, 4, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidTensor, match=r"expected \[N, 3, 4, 5\]"):
        rows("FP32", FLOATS.tobytes(), shape)


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_elements_than_the_shape_says_are_refused(count: int) -> None:
    shape = (count, 3, 4, 5)
    contents: list[Any] = [FLOATS.tobytes(), numbers(FLOATS), numbers(FLOATS.ravel())]
    for content in contents:
        with pytest.raises(InvalidTensor):
            rows("FP32", content, shape)
    contents = [elements(*IMAGES), [base64.b64encode(image).decode() for image in IMAGES]]
    for content in contents:
        with pytest.raises(InvalidTensor, match="element"):
            rows("BYTES", content, (count,))


def test_datatype_and_data_must_agree() -> None:
    for datatype, content in (
        ("FP32", PIXELS.tobytes()),
        ("UINT8", FLOATS.tobytes()),
        ("FP32", ["1"] * 120),
        ("UINT8", numbers(FLOATS)),
        ("UINT8", numbers(PIXELS.astype(np.float32))),
    ):
        with pytest.raises(InvalidTensor):
            rows(datatype, content)
    with pytest.raises(InvalidTensor, match="no strings"):
        rows("BYTES", numbers(PIXELS), (2,))
    text = base64.b64encode(IMAGES[0]).decode()
    with pytest.raises(InvalidTensor, match=r"data\[1\]"):
        rows("BYTES", [text, 3], (2,))
    for nested in ([[text, text], []], [text, [text]], [[text, text]], [[[text]], [[text]]], []):
        with pytest.raises(InvalidTensor):
            rows("BYTES", nested, (2,))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.1e9])
def test_floats_that_no_network_takes_are_refused(value: float) -> None:
    wrong = FLOATS.copy()
    wrong[1, 0, 0, 0] = value
    for datatype, content in (("FP32", wrong.tobytes()), ("BF16", bfloat16(wrong))):
        with pytest.raises(InvalidTensor, match="row 1"):
            rows(datatype, content)


def test_half_floats_that_are_not_finite_are_refused() -> None:
    wrong = np.full(SHAPE, np.inf, np.float16)
    with pytest.raises(InvalidTensor, match="row 0"):
        rows("FP16", wrong.tobytes())


def test_the_one_input_must_have_the_models_name() -> None:
    with pytest.raises(InvalidTensor, match="'image', got input 'picture'"):
        rows("FP32", FLOATS.tobytes(), name="picture")
    two = [Tensor(name, "FP32", SHAPE, Octets([FLOATS.tobytes()])) for name in ("image", "other")]
    for tensors in ([], two):
        with pytest.raises(InvalidTensor, match="one input 'image'"):
            rows_from_tensors(tensors, RGB, 8, 100)


def test_more_rows_than_allowed_are_refused_before_they_are_read() -> None:
    for datatype, shape in (("FP32", (9, 3, 4, 5)), ("UINT8", (2**20, 3, 4, 5)), ("BYTES", (9,))):
        with pytest.raises(InputTooLarge, match="limit of 8 rows"):
            rows(datatype, b"", shape)


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    with pytest.raises(InvalidImage, match="image 1: "):
        rows("BYTES", elements(IMAGES[0], b"no image"), (2,))
    with pytest.raises(InvalidInput, match="base64"):
        rows("BYTES", [base64.b64encode(IMAGES[0]).decode(), "not base64!"], (2,))


def test_long_json_is_left_to_another_thread() -> None:
    wide = Input(shape=[3, 64, 64], mean=[0.5] * 3, std=[0.5] * 3)
    for spec, is_quick in ((RGB, True), (wide, False)):
        array = np.zeros((1, *spec.shape), np.uint8)
        tensor = Tensor("image", "UINT8", array.shape, numbers(array))
        assert rows_from_tensors([tensor], spec, 8, 100).is_quick == is_quick


def test_whoever_gives_up_ends_the_writing_of_long_tensors() -> None:
    wide = Input(shape=[3, 256, 256], mean=[0.5] * 3, std=[0.5] * 3)
    array = np.zeros((4, *wide.shape), np.uint8)
    halves = Octets([np.zeros(array.shape, np.float16).tobytes()])
    for tensor in (
        Tensor("image", "UINT8", array.shape, numbers(array)),
        Tensor("image", "UINT8", array.shape, numbers(array.ravel())),
        Tensor("image", "FP16", array.shape, halves),
        Tensor("image", "BF16", array.shape, halves),
    ):
        looks = 0

        def check() -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                raise JobCancelled("nobody waits")

        found = rows_from_tensors([tensor], wide, 8, 100)
        out = np.full(found.shape, 7, found.dtype)
        with pytest.raises(JobCancelled):
            found.write(out, check)
        assert (out[-1] == 7).all()


def test_encoded_images_are_cut_apart_where_they_are_decoded() -> None:
    """A request is read on the event loop, and its images may be megabytes."""
    binary = Octets([elements(*IMAGES), b"one too many"])
    found = rows_from_tensors([Tensor("image", "BYTES", (2,), binary)], RGB, 8, 10_000)
    assert not found.is_quick
    with pytest.raises(InvalidTensor, match="exactly 2 elements"):
        written(found)
