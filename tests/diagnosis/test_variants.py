"""The variants: which there are, what they make of images, and what they tell the user to write."""

from __future__ import annotations

import io
import tomllib

import numpy as np
import pytest
from PIL import Image

from service.diagnosis.images import normalised, variant_rows
from service.diagnosis.variants import changed, variants
from service.store.manifest import Input

PHOTO = Input(shape=[3, 8, 8], resize=9, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
GREY = Input(shape=[1, 8, 8], colour="grayscale", mean=[0.3], std=[0.4])


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(height: int, width: int, count: int = 2) -> list[bytes]:
    random = np.random.default_rng(0)
    return [png(random.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(count)]


def rows(spec: Input, contents: list[bytes]) -> dict[str, np.ndarray]:
    return {variant.name: made for variant, made in variant_rows(spec, contents, 10**6)}


def test_the_configured_preprocessing_comes_first_and_is_what_the_manifest_says() -> None:
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    variant, made = next(variant_rows(changed(PHOTO, resize=None), [png(image)], 10**6))
    assert (variant.name, variant.fault) == ("as configured", None)
    expected = (image.transpose(2, 0, 1) / 255 - np.reshape(PHOTO.mean, (3, 1, 1))) / np.reshape(
        PHOTO.std, (3, 1, 1)
    )
    np.testing.assert_allclose(made[0], expected, rtol=1e-5, atol=1e-6)


def test_bgr_gives_the_network_the_channels_in_reverse() -> None:
    spec = changed(PHOTO, mean=[0.0] * 3, std=[1.0] * 3)
    made = rows(spec, noise(9, 9))
    np.testing.assert_array_equal(made["bgr"], made["as configured"][:, ::-1])


def test_scales_are_what_their_names_say() -> None:
    contents = noise(12, 12)
    made = rows(PHOTO, contents)
    whole = made["pixels from 0 to 255"]
    np.testing.assert_allclose(whole, whole.round(), atol=1e-4)
    assert whole.max() > 200
    np.testing.assert_allclose(made["pixels from 0 to 1"] * 255, whole, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(made["pixels from -1 to 1"] * 127.5 + 127.5, whole, rtol=1e-4, atol=1e-3)
    own = made["the images' own mean and std"]
    np.testing.assert_allclose(own.mean((0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(own.std((0, 2, 3)), 1, atol=1e-3)


def test_normalising_once_undoes_normalising_twice() -> None:
    contents = noise(12, 12)
    m, s = np.array(PHOTO.mean), np.array(PHOTO.std)
    twice = changed(PHOTO, mean=(m + s * m).tolist(), std=(s * s).tolist())
    right = rows(PHOTO, contents)["as configured"]
    np.testing.assert_allclose(rows(twice, contents)["normalised once"], right, rtol=1e-4, atol=1e-5)


def test_a_negative_is_a_variant_of_a_single_channel_only() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (8, 8), np.uint8)
    negative = rows(GREY, [png(255 - image)])["as configured"]
    np.testing.assert_allclose(rows(GREY, [png(image)])["inverted"], negative, rtol=1e-4, atol=1e-5)
    assert "inverted" not in rows(PHOTO, noise(8, 8))


def test_sizes_are_variants_only_where_they_change_an_image_that_is_resized() -> None:
    sizes = {"squeezed", "resized to 8", "nearest", "bicubic"}
    assert sizes <= rows(PHOTO, noise(20, 30)).keys()
    # What has the network's size already is not made larger to be cropped.
    assert rows(PHOTO, noise(8, 8)).keys() & sizes == {"squeezed"}
    assert not rows(GREY, noise(8, 8)).keys() & {"resized to 8", "resized to 9", "nearest", "bicubic"}


def test_what_differs_by_nothing_is_one_variant() -> None:
    bare = changed(PHOTO, mean=[0.0] * 3, std=[1.0] * 3)
    names = [one.name for one in variants(bare, np.zeros((1, 3, 8, 8), np.uint8))]
    assert "pixels from 0 to 1" not in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("spec", [PHOTO, GREY, changed(PHOTO, colour="bgr")], ids=["rgb", "gray", "bgr"])
def test_the_lines_of_a_fix_make_the_manifest_the_variant(spec: Input) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *spec.shape), np.uint8)
    for variant in variants(spec, pixels)[1:]:
        lines = variant.fix(spec)
        assert lines
        told = tomllib.loads("\n".join(lines))
        if variant.spec.resize is None and spec.resize is not None:
            assert any("take the line out" in line for line in lines)
            told["resize"] = None
        fixed = changed(spec, **told)
        np.testing.assert_allclose(
            normalised(pixels, fixed), normalised(pixels, variant.spec), rtol=1e-4, atol=1e-4
        )
        assert (fixed.colour, fixed.resize, fixed.interpolation) == (
            variant.spec.colour,
            variant.spec.resize,
            variant.spec.interpolation,
        )


class GivenUpError(Exception):
    """Nobody waits any more."""


def test_it_is_asked_before_each_image_whether_anybody_waits() -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(len(asked))
        if len(asked) > 4:
            raise GivenUpError

    made = variant_rows(PHOTO, noise(20, 20, 3), 10**6, check)
    next(made)
    assert len(asked) == 3
    with pytest.raises(GivenUpError):
        list(made)
    assert len(asked) == 5, "in the middle of the next variant"
