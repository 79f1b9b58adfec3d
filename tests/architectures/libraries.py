"""torchvision and timm as the tests import them.

The torchvision of a package index is built for the CUDA build of torch. Beside one for the CPU its
compiled operators cannot be loaded, and over their absence it ends its own import. It is then imported
with the schemas of these operators only: no network that the tests build computes with them.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from types import ModuleType

_SCHEMAS = """
nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor
qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor
roi_align(Tensor x, Tensor rois, float scale, SymInt h, SymInt w, int ratio, bool aligned) -> Tensor
roi_pool(Tensor x, Tensor rois, float scale, SymInt h, SymInt w) -> (Tensor, Tensor)
deform_conv2d(Tensor x) -> Tensor
"""
_kept_alive: list[torch.library.Library] = []  # schemas last as long as the library that defined them


@cache
def torchvision_models() -> ModuleType:
    """`torchvision.models`; after the first call timm and the catalog can import torchvision too."""
    try:
        return import_module("torchvision.models")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    define_missing()
    return import_module("torchvision.models")


def define_missing() -> None:
    """Define the schemas of torchvision's compiled operators."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for schema in _SCHEMAS.strip().splitlines():
        library.define(schema)  # type: ignore[no-untyped-call]  # as above
    _kept_alive.append(library)


def environment() -> dict[str, str]:
    """What a process needs in its environment to import torchvision as this one does."""
    torchvision_models()
    if import_module("torchvision.extension")._has_ops():
        return {}
    folder = str(Path(__file__).parent / "site")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))}
