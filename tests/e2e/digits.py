"""The held-out digits in every form in which a client may send them."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from service.network import catalog
from service.store import weights
from service.store.model_store import ModelStore
from service.training.split import digits_split

from .server import NPY, STORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .server import Service

BOUNDARY = "a-boundary-that-no-image-holds"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"
OCTETS = "application/octet-stream"
SLOW_IMAGES, SLOW_SIDE = 40, 8000
SLOW_SETTINGS = {"max_pixels": SLOW_IMAGES * SLOW_SIDE**2}
"""Of a service that takes `slow_form`."""


class Digits:
    """Pixels uint8 `[719, 1, 8, 8]`, their labels, and what the unfolded network says of them."""

    def __init__(self) -> None:
        split = digits_split()
        stored = ModelStore(STORE).open("digits", 1)
        self.pixels: np.ndarray = split.held_out_pixels.numpy()
        self.labels: np.ndarray = split.held_out_labels.numpy()
        row = stored.manifest.input
        exact = (self.pixels / 255 - row.mean[0]) / row.std[0]
        self.inputs = exact.astype(np.float32)  # what the network receives
        self.tensors = weights.read(stored)
        network = catalog.build(stored.manifest.architecture or "", stored.manifest.options)
        weights.assign(network, self.tensors)
        with torch.inference_mode():
            self.logits: np.ndarray = network.double().eval()(torch.from_numpy(exact)).numpy()


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """One row `[1, H, W]` as an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels[0]).save(file, kind, quality=95)
    return file.getvalue()


def decoded(content: bytes) -> np.ndarray:
    """The row `[1, H, W]` that an image file holds."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)[np.newaxis]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_json(inputs: object) -> bytes:
    return json.dumps({"inputs": inputs}).encode()


def b64_json(images: Sequence[bytes]) -> bytes:
    return as_json([{"b64": base64.b64encode(image).decode()} for image in images])


def multipart(images: Sequence[bytes]) -> bytes:
    """A form with one file per image, as browsers write it."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{number}"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + image
        + b"\r\n"
        for number, image in enumerate(images)
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def slow_form() -> bytes:
    """Two megabytes that keep a decoder's thread busy for ten seconds, and a far quicker one for several."""
    return multipart([encoded(np.zeros((1, SLOW_SIDE, SLOW_SIDE), np.uint8))] * SLOW_IMAGES)


def assert_serves(service: Service, digits: Digits) -> None:
    """It answers good rows rightly."""
    found = service.array(npy(digits.pixels[:3]), NPY)
    assert found[:, 0].tolist() == digits.logits[:3].argmax(axis=1).tolist()
