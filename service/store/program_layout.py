"""Which entries an exported program's archive has, and which it must not have; no torch."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from service.errors import InvalidProgram
from service.store.expressions import without_repeats

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "models/model.json"
CONFIGURATIONS = {
    "data/weights/": "data/weights/model_weights_config.json",
    "data/constants/": "data/constants/model_constants_config.json",
}
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
FIXED = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
_UNREAD = {".data/version", ".data/serialization_id", SAMPLE_INPUTS}
_PAYLOAD = re.compile(r"data/(weights/weight|constants/tensor)_[0-9]{1,9}")
_REFUSED = {  # what an entry begins with, and why it is not read
    "data/constants/custom_obj_": "holds a pickled object",
    "data/constants/opaque_obj_": "holds a pickled object",
    "data/weights/model.pt": "holds weights in the old, pickled layout",
    "data/constants/model.pt": "holds constants in the old, pickled layout",
    "data/aotinductor/": "holds compiled code",
    "data/executorch/": "holds a program of another kind",
    "extra/": "is an extra file; save the program without extra_files",
    "models/": "is a second model; save one program a file",
}
_LARGEST_JSON = 1 << 25  # in Python it takes 25 times as much


def named(entries: Mapping[str, memoryview]) -> dict[str, memoryview]:
    """The entries by their names below the archive's one folder, all of them known and as they must be."""
    if any(name.startswith("serialized_") for name in entries):
        raise InvalidProgram("it is of the old, pickled layout: export it again with torch 2.11 or later")
    roots = {name.partition("/")[0] for name in entries}
    if len(roots) != 1:
        raise InvalidProgram("the archive has more than one folder")
    found = {name.partition("/")[2]: content for name, content in entries.items()}
    known = {*FIXED, *_UNREAD, *CONFIGURATIONS.values(), MODEL}
    for name in found:
        if name not in known and not _PAYLOAD.fullmatch(name):
            why = next((why for start, why in _REFUSED.items() if name.startswith(start)), "is unknown")
            raise InvalidProgram(f"entry {name[:80]!r} {why}")
    for name, expected in FIXED.items():
        if bytes(found.get(name, expected)) != expected:
            raise InvalidProgram(f"{name} is not {expected.decode()!r}")
    return found


def document_of(entries: Mapping[str, memoryview], name: str) -> dict[str, Any]:
    """The JSON object in an entry; raises `InvalidProgram` where it is missing, large, or no such thing."""
    content = entries.get(name)
    if content is None:
        raise InvalidProgram(f"entry {name!r} is missing")
    if len(content) > _LARGEST_JSON:
        raise InvalidProgram(f"entry {name!r} is larger than {_LARGEST_JSON} bytes")
    try:
        document = json.loads(
            bytes(content),
            object_pairs_hook=without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidProgram(f"entry {name!r} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidProgram(f"entry {name!r} is not a JSON object")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is beyond what a number can be")
    return number


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
