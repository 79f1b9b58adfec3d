"""Pictures become the pixels of serving, a few at a time; what cannot be read is named and left out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from service.evaluation.batches import Batches
from service.evaluation.pictures import Picture
from service.store.manifest import Input

from .folders import png

if TYPE_CHECKING:
    from pathlib import Path

GRAY = Input(shape=[1, 8, 8], colour="grayscale", mean=[0.0], std=[1.0])
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8)


def batches(spec: Input = GRAY, rows: int = 3, max_bytes: int = 10_000, max_pixels: int = 10_000) -> Batches:
    return Batches(spec, rows, max_bytes, max_pixels)


def pictures(*paths: Path) -> list[Picture]:
    return [Picture(path, f"c/{path.name}", 0) for path in paths]


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    (batch,) = batches().of(pictures(png(tmp_path / "a", RAMP), png(tmp_path / "b")))
    assert (str(batch.pixels.dtype), batch.pixels.shape) == ("uint8", (2, 1, 8, 8))
    assert np.array_equal(batch.pixels[0, 0], RAMP)
    assert not batch.pixels[1].any()


def test_they_are_resized_and_cropped_as_pillow_does(tmp_path: Path) -> None:
    image = Image.effect_noise((37, 23), 80)
    image.save(tmp_path / "a.png")
    spec = GRAY.model_copy(update={"resize": 10})
    (batch,) = batches(spec).of(pictures(tmp_path / "a.png"))
    resized = image.resize((16, 10), Image.Resampling.BILINEAR).crop((4, 1, 12, 9))
    assert np.array_equal(batch.pixels[0, 0], np.asarray(resized))


def test_no_batch_has_more_rows_than_asked_for(tmp_path: Path) -> None:
    paths = [png(tmp_path / str(n), RAMP + n) for n in range(7)]
    found = list(batches().of(pictures(*paths)))
    assert [len(batch.pictures) for batch in found] == [3, 3, 1]
    assert [int(batch.pixels[0, 0, 0, 0]) for batch in found] == [0, 3, 6]


def test_what_cannot_be_read_is_named_and_the_others_close_up(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    (tmp_path / "cut").write_bytes(png(tmp_path / "whole", RAMP).read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe")
    names = ["text", "whole", "cut", "gone", "pipe", "last"]
    png(tmp_path / "last", RAMP[::-1].copy())
    reading = batches(rows=2)
    found = list(reading.of(pictures(*(tmp_path / name for name in names))))
    assert [[picture.path.name for picture in batch.pictures] for batch in found] == [["whole"], ["last"]]
    assert np.array_equal(found[1].pixels[0, 0], RAMP[::-1])
    assert [unreadable.image for unreadable in reading.unreadable] == ["c/text", "c/cut", "c/gone", "c/pipe"]
    reasons = {unreadable.image: unreadable.reason for unreadable in reading.unreadable}
    assert reasons["c/gone"] == reasons["c/pipe"] == "it is not a regular file"
    assert "cannot be decoded" in reasons["c/cut"] or "truncated" in reasons["c/cut"]


def test_the_limits_of_a_request_hold(tmp_path: Path) -> None:
    reading = batches(max_bytes=50, max_pixels=63)
    Image.new("L", (8, 8)).save(tmp_path / "large.png")
    assert list(reading.of(pictures(tmp_path / "large.png"))) == []
    assert reading.unreadable[0].reason == "it is larger than 50 bytes, the limit of a request"
    reading = batches(max_pixels=63)
    assert list(reading.of(pictures(tmp_path / "large.png"))) == []
    assert "over the limit of 63 pixels" in reading.unreadable[0].reason
