"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

IMAGE_SETTINGS = ("model_store", "device", "threads", "max_pixels", "max_body_mb")
"""Of every command that shows images of the user's own to a model of the store."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model."""
    parser.add_argument("model", help="a model of the store, NAME or NAME/VERSION")


def add_images(parser: argparse.ArgumentParser, described: str) -> None:
    """Which model, the user's images for it, and how to print what is found."""
    add_model(parser)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=described)
    add_json(parser)


def add_json(parser: argparse._ActionsContainer) -> None:
    """Print for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON")
