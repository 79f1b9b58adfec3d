"""The command `foldserve import`: one of three sources, proven, then published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import InvalidConfiguration

if TYPE_CHECKING:
    from service.importing.source import Source


def source(arguments: dict[str, Any]) -> Source:
    """What the command line names: an architecture with weights, a callable, or an exported program."""
    kinds = [kind for kind in _SOURCES if arguments[kind] is not None]
    if len(kinds) != 1:
        raise InvalidConfiguration("say one of ARCHITECTURE, --callable and --exported")
    return _SOURCES[kinds[0]](arguments)


def _from_architecture(arguments: dict[str, Any]) -> Source:
    raise NotImplementedError


def _from_callable(arguments: dict[str, Any]) -> Source:
    from service.importing.program import from_callable

    return from_callable(arguments["callable"], _declared_input(arguments), _labels(arguments))


def _from_exported(arguments: dict[str, Any]) -> Source:
    from service.importing.program import from_exported

    return from_exported(Path(arguments["exported"]), _declared_input(arguments), _labels(arguments))


_SOURCES = {"architecture": _from_architecture, "callable": _from_callable, "exported": _from_exported}
