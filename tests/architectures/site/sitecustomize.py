"""For processes that the tests start: they import torchvision as `tests.architectures.libraries` does it.

Python imports this file at its start where its folder is on PYTHONPATH. Until somebody asks for torchvision
it does nothing.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _BeforeTorchvision(MetaPathFinder):
    """Defines what torchvision looks for when it is imported; finds nothing itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            from tests.architectures.libraries import define_missing

            define_missing()
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
