"""The export: a network as torch.export writes it down, with a dynamic batch."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch._subclasses import FakeTensor
from torch.export import Dim, ExportedProgram, export
from torch.fx import graph_module
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from service.errors import ModelRefused
from service.graph.solitude import solitary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


def exported(module: nn.Module, example: Tensor) -> ExportedProgram:
    """What torch.export makes of `module` in evaluation mode, for any number of rows like those of `example`.

    Raises `ModelRefused` where it makes nothing.
    """
    training = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with solitary(), quiet(), torch.no_grad():
            return export(module, (example,), dynamic_shapes=({0: Dim("batch")},), strict=False)
    except Exception as error:  # export raises whatever the network's own code raises
        raise ModelRefused(f"the network cannot be captured with a dynamic batch: {error}") from error
    finally:
        for child, mode in training.items():
            child.training = mode


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The same in torch's core operators, none of which changes a tensor."""
    with solitary(), quiet():
        decomposed: ExportedProgram = program.run_decompositions({})
        return decomposed


def let_go(program: ExportedProgram) -> None:
    """Let the memory of an export be freed with it; nothing may be exported or decomposed from it again.

    Python's collector cannot see the circle in which torch leaves it: the symbols of its sizes keep a cache
    of tensors, whose sizes are kept in C++ and are those symbols.
    """
    for shapes in {id(found): found for found in _shape_environments(program)}.values():
        shapes.fake_tensor_cache = {}
        shapes.tracked_fakes = None
    for method in vars(ShapeEnv).values():
        if hasattr(method, "cache_clear"):  # its arguments are symbols
            method.cache_clear()
    if sources := getattr(graph_module, "_loader", None):  # of all graphs that ever were, for tracebacks
        sources.eval_cache.clear()


def _shape_environments(program: ExportedProgram) -> Iterator[ShapeEnv]:
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor) and value.fake_mode.shape_env:
            yield value.fake_mode.shape_env


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's own warnings and tracebacks, which are about nothing that a user could change."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
