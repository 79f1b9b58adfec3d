"""The names: how models, tensors and files of the store are called, and how versions are written."""

from __future__ import annotations

import re

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"


def is_name(text: str) -> bool:
    """Whether a model may be called so."""
    return re.fullmatch(NAME_PATTERN.removesuffix("$"), text) is not None


def is_version(text: str) -> bool:
    """Whether this is how a version is written: there is one way for each."""
    return re.fullmatch(r"[1-9][0-9]{0,17}", text) is not None
