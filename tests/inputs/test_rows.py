"""Rows say how much they are before anybody takes memory, and are written into just that memory."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from service.errors import InputTooLarge, InvalidImage
from service.inputs import images
from service.inputs.arrays import rows_from_array
from service.inputs.documents import rows_from_json
from service.inputs.images import rows_from_image, rows_from_images
from service.inputs.tensors import rows_from_npy, rows_from_octets
from service.store.manifest import Input

from .memory import written

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.inputs.rows import Rows

SPEC = Input(shape=[3, 4, 5], mean=[0.5] * 3, std=[0.5] * 3)
PIXELS = np.arange(120, dtype=np.uint8).reshape(2, 3, 4, 5)
FLOATS = PIXELS.astype(np.float32)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def png(row: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(row.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


PNGS = [png(row) for row in PIXELS]
FORMS: dict[str, Callable[[int], Rows]] = {
    "octets of pixels": lambda most: rows_from_octets([PIXELS.tobytes()], "uint8", SPEC, most),
    "octets of inputs": lambda most: rows_from_octets([FLOATS.tobytes()], "float32", SPEC, most),
    "npy of pixels": lambda most: rows_from_npy([npy(PIXELS)], SPEC, most),
    "npy of inputs": lambda most: rows_from_npy([npy(FLOATS)], SPEC, most),
    "JSON of pixels": lambda most: rows_from_json(document(PIXELS), "uint8", SPEC, most, 99),
    "JSON of inputs": lambda most: rows_from_json(document(FLOATS), "float32", SPEC, most, 99),
    "JSON of images": lambda most: rows_from_json(images_document(PNGS), "float32", SPEC, most, 99),
    "images": lambda most: rows_from_images(PNGS, SPEC, most, 99),
}


def images_document(contents: list[bytes]) -> bytes:
    return json.dumps({"inputs": [{"b64": b64encode(content).decode()} for content in contents]}).encode()


def document(rows: np.ndarray) -> bytes:
    return json.dumps({"inputs": rows.tolist()}).encode()


@pytest.mark.parametrize("form", FORMS)
def test_rows_say_what_they_are_and_become_that(form: str) -> None:
    rows = FORMS[form](2)
    assert (rows.count, rows.shape) == (2, (2, 3, 4, 5))
    assert rows.dtype == ("float32" if "inputs" in form else "uint8")
    np.testing.assert_array_equal(written(rows), PIXELS)


@pytest.mark.parametrize("form", FORMS)
def test_too_many_rows_are_refused_before_anything_is_written(form: str) -> None:
    with pytest.raises(InputTooLarge, match=r"^2 rows were sent, over the limit of 1 rows$"):
        FORMS[form](1)


def strided(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.zeros((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "other",
    [
        lambda shape, dtype: np.zeros((1, *shape[1:]), dtype),
        lambda shape, dtype: np.zeros((3, *shape[1:]), dtype),
        lambda shape, dtype: np.zeros((2, 3, 5, 4), dtype),
        lambda shape, dtype: np.zeros(120, dtype),
        lambda shape, dtype: np.zeros(shape, {"uint8": "i1", "float32": "i4"}[dtype]),
        lambda shape, dtype: np.zeros(
            shape, np.dtype(dtype).newbyteorder(">") if dtype != "uint8" else ">u2"
        ),
        lambda shape, dtype: np.zeros(shape, dtype, "F"),
        strided,
    ],
    ids=["fewer", "more", "shape", "flat", "dtype", "big-endian", "Fortran order", "strided"],
)
def test_other_memory_is_a_bug_and_not_a_wrong_input(form: str, other: Any) -> None:
    rows = FORMS[form](2)
    out = other(rows.shape, rows.dtype)
    with pytest.raises(ValueError, match=r"^(uint8|float32) rows \(2, 3, 4, 5\) do not fit into"):
        rows.write(out)
    assert not out.any()


def test_rows_can_be_written_again_where_there_was_something_else() -> None:
    for rows in (make(2) for make in FORMS.values()):
        np.testing.assert_array_equal(written(rows), written(rows))


def test_one_image_is_one_row_and_its_error_names_no_number() -> None:
    np.testing.assert_array_equal(written(rows_from_image(PNGS[1], SPEC, 99)), PIXELS[1:])
    with pytest.raises(InvalidImage, match=r"^the image is empty$"):
        written(rows_from_image(b"", SPEC, 99))


def test_an_image_among_others_is_named() -> None:
    with pytest.raises(InvalidImage, match=r"^image 1: the PNG is truncated"):
        written(rows_from_images([PNGS[0], PNGS[1][:-20]], SPEC, 2, 99))
    with pytest.raises(InputTooLarge, match=r"^image 0: the image is 5x4 pixels, over the limit of 19"):
        written(rows_from_images(PNGS, SPEC, 2, 19))


class Unwanted(Exception):
    """What whoever waits says once nobody does."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("looks", [0, 1])
