"""Payloads: bodies of requests to predict, one row each, written to files for the loads to send."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAYLOADS = ("tensor", "uint8", "jpeg-224", "jpeg-500", "json")

_OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Payload:
    """One body with what is said about it."""

    name: str
    media_type: str
    dtype: Literal["uint8", "float32"]
    """Of the row that the network gets."""
    file: Path
    varies: bool = False
    """Whether no two requests send the same row: the first four bytes count."""

    @property
    def query(self) -> str:
        """Behind the address; images need none."""
        return "" if self.media_type == "image/jpeg" else f"?dtype={self.dtype}"


def write(name: str, shape: list[int], folder: Path) -> Payload:
    """The payload `name` for rows `[C, H, W]`, its body in a file of `folder`."""
    pixels = photograph(shape)
    normal = ((pixels.transpose(2, 0, 1) / 255 - 0.5) / 0.25).astype("<f4")
    bodies: dict[str, tuple[str, Literal["uint8", "float32"], Callable[[], bytes]]] = {
        "tensor": (_OCTETS, "float32", normal.tobytes),
        "uint8": (_OCTETS, "uint8", lambda: pixels.transpose(2, 0, 1).tobytes()),
        "jpeg-224": ("image/jpeg", "uint8", lambda: _jpeg(photograph([shape[0], 224, 224]))),
        "jpeg-500": ("image/jpeg", "uint8", lambda: _jpeg(photograph([shape[0], 375, 500]))),
        "json": ("application/json", "float32", lambda: _json(normal)),
    }
    media_type, dtype, body = bodies[name]
    file = folder / f"{name}-{'x'.join(map(str, shape))}"
    file.write_bytes(body())
    return Payload(name, media_type, dtype, file)


def photograph(shape: list[int]) -> np.ndarray:
    """Pixels `[H, W, C]` that compress about as a photograph does: soft shapes with some grain."""
    channels, height, width = shape
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (7, 7, channels), dtype=np.uint8)
    planes = [
        np.asarray(Image.fromarray(coarse[:, :, c]).resize((width, height), Image.Resampling.BICUBIC))
        for c in range(channels)
    ]
    grain = generator.normal(0, 8, (height, width, channels))
    return np.clip(np.stack(planes, axis=2) + grain, 0, 255).astype(np.uint8)


def _jpeg(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(content, "JPEG", quality=90)
    return content.getvalue()


def _json(row: np.ndarray) -> bytes:
    return json.dumps({"inputs": [row.round(4).astype(float).tolist()]}).encode()
