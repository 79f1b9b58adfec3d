"""A file of `torch.save`, read without running anything that is in it.

`torch.load(weights_only=True)` makes tensors and plain containers, and stops at any other class. Checkpoints
of training runs are full of these: arguments, metrics, settings. Each is read as an inert stand-in that only
knows what it stands for, so that the tensors beside it can be had; no class or function that the file names
is ever looked up.
"""

from __future__ import annotations

import pickle
import struct
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from service.errors import InvalidWeights
from service.importing.formats import SAVE_STATE_DICT

if TYPE_CHECKING:
    from pathlib import Path


# What torch.load raises for files that are cut off or changed.
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError),
    *(AssertionError, struct.error, SafetensorError),  # the last where only the file's name says safetensors
)


def read(path: Path) -> object:
    """What the file holds: tensors on the CPU, plain containers, and stand-ins for everything else.

    Raises `InvalidWeights` where it is damaged, a whole model, or cannot be read without running code of it.
    """
    try:
        with torch.serialization.safe_globals(_stand_ins(path)), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of pickles that torch.save did not write; they fail or they do not
            document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidWeights(
            f"{path.name} cannot be read without running code that is in it. Where you trust it, load it "
            f"yourself and save the weights alone: {SAVE_STATE_DICT} ({_first_line(error)})"
        ) from error
    except _DAMAGE as error:
        raise InvalidWeights(f"{path.name} is damaged: {_first_line(error)}") from error
    return document


def stands_for(value: object) -> str | None:
    """The name of the class that a stand-in was read for; None for what is no stand-in."""
    name = getattr(value, "_stands_for", None)
    return name if isinstance(name, str) else None


def is_module(value: object) -> bool:
    """Whether the value was a module: a stand-in with modules of its own."""
    return stands_for(value) is not None and "_modules" in getattr(value, "__dict__", {})


class _Inert:
    """Stands for an object whose state is no mapping, as numpy's."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def _stand_ins(path: Path) -> list[Any]:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (ValueError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError):
        return []  # of before torch 1.6, or damaged: then torch.load says so
    return [(_stand_in(name), name) for name in names]


def _stand_in(name: str) -> type:
    if name.startswith("numpy."):
        return type("Inert", (_Inert,), {"_stands_for": name})

    def new(*_: Any) -> OrderedDict[Any, Any]:
        # The one class that torch's unpickler both gives attributes and fills.
        made: OrderedDict[Any, Any] = OrderedDict()
        vars(made)["_stands_for"] = name
        return made

    return type("StandIn", (), {"__new__": new})


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