def test_nothing_more_is_written_once_nobody_wants_it(form: str, looks: int) -> None:
    rows, left = FORMS[form](2), looks

    def check() -> None:
        nonlocal left
        if not left:
            raise Unwanted
        left -= 1

    out = np.zeros(rows.shape, rows.dtype)
    if looks and not form.startswith(("JSON", "image")):
        rows.write(out, check)  # takes no time: nobody looks again
        return
    with pytest.raises(Unwanted):
        rows.write(out, check)
    assert [bool(row.any()) for row in out] == [looks > 0, False]


def test_images_have_a_limit_of_pixels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which one image of the largest size always is within."""
    rows = [
        rows_from_images(PNGS, SPEC, 2, 20),
        rows_from_json(images_document(PNGS), "uint8", SPEC, 2, 20),
    ]
    monkeypatch.setattr(images, "MOST_PIXELS", 40)
    for form in rows:
        written(form)
    monkeypatch.setattr(images, "MOST_PIXELS", 1)
    written(rows_from_image(PNGS[0], SPEC, 20))
    for form in rows:
        with pytest.raises(InputTooLarge, match=r"1.*: the images have more than 20 pixels together$"):
            written(form)


# What is quick


def test_images_are_never_quick() -> None:
    assert not rows_from_images(PNGS, SPEC, 2, 99).is_quick
    assert not rows_from_image(PNGS[0], SPEC, 99).is_quick


def test_tensors_are_quick_up_to_640_kib_and_less_in_fortran_order() -> None:
    spec = Input(shape=[3, 64, 64], mean=[0.5] * 3, std=[0.5] * 3)
    small, large = np.zeros((53, 3, 64, 64), np.uint8), np.zeros((54, 3, 64, 64), np.uint8)
    for rows, is_quick in ((small, True), (large, False)):
        assert rows_from_octets([rows.tobytes()], "uint8", spec, 99).is_quick is is_quick
        assert rows_from_npy([npy(rows)], spec, 99).is_quick is is_quick
    assert not rows_from_npy([npy(np.asfortranarray(small))], spec, 99).is_quick
    assert rows_from_npy([npy(np.asfortranarray(small[:2]))], spec, 99).is_quick


def test_images_can_be_had_as_they_were_sent_and_numbers_cannot() -> None:
    sent = [png(row) for row in PIXELS]
    document = json.dumps({"inputs": [{"b64": b64encode(image).decode()} for image in sent]}).encode()
    assert rows_from_image(sent[0], SPEC, 1000).encoded() == sent[:1]
    assert rows_from_images(sent, SPEC, 9, 1000).encoded() == sent
    assert rows_from_json(document, "uint8", SPEC, 9, 1000).encoded() == sent
    assert rows_from_npy([npy(PIXELS)], SPEC, 9).encoded() is None
    assert rows_from_octets([PIXELS.tobytes()], "uint8", SPEC, 9).encoded() is None


@pytest.mark.parametrize("array", [PIXELS, FLOATS], ids=["pixels", "network inputs"])
def test_rows_of_an_array_are_those(array: np.ndarray) -> None:
    rows = rows_from_array(array)
    assert (rows.shape, rows.dtype, rows.count) == (array.shape, array.dtype.name, 2)
    np.testing.assert_array_equal(written(rows), array)
    assert rows.encoded() is None
