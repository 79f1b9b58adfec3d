"""Encoded images to rows: decode, turn upright, convert, resize, crop.

Every step gives what the usual evaluation transforms give, because that is what the weights were
trained on: `PIL.Image.convert` for colours, and torchvision's `Resize` (antialiased) and
`CenterCrop` on PIL images for sizes.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from service.errors import InputTooLarge, InvalidImage
from service.inputs._containers import Container, read_container
from service.inputs.resizing import resized, resized_size

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.store.manifest import Input

# The plugins themselves: `Image.open` would also look at the process-wide `MAX_IMAGE_PIXELS`,
# warn about it, and open some JPEGs as multi-picture files.
_PLUGINS = {"JPEG": JpegImageFile, "PNG": PngImageFile}
_DAMAGE = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, zlib.error)

_MODES: dict[str, Literal["RGB", "L"]] = {"rgb": "RGB", "bgr": "RGB", "grayscale": "L"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(content: bytes, spec: Input, max_pixels: int, out: npt.NDArray[Any]) -> int:
    """Write one row of pixels 0..255 to `out`, uint8 `[C, H, W]` as `spec.shape` says.

    The answer is how many pixels the image had.

    `content` is a JPEG or a PNG; which one, its first bytes say. The rules:

    - The EXIF orientation of a JPEG's APP1 segment or a PNG's eXIf chunk is honoured.
    - Alpha is dropped, not composited: transparent pixels keep the colour stored under them.
    - Grayscale is ITU-R 601-2 luma. Colour profiles and gamma are ignored.
    - A JPEG of four components is Adobe's inverted CMYK, whether or not it says so.
    - Of 16-bit samples the high byte counts, in grayscale as in colour.
    - An animated PNG is its default image.

    A JPEG is always decoded at full size. Decoding at a fraction of it (libjpeg's scaled inverse
    transform, Pillow's `draft`) is quicker, but on two photographs it moved pixels of the resized
    image by up to 22 to 83 levels, by 1 to 4 on average.

    Raises `InvalidImage` for an empty, truncated or corrupt image or another format, and
    `InputTooLarge`, before any pixel is decoded, for more than `max_pixels` pixels. Two kinds of damage
    are not seen: compressed JPEG data that still decode to something, and a complete PNG stream
    that holds too few lines (the rest are black).
    """
    container = read_container(content)
    _check_size(container, spec, max_pixels)
    image = _coloured(_decoded(container), _MODES[spec.colour])
    if container.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[container.orientation])
    _write_planes(resized(image, spec), out[::-1] if spec.colour == "bgr" else out)
    return container.width * container.height


def _check_size(container: Container, spec: Input, max_pixels: int) -> None:
    width, height = container.width, container.height
    if not width or not height:
        raise InvalidImage(f"the image has no pixels: its size is {width}x{height}")
    if width * height > max_pixels:
        raise InputTooLarge(f"the image is {width}x{height} pixels, over the limit of {max_pixels} pixels")
    if spec.resize is None:
        return
    # Enlarging a hair 1 pixel wide to the model's size multiplies its length as well; 16:1 always passes.
    resized_width, resized_height = resized_size(width, height, spec)
    if resized_width * resized_height > max(max_pixels, 16 * spec.resize**2):
        raise InputTooLarge(
            f"the image is {width}x{height} pixels, too narrow to resize its shorter side to {spec.resize}"
        )


def _decoded(container: Container) -> Image.Image:
    try:
        image = _PLUGINS[container.kind](io.BytesIO(container.stream))
        image.load()
    except _DAMAGE as error:
        raise InvalidImage(
            f"the {container.kind} cannot be decoded: its data is corrupt or of an unsupported kind"
        ) from error
    return image


def _coloured(image: Image.Image, mode: Literal["RGB", "L"]) -> Image.Image:
    if image.mode == "I;16":  # `convert` would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "CMYK":  # has no direct way to grayscale
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)  # which would copy


def _write_planes(image: Image.Image, out: npt.NDArray[Any]) -> None:
    for plane, band in zip(out, image.getbands(), strict=True):
        # Taken out by Pillow: three times as quick as transposing `[H, W, C]` in NumPy.
        plane[...] = np.frombuffer(image.tobytes("raw", band), np.uint8).reshape(plane.shape)
