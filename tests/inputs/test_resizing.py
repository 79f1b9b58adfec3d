"""Only what the crop keeps is computed, and it is exactly what the whole would have held there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.inputs.resizing import Span, resized, resized_size
from service.store.manifest import Input

SIZES = st.integers(1, 700)


def spec(height: int, width: int, resize: int | None, interpolation: Any = "bilinear") -> Input:
    return Input(
        shape=[3, height, width], mean=[0.5] * 3, std=[0.5] * 3, resize=resize, interpolation=interpolation
    )


def noise(width: int, height: int) -> Image.Image:
    """Every pixel of its own, so that the smallest shift shows."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))


def through_the_whole(image: Image.Image, wanted: Input) -> Image.Image:
    size = resized_size(*image.size, wanted)
    whole = image.resize(size, Image.Resampling[wanted.interpolation.upper()])
    _, height, width = wanted.shape
    left, top = round((size[0] - width) / 2.0), round((size[1] - height) / 2.0)
    return whole.crop((left, top, left + width, top + height))


@settings(max_examples=250, deadline=None)
@given(
    width=SIZES,
    height=SIZES,
    crop=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    more=st.integers(0, 40),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
)
def test_any_size_gives_exactly_what_the_whole_gives(
    width: int, height: int, crop: tuple[int, int], more: int, interpolation: str
) -> None:
    long, short = max(width, height), min(width, height)
    image, wanted = noise(min(long, 30 * short), short), spec(*crop, max(crop) + more, interpolation)
    image = image if width > height else image.transpose(Image.Transpose.TRANSPOSE)
    np.testing.assert_array_equal(
        np.asarray(resized(image, wanted)), np.asarray(through_the_whole(image, wanted))
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "size",
    [
        (224, 224),
        (256, 256),
        (500, 375),
        (375, 500),
        (640, 427),
        (640, 480),
        (1280, 720),
        (1920, 1080),
        (999, 997),
    ],
)
def test_usual_photographs_are_exactly_what_the_whole_gives(
    size: tuple[int, int], interpolation: str
) -> None:
    image, wanted = noise(*size), spec(224, 224, 256, interpolation)
    np.testing.assert_array_equal(
        np.asarray(resized(image, wanted)), np.asarray(through_the_whole(image, wanted))
    )


def test_nearest_steps_from_the_edge_of_the_whole() -> None:
    image, wanted = (
        noise(90, 90),
        spec(21, 21, 35, "nearest"),
    )  # some centres fall on the border of two pixels
    np.testing.assert_array_equal(
        np.asarray(resized(image, wanted)), np.asarray(through_the_whole(image, wanted))
    )


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes that Pillow is asked for."""
    asked: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def noted(self: Image.Image, size: tuple[int, int], *more: Any) -> Image.Image:
        asked.append(size)
        return resize(self, size, *more)

    monkeypatch.setattr(Image.Image, "resize", noted)
    return asked


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((224, 224), [(224, 224), (224, 224)]),  # of 256 pixels every one begins at a multiple of 7/8
        ((1920, 1080), [(273, 1080), (273, 224)]),  # of 455 every 91st at a multiple of 384
        ((500, 375), [(341, 375), (341, 224)]),  # of 341 none
        ((448, 897), [(256, 512)]),  # tall: Pillow might begin with the other axis
    ],
)
def test_what_the_crop_leaves_out_is_not_computed(
    size: tuple[int, int], expected: list[tuple[int, int]], computed: list[tuple[int, int]]
) -> None:
    resized(noise(*size), spec(224, 224, 256))
    assert computed == expected


def test_an_image_of_the_right_size_is_handed_on_as_it_is(computed: list[tuple[int, int]]) -> None:
    image = noise(40, 30)
    assert resized(image, spec(30, 40, None)) is image
    cropped = resized(image, spec(20, 20, 30))
    np.testing.assert_array_equal(np.asarray(cropped), np.asarray(image)[5:25, 10:30])
    assert computed == []


def test_ends_that_a_float_cannot_tell_are_not_used() -> None:
    assert Span.of(65_535, 32_768).around(32_001, 100).is_whole  # 31 binary digits, of which a float has 24
    assert Span.of(65_536, 32_768).around(32_001, 100) == Span(65_536, 32_768, 32_001, 100)
