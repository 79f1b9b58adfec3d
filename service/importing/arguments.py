"""The arguments of `foldserve import`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def add_to(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside its settings."""
    parser.add_argument(
        "architecture",
        nargs="?",
        help="a name of the catalog: resnet50, torchvision:resnet50, timm:resnet50, ...",
    )
    parser.add_argument(
        "--callable", metavar="MODULE:NAME", help="a function or class that makes the network"
    )
    parser.add_argument("--exported", metavar="FILE", type=Path, help="an exported program (.pt2)")
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help="safetensors, or a checkpoint of torch.save"
    )
    parser.add_argument("--entry", help="which of several sets of weights in the checkpoint")
    parser.add_argument("--prefix", help="behind which prefix the checkpoint has the network's names")
    parser.add_argument(
        "--options",
        action="append",
        default=[],
        type=_option,
        metavar="KEY=VALUE",
        help="argument of the architecture",
    )
    parser.add_argument(
        "--export",
        action="store_true",
        help="store the ARCHITECTURE as an exported program, which is served without its library",
    )
    parser.add_argument("--name", required=True, help="the model's name in the store")
    parser.add_argument("--version", type=int, metavar="N", help="its version (default: the next one)")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="a text file, one label a line")
    parser.add_argument("--input", type=_shape, metavar="C,H,W", help="the shape of one row")
    parser.add_argument("--mean", type=_numbers, metavar="M,...", help="of each channel, for pixels in 0..1")
    parser.add_argument("--std", type=_numbers, metavar="S,...", help="of each channel, for pixels in 0..1")
    parser.add_argument(
        "--resize",
        type=_resize,
        metavar="N",
        help="pixels of the shorter side before the crop; none: squeeze",
    )
    parser.add_argument("--interpolation", choices=("nearest", "bilinear", "bicubic"), help="of the resizing")


def _option(text: str) -> tuple[str, int | float | str | bool]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError("an option is KEY=VALUE, such as num_classes=10")
    if value in {"true", "false"}:
        return key, value == "true"
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _shape(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4}){2}", text):
        raise argparse.ArgumentTypeError("three numbers, such as 3,224,224")
    return [int(size) for size in text.split(",")]


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError("one number for each channel, such as 0.485,0.456,0.406") from error


def _resize(text: str) -> int:
    if text != "none" and not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise argparse.ArgumentTypeError("a number of pixels, or none")
    return 0 if text == "none" else int(text)
